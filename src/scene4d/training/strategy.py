"""What a densification strategy is: how primitives come and go during training."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping

import torch
from torch import Tensor

from scene4d.representations.base import Representation
from scene4d.representations.method import StrategyOptions
from scene4d.representations.saved import Form, like
from scene4d.training.objectives.base import TrainingStep
from scene4d.training.optimiser import GroupedAdam


class Strategy(ABC):
    """Called around each step's backward pass; keeps primitives, unless a subclass says more."""

    def __init__(
        self,
        options: StrategyOptions,
        representation: Representation,
        optimiser: GroupedAdam,
        generator: torch.Generator,
    ) -> None:
        self.options = options
        self.representation = representation
        self.optimiser = optimiser
        self.generator = generator

    def before_backward(self, step: TrainingStep) -> None:
        """The renders exist; ask here for gradients of their screen-space data."""

    def after_backward(self, step: TrainingStep) -> None:
        """Gradients exist; the optimiser has not moved yet."""

    def after_step(self, step: TrainingStep) -> None:
        """The optimiser has moved; primitives may come and go now."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of the strategy."""
        return {}

    def state_forms(self) -> Mapping[str, Form]:
        """What a checkpoint may hold of the strategy: as much as it has now, unless told here."""
        return like(self.state_tensors())

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`: all is finite, and as :meth:`state_forms` says. Raises
        ValueError for numbers that cannot be."""


class KeepAll(Strategy):
    """Primitives stay as they were built."""
