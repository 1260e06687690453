"""Where a scene's light slabs stand: frames from the cameras, planes from the content's depths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import up_axis
from scene4d.cameras.rays import Rays
from scene4d.errors import DataError
from scene4d.methods.lightslab.slabs import (
    Slabs,
    local_rays,
    plane_points,
    slab_weights,
)
from scene4d.representations.content import Content, sampled_rays

Kind = Literal["auto", "forward", "cube", "kmeans", "cameras"]

CLUSTER_ANGLE = math.radians(42.0)
"""k-means adds slabs until 98% of the rays are within this angle of an axis."""
MAX_CLUSTERS = 8
FORWARD_ANGLE = math.radians(55.0)
"""A capture none of whose rays is farther from their mean is forward-facing: one slab."""
TOLERANCE = 0.5
"""Pixels that content half way between two planes may be away from its place, in 95% of rays."""
LEAST_PLANES, MOST_PLANES = 8, 32
"""Of a slab, where their number is not given."""
OVERLAP = 0.4
"""Blending, in units of what the median ray costs in its cheapest slab."""
_NEIGHBOURING = math.radians(12.0)
"""Slabs along directions are placed by the rays that are not farther from their axes than this
from the nearest one's."""
MARGIN = 0.08
"""Added to the cameras' range on either side, as a share of it."""


def place_slabs(
    cameras: Sequence[Camera],
    content: Content,
    *,
    kind: Kind = "auto",
    num_planes: int | None = None,
    count: int = 1,
    around: Sequence[Camera] = (),
) -> Slabs:
    """Slabs that cover the rays of ``cameras``, and of those ``around`` them.

    ``cameras``: where ``count`` clusters of cameras stand. ``forward``: one slab, along the mean of
    the cameras. ``cube``: the faces of a cube around the content that any ray goes to. ``kmeans``:
    as few clusters of the rays' directions as are close to their axes. ``auto``: forward where that
    covers the rays, otherwise kmeans. Without ``num_planes``, as many planes as keep the content
    between two of them in its place (TOLERANCE).

    Raises :class:`DataError` where no camera is given.
    """
    if not cameras:
        raise DataError("there is no training camera to place light slabs by")
    rays = sampled_rays(cameras)
    if kind == "cameras":
        placed = _at_clusters(cameras, rays, content, min(count, len(cameras)))
    else:
        placed = _along_directions(cameras, rays, content, kind)
    slabs = placed.slabs(num_planes or _planes_for(placed, rays, cameras))
    costs = slabs.costs(rays.origins, rays.directions)
    slabs.overlap = OVERLAP * float(costs.amin(dim=1).median())
    if around:
        rays = sampled_rays([*cameras, *around])
        costs = slabs.costs(rays.origins, rays.directions)
    slabs.low, slabs.high = _ranges(rays, slab_weights(costs, slabs.overlap), content, slabs)
    return slabs


def numbers_of_slabs(cameras: Sequence[Camera], most: int) -> list[int]:
    """Of clusters of cameras, to choose from; the last is ``most`` or that of the cameras."""
    most = max(1, min(most, len(cameras)))
    return [*(n for n in (1, 2, 4, 8, 16, 24, 32, 48) if n < most), most]


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Slabs without their planes."""

    rotations: Float[Tensor, "slabs 3 3"]
    viewpoints: Float[Tensor, "slabs 3"]
    depths: Sequence[Tensor]
    """Of each slab's content along its axis."""

    def slabs(self, planes: int) -> Slabs:
        """With planes, and without ranges."""
        wide = torch.full((len(self.depths), planes, 2), 1e6)
        return Slabs(
            rotations=self.rotations,
            viewpoints=self.viewpoints,
            disparities=torch.stack([_spaced(depths, planes) for depths in self.depths]),
            low=-wide,
            high=wide,
        )


def _planes_for(placed: _Placed, rays: Rays, cameras: Sequence[Camera]) -> int:
    """Such that in 95% of the rays what lies half way between two is at most TOLERANCE pixels from
    where it should be."""
    focal = float(torch.stack([camera.K[0, 0] for camera in cameras]).median())
    parallax = placed.slabs(2).least_parallax(rays.origins, rays.directions)
    worst = float(parallax[parallax.isfinite()].quantile(0.95))
    return min(MOST_PLANES, max(LEAST_PLANES, math.ceil(worst * focal / (2 * TOLERANCE))))


