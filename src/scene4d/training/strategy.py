"""What a densification strategy is: how primitives come and go during training."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.representations.base import Trainable
from scene4d.representations.method import StrategyOptions
from scene4d.representations.saved import Form, like
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.step import Shot, Step


class Strategy(ABC):
    """Called around each step's backward pass; keeps primitives, unless a subclass says more."""

    def __init__(
        self,
        options: StrategyOptions,
        representation: Trainable,
        optimiser: GroupedAdam,
        generator: torch.Generator,
    ) -> None:
        self.options = options
        self.representation: Any = representation
        """A subclass says which kind it takes."""
        self.finished = False
        """Whether training ends here, before its time."""
        self.optimiser = optimiser
        self.generator = generator

    def on_render(self, shot: Shot) -> None:
        """A render was made to learn from, of a photograph's camera or any other; ask here for
        gradients of its screen-space data."""

    def after_backward(self, step: Step) -> None:
        """Gradients exist, also of :attr:`Step.shots`; the optimiser has not moved yet."""

    def after_step(self, step: Step) -> None:
        """The optimiser has moved; primitives may come and go now."""

    @classmethod
    def watches_renders(cls) -> bool:
        """Whether it does anything at renders or their gradients: of several processes, each has
        those of its own part."""
        watching = cls.on_render, cls.after_backward
        return watching != (Strategy.on_render, Strategy.after_backward)

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the strategy."""
        return {}

    def state_forms(self) -> Mapping[str, Form]:
        """What a checkpoint may hold of the strategy: as much as it has now, unless told here."""
        return like(self.state_tensors())

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`: all is finite, and as :meth:`state_forms` says. Raises
        ValueError for numbers that cannot be."""


def ask_for_pull(shot: Shot) -> None:
    """Asks for what :func:`pull_of` needs; for :meth:`Strategy.on_render`."""
    means = shot.render.extras.get("means2d")
    if means is not None and means.requires_grad:
        means.retain_grad()


def pull_of(shot: Shot) -> Float[Tensor, "cameras n"] | None:
    """How hard each Gaussian's projection was pulled, as if the picture were the only one: the
    gradient of the loss in units of half the picture (Kerbl et al. 2023); None without one."""
    means = shot.render.extras.get("means2d")
    if means is None or means.grad is None:
        return None
    half_picture = means.grad.new_tensor([shot.camera.width / 2, shot.camera.height / 2])
    return (means.grad * half_picture).norm(dim=-1) * shot.num_pictures


class KeepAll(Strategy):
    """Primitives stay as they were built."""
