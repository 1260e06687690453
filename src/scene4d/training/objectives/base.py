"""What an objective is: one term of the loss, and what it is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.rendering.render import RGB, Want
from scene4d.representations.method import ObjectiveOptions
from scene4d.representations.saved import Form, like
from scene4d.representations.task import Task
from scene4d.training.parallel import ALONE, Processes
from scene4d.training.step import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveInputs:
    """What an objective is built from, beside its options."""

    task: Task
    generator: torch.Generator
    """On the CPU; part of a checkpoint."""
    device: torch.device
    """That of what is trained, and of the teacher."""
    processes: Processes = ALONE
    """Which share each step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Term:
    """What an objective makes of a step."""

    loss: Float[Tensor, ""] | None
    """Before its weight; None where it has propagated its gradients itself."""
    log: Mapping[str, Tensor] = field(default_factory=dict)
    """Named scalars."""


class Objective(ABC):
    """A term of the loss; built from its options."""

    want: Want = RGB
    """What it reads of the renders of the step's views."""
    needs_views = True
    """Whether it looks at the step's views."""

    def __init__(self, options: ObjectiveOptions, inputs: ObjectiveInputs) -> None:
        self.options = options

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether there is what this term needs; otherwise it is left out."""
        return True

    @abstractmethod
    def __call__(self, step: Step) -> Term:
        """The term of a step. It may render as often as it likes, and propagate gradients in
        pieces (:meth:`Step.deferred`) in place of returning a loss."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the objective."""
        return {}

    def state_forms(self) -> Mapping[str, Form]:
        """What a checkpoint may hold of the objective: as much as it has now, unless told here."""
        return like(self.state_tensors())

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`: all is finite, and as :meth:`state_forms` says. Raises
        ValueError for numbers that cannot be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """The weighted sum of a step's terms, and what they said."""

    to_propagate: Float[Tensor, ""] | None
    """None where every term has propagated its gradients itself."""
    value: float | Tensor
    """All of it, for the log."""
    log: Mapping[str, Tensor]


def total_loss(step: Step, objectives: Sequence[Objective]) -> Loss:
    """The loss of one step. Gradients of what is in it are not propagated yet, but for what terms
    propagate themselves."""
    total: Tensor | None = None
    log: dict[str, Tensor] = {}
    for objective in objectives:
        step.weight = objective.options.weight_at(step.progress)
        term = objective(step)
        log.update(term.log)
        if term.loss is not None:
            weighted = step.weight * term.loss
            total = weighted if total is None else total + weighted
    propagated = torch.as_tensor(step.processes.mean(step.propagated))
    return Loss(
        to_propagate=total,
        value=propagated if total is None else total.detach() + propagated.to(total),
        log=log,
    )


def wanted_maps(objectives: Sequence[Objective]) -> Want:
    """What all of them together read of the views' renders."""
    want = RGB
    for objective in objectives:
        want = want | objective.want
    return want


def mean(terms: Sequence[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(terms)).mean()
