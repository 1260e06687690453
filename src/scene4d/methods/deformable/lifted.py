"""2D tracks lifted into the world by depth, and where nodes are between and beyond sightings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View, ViewSource
from scene4d.data.tracks import Tracks

_EDGE = 0.05
"""Of the depth: where a pixel's neighbours differ by more, a track may be of either surface."""
_NEIGHBOURS = 16
"""Tracks whose common motion is taken for a node's while it is hidden."""
_NEAR = 6.0
"""Track spacings within which a track says something about a node's motion."""


@dataclass(frozen=True, kw_only=True)
class LiftedTracks:
    """Points of moving surfaces, in the world."""

    times: Float[Tensor, " frames"]
    """Seconds, rising."""
    places: Float[Tensor, "tracks frames 3"]
    """0 where not seen."""
    seen: Bool[Tensor, "tracks frames"]

    def __len__(self) -> int:
        return len(self.places)


def lift(
    tracks: Sequence[Tracks],
    images: ViewSource,
    depths: Mapping[int, Float[Tensor, "height width"]],
    masks: Mapping[int, Bool[Tensor, "height width"]],
    *,
    fewest: int = 2,
) -> LiftedTracks:
    """The tracks that ever lie in the moving ``masks``, in the world by ``depths`` (0: none), both
    by frame; those seen ``fewest`` times at least."""
    times = sorted({_time(images.camera(i)) for each in tracks for i in each.frames})
    column = {time: k for k, time in enumerate(times)}
    places, seen = [], []
    for each in tracks:
        where = torch.zeros(len(each), len(times), 3)
        known = torch.zeros(len(each), len(times), dtype=torch.bool)
        moving = torch.zeros(len(each), dtype=torch.bool)
        for k, index in enumerate(each.frames):
            camera, visible = images.camera(index), each.visible[:, k]
            xy = each.xy[visible, k]
            world, good = unprojected(camera, xy, depths[index])
            at = column[_time(camera)]
            where[visible, at] = torch.where(good[:, None], world, torch.zeros_like(world))
            known[visible, at] = good
            x, y = _pixels(xy, camera)
            moving[visible] |= masks[index][y, x]
        keep = moving & (known.sum(1) >= fewest)
        places.append(where[keep])
        seen.append(known[keep])
    return LiftedTracks(times=torch.tensor(times), places=torch.cat(places), seen=torch.cat(seen))


