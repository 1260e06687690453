"""Where the points of 2D tracks are, if they stand still: the camera that moves shows it.

Linear least squares over all sightings of a track, reweighted by depth (Hartley & Sturm,
"Triangulation", 1997, Iterative-LS). What is left over, over a whole track, tells what stands still
from what moves better than flow between two pictures does: it is held against a longer way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import ViewSource
from scene4d.data.tracks import Tracks

_ROUNDS = 3
_LEAST_DEPTH = 1e-3
"""Of the mean depth: reweighting stops there, for points beside a camera."""


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
    matrices = torch.stack([_projection(camera) for camera in cameras])
    xy, seen = tracks.xy.double(), tracks.visible
    rows = xy[..., None] * matrices[None, :, 2:] - matrices[None, :, :2]  # [n, f, 2, 4]
    weights = seen.double()
    for _ in range(_ROUNDS):
        places = _least_squares((rows * weights[..., None, None]).flatten(1, 2))
        seen_as = torch.einsum("fij,nj->nfi", matrices[..., :3], places) + matrices[..., 3]
        depth = seen_as[..., 2]
        usual = (depth.abs() * seen).sum(1) / seen.sum(1).clamp_min(1)
        weights = seen / torch.maximum(depth.abs(), _LEAST_DEPTH * usual[:, None]).clamp_min(1e-12)
    off = (seen_as[..., :2] / depth[..., None] - xy).square().sum(-1)
    off = (torch.where(seen, off, torch.zeros_like(off)).sum(1) / seen.sum(1).clamp_min(1)).sqrt()
    off[((depth <= 0) & seen).any(1)] = torch.inf
    return Triangulated(
        places=places.float(), off=off.float(), angle=_angles(places, cameras, seen).float()
    )


def _projection(camera: Camera) -> Float[Tensor, "3 4"]:
    """World to homogeneous pixels."""
    return camera.K.double() @ camera.viewmat.double()[:3]


def _least_squares(rows: Float[Tensor, "n equations 4"]) -> Float[Tensor, "n 3"]:
    """The points that suit their homogeneous equations best; by the damped normal equations, so
    that those of a camera that stands still are some point, not none."""
    a, b = rows[..., :3], -rows[..., 3:]
    normal = a.transpose(1, 2) @ a
    damping = 1e-12 * normal.diagonal(dim1=1, dim2=2).sum(1) + 1e-300
    normal = normal + damping[:, None, None] * torch.eye(3, dtype=rows.dtype)
    return torch.linalg.solve(normal, a.transpose(1, 2) @ b)[..., 0]


def _angles(
    places: Float[Tensor, "n 3"], cameras: list[Camera], seen: Bool[Tensor, "n frames"]
) -> Float[Tensor, " n"]:
    centres = torch.stack([camera.position for camera in cameras]).double()
    first = seen.int().argmax(1)
    last = seen.shape[1] - 1 - seen.flip(1).int().argmax(1)
    a, b = (torch.nn.functional.normalize(places - centres[at], dim=-1) for at in (first, last))
    return 2 * torch.asin((0.5 * (a - b).norm(dim=-1)).clamp(max=1))
