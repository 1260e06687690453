"""2D tracks: points of surfaces followed through the pictures of one camera.

Chains of dense flow that holds forward and backward (Sundaram, Brox & Keutzer, "Dense point
trajectories by GPU-accelerated large displacement optical flow", ECCV 2010): no learned tracker. A
track ends where its surface is hidden; where the picture is uncovered, new ones begin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.flow import DenseFlow, centres, consistent, grey_pictures, inside, opencv, sampled
from scene4d.data.moving import moving_masks as moving_masks
from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError

_BOUNDARY_RELATIVE, _BOUNDARY_ABSOLUTE = 0.01, 0.05
"""Flow f changes too fast to be followed where |grad f|^2 > RELATIVE |f|^2 + ABSOLUTE: the point
would leave its surface for its neighbour's. Sundaram et al. have 0.002, for larger pictures; on
320x240 that ends tracks within surfaces, too."""
_LEAST_TEXTURE = 2.0
"""Of a window of 5x5 pixels, the standard deviation of its grey values (0..255) below which nothing
there can be followed."""


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Points followed through the pictures of one camera."""

    frames: tuple[int, ...]
    """Indices into ``Scene.frames``, in the order of time."""
    xy: Float[Tensor, "num_tracks num_frames 2"]
    """Pixels from the top-left corner of the pictures as they are trained on (undistorted,
    downscaled), float32; 0 where not visible."""
    visible: Bool[Tensor, "num_tracks num_frames"]
    """Where the point was seen: one run of frames without holes."""

    def __len__(self) -> int:
        return len(self.visible)


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """Which points are followed."""

    spacing: float | None = None
    """Pixels between neighbouring tracks where they begin; None: a 50th of the diagonal."""
    min_frames: int = 3
    """Tracks seen in fewer are left out."""


def chain_tracks(
    scene: Scene,
    images: ViewSource,
    *,
    options: TrackOptions | None = None,
    indices: Iterable[int] | None = None,
) -> list[Tracks]:
    """Tracks through the pictures of each camera, one entry a camera; those with one picture give
    none.

    ``indices``: of the frames to follow; None: the training frames. Raises :class:`DataError` where
    no frame has a time, and :class:`MissingExtraError` without OpenCV.
    """
    options = options or TrackOptions()
    paths = trajectories(scene, scene.train_indices if indices is None else indices)
    if not paths:
        raise DataError(
            "no frame has a time, so nothing can be followed",
            where=scene.root,
            fix="give each frame its 'time' (seconds)",
        )
    return [_chained(images, path, options) for path in paths if len(path) > 1]


def _chained(images: ViewSource, path: list[int], options: TrackOptions) -> Tracks:
    greys, counts = grey_pictures(images, path)
    shape = greys[0].shape
    spacing = options.spacing or max(2.0, float(np.hypot(*shape)) / 50)
    flow = DenseFlow(greys)
    grid = _Grid(shape, spacing)
    begun: list[int] = []
    followed: list[list[np.ndarray]] = []
    points, ids = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    for at in range(len(path)):
        if at:
            points, keep = _followed(flow, at - 1, points, counts[at])
            points, ids = points[keep], ids[keep]
        seeds = grid.seeds(greys[at], counts[at], points)
        ids = np.concatenate([ids, np.arange(len(begun), len(begun) + len(seeds))])
        points = np.concatenate([points, seeds])
        begun += [at] * len(seeds)
        followed += [[] for _ in range(len(seeds))]
        for track, point in zip(ids.tolist(), points, strict=True):
            followed[track].append(point)
    return _as_tracks(path, begun, followed, options.min_frames)


def _followed(
    flow: DenseFlow, at: int, points: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``points`` of picture ``at`` in the next one, and which of them are still there."""
    forth, back = flow(at, at + 1), flow(at + 1, at)
    step = sampled(forth, points)
    there = points + step
    keep = consistent(step, sampled(back, there)) & inside(there, counts.shape)
    keep &= ~(sampled(_boundaries(forth).astype(np.float32), points) > 0.5)
    row, column = _pixel(there, counts.shape)
    return there.astype(np.float32), keep & counts[row, column]


def _boundaries(flow: np.ndarray) -> np.ndarray:
    """[H, W]: where flow changes from one surface's to another's."""
    change = sum(np.square(part).sum(-1) for part in np.gradient(flow, axis=(0, 1)))
    edges: np.ndarray = change > (_BOUNDARY_RELATIVE * np.square(flow).sum(-1) + _BOUNDARY_ABSOLUTE)
    return edges


def _pixel(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    column = np.clip(points[..., 0].astype(np.int64), 0, shape[1] - 1)
    row = np.clip(points[..., 1].astype(np.int64), 0, shape[0] - 1)
    return row, column


class _Grid:
    """Cells of ``spacing`` pixels, each of which has a track."""

    def __init__(self, shape: tuple[int, ...], spacing: float) -> None:
        self.columns = max(1, round(shape[1] / spacing))
        self.rows = max(1, round(shape[0] / spacing))
        xy = centres((shape[0], shape[1]))
        self.cell = self._cell_of(xy, shape)

    def _cell_of(self, xy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        column = (xy[..., 0] * self.columns / shape[1]).astype(np.int64)
        row = (xy[..., 1] * self.rows / shape[0]).astype(np.int64)
        return row.clip(0, self.rows - 1) * self.columns + column.clip(0, self.columns - 1)

    def seeds(self, grey: np.ndarray, counts: np.ndarray, points: np.ndarray) -> np.ndarray:
        """[n, 2] pixel centres, in each cell without a point the one that is easiest to follow."""
        taken = np.zeros(self.rows * self.columns, dtype=bool)
        taken[self.cell[_pixel(points, grey.shape)]] = True
        cv2 = opencv()
        deviation = _deviation(grey)
        corner = cv2.cornerMinEigenVal(grey, 5)
        good = counts & ~taken[self.cell] & (deviation >= _LEAST_TEXTURE)
        row, column = np.nonzero(good)
        order = np.argsort(-corner[row, column], kind="stable")
        _, first = np.unique(self.cell[row, column][order], return_index=True)
        chosen = order[first]
        return np.stack([column[chosen], row[chosen]], axis=-1).astype(np.float32) + 0.5


def _deviation(grey: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    values = grey.astype(np.float32)
    mean = cv2.blur(values, (5, 5))
    result: np.ndarray = np.sqrt(np.maximum(cv2.blur(values * values, (5, 5)) - mean * mean, 0))
    return result


def _as_tracks(
    path: list[int], begun: list[int], followed: list[list[np.ndarray]], min_frames: int
) -> Tracks:
    kept = [i for i, points in enumerate(followed) if len(points) >= min_frames]
    xy = np.zeros((len(kept), len(path), 2), dtype=np.float32)
    visible = np.zeros((len(kept), len(path)), dtype=bool)
    for row, track in enumerate(kept):
        start, points = begun[track], followed[track]
        xy[row, start : start + len(points)] = points
        visible[row, start : start + len(points)] = True
    return Tracks(frames=tuple(path), xy=torch.from_numpy(xy), visible=torch.from_numpy(visible))
