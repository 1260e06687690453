"""Where an exported file lies: in the input's frame, or beside the origin with the way back beside.

Coordinates far from the origin (UTM, geocentric) need float64. Formats that have it, or a transform
in float64, keep the input's frame; in the others such a scene would collapse onto a few values, so
its file is written in a local frame: the input's axes and unit, moved by an offset. The sidecar
``FILE.frame.json`` holds the 4 x 4 matrix that leads from the file's coordinates to the input's, in
float64, and is applied when we read the file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scene4d.errors import DataError
from scene4d.files import read_json, write_json
from scene4d.formats.splat_cloud import (
    SplatCloud,
    inverse_similarity,
    is_far,
    local_frame,
    split_similarity,
)

FrameChoice = Literal["auto", "source", "local"]
"""auto: the input's frame where the format can hold it, otherwise a local one; source: the input's;
local: the input's axes and unit, moved to the origin."""
_KEY = "source_from_file"
_log = logging.getLogger("scene4d")


def sidecar(path: Path) -> Path:
    """Where the way back from ``path``'s coordinates is written."""
    return path.with_name(path.name + ".frame.json")


def offset_of(centre: np.ndarray, size: float) -> np.ndarray:
    """[4, 4] translation by ``centre`` rounded to the decimal place of ``size``."""
    home = np.eye(4)
    step = 10.0 ** np.floor(np.log10(size)) if size > 0 else 1.0
    home[:3, 3] = np.rint(centre / step) * step
    return home


def cloud_offset(cloud: SplatCloud) -> np.ndarray:
    """[4, 4] translation from a local frame to ``cloud``'s."""
    home = local_frame(cloud)
    return offset_of(home[:3, 3], float(home[0, 0]))


def placed(
    cloud: SplatCloud, path: Path, frame: FrameChoice, *, keeps_far: bool, what: str
) -> tuple[SplatCloud, np.ndarray | None]:
    """``cloud`` in the frame that it is written in, and the way back where that is a local one.

    ``keeps_far``: whether the format holds coordinates far from the origin without loss. Says what
    was decided, and what is lost.
    """
    if frame == "local" or (frame == "auto" and cloud.far and not keeps_far):
        home = cloud_offset(cloud)
        if frame == "auto":
            _log.warning(
                "%s: %s holds no coordinates so far from the origin; the file is in a local frame,"
                " moved by %s, and %s leads back (--frame source: rounded, in the input's frame)",
                path, what, _spelt(home[:3, 3]), sidecar(path).name,
            )  # fmt: skip
        return cloud.transformed(inverse_similarity(home)), home
    if cloud.far and not keeps_far:
        width = float(np.exp(np.median(cloud.log_scales)))
        _log.warning(
            "%s: so far from the origin %s rounds positions by up to %.2g, and splats are about"
            " %.2g wide (input's units); --frame local keeps them",
            path, what, rounding(cloud.means, what), width,
        )  # fmt: skip
    return cloud, None


def placed_points(
    points: np.ndarray, path: Path, frame: FrameChoice, *, moves: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """``points`` [N, 3] float64 of a mesh as its file has them; the translation [3] that the file
    itself holds, where it ``moves`` what is in it; and the way back where the frame is a local one.
    """
    centre = np.median(points, axis=0)
    size = float(np.quantile(np.linalg.norm(points - centre, axis=1), 0.8))
    home = offset_of(centre, size)
    if frame == "local":
        return points - home[:3, 3], np.zeros(3), home
    sizes = np.full((len(points), 3), np.log(max(size, 1e-300)))
    if moves and is_far(points, sizes):
        return points - home[:3, 3], home[:3, 3], None
    return points, np.zeros(3), None


def rounding(means: np.ndarray, what: str) -> float:
    """By how much positions [N, 3] are moved at most: half a step of float32, in SPZ of its fixed
    point."""
    reach = float(np.abs(means).max(initial=0.0))
    if what == "spz" and reach > 0:
        return 0.5 / 2 ** float(np.clip(np.floor(np.log2(2**23 / reach)), 0, 12))
    return float(np.spacing(np.float32(reach))) / 2


def write_sidecar(path: Path, home: np.ndarray | None) -> None:
    """Writes the way back from a file in a local frame; removes that of an earlier file."""
    beside = sidecar(path)
    if home is None:
        beside.unlink(missing_ok=True)
        return
    write_json(
        beside,
        {
            "format": "scene4d-frame",
            "version": 1,
            "file": path.name,
            _KEY: home.tolist(),
            "explanation": "4 x 4, row by row: takes the file's coordinates (as columns, in the"
            " axes of a 3DGS PLY) to the input's",
        },
    )


def read_sidecar(path: Path) -> np.ndarray | None:
    """The way back from the file's coordinates, where there is a sidecar."""
    beside = sidecar(path)
    if not beside.is_file():
        return None
    value: Any = read_json(beside)
    try:
        matrix = np.array(value[_KEY], dtype=np.float64)
        split_similarity(matrix)
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise DataError(
            f"holds no similarity {_KEY}",
            where=beside,
            fix="restore it, or remove it to read the file in its own coordinates",
        ) from error
    return matrix


def _spelt(offset: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.12g}" for value in offset) + ")"
