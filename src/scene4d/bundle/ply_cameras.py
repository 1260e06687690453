"""Cameras in the comments of a PLY file, so that a player starts where the capture was seen from.

One comment for each: ``scene4d camera``, the first three rows of the camera-to-world matrix (OpenGL
axes, the file's coordinates), fx, fy, cx, cy, width and height in pixels, and the name. Other
programs pass comments over; the web player reads them (``viewers/web/src/decode/ply-cameras.ts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.bundle.scene_info import CameraView, default_info
from scene4d.formats.ply_tables import read_header
from scene4d.formats.splat_cloud import SplatCloud

PLY = ("ply", "compressed-ply")
"""The formats with such comments."""
_WORDS = ("scene4d", "camera")
_NUMBERS = 18
MOST = 16
"""Some programs read no more than the first 10 kB of a file as its header."""
_LONGEST_NAME = 60


def camera_comments(views: Sequence[CameraView]) -> list[str]:
    """The comments that say where splats were seen from: of at most :data:`MOST`, evenly chosen,
    with the first."""
    chosen = np.unique(np.linspace(0, len(views) - 1, min(MOST, len(views))).round().astype(int))
    return [_comment(views[i]) for i in chosen]


def _comment(view: CameraView) -> str:
    pose = [f"{x:.6g}" for row in view.c2w[:3] for x in row]
    lens = [f"{x:.6g}" for x in (view.fx, view.fy, view.cx, view.cy)]
    name = " ".join(view.name.encode("ascii", "replace").decode().split())[:_LONGEST_NAME]
    return " ".join([*_WORDS, *pose, *lens, str(view.width), str(view.height), name])


def cameras_in_ply(path: Path) -> tuple[CameraView, ...]:
    """The cameras that the comments of the PLY file ``path`` name; those that make no sense are
    passed over, as comments are."""
    found = (_view(comment.split()) for comment in read_header(path).comments)
    return tuple(view for view in found if view is not None)


def seen_from(source: Path, read_as: str, write_as: str, cloud: SplatCloud) -> dict[str, Any]:
    """Options for the writer of the format ``write_as``, so that it hands on from where the file
    ``source`` of the format ``read_as`` says that ``cloud``, its splats, was seen."""
    views = cameras_in_ply(source) if read_as in PLY else ()
    if views and write_as in PLY:
        return {"comments": camera_comments(views)}
    if views and write_as == "s4d":
        return {"scene_info": default_info(cloud, cameras=views)}
    return {}


def _view(words: list[str]) -> CameraView | None:
    if tuple(words[:2]) != _WORDS or len(words) < 2 + _NUMBERS:
        return None
    try:
        numbers = np.array([float(word) for word in words[2 : 2 + _NUMBERS]])
    except ValueError:
        return None
    pose = numbers[:12].reshape(3, 4)
    turned = pose[:, :3].T @ pose[:, :3]
    if not np.isfinite(numbers).all() or not (numbers[[12, 13, 16, 17]] > 0).all():
        return None
    if not np.allclose(turned, np.eye(3), atol=1e-3) or (numbers[16:] > 1e6).any():
        return None
    fx, fy, cx, cy = (float(x) for x in numbers[12:16])
    first, second, third = ((x, y, z, t) for x, y, z, t in pose.tolist())
    return CameraView(
        name=" ".join(words[2 + _NUMBERS :]),
        c2w=(first, second, third, (0.0, 0.0, 0.0, 1.0)),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=int(numbers[16]),
        height=int(numbers[17]),
    )
