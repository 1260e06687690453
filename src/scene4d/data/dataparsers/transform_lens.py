"""The lens that a transforms.json states, for the whole file or for a frame."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scene4d.cameras.distortion import Distortion
from scene4d.data.dataparsers.lenses import finite_number
from scene4d.errors import DataError
from scene4d.files import printable
from scene4d.image_files import image_size

_PINHOLE_MODELS = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "PERSPECTIVE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
)
"""As in nerfstudio, these differ in name only: whatever coefficients are given apply."""
_FISHEYE_MODELS = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_OPENCV_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")
_LIST_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""The order in nerfstudio's ``distortion_params``."""
_OTHER_LENSES = {
    "latlong": "latlong (equirectangular pictures)",
    "equirectangular": "equirectangular",
    **{f"ftheta_p{i}": "f-theta" for i in range(5)},
}
"""instant-ngp's names of lenses that are not supported."""
_LARGEST = 1 << 20

Meta = Mapping[str, Any]


def image_size_of(meta: Meta, entry: Meta, image_path: Path, where: str) -> tuple[int, int]:
    """Width and height as stated, else those of the image."""
    both = {**meta, **entry}
    if "w" not in both or "h" not in both:
        return image_size(image_path)
    width, height = (int(finite_number(both[key], key, where)) for key in ("w", "h"))
    if not 0 < width < _LARGEST or not 0 < height < _LARGEST:
        raise DataError(f"the image size {width} x {height} is impossible", where=where)
    return width, height


def intrinsics_of(
    meta: Meta, entry: Meta, size: tuple[int, int], where: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and principal point in pixels; what a frame says comes before the file's."""
    found = [
        next((f for f in (_focal(level, a, size, where) for level in (entry, meta)) if f), None)
        for a in (0, 1)
    ]
    x, y = found[0] or found[1], found[1] or found[0]
    if x is None or y is None:
        raise DataError(
            "neither fl_x nor camera_angle_x is given",
            where=where,
            fix="state the intrinsics for the whole file or for each frame",
        )
    both = {**meta, **entry}
    cx, cy = (
        finite_number(both.get(key, size[axis] / 2), key, where)
        for axis, key in enumerate(("cx", "cy"))
    )
    if max(abs(cx), abs(cy)) > _LARGEST:
        raise DataError(f"the principal point ({cx:g}, {cy:g}) is impossible", where=where)
    return (x, y), (cx, cy)


def _focal(level: Meta, axis: int, size: tuple[int, int], where: str) -> float | None:
    """The focal length in pixels that the file or the frame states for one axis."""
    letter = "xy"[axis]
    if (key := f"fl_{letter}") in level:
        value = finite_number(level[key], key, where)
    elif (key := f"camera_angle_{letter}") in level or (key := f"{letter}_fov") in level:
        angle = finite_number(level[key], key, where)
        if key.endswith("_fov"):  # instant-ngp's, in degrees
            angle = math.radians(angle)
        if not 0 < angle < math.pi:
            raise DataError(f"{key} should be between 0 and pi, not {angle:g} rad", where=where)
        value = 0.5 * size[axis] / math.tan(0.5 * angle)
    else:
        return None
    if not 1e-3 <= value <= 1e9:  # what a float32 camera can hold, and some more
        raise DataError(f"{key} should be positive and possible, not {value:g} px", where=where)
    return value


def distortion_of(meta: Meta, entry: Meta, where: str) -> Distortion | None:
    """The lens's coefficients, of ``k1``.. and ``p1``.. or of ``distortion_params``."""
    both = {**meta, **entry}
    for key, name in _OTHER_LENSES.items():
        if both.get(key):
            raise _unsupported(f"the lens model {name} ('{key}') is not supported", where)
    model = _model(both, where)
    fisheye = model in _FISHEYE_MODELS
    values = {**_coefficients(meta, fisheye, where), **_coefficients(entry, fisheye, where)}
    if any(values.get(key) for key in ("k5", "k6")):
        raise _unsupported("the rational lens model (k5, k6) is not supported", where)
    if fisheye:
        if values.get("p1") or values.get("p2"):
            warnings.warn("p1 and p2 are left out: a fisheye lens has none", stacklevel=2)
        return Distortion("fisheye", tuple(values.get(key, 0.0) for key in _FISHEYE_KEYS))
    coefficients = tuple(values.get(key, 0.0) for key in _OPENCV_KEYS)
    return Distortion("opencv", coefficients) if any(coefficients) else None


def crop_radius_of(meta: Meta, entry: Meta, distortion: Distortion | None, where: str) -> Any:
    """``fisheye_crop_radius`` in pixels, None without one. As in nerfstudio, of fisheyes alone."""
    value = {**meta, **entry}.get("fisheye_crop_radius")
    if value is None:
        return None
    radius = finite_number(value, "fisheye_crop_radius", where)
    if radius <= 0:
        raise DataError(f"fisheye_crop_radius should be positive, not {radius:g}", where=where)
    if distortion is None or distortion.model != "fisheye":
        warnings.warn("fisheye_crop_radius is not used: the lens is no fisheye", stacklevel=2)
        return None
    return radius


def _model(both: Meta, where: str) -> str:
    stated = both.get("camera_model")
    if stated is None:
        return "OPENCV_FISHEYE" if both.get("is_fisheye") else "OPENCV"
    model = stated.upper() if isinstance(stated, str) else stated
    if model not in _PINHOLE_MODELS + _FISHEYE_MODELS:
        raise _unsupported(f"camera model {printable(repr(stated))} is not supported", where)
    return model


def _coefficients(level: Meta, fisheye: bool, where: str) -> dict[str, float]:
    """The coefficients that the file or a frame states, by name."""
    keys = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    named = {key: finite_number(level[key], key, where) for key in keys if key in level}
    if any(abs(value) > 1e6 for value in named.values()):
        raise DataError("a distortion coefficient is impossibly large", where=where)
    stated = level.get("distortion_params")
    if stated is None:
        return named
    if not isinstance(stated, list) or len(stated) > 64:
        raise DataError("distortion_params is not a short list of numbers", where=where)
    numbers = [finite_number(value, "distortion_params", where) for value in stated]
    if any(abs(value) > 1e6 for value in numbers):
        raise DataError("a distortion coefficient is impossibly large", where=where)
    if not any(numbers):
        numbers = [0.0] * len(_LIST_KEYS)
    if len(numbers) != 6 and not (fisheye and len(numbers) == 4):
        raise DataError(
            f"distortion_params has {len(numbers)} numbers",
            where=where,
            fix="give six, in nerfstudio's order: k1, k2, k3, k4, p1, p2",
        )
    listed = {**dict.fromkeys(_LIST_KEYS, 0.0), **dict(zip(_LIST_KEYS, numbers, strict=False))}
    if any(named.get(key, value) != value for key, value in listed.items()):
        warnings.warn("distortion_params and k1.. differ; distortion_params counts", stacklevel=2)
    return {**named, **listed}


def _unsupported(what: str, where: str) -> DataError:
    return DataError(
        what,
        where=where,
        fix=f"undistort the images, or use {', '.join(_PINHOLE_MODELS + _FISHEYE_MODELS)}",
    )
