"""A scene that moves as ``.4dgs`` or ``.splatv``, and what its motion loses there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scene4d.bundle.scene_info import CameraView, default_view
from scene4d.errors import UsageError
from scene4d.exporters.bundle import camera_view
from scene4d.exporters.options import StraightOptions
from scene4d.exporters.timed import Fitted, cubics, straight
from scene4d.formats.fourdgs import write_4dgs
from scene4d.formats.placing import FrameChoice, placed, write_sidecar
from scene4d.formats.splat_cloud import inverse_similarity, split_similarity
from scene4d.formats.splatv import write_splatv
from scene4d.formats.timed_splats import TimedSplats
from scene4d.training.opened import OpenedScene


def export_4dgs(
    source: OpenedScene,
    path: Path,
    options: StraightOptions | None = None,
    *,
    frame: FrameChoice = "auto",
) -> str:
    """Writes splats that move straight, in windows of time; returns a line that says what that
    loses. Raises :class:`UsageError` where nothing moves."""
    path, times = Path(path), _times(source, path, ".4dgs")
    tolerance = (options or StraightOptions()).straight_error
    fitted, moving = straight(source, tolerance=tolerance)
    splats, _, home = _placed(source, fitted.splats, path, frame)
    write_4dgs(path, splats, times_s=times)
    write_sidecar(path, home)
    return (
        f"{_numbers(source, path)}; {moving:,} that move in {len(fitted.errors):,} straight pieces,"
        f" whose means are off by {_off(source, fitted)}; turns are steps, of"
        f" {_worst(fitted.angles)} degrees at most"
    )


def export_splatv(
    source: OpenedScene, path: Path, options: object = None, *, frame: FrameChoice = "auto"
) -> str:
    """Writes a cubic of time for each splat; returns a line that says what that loses.

    Raises :class:`UsageError` where nothing moves.
    """
    del options  # there are none
    path, times = Path(path), _times(source, path, ".splatv")
    fitted, moving = cubics(source)
    splats, way, home = _placed(source, fitted.splats, path, frame)
    write_splatv(path, splats, times_s=times, cameras=[_first_camera(source, way)])
    write_sidecar(path, home)
    colour = "view-dependent colour and " if splats.cloud.sh_degree else ""
    return (
        f"{_numbers(source, path)}; a cubic of time for each of {moving:,} that move, whose means"
        f" are off by {_off(source, fitted)}, rotations by up to {_worst(fitted.angles)} degrees;"
        f" lost: {colour}that it lasts {times[1] - times[0]:g} s, as the file's time is 0 to 1"
    )


def _times(source: OpenedScene, path: Path, suffix: str) -> tuple[float, float]:
    """First and last second of the motion. Raises :class:`UsageError` for what does not move, and
    for other names of files."""
    if Path(path).suffix.lower() != suffix:
        raise UsageError(
            f"splats that move are written as {suffix} here",
            where=path,
            fix=f"name the file SOMETHING{suffix}",
        )
    times = source.representation.times
    if times is None or times[1] <= times[0]:
        raise UsageError(
            "nothing in it moves", where=source.path, fix="scene4d export RUN ply writes it"
        )
    return times


def _placed(
    source: OpenedScene, splats: TimedSplats, path: Path, frame: FrameChoice
) -> tuple[TimedSplats, np.ndarray, np.ndarray | None]:
    """``splats`` in the frame that the file has; the way there from the scene's coordinates; and
    the way from there to the input's where the frame is a local one."""
    way = source.source_from_scene.double().numpy()
    at_home = splats.transformed(way)
    _, home = placed(at_home.cloud, path, frame, keeps_far=False, what=path.suffix[1:])
    if home is None:
        return at_home, way, None
    back = inverse_similarity(home)
    return at_home.transformed(back), back @ way, home


def _first_camera(source: OpenedScene, way: np.ndarray) -> dict[str, Any]:
    """As an entry of a 3DGS cameras.json, where a viewer starts."""
    cameras = source.cameras
    if cameras.train:
        view: CameraView = camera_view("0", cameras.train[0])
    else:
        view = default_view(source.scene_cloud())
    rotation = split_similarity(way)[1]
    c2w = np.array(view.c2w)
    position = way[:3, :3] @ c2w[:3, 3] + way[:3, 3]
    return {
        "id": 0, "img_name": view.name, "width": view.width, "height": view.height,
        "position": position.tolist(),
        "rotation": (rotation @ c2w[:3, :3] * (1, -1, -1)).tolist(),  # OpenCV's axes
        "fx": view.fx, "fy": view.fy,
    }  # fmt: skip


def _numbers(source: OpenedScene, path: Path) -> str:
    count = len(source.scene_cloud())
    return f"{count:,} Gaussians in {path.stat().st_size / 1e6:.1f} MB"


def _off(source: OpenedScene, fitted: Fitted) -> str:
    """By how much means are off, in the input's unit."""
    scale = split_similarity(source.source_from_scene.double().numpy())[0]
    errors = scale * (fitted.errors if len(fitted.errors) else np.zeros(1))
    usual, many, worst = np.quantile(errors, (0.5, 0.95, 1.0))
    return f"{usual:.2g} (half of them), {many:.2g} (95%), {worst:.2g} scene units at most"


def _worst(angles: np.ndarray) -> str:
    return f"{angles.max(initial=0.0):.2g}"
