"""Where the points of 2D tracks are, if they stand still: the camera that moves shows it.

Linear least squares over all sightings of a track, reweighted by depth (Hartley & Sturm,
"Triangulation", 1997, Iterative-LS), in direction and inverse depth at the first of them (Civera,
Davison & Montiel, 2008), so that weights do not prefer what is near. What is left over, over a
whole track, tells what stands still from what moves better than flow between two pictures does: it
is held against a longer way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import ViewSource
from scene4d.data.tracks import Tracks

_AT_ONCE = 500_000
"""Sightings that are looked at together: 200 MB."""
_ROUNDS = 3
_LEAST_RATIO = 1e-3
"""Of depths in the other cameras to that in the first: reweighting stops there."""
_FARTHEST = 1e-9
"""Inverse depth, per scene unit, of what is no nearer than infinitely far."""


@dataclass(frozen=True, kw_only=True)
class Triangulated:
    """The tracks of one camera as points that stand still."""

    places: Float[Tensor, "tracks 3"]
    """World, scene units."""
    off: Float[Tensor, " tracks"]
    """Root mean square distance of the point from where it was followed to, pixels; infinite where
    it would be behind the camera."""
    angle: Float[Tensor, " tracks"]
    """Between the directions of the first and the last sighting, rad: how sure the depth is."""


def triangulated(tracks: Tracks, images: ViewSource) -> Triangulated:
    """Each track's point, and how well one that stands still explains it."""
    cameras = [images.camera(index) for index in tracks.frames]
    parts = [
        _some(cameras, xy, seen)
        for xy, seen in zip(
            tracks.xy.split(_AT_ONCE // len(cameras) + 1),
            tracks.visible.split(_AT_ONCE // len(cameras) + 1),
            strict=True,
        )
    ]
    places, off, angle = (torch.cat([part[k] for part in parts]).float() for k in range(3))
    return Triangulated(places=places, off=off, angle=angle)


def _some(
    cameras: Sequence[Camera], xy: Float[Tensor, "n frames 2"], seen: Bool[Tensor, "n frames"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Places, what is left over, and angles of some tracks."""
    views = torch.stack([camera.viewmat for camera in cameras]).double()
    matrices = torch.stack([camera.K for camera in cameras]).double() @ views[:, :3]
    begin = views.inverse()[seen.int().argmax(1)]  # [n, 4, 4], each track's first camera to world
    local = torch.einsum("fij,njk->nfik", matrices, begin)
    rows = xy[..., None] * local[:, :, 2:] - local[:, :, :2]  # of (u, v, 1, inverse depth)
    weights = seen.double()
    for _ in range(_ROUNDS):
        found = _least_squares((rows * weights[..., None, None]).flatten(1, 2))
        shown = torch.einsum("nfij,nj->nfi", local, found)
        weights = seen / shown[..., 2].abs().clamp_min(_LEAST_RATIO)
    off = (shown[..., :2] / shown[..., 2:] - xy).square().sum(-1)
    off = (torch.where(seen, off, torch.zeros_like(off)).sum(1) / seen.sum(1).clamp_min(1)).sqrt()
    off[((shown[..., 2] <= 0) & seen).any(1)] = torch.inf
    places = torch.einsum("nij,nj->ni", begin, found / found[:, 3:])[:, :3]
    return places, off, _angles(places, cameras, seen)


def _least_squares(rows: Float[Tensor, "n equations 4"]) -> Float[Tensor, "n 4"]:
    """(u, v, 1, w) that suit their homogeneous equations best; by the damped normal equations, so
    that a camera that stands still gives some depth, not none."""
    a, b = rows[..., [0, 1, 3]], -rows[..., 2:3]
    normal = a.transpose(1, 2) @ a
    damping = 1e-12 * normal.diagonal(dim1=1, dim2=2).sum(1) + 1e-300
    normal = normal + damping[:, None, None] * torch.eye(3, dtype=rows.dtype)
    u, v, w = torch.linalg.solve(normal, a.transpose(1, 2) @ b)[..., 0].unbind(-1)
    return torch.stack([u, v, torch.ones_like(u), w.clamp_min(_FARTHEST)], dim=-1)


def _angles(
    places: Float[Tensor, "n 3"], cameras: Sequence[Camera], seen: Bool[Tensor, "n frames"]
) -> Float[Tensor, " n"]:
    centres = torch.stack([camera.position for camera in cameras]).double()
    first = seen.int().argmax(1)
    last = seen.shape[1] - 1 - seen.flip(1).int().argmax(1)
    a, b = (torch.nn.functional.normalize(places - centres[at], dim=-1) for at in (first, last))
    return 2 * torch.asin((0.5 * (a - b).norm(dim=-1)).clamp(max=1))
