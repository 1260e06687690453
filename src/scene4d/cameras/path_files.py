"""Camera paths as files, in nerfstudio's ``camera_path.json`` format."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError, Scene4dError
from scene4d.files import read_json, write_json
from scene4d.ranges import MOST_PIXELS

_LARGEST = sys.float_info.max
"""Whole numbers of JSON may lie beyond; NaN and infinity are not below it."""


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """Cameras of one size, and how many of them make a second."""

    cameras: list[Camera]
    fps: float


def save_path(file: Path, cameras: Sequence[Camera], *, fps: float) -> None:
    """Writes the cameras to ``file``, atomically.

    The format knows a vertical field of view and a centred principal point only; intrinsics that
    are neither go into an extra entry ``intrinsics`` (fx, fy, cx, cy), which nerfstudio ignores.
    """
    if not cameras:
        raise Scene4dError("there is no camera to write", where=file)
    width, height = cameras[0].width, cameras[0].height
    if any((camera.width, camera.height) != (width, height) for camera in cameras):
        raise Scene4dError("the cameras of a path must have one image size", where=file)
    value = {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": len(cameras) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "keyframes": [],
        "camera_path": [_entry(camera) for camera in cameras],
    }
    write_json(file, value)


def load_path(file: Path) -> CameraPath:
    """The cameras in ``file``, poses in float64. Raises :class:`DataError` naming the entry that
    cannot be used."""
    value = read_json(file)
    if not isinstance(value, dict) or not isinstance(value.get("camera_path"), list):
        raise DataError("has no list 'camera_path': not a camera path of nerfstudio", where=file)
    kind = value.get("camera_type", "perspective")
    if kind != "perspective":
        raise DataError(f"is a path of {kind} cameras; only perspective is supported", where=file)
    width, height = _number(value, "render_width", file), _number(value, "render_height", file)
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise DataError(
            f"pictures of {width:g} x {height:g} pixels cannot be rendered; "
            f"they may have 1 to {MOST_PIXELS:,}",
            where=file,
            fix="give render_width and render_height other values",
        )
    entries = value["camera_path"]
    if not entries:
        raise DataError("the camera path is empty", where=file)
    cameras = [
        _camera(entry, int(width), int(height), f"{file}, camera_path[{i}]")
        for i, entry in enumerate(entries)
    ]
    if "fps" in value:
        fps = _number(value, "fps", file)
    elif "seconds" in value:
        fps = len(entries) / _number(value, "seconds", file)
    else:
        fps = 24.0
    return CameraPath(cameras=cameras, fps=fps)


def in_frame(cameras: Sequence[Camera], similarity: Float[Tensor, "4 4"]) -> list[Camera]:
    """The cameras in another coordinate frame: moved, turned and scaled by ``similarity``.

    A scale moves the cameras' positions; their rotations stay orthonormal. Poses come in float64:
    positions may be far from the origin.
    """
    scale = torch.linalg.det(similarity[:3, :3].double()).abs() ** (1 / 3)
    moved = []
    for camera in cameras:
        c2w = similarity.to(camera.c2w.device).double() @ camera.c2w.double()
        c2w[:3, :3] /= scale
        moved.append(camera.with_pose(c2w))
    return moved


def _entry(camera: Camera) -> dict[str, Any]:
    """One camera as nerfstudio writes it."""
    fx, fy, cx, cy = (float(camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    entry: dict[str, Any] = {
        "camera_to_world": [float(x) for x in camera.c2w.flatten()],
        "fov": math.degrees(2 * math.atan(camera.height / 2 / fy)),
        "aspect": camera.width / camera.height,
    }
    off_centre = max(abs(cx - camera.width / 2), abs(cy - camera.height / 2))
    if off_centre > 1e-3 or abs(fx / fy - 1) > 1e-5:
        entry["intrinsics"] = [fx, fy, cx, cy]
    if camera.time is not None:
        entry["render_time"] = float(camera.time)
    return entry


def _camera(entry: Any, width: int, height: int, where: str) -> Camera:
    """The camera that one entry describes."""
    if not isinstance(entry, dict):
        raise DataError("is not an object", where=where)
    matrix = _numbers(entry.get("camera_to_world"), 16, "camera_to_world", where)
    c2w = torch.tensor(matrix, dtype=torch.float64).reshape(4, 4)
    residual = float((c2w[:3, :3] @ c2w[:3, :3].T - torch.eye(3).double()).abs().max())
    if residual > 1e-3 or float(torch.linalg.det(c2w[:3, :3])) < 0:
        raise DataError("camera_to_world is not a rotation and a translation", where=where)
    if "intrinsics" in entry:
        fx, fy, cx, cy = _numbers(entry["intrinsics"], 4, "intrinsics", where)
    else:
        fov = _numbers([entry.get("fov")], 1, "fov", where)[0]
        if not 0 < fov < 180:
            raise DataError(f"fov must lie between 0 and 180 degrees, got {fov:g}", where=where)
        fx = fy = height / 2 / math.tan(math.radians(fov) / 2)
        cx, cy = width / 2, height / 2
    time = None
    if "render_time" in entry:
        time = torch.tensor(_numbers([entry["render_time"]], 1, "render_time", where)[0])
    intrinsics = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=width, height=height, time=time)


def _numbers(values: Any, count: int, name: str, where: str) -> list[float]:
    """``count`` finite numbers, or a :class:`DataError`."""
    if isinstance(values, list) and len(values) == 4 and count == 16:
        values = [x for row in values for x in (row if isinstance(row, list) else [row])]
    good = isinstance(values, list) and len(values) == count
    if not good or not all(type(x) in (int, float) and abs(x) <= _LARGEST for x in values):
        raise DataError(f"{name} must be {count} finite number(s), got {values!r}", where=where)
    return [float(x) for x in values]


def _number(value: dict[str, Any], name: str, file: Path) -> float:
    """A positive number of the file's head."""
    number = _numbers([value.get(name)], 1, name, str(file))[0]
    if number <= 0:
        raise DataError(f"{name} must be positive, got {number:g}", where=file)
    return number
