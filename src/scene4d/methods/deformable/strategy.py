"""How Gaussians come and go: MCMC in both sets, in the moving one only once its nodes settled."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.method import DeformableStrategyOptions
from scene4d.methods.deformable.moving import MovingGaussians
from scene4d.methods.splat.mcmc import Mcmc
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy


class _Static(Mcmc):
    """Of the Gaussians that stand still."""

    prefix = "static."


class _Moving(Mcmc):
    """Of those that move: copies follow the nodes that theirs do."""

    prefix = "moving."
    representation: MovingGaussians

    def _copied(self, source: Int[Tensor, " m"], rows: Int[Tensor, " m"] | None) -> None:
        indices = self.representation.node_indices
        if rows is None:
            self.representation.node_indices = torch.cat([indices, indices[source]])
        else:
            indices[rows] = indices[source]


class Growth(Strategy):
    """Settles the nodes, then lets both sets grow."""

    options: DeformableStrategyOptions
    representation: DeformableSplats

    def __init__(self, options, representation, optimiser, generator) -> None:
        super().__init__(options, representation, optimiser, generator)
        self.static = _Static(options.static, representation.static, optimiser, generator)
        self.moving = _Moving(options.moving, representation.moving_ones, optimiser, generator)

    def after_step(self, step: Step) -> None:
        """Nothing comes or goes while there are no pictures."""
        if step.progress >= self.options.settle_at and len(
            self.representation.moving_ones.seen_times
        ):
            self.representation.settle()
        if not step.views or self.representation.shape_rests:
            return
        self.static.after_step(step)
        if step.progress >= self.options.moving_from and len(self.representation.nodes):
            self.moving.after_step(step)

    def state_tensors(self) -> dict[str, Tensor]:
        """Of both sets."""
        return {
            f"{name}.{key}": value
            for name, part in (("static", self.static), ("moving", self.moving))
            for key, value in part.state_tensors().items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        for name, part in (("static", self.static), ("moving", self.moving)):
            part.load_state_tensors(
                {
                    key.removeprefix(f"{name}."): value
                    for key, value in tensors.items()
                    if key.startswith(f"{name}.")
                }
            )
