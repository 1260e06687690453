"""What moves, in pictures that have no other moment: told by other cameras' masks, through points.

A camera that shows one moment alone has no flow, so nothing moves in its picture. A point of the
scene moves where a camera with several moments sees it in its mask then, and so do points behind it
that belong to it; a pixel is of what the points around it are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.points import visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import time_of, trajectories

_MOST_POINTS = 20_000
_CELL = 2.5
"""Usual distances between points in the picture: within such a cell, what lies farther than its
nearest point is hidden..."""
_BEHIND = 0.04
"""...if by more than this share of the distance."""
_REACH = 4.0
"""Usual distances between points within which they are of one thing."""
_SHOWN = 0.25
"""Share of a thing's points in a mask that are seen there: of a wall behind it hardly any are."""
_ASKED = 3
"""Points around a pixel that say whether it moves."""
_FARTHEST = 0.1
"""Of the diagonal: where no point is nearer, nothing is said."""

Masks = Mapping[int, Bool[Tensor, "height width"]]


def with_carried(scene: Scene, images: ViewSource, masks: Masks) -> dict[int, Tensor]:
    """``masks`` of the training frames, by index, and those of frames whose camera shows one moment
    alone, where others tell and the scene has points; none that is there is taken back."""
    paths = trajectories(scene, masks)
    alone = [path[0] for path in paths if len(path) == 1]
    rows = [path for path in paths if len(path) > 1]
    if not alone or not rows or scene.points is None or not len(scene.points.xyz):
        return dict(masks)
    stride = -(-len(scene.points.xyz) // _MOST_POINTS)
    xyz = scene.points.xyz[::stride].float()
    found, told = dict(masks), {}
    for index in alone:
        time = time_of(scene, index)
        witnesses = [_nearest(scene, path, time) for path in rows]
        key = tuple(witnesses)
        if key not in told:
            told[key] = _moving(xyz, [(images.camera(i), masks[i]) for i in witnesses])
        found[index] = found[index] | _painted(xyz, told[key], images.camera(index))
    return found


def _nearest(scene: Scene, path: Sequence[int], time: float) -> int:
    return min(path, key=lambda i: abs(time_of(scene, i) - time))


def _moving(
    xyz: Float[Tensor, "n 3"], witnesses: Sequence[tuple[Camera, Tensor]]
) -> Bool[Tensor, " n"]:
    """Which points are of things that move, as far as all cameras that see them say."""
    inside = torch.ones(len(xyz), dtype=torch.bool)
    known, shown = torch.zeros_like(inside), torch.zeros_like(inside)
    for camera, mask in witnesses:
        seen, pixel = visible_from(xyz, camera)
        in_mask = seen & mask[pixel[:, 1], pixel[:, 0]]
        known |= seen
        inside &= in_mask | ~seen
        shown |= in_mask & _in_front(xyz, camera, seen, pixel)
    inside &= known
    rows = inside.nonzero()[:, 0]
    if len(rows) < 2:
        return inside & shown
    things = _things(xyz[rows].numpy())
    counts = np.bincount(things)
    fronts = np.bincount(things, weights=shown[rows].numpy())
    moving = torch.zeros(len(xyz), dtype=torch.bool)
    moving[rows] = torch.from_numpy((fronts >= _SHOWN * counts)[things])
    return moving


def _in_front(
    xyz: Float[Tensor, "n 3"],
    camera: Camera,
    seen: Bool[Tensor, " n"],
    pixel: Int[Tensor, "n 2"],
) -> Bool[Tensor, " n"]:
    """Which points no other one in their part of the picture hides."""
    depth = -((xyz - camera.position) @ camera.c2w[:3, 2])
    apart = (camera.width * camera.height / max(1, int(seen.sum()))) ** 0.5
    side = max(1.0, _CELL * apart)
    across = int(camera.width / side) + 1
    cell = (pixel[:, 1] / side).long() * across + (pixel[:, 0] / side).long()
    nearest = torch.full((int(cell.max()) + 1,), torch.inf)
    nearest.scatter_reduce_(0, cell[seen], depth[seen], "amin")
    return seen & (depth <= (1 + _BEHIND) * nearest[cell])


def _things(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """A number for each point: alike where points lead from one to the other."""
    tree = cKDTree(points)
    spacing = float(np.median(tree.query(points, k=2)[0][:, 1])) or 1e-9
    pairs = tree.query_pairs(_REACH * spacing, output_type="ndarray")
    ones = np.ones(len(pairs), dtype=np.int8)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels


def _painted(
    xyz: Float[Tensor, "n 3"], moving: Bool[Tensor, " n"], camera: Camera
) -> Bool[Tensor, "height width"]:
    """Pixels around which most points that are seen move."""
    seen, pixel = visible_from(xyz, camera)
    rows = _in_front(xyz, camera, seen, pixel).nonzero()[:, 0]
    if len(rows) < _ASKED or not bool(moving[rows].any()):
        return torch.zeros(camera.height, camera.width, dtype=torch.bool)
    y, x = np.mgrid[: camera.height, : camera.width]
    tree = cKDTree(pixel[rows].double().numpy())
    distance, near = tree.query(np.stack([x, y], axis=-1), k=_ASKED)
    votes = moving[rows].numpy()[near].mean(axis=-1)
    diagonal = (camera.width**2 + camera.height**2) ** 0.5
    return torch.from_numpy((votes > 0.5) & (distance[..., 0] <= _FARTHEST * diagonal))
