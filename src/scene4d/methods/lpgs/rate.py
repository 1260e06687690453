"""The rate objective: what the scene weighs, in bytes."""

from __future__ import annotations

from scene4d.methods.lpgs.method import RateOptions
from scene4d.methods.lpgs.parent_child import ParentChildSplats
from scene4d.training.objectives.base import Objective, Term
from scene4d.training.step import Step

_MARGIN = 0.04
"""Pressure fades over this share of the size below one that was asked for."""


class Rate(Objective):
    """Estimated bytes for each Gaussian that training started with."""

    options: RateOptions
    needs_views = False

    def __call__(self, step: Step) -> Term:
        """The rate term; in the log also the size in MB."""
        scene = step.representation
        assert isinstance(scene, ParentChildSplats)
        if not scene.rounds:
            nothing = step.background.new_zeros(())
            return Term(loss=nothing, log={"rate": nothing})
        size = scene.estimated_bytes()
        pressure = 1.0
        if self.options.target_mb is not None:
            surplus = float(size.detach()) / scene.payload_bytes(self.options.target_mb) - 1.0
            pressure = min(1.0, max(0.0, 1.0 + surplus / _MARGIN))
        loss = pressure * size / scene.num_at_start
        return Term(loss=loss, log={"rate": loss, "mb": size.detach() / 1e6})
