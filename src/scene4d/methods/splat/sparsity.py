"""The sparsity objective of MCMC splatting."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from scene4d.methods.splat.method import SparsityOptions
from scene4d.training.objectives.base import Objective, Term
from scene4d.training.step import Step


@runtime_checkable
class Gaussians(Protocol):
    """What has opacities and sizes: splats, and families of them (whose parents count)."""

    extent: float

    @property
    def alphas(self) -> Float[Tensor, " n"]:
        """Opacities, 0..1."""

    @property
    def stds(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the principal axes, scene units."""


class Sparsity(Objective):
    """Mean opacity and mean standard deviation (Kheradmand et al. 2024, eq. 10)."""

    options: SparsityOptions
    needs_views = False

    def __call__(self, step: Step) -> Term:
        """The weighted sum of both means; scales are in scene extents."""
        splats = step.representation
        assert isinstance(splats, Gaussians)
        opacity = self.options.opacity * splats.alphas.mean()
        scale = self.options.scale * splats.stds.mean() / splats.extent
        return Term(loss=opacity + scale, log={"sparsity": opacity + scale})