def unprojected(
    camera: Camera, xy: Float[Tensor, "n 2"], depth: Float[Tensor, "height width"]
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """World positions of pixels by a depth map; False where it has none, or an edge is near."""
    x, y = _pixels(xy, camera)
    z = depth[y, x]
    padded = torch.nn.functional.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    around = torch.stack([padded[y + i, x + j] for i in range(3) for j in range(3)])
    good = (z > 0) & ((around - z).abs().amax(0) < _EDGE * z)
    return back_projected(camera, xy, z), good


def back_projected(
    camera: Camera, xy: Float[Tensor, "n 2"], z: Float[Tensor, " n"]
) -> Float[Tensor, "n 3"]:
    """World positions of pixels at depths along the viewing axis."""
    K = camera.K
    local = torch.stack(
        [(xy[:, 0] - K[0, 2]) / K[0, 0] * z, -(xy[:, 1] - K[1, 2]) / K[1, 1] * z, -z], dim=-1
    )
    return local @ camera.c2w[:3, :3].T + camera.c2w[:3, 3]


def _pixels(
    xy: Float[Tensor, "n 2"], camera: Camera
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    x = xy[:, 0].long().clamp(0, camera.width - 1)
    return x, xy[:, 1].long().clamp(0, camera.height - 1)


def _time(camera: Camera) -> float:
    assert camera.time is not None
    return float(camera.time)


def candidates(tracks: LiftedTracks, count: int) -> Int[Tensor, " some"]:
    """Tracks that stand for the others, ``count`` at most.

    Long ones first; left out is what has a chosen one near in most of the frames that see it.
    """
    places = np.ascontiguousarray(tracks.places.transpose(0, 1).numpy())
    seen = tracks.seen.numpy()
    order = np.argsort(-seen.sum(1), kind="stable")
    low, high = 0.01 * _size(tracks), 1.0 * _size(tracks)
    best = order[:count]
    for _ in range(4):
        near = (low * high) ** 0.5
        chosen = _spread(places, seen, order, near, count)
        if chosen is None:
            low = near
        else:
            best, high = chosen, near
    return torch.from_numpy(best)


def _size(tracks: LiftedTracks) -> float:
    """Of what moves: the median over frames of the spread of its points."""
    sizes = [
        float(tracks.places[:, k][tracks.seen[:, k]].std(dim=0).norm())
        for k in range(len(tracks.times))
        if int(tracks.seen[:, k].sum()) > 2
    ]
    return float(torch.tensor(sizes).median()) if sizes else 1.0


def _spread(
    places: np.ndarray, seen: np.ndarray, order: np.ndarray, near: float, count: int
) -> np.ndarray | None:
    """None where more than ``count`` would be needed; ``places`` [frames, tracks, 3]."""
    covered = np.zeros(places.shape[:2], bool)
    chosen: list[int] = []
    for row in order:
        run = seen[row].nonzero()[0]
        first, end = run[0], run[-1] + 1
        if 2 * covered[first:end, row].sum() > len(run):
            continue
        if len(chosen) == count:
            return None
        chosen.append(int(row))
        off = places[first:end] - places[first:end, row, None]
        covered[first:end] |= np.einsum("ftc,ftc->ft", off, off) < near**2
    return np.array(chosen)


def farthest(places: Float[Tensor, "frames some 3"], count: int) -> tuple[Tensor, float]:
    """Farthest-point sampling of trajectories whose distance is the largest of any frame: the rows
    that are chosen, ``count`` at most, and their spacing."""
    trajectories = places.numpy()
    chosen = [0]
    nearest = np.full(trajectories.shape[1], np.inf)
    spacing = 0.0
    while True:
        off = trajectories - trajectories[:, chosen[-1:]]
        nearest = np.minimum(nearest, (off * off).sum(-1).max(0))
        row = int(nearest.argmax())
        spacing = float(nearest[row]) ** 0.5
        if len(chosen) == min(count, trajectories.shape[1]) or spacing == 0.0:
            break
        chosen.append(row)
    return torch.tensor(chosen), spacing


def usual_spacing(places: Float[Tensor, "frames nodes 3"]) -> float:
    """The median distance of a node to its nearest neighbour."""
    if places.shape[1] < 2:
        return 0.0
    found = []
    for frame in places[:: max(1, len(places) // 8)]:
        distance = torch.cdist(frame, frame).fill_diagonal_(torch.inf)
        found.append(distance.amin(1))
    return float(torch.cat(found).median())


def completed(
    tracks: LiftedTracks, chosen: Int[Tensor, " nodes"]
) -> tuple[Float[Tensor, "frames nodes 3 3"], Float[Tensor, "frames nodes 3"]]:
    """Rotations and places of the chosen tracks in every frame.

    From frame to frame a node turns as the tracks around it do (weighted Procrustes); where it is
    not seen, it moves as they do, too. Rotations are relative to the middle of its own sightings.
    """
    count, frames = len(chosen), len(tracks.times)
    seen, places = tracks.seen[chosen], tracks.places[chosen]
    spacing = _track_spacing(tracks)
    index = torch.arange(frames)
    middle = _middle_sighting(seen)
    turns = torch.eye(3).repeat(frames, count, 1, 1)
    where = torch.zeros(frames, count, 3)
    where[middle, torch.arange(count)] = places[torch.arange(count), middle]
    for step in (1, -1):
        for at in index if step == 1 else index.flip(0):
            before = int(at) - step
            if not 0 <= before < frames:
                continue
            rows = ((at - middle) * step > 0).nonzero()[:, 0]
            if not len(rows):
                continue
            rotation, centre, moved = _common_motion(
                tracks, before, int(at), where[before, rows], spacing
            )
            turns[at, rows] = rotation @ turns[before, rows]
            offset = where[before, rows] - centre
            predicted = (rotation @ offset[:, :, None])[:, :, 0] + moved
            known = seen[rows, at]
            where[at, rows] = torch.where(known[:, None], places[rows, at], predicted)
    return turns, where


def _track_spacing(tracks: LiftedTracks) -> float:
    """The median distance of a track to the nearest other one that is seen at the same time."""
    counts = tracks.seen.sum(0)
    found = []
    for k in counts.argsort(descending=True)[:8].tolist():
        points = tracks.places[tracks.seen[:, k], k]
        if len(points) > 1:
            found.append(torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1))
    return float(torch.cat(found).median()) if found else 1.0


def _middle_sighting(seen: Bool[Tensor, "nodes frames"]) -> Int[Tensor, " nodes"]:
    """The frame in the middle of those in which each is seen."""
    rank = seen.cumsum(1)
    half = (rank[:, -1:] + 1) // 2
    return ((rank == half) & seen).int().argmax(dim=1)


def _common_motion(
    tracks: LiftedTracks, before: int, at: int, places: Float[Tensor, "n 3"], spacing: float
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Rotation, centre and moved centre of the rigid motion of the tracks near each place; none
    where no track is near that both frames see."""
    both = tracks.seen[:, before] & tracks.seen[:, at]
    still = (torch.eye(3).repeat(len(places), 1, 1), places, places)
    if int(both.sum()) < 4:
        return still
    start, end = tracks.places[both, before], tracks.places[both, at]
    count = min(_NEIGHBOURS, len(start))
    distance, rows = torch.cdist(places, start).topk(count, dim=1, largest=False)
    near = distance[:, 0].clamp_min(spacing)
    weight = torch.exp(-0.5 * (distance / (_NEAR * near[:, None])).square())
    weight = weight / weight.sum(1, keepdim=True)
    a, b = start[rows], end[rows]
    # Outliers (flow that slipped onto another surface) are off from the middle motion by much.
    moved = b - a
    off = (moved - moved.median(dim=1, keepdim=True).values).norm(dim=-1)
    scale = off.median(dim=1, keepdim=True).values.clamp_min(0.1 * spacing)
    weight = weight * (off < 4 * scale)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
    centre, target = ((weight[..., None] * x).sum(1) for x in (a, b))
    matrix = ((b - target[:, None]) * weight[..., None]).transpose(1, 2) @ (a - centre[:, None])
    rotation = _nearest_rotation(matrix, spacing)
    alone = distance[:, 0] > 2 * _NEAR * spacing
    return (
        torch.where(alone[:, None, None], still[0], rotation),
        torch.where(alone[:, None], places, centre),
        torch.where(alone[:, None], places, target),
    )


def _nearest_rotation(matrix: Float[Tensor, "n 3 3"], spacing: float) -> Float[Tensor, "n 3 3"]:
    """Kabsch, pulled to no rotation where the points hardly spread."""
    pull = (0.05 * spacing) ** 2 * torch.eye(3)
    u, _, vh = torch.linalg.svd((matrix + pull).double())
    sign = torch.linalg.det(u @ vh)
    ones = torch.ones_like(sign)
    return ((u * torch.stack([ones, ones, sign], -1)[:, None]) @ vh).float()


def sight_of(view: View) -> Float[Tensor, "height width"]:
    """The view's depth where it is usable, 0 elsewhere."""
    assert view.depth is not None
    usable = torch.isfinite(view.depth) & (view.depth > 0)
    if view.mask is not None:
        usable &= view.mask
    if view.alpha is not None:
        usable &= view.alpha > 0.5
    return torch.where(usable, view.depth, torch.zeros_like(view.depth))
