"""A representation of one's own, whole: a grid of coloured fog, rendered by ray marching.

docs/add-a-representation.md walks through this file; tests/training/test_plugin.py trains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.data.points import random_points
from scene4d.ranges import Count, Rate
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.method import Method, ObjectiveOptions, PhotometricOptions
from scene4d.representations.task import Task


class VoxelGrid(Representation):
    """Density and colour on a regular grid, interpolated trilinearly."""

    def __init__(self, values: Tensor, low: Tensor, high: Tensor, rate: float = 0.0) -> None:
        """``values`` [4, X, Y, Z]: density before softplus, colour before sigmoid; the grid
        spans the box from ``low`` to ``high`` (scene units)."""
        super().__init__()
        self.values = nn.Parameter(values)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.rate = rate

    def render(
        self, camera: Camera, *, background: Tensor | None = None, want: Want = RGB
    ) -> Render:
        """Marches 64 samples along every pixel's ray through the box (Max 1995, eq. 5)."""
        rays = camera_rays(camera)
        origins, directions = rays.origins, rays.directions
        middle = ((self.low + self.high) / 2 - camera.position).norm(dim=-1)
        reach = (self.high - self.low).norm() / 2
        steps = torch.linspace(-1.0, 1.0, 64, device=origins.device) * reach
        t = middle[..., None, None, None] + steps  # [*batch, 1, 1, 64]
        points = origins[..., None, :] + directions[..., None, :] * t[..., None]
        unit = (points - self.low) / (self.high - self.low) * 2.0 - 1.0
        # grid_sample counts z, y, x; a batch of cameras is one column of pictures.
        grid = unit.flip(-1).reshape(1, -1, *unit.shape[-3:])
        sampled = nn.functional.grid_sample(
            self.values[None], grid, align_corners=True, padding_mode="zeros"
        )[0].reshape(4, *unit.shape[:-1])
        inside = (unit.abs() <= 1.0).all(dim=-1)
        density = nn.functional.softplus(sampled[0] - 4.0) * inside * (40.0 / reach)
        alphas = 1.0 - torch.exp(-density * (steps[1] - steps[0]))
        through = torch.cumprod(1.0 - alphas + 1e-10, dim=-1)
        weights = alphas * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
        rgb = (weights * sampled[1:].sigmoid()).sum(dim=-1).movedim(0, -1)
        alpha = weights.sum(dim=-1)
        if background is not None:
            rgb = rgb + (1.0 - alpha)[..., None] * background
        if not want.depth:
            return Render(rgb=rgb, alpha=alpha)
        forward = -camera.c2w[..., None, None, :3, 2]
        along_axis = (directions * forward).sum(dim=-1)  # from length along the ray
        expected = (weights * t).sum(dim=-1) / alpha.clamp_min(1e-6) * along_axis
        return Render(rgb=rgb, alpha=alpha, depth=expected)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The grid."""
        return [ParameterGroup(name="grid", parameters=[self.values], learning_rate=self.rate)]

    def plain_data(self) -> Mapping[str, Any]:
        """The learning rate."""
        return {"rate": self.rate}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> VoxelGrid:
        """Built again from a checkpoint."""
        return cls(tensors["values"], tensors["low"], tensors["high"], plain["rate"])


@dataclass(frozen=True, kw_only=True)
class VoxelMethod(Method):
    """A grid of coloured fog: slow and blurred, but only one file."""

    name: ClassVar[str] = "voxels"
    description: ClassVar[str] = "A voxel grid (example)"
    representation: ClassVar[str] = "voxel_grid:VoxelGrid"

    resolution: Count = 48
    """Voxels along each axis."""
    grid_lr: Rate = 0.1
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> VoxelGrid:
        """Nearly empty fog around where the cameras look."""
        points = task.scene.points or random_points(task.scene, 4000, seed=0)
        low, high = points.xyz.amin(dim=0), points.xyz.amax(dim=0)
        values = torch.zeros(4, self.resolution, self.resolution, self.resolution)
        return VoxelGrid(values, low, high, self.grid_lr)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The photographs alone."""
        return [self.photometric]
