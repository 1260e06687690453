"""The method ``few-views``: splats from 3 to 9 photographs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from scene4d.methods.splat.method import SplatMethod
from scene4d.ranges import Within
from scene4d.representations.method import DepthSmoothnessOptions, FixingOptions


@dataclass(frozen=True, kw_only=True)
class FewViewsMethod(SplatMethod):
    """Splats from 3 to 9 photographs, of smooth depth, repaired by a fixer."""

    name: ClassVar[str] = "few-views"
    description: ClassVar[str] = "3D Gaussian splats from a handful of photographs, with a fixer"

    max_num_gaussians: Annotated[int, Within(1, 1 << 30)] | None = 20_000
    """Upper limit of Gaussians: more learn the photographs by heart."""
    num_random_points: Annotated[int, Within(1, 1 << 30)] = 10_000
    """Gaussians to start from where the capture has no points."""
    smooth_depth: DepthSmoothnessOptions = field(
        default_factory=lambda: DepthSmoothnessOptions(weight=0.1)
    )
    """Counts also beside measured depth."""
    fixing: FixingOptions = field(
        default_factory=lambda: FixingOptions(weight=0.5, start=0.2, beyond=30.0)
    )
    """Counts where there is a fixer."""


FEW_VIEWS = FewViewsMethod
