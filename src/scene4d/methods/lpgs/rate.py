"""The rate objective: what the scene weighs, in bytes."""

from __future__ import annotations

from torch import Tensor

from scene4d.methods.lpgs.method import RateOptions
from scene4d.methods.lpgs.parent_child import ParentChildSplats
from scene4d.training.objectives.base import Objective, TrainingStep

_MARGIN = 0.04
"""Pressure fades over this share of the size below one that was asked for."""


class Rate(Objective):
    """Estimated bytes for each Gaussian that training started with."""

    options: RateOptions
    needs_views = False

    def __call__(self, step: TrainingStep) -> dict[str, Tensor]:
        """The rate term; in the log also the size in MB."""
        scene = step.representation
        assert isinstance(scene, ParentChildSplats)
        if not scene.rounds:
            return {"rate": step.background.new_zeros(())}
        size = scene.estimated_bytes()
        pressure = 1.0
        if self.options.target_mb is not None:
            surplus = float(size.detach()) / scene.payload_bytes(self.options.target_mb) - 1.0
            pressure = min(1.0, max(0.0, 1.0 + surplus / _MARGIN))
        return {"rate": pressure * size / scene.num_at_start, "mb": size.detach() / 1e6}
