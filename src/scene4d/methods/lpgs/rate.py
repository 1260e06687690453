"""The rate objective: what the scene weighs, in bytes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from scene4d.methods.lpgs.method import RateOptions
from scene4d.methods.lpgs.parent_child import SAMPLED_FOR_RATE, ParentChildSplats
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_MARGIN = 0.04
"""Pressure fades over this share of the size below one that was asked for."""
_GAIN = 0.005
"""By how much the pressure that holds the size changes in a step, at most."""
_MOST = 1e3
"""Of that pressure, and of one over it."""


class Rate(Objective):
    """Estimated bytes for each Gaussian that training started with.

    At first masks and rounding pay for them alike, and the pressure fades below the size that was
    asked for. Once the trees say that it is held masks pay nothing, and the weight is what holds
    it: a little more after each step in which the scene is too large, a little less otherwise.
    Else Gaussians would go for good, one after the other, and the rest be rounded ever more finely.
    """

    options: RateOptions
    needs_views = False

    def __init__(self, options: RateOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.latest: deque[Tensor] = deque(maxlen=SAMPLED_FOR_RATE)
        """Estimates, each from other parents; together from all."""
        self.factor = 1.0
        """Of the weight, which holds the size."""

    def __call__(self, step: Step) -> Term:
        """The rate term; in the log also MB of the bundle as it would be written now."""
        scene = step.representation
        assert isinstance(scene, ParentChildSplats)
        if not scene.rounds:
            nothing = step.background.new_zeros(())
            return Term(loss=nothing, log={"rate": nothing})
        target = self.options.target_mb
        held = target is not None and scene.size_is_held
        size = scene.estimated_bytes(of_masks=not held)
        pressure = 1.0
        if target is not None:
            room = scene.settings.payload_bytes(target)
            pressure = self._pressure((float(size.detach()) / room - 1.0) / _MARGIN, held)
        loss = pressure * size / scene.settings.num_at_start
        self.latest.append(size.detach())
        file = torch.stack(tuple(self.latest)).mean() + scene.settings.container_bytes
        return Term(loss=loss, log={"rate": loss, "mb": file / 1e6})

    def _pressure(self, surplus: float, held: bool) -> float:
        """Factor of the weight at a size of ``surplus`` margins above the one asked for."""
        if held:
            change = math.exp(_GAIN * min(1.0, max(-1.0, surplus)))
            self.factor = min(_MOST, max(1 / _MOST, self.factor * change))
        return self.factor * min(2.0 if held else 1.0, max(0.0, 1.0 + surplus))

    def state_tensors(self) -> dict[str, Tensor]:
        """What holds the size."""
        return {"factor": torch.tensor(self.factor, dtype=torch.float64)}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        factor = float(tensors["factor"])
        if not 1 / _MOST <= factor <= _MOST:
            raise ValueError(f"a pressure of {factor:g} times the weight of the rate")
        self.factor = factor
