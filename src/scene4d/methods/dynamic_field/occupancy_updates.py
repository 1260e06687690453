"""The occupancy grid's looks at the field, between steps of training."""

from __future__ import annotations

from scene4d.methods.dynamic_field.field import DynamicField
from scene4d.methods.dynamic_field.method import OccupancyOptions
from scene4d.rendering.fields.occupancy import DYNAMIC, STATIC
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy


class OccupancyUpdates(Strategy):
    """Every few steps, some cells of the grid get the density that the field has there now."""

    options: OccupancyOptions

    def after_step(self, step: Step) -> None:
        """Looks at the static medium, and at the dynamic one once it had time to grow: before, it
        is thinner than what counts as there."""
        field = self.representation
        assert isinstance(field, DynamicField)
        done, options = step.number + 1, self.options
        turn, rest = divmod(done - options.first, options.every)
        if turn < 0 or rest:
            return
        media = {STATIC: options.share}
        if step.progress >= options.dynamic_from:
            media[DYNAMIC] = options.dynamic_share
        for medium, share in media.items():
            field.look(
                medium, share=share, decay=options.decay, generator=self.generator, turn=turn
            )
