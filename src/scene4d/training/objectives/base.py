"""What an objective is: one term of the loss, and what a step offers it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene, View
from scene4d.rendering.render import Render, Want
from scene4d.representations.base import Representation
from scene4d.representations.method import ObjectiveOptions
from scene4d.representations.saved import Form, like
from scene4d.training.adjustments import CameraAdjustments


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectiveInputs:
    """What an objective is built from, beside its options."""

    scene: Scene
    cameras: Sequence[Camera]
    """Of the training pictures, undistorted, at the size of training."""
    generator: torch.Generator
    """On the CPU; part of a checkpoint."""
    device: torch.device
    teacher: Representation | None = None
    """In the scene's coordinates, on ``device``."""


@dataclass(kw_only=True)
class TrainingStep:
    """One step as objectives and strategies see it; renders are made once and shared."""

    number: int
    progress: float
    """Share of training that is done, 0..1."""
    representation: Representation
    views: Sequence[View]
    """Empty where no term that counts looks at photographs."""
    background: Float[Tensor, " 3"]
    adjustments: CameraAdjustments
    needs_depth: bool = False
    renders: dict[int, Render] = field(default_factory=dict)

    def render(self, view: View) -> Render:
        """The representation at the view's (refined) camera, on this step's background."""
        if view.index not in self.renders:
            camera = self.adjustments.refined(view.camera, view.index)
            self.renders[view.index] = self.representation.render(
                camera, background=self.background, want=Want(depth=self.needs_depth)
            )
        return self.renders[view.index]


class Objective(ABC):
    """A term of the loss; built from its options."""

    needs_depth = False
    """Whether it reads ``Render.depth`` of the step's views."""
    needs_views = True
    """Whether it looks at the step's views."""

    def __init__(self, options: ObjectiveOptions, inputs: ObjectiveInputs) -> None:
        self.options = options

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether there is what this term needs; otherwise it is left out."""
        return True

    @abstractmethod
    def __call__(self, step: TrainingStep) -> dict[str, Tensor]:
        """Named scalars; the first is the loss before its weight, the others are for the log."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the objective."""
        return {}

    def state_forms(self) -> Mapping[str, Form]:
        """What a checkpoint may hold of the objective: as much as it has now, unless told here."""
        return like(self.state_tensors())

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`: all is finite, and as :meth:`state_forms` says. Raises
        ValueError for numbers that cannot be."""


def mean(terms: Sequence[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(terms)).mean()
