"""The rate objective: what the scene weighs, in bytes."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from scene4d.methods.lpgs.method import RateOptions
from scene4d.methods.lpgs.parent_child import SAMPLED_FOR_RATE, ParentChildSplats
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_MARGIN = 0.04
"""Pressure fades over this share of the size below one that was asked for."""


class Rate(Objective):
    """Estimated bytes for each Gaussian that training started with."""

    options: RateOptions
    needs_views = False

    def __init__(self, options: RateOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.latest: deque[Tensor] = deque(maxlen=SAMPLED_FOR_RATE)
        """Estimates, each from other parents; together from all."""

    def __call__(self, step: Step) -> Term:
        """The rate term; in the log also MB of the bundle as it would be written now."""
        scene = step.representation
        assert isinstance(scene, ParentChildSplats)
        if not scene.rounds:
            nothing = step.background.new_zeros(())
            return Term(loss=nothing, log={"rate": nothing})
        size = scene.estimated_bytes()
        pressure = 1.0
        if self.options.target_mb is not None:
            surplus = (
                float(size.detach()) / scene.settings.payload_bytes(self.options.target_mb) - 1.0
            )
            pressure = min(1.0, max(0.0, 1.0 + surplus / _MARGIN))
        loss = pressure * size / scene.settings.num_at_start
        self.latest.append(size.detach())
        file = torch.stack(tuple(self.latest)).mean() + scene.settings.container_bytes
        return Term(loss=loss, log={"rate": loss, "mb": file / 1e6})