def _along_directions(
    cameras: Sequence[Camera], rays: Rays, content: Content, kind: Kind
) -> _Placed:
    """Slabs whose axes are directions of rays."""
    axes = _axes(cameras, rays.directions, kind)
    rotations = torch.stack([_frame(axis, up_axis(cameras)) for axis in axes]).float()
    angles = (rays.directions @ rotations[:, 2].T).clamp(-1, 1).acos()
    weights = slab_weights(angles, _NEIGHBOURING)
    viewpoints, depths = [], []
    for slab in range(len(axes)):
        middle = (rays.origins * weights[:, slab : slab + 1]).sum(dim=0) / weights[:, slab].sum()
        viewpoint, found = _depths(middle, content, rotations[slab, 2])
        viewpoints.append(viewpoint)
        depths.append(found)
    return _Placed(rotations=rotations, viewpoints=torch.stack(viewpoints), depths=depths)


def _at_clusters(cameras: Sequence[Camera], rays: Rays, content: Content, count: int) -> _Placed:
    """``count`` slabs: k-means of the cameras' positions, in units of their distance from the
    content, and of their axes."""
    positions = torch.stack([camera.c2w[:3, 3].cpu().float() for camera in cameras])
    axes = torch.stack([-camera.c2w[:3, 2].cpu().float() for camera in cameras])
    distance = (positions - content.points.median(dim=0).values).norm(dim=1).median()
    own = clusters(torch.cat([positions / distance, axes], dim=1), count)
    rays_own = own.repeat_interleave(len(rays.origins) // len(cameras))
    rotations, viewpoints, depths = [], [], []
    for slab in own.unique():
        axis = normalize(rays.directions[rays_own == slab].mean(dim=0), dim=0)
        viewpoints.append(positions[own == slab].mean(dim=0))
        rotations.append(_frame(axis, up_axis(cameras)).float())
        depths.append(_ahead(viewpoints[-1], content, axis))
    return _Placed(
        rotations=torch.stack(rotations), viewpoints=torch.stack(viewpoints), depths=depths
    )


def _axes(
    cameras: Sequence[Camera], directions: Float[Tensor, "n 3"], kind: Kind
) -> Float[Tensor, "slabs 3"]:
    mean = normalize(directions.mean(dim=0), dim=0)
    spread = (directions @ mean).clamp(-1, 1).acos()
    if kind == "forward" or (kind == "auto" and float(spread.max()) <= FORWARD_ANGLE):
        return mean[None]
    if kind == "cube":
        # Upright, one face towards the first camera: a mean of directions all around is no axis.
        ahead, up = -cameras[0].c2w[:3, 2].cpu(), normalize(up_axis(cameras).float(), dim=0)
        ahead = ahead - (ahead @ up) * up
        frame = _frame(ahead if float(ahead.norm()) > 0.1 else mean, up)
        faces = torch.cat([frame, -frame])
        used = (
            slab_weights((directions @ faces.T).clamp(-1, 1).acos(), _NEIGHBOURING).sum(dim=0) > 0
        )
        return faces[used]
    for count in range(2, MAX_CLUSTERS + 1):
        axes = _kmeans(directions, count)
        nearest = (directions @ axes.T).amax(dim=1)
        if float(nearest.quantile(0.02)) >= math.cos(CLUSTER_ANGLE):
            break
    return axes


def _kmeans(directions: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "count 3"]:
    """Spherical k-means, started with the farthest directions: the same result every time."""
    directions = directions[:: max(1, len(directions) // 20_000)]
    axes = [normalize(directions.mean(dim=0), dim=0)]
    while len(axes) < count:
        nearest = (directions @ torch.stack(axes).T).amax(dim=1)
        axes.append(directions[nearest.argmin()])
    centres = torch.stack(axes)
    for _ in range(30):
        own = (directions @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add(0, own, directions)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres)
        centres = normalize(centres, dim=1)
    return centres


def clusters(points: Float[Tensor, "n dims"], count: int) -> Int[Tensor, " n"]:
    """The cluster of each point by k-means, started with the farthest ones: the same every time."""
    chosen = [int((points - points.mean(dim=0)).norm(dim=1).argmin())]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(points, points[chosen]).amin(dim=1).argmax()))
    centres = points[chosen]
    for _ in range(30):
        own = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add(0, own, points)
        sizes = own.bincount(minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return torch.cdist(points, centres).argmin(dim=1)


def _frame(axis: Float[Tensor, " 3"], up: Tensor) -> Float[Tensor, "3 3"]:
    """Rows right, down, and ``axis``; upright unless the axis is vertical."""
    forward = normalize(axis.double(), dim=0)
    up = up.double()
    if abs(float(forward @ up)) > 0.98:
        up = torch.eye(3, dtype=torch.float64)[forward.abs().argmin()]
    right = normalize(torch.linalg.cross(forward, up), dim=0)
    return torch.stack([right, torch.linalg.cross(forward, right), forward]).to(axis.dtype)


def _depths(
    middle: Float[Tensor, " 3"], content: Content, axis: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, " 3"], Float[Tensor, " m"]]:
    """A slab's viewpoint, and the depths of its content from there along the axis, all above 0.

    ``middle`` is the mean origin of the slab's rays. Where nothing lies behind the content, the
    viewpoint is as far from it as that or, where that is nearer, twice the content's depth.
    Otherwise it is ``middle``, and the slab's content is what lies ahead of it.
    """
    if content.bounded:
        z = content.points @ axis
        low, high = float(z.quantile(_TRIM)), float(z.quantile(1 - _TRIM))
        half, centre = max((high - low) / 2, 1e-6), (low + high) / 2
        distance = max(centre - float(middle @ axis), 2 * half)
        viewpoint = middle + axis * (centre - distance - middle @ axis)
        depths = (content.points - viewpoint) @ axis
        return viewpoint, depths.clamp(distance - half, distance + half)
    return middle, _ahead(middle, content, axis)


def _ahead(
    viewpoint: Float[Tensor, " 3"], content: Content, axis: Float[Tensor, " 3"]
) -> Float[Tensor, " m"]:
    """Depths along the axis of the content ahead of a viewpoint, all above 0."""
    offsets = content.points - viewpoint
    z = offsets @ axis
    ahead = z[(z > 0.02 * z.abs().median()) & (z > _AHEAD * offsets.norm(dim=1))]
    if len(ahead) < 10:
        ahead = z.abs().clamp_min(1e-6)
    return ahead.clamp(float(ahead.quantile(_TRIM)), float(ahead.quantile(1 - _TRIM)))


def _spaced(depths: Float[Tensor, " m"], count: int) -> Float[Tensor, " count"]:
    """Rising disparities from the farthest to the nearest depth: half way between even ones and
    such that each has as much content, as parallax asks for the former and resolution for the
    latter."""
    s = (1 / depths).sort().values
    share = torch.linspace(0, 1, count)
    far, near = s[0], torch.maximum(s[-1], s[0] * 1.05)
    even = far + (near - far) * share
    return (even + s.quantile(share)) / 2


_TRIM = 0.01
"""Share of the content's points left out at either end of its depths."""
_AHEAD = 0.6
"""Content of a slab is within the angle of this cosine from its axis."""


def _ranges(
    rays: Rays, weights: Float[Tensor, "n slabs"], content: Content, slabs: Slabs
) -> tuple[Tensor, Tensor]:
    """Lowest and highest position on each slab's planes, of its rays that meet the content."""
    meets = _meets(rays, content)
    low, high = [], []
    for slab in range(slabs.num_slabs):
        chosen = ((weights[:, slab] > 0) & meets).nonzero()[:, 0]
        local = local_rays(
            rays.origins[chosen],
            rays.directions[chosen],
            slabs.rotations[slab],
            slabs.viewpoints[slab],
        )
        q = plane_points(local, slabs.disparities[slab].expand(len(chosen), -1))[~local.parallel]
        if len(q) == 0:
            q = q.new_tensor([-1.0, 1.0])[:, None, None].expand(2, slabs.num_planes, 2)
        least, most = q.amin(dim=0), q.amax(dim=0)
        slack = ((most - least) * MARGIN).clamp_min(1e-4)
        low.append(least - slack)
        high.append(most + slack)
    return torch.stack(low), torch.stack(high)


def _meets(rays: Rays, content: Content) -> Tensor:
    """Which rays come near the content's points; all, where something lies behind them."""
    if not content.bounded:
        return torch.ones(len(rays.origins), dtype=torch.bool)
    low, high = content.points.quantile(_TRIM, dim=0), content.points.quantile(1 - _TRIM, dim=0)
    slack = 0.1 * (high - low).max()
    inverse = 1 / torch.where(rays.directions.abs() < 1e-9, 1e-9, rays.directions)
    a = (low - slack - rays.origins) * inverse
    b = (high + slack - rays.origins) * inverse
    return torch.minimum(a, b).amax(dim=1) <= torch.maximum(a, b).amin(dim=1)
