"""The sparsity objective of MCMC splatting."""

from __future__ import annotations

from torch import Tensor

from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.representations.splats.method import SparsityOptions
from scene4d.training.objectives.base import Objective, TrainingStep


class Sparsity(Objective):
    """Mean opacity and mean standard deviation (Kheradmand et al. 2024, eq. 10)."""

    options: SparsityOptions
    needs_views = False

    def __call__(self, step: TrainingStep) -> dict[str, Tensor]:
        """The weighted sum of both means; scales are in scene extents."""
        splats = step.representation
        assert isinstance(splats, GaussianSplats)
        opacity = self.options.opacity * splats.alphas.mean()
        scale = self.options.scale * splats.stds.mean() / splats.extent
        return {"sparsity": opacity + scale}
