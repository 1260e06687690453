"""Whether a scene's surfaces move as the real ones do: PCK-T and the 3D error of tracks.

PCK-T is DyCheck's (Gao et al. 2022): of 10 frames spread over the training pictures every ordered
pair, each keypoint visible in both carried from the one to the other, right within 0.05 of the
longer side. The 3D error is Shape of Motion's (Wang et al. 2024), between different frames.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import project
from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.files import is_regular_file

TRACK_METRICS = {
    "pck_t": "share of keypoints carried to another training frame within 0.05 of the longer side, "
    "mean over ordered pairs of 10 frames (DyCheck)",
    "epe_median": "median 3D error of tracked points at other frames' times, in the capture's unit",
    "epe_share": "epe_median as a share of the diagonal of the tracked points' box",
}
"""What these figures of eval.json are, in words."""
NUM_FRAMES = 10
RIGHT_WITHIN = 0.05
"""Of the picture's longer side."""
FILE = "tracks.npz"
_STEEPEST = 4.0
"""Neighbouring pixels whose positions differ by more than this many widths of a pixel there show
different surfaces."""

Follow = Callable[[Camera, tuple[float, ...]], Float[Tensor, "times height width 3"]]
"""World positions, at other times, of the surfaces that a camera shows at its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTracks:
    """Material points, followed exactly."""

    frames: Sequence[int]
    """Indices into ``Scene.frames``, in the order of time."""
    points: Float[Tensor, "num_frames num_points 3"]
    """Scene coordinates."""
    visible: Bool[Tensor, "num_frames num_points"]


def read_point_tracks(scene: Scene) -> PointTracks | None:
    """The tracks that a capture brings in ``tracks.npz`` beside its cameras; None without.

    ``points`` [frames, points, 3] in the capture's frame and ``visible`` [frames, points]: of the
    training frames in the order of time. Raises :class:`DataError` for anything else.
    """
    folder = scene.root if scene.root.is_dir() else scene.root.parent
    path = folder / FILE
    if not is_regular_file(path):
        return None
    timed = [i for i in scene.train_indices if scene.frames[i].camera.time is not None]
    frames = sorted(timed, key=lambda i: float(scene.frames[i].camera.time))  # type: ignore[arg-type]
    points, visible = _read(path)
    if points.shape[0] != len(frames):
        return None  # of other frames than these: some were left out
    home = torch.linalg.inv(scene.source_from_scene.double())
    moved = torch.from_numpy(points).double() @ home[:3, :3].T + home[:3, 3]
    return PointTracks(frames=frames, points=moved.float(), visible=torch.from_numpy(visible))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            points, visible = stored["points"], stored["visible"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            "is no file of tracks: arrays 'points' and 'visible' are needed", where=path
        ) from error
    numeric = np.issubdtype(points.dtype, np.floating) and visible.dtype == bool
    if not numeric or points.ndim != 3 or points.shape[2] != 3 or visible.shape != points.shape[:2]:
        raise DataError(
            f"points should be floats [frames, points, 3], visible booleans [frames, points], not "
            f"{points.dtype} {points.shape} and {visible.dtype} {visible.shape}",
            where=path,
        )
    return points, visible


def track_figures(
    tracks: PointTracks,
    cameras: Sequence[Camera],
    follow: Follow,
    *,
    unit: float = 1.0,
) -> dict[str, float]:
    """PCK-T and 3D errors; ``cameras``: of ``tracks.frames``, with their times. ``unit``: the
    capture's lengths for one of the scene's."""
    chosen = strided(len(tracks.frames), NUM_FRAMES)
    times = tuple(float(cameras[k].time) for k in chosen)  # type: ignore[arg-type]
    shares, errors = [], []
    for start in chosen:
        pixels, _ = project(cameras[start], tracks.points[start])
        seen = tracks.visible[start] & _within(pixels, cameras[start])
        with torch.no_grad():
            found = carried(follow(cameras[start], times), cameras[start], pixels)
        for place, end in enumerate(chosen):
            both = seen & tracks.visible[end]
            if not bool(both.any()):
                continue
            truth, _ = project(cameras[end], tracks.points[end])
            there, distance = project(cameras[end], found[place])
            longer = max(cameras[end].width, cameras[end].height)
            right = ((there - truth).norm(dim=-1) < RIGHT_WITHIN * longer) & (distance > 0)
            shares.append(float(right[both].float().mean()))
            if end != start:
                errors.append((found[place] - tracks.points[end]).norm(dim=-1)[seen])
    if not shares or not errors:
        return {}
    median = float(torch.cat(errors).median())
    span = tracks.points.amax(dim=1) - tracks.points.amin(dim=1)
    return {
        "pck_t": sum(shares) / len(shares),
        "epe_median": median * unit,
        "epe_share": median / max(float(span.norm(dim=-1).median()), 1e-12),
    }


def strided(count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` places at even steps, from the first; all where there are fewer."""
    if count <= wanted:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count, wanted, endpoint=False)]


def _within(pixels: Float[Tensor, "num_points 2"], camera: Camera) -> Bool[Tensor, " num_points"]:
    size = pixels.new_tensor([camera.width, camera.height])
    return ((pixels >= 0) & (pixels < size)).all(dim=-1)


def carried(
    positions: Float[Tensor, "times height width 3"],
    camera: Camera,
    pixels: Float[Tensor, "num_points 2"],
) -> Float[Tensor, "times num_points 3"]:
    """``positions`` between pixels' centres, bilinear; the nearest pixel's at edges of surfaces."""
    height, width = positions.shape[1:3]
    limit = pixels.new_tensor([width - 1, height - 1])
    place = (pixels - 0.5).clamp_min(0.0).minimum(limit)
    first = place.floor().minimum((limit - 1).clamp_min(0.0))
    share = place - first
    column, row = first.long().unbind(-1)
    right, down = (column + 1).clamp_max(width - 1), (row + 1).clamp_max(height - 1)
    corners = torch.stack(
        [positions[:, r, c] for r in (row, down) for c in (column, right)], dim=2
    )  # [times, points, 4, 3]
    x, y = share.unbind(-1)
    weights = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=-1)
    nearest = torch.nn.functional.one_hot(weights.argmax(dim=-1), 4).to(weights)
    spread = (corners.amax(dim=2) - corners.amin(dim=2)).norm(dim=-1).amax(dim=0)
    distance = (corners.mean(dim=(0, 2)) - camera.position).norm(dim=-1)
    edge = spread > _STEEPEST * distance / camera.K[0, 0]
    weights = torch.where(edge[:, None], nearest, weights)
    return (corners * weights[None, :, :, None]).sum(dim=2)
