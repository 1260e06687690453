"""Light slabs: from rays to coordinates on pairs of parallel planes.

A slab has a frame (a viewpoint and three axes, +z into the scene) and planes at several
disparities s = 1/z along its axis. Where a line with origin o and direction d (in the slab's frame)
meets the plane of disparity s, in perspective:

    q(s) = s * o_xy + (1 - s * o_z) * d_xy / d_z

which for s = 0, the plane at infinity, is the direction's tangent, and for s = 1/near the near
plane of normalised device coordinates. The first and the last plane are the light slab's (x, y) and
(u, v) (Levoy and Hanrahan, "Light Field Rendering", 1996; LightSpeed, arXiv 2310.16832); the planes
between them are linear in those four numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

MAX_SLABS = 3
"""Slabs of one ray. Two do not suffice: where three of them meet (a cube's corner), no weights of
two at a time are continuous."""
MIN_COSINE = 0.2
"""Between a ray and a slab's axis; below it, the ray counts as parallel to the planes."""
FADE = 0.1
"""Beyond the range, in units of half of it, over which coverage falls from 1 to 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlabRays:
    """Pairs of a ray and a slab that has a say in it; each ray has at least one pair."""

    ray: Int[Tensor, "pairs"]
    slab: Int[Tensor, "pairs"]
    weight: Float[Tensor, "pairs"]
    """The pairs of one ray sum to 1."""
    coordinates: Float[Tensor, "pairs axes"]
    """On the slab's planes in turn, x before y, each -1 to 1 within the range of the cameras."""
    coverage: Float[Tensor, "rays"]
    """1: the kind of ray that the cameras saw; 0: nobody knows."""


class Slabs(nn.Module):
    """The frames, planes and ranges of all slabs of a scene, as buffers."""

    rotations: Tensor
    viewpoints: Tensor
    disparities: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        *,
        rotations: Float[Tensor, "slabs 3 3"],
        viewpoints: Float[Tensor, "slabs 3"],
        disparities: Float[Tensor, "slabs planes"],
        low: Float[Tensor, "slabs planes 2"],
        high: Float[Tensor, "slabs planes 2"],
        overlap: float = math.radians(12.0),
    ) -> None:
        """``rotations``: rows are the slab's axes in the world, the last one into the scene.
        ``disparities``: in 1 / scene units. ``low``, ``high``: what becomes -1 and 1.
        ``overlap``: angle over which neighbouring slabs are blended, radians."""
        super().__init__()
        if disparities.shape[1] < 2:
            raise ValueError("a light slab has at least two planes")
        self.register_buffer("rotations", rotations)
        self.register_buffer("viewpoints", viewpoints)
        self.register_buffer("disparities", disparities)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.overlap = overlap

    @property
    def num_slabs(self) -> int:
        """How many slabs there are."""
        return self.rotations.shape[0]

    @property
    def num_planes(self) -> int:
        """Planes of each slab."""
        return self.disparities.shape[1]

    def forward(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> SlabRays:
        """Every ray in its slabs; ``directions`` of length 1. Differentiable in the rays but for
        which slabs they go to."""
        if self.num_slabs == 1:
            return self._in_only_slab(origins, directions)
        cosines = directions @ self.rotations[:, 2].T
        weights = slab_weights(cosines, self.overlap)
        ray, slab = weights.nonzero(as_tuple=True)
        q, parallel = plane_points(
            origins[ray],
            directions[ray],
            rotations=self.rotations[slab],
            viewpoints=self.viewpoints[slab],
            disparities=self.disparities[slab],
        )
        coordinates, inside = _in_range(q, parallel, self.low[slab], self.high[slab])
        weight = weights[ray, slab]
        coverage = torch.zeros_like(weights[:, 0]).index_add(0, ray, weight * inside)
        return SlabRays(
            ray=ray, slab=slab, weight=weight, coordinates=coordinates, coverage=coverage
        )

    def _in_only_slab(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> SlabRays:
        n = len(origins)
        q, parallel = plane_points(
            origins,
            directions,
            rotations=self.rotations.expand(n, 3, 3),
            viewpoints=self.viewpoints.expand(n, 3),
            disparities=self.disparities.expand(n, -1),
        )
        coordinates, inside = _in_range(q, parallel, self.low, self.high)
        ray = torch.arange(n, device=origins.device)
        return SlabRays(
            ray=ray,
            slab=torch.zeros_like(ray),
            weight=torch.ones_like(inside),
            coordinates=coordinates,
            coverage=inside,
        )


def _in_range(q: Tensor, parallel: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates, and 1 for those within the range, falling to 0 beyond it."""
    coordinates = ((q - low) / (high - low) * 2 - 1).flatten(1)
    beyond = coordinates.detach().abs().amax(dim=1) - 1
    return coordinates, (1 - beyond / FADE).clamp(0, 1) * ~parallel


def plane_points(
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    *,
    rotations: Float[Tensor, "n 3 3"],
    viewpoints: Float[Tensor, "n 3"],
    disparities: Float[Tensor, "n planes"],
) -> tuple[Float[Tensor, "n planes 2"], Bool[Tensor, "n"]]:
    """Where each line meets its slab's planes, in perspective, and which are parallel to them.

    A line parallel to its slab, or one that goes against its axis, meets nothing: its positions
    are those of the direction along the axis, finite and without a gradient.
    """
    o = torch.einsum("nij,nj->ni", rotations, origins - viewpoints)
    d = torch.einsum("nij,nj->ni", rotations, directions)
    parallel = ~(d[:, 2] > MIN_COSINE * directions.detach().norm(dim=-1))
    # Masked before the division: a NaN made here would come back in the gradient.
    z = torch.where(parallel, torch.ones_like(d[:, 2]), d[:, 2])
    tangent = torch.where(parallel[:, None], torch.zeros_like(d[:, :2]), d[:, :2]) / z[:, None]
    s = disparities[..., None]
    return s * o[:, None, :2] + (1 - s * o[:, None, 2:]) * tangent[:, None], parallel


def slab_weights(cosines: Float[Tensor, "n slabs"], overlap: float) -> Float[Tensor, "n slabs"]:
    """How much each slab counts for directions at these cosines to the slabs' axes.

    The nearest slab counts 1, one farther by ``overlap`` (radians) counts 0, smoothly between; at
    most MAX_SLABS are above 0; then they are scaled to sum to 1. Without a gradient.
    """
    angle = cosines.detach().clamp(-1, 1).acos()
    t = (1 - (angle - angle.amin(dim=1, keepdim=True)) / overlap).clamp(0, 1)
    raw = t * t * (3 - 2 * t)
    if raw.shape[1] > MAX_SLABS:
        # Less the next one's weight: continuous as slabs change places in the order.
        raw = (raw - raw.topk(MAX_SLABS + 1, dim=1).values[:, -1:]).clamp_min(0)
        only = torch.nn.functional.one_hot(angle.argmin(dim=1), raw.shape[1]).to(raw)
        raw = torch.where(raw.sum(dim=1, keepdim=True) > 1e-6, raw, only)
    return raw / raw.sum(dim=1, keepdim=True)
