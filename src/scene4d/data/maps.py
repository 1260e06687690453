"""Reading what lies beside a capture's pictures, pixel for pixel: masks and depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from scene4d.data.masks import mask_of
from scene4d.data.npy_files import npy_shape, read_npy
from scene4d.errors import DataError
from scene4d.image_files import image_size, open_picture


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Which pixels count; see :func:`scene4d.data.masks.mask_of`. Raises :class:`DataError`."""
    with open_picture(path) as image:
        return mask_of(image)


def depth_size(path: Path) -> tuple[int, int]:
    """Width and height of a depth map (PNG or npy), without reading its values."""
    if path.suffix.lower() == ".npy":
        return _depth_shape(npy_shape(path), path)[::-1]
    return image_size(path)


def read_depth(path: Path, unit: float) -> Float[np.ndarray, "height width"]:
    """Depth in scene units, 0 where there is none: 16-bit PNG or .npy times ``unit``."""
    if path.suffix.lower() == ".npy":
        stored = read_npy(path)
    else:
        with open_picture(path) as image:
            stored = np.array(image)
    depth = _check_depth(stored, path).astype(np.float32) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def _check_depth(stored: np.ndarray, path: Path) -> np.ndarray:
    if not np.issubdtype(stored.dtype, np.number) or np.iscomplexobj(stored):
        raise _no_depth_map(stored.shape, path, f", type {stored.dtype}")
    return stored.reshape(_depth_shape(stored.shape, path))


def _depth_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int]:
    """Rows and columns; one channel more is passed over."""
    plane = shape[:2] if len(shape) == 3 and shape[-1] == 1 else shape
    if len(plane) != 2 or 0 in plane:
        raise _no_depth_map(shape, path)
    return plane[0], plane[1]


def _no_depth_map(shape: tuple[int, ...], path: Path, more: str = "") -> DataError:
    return DataError(
        f"is not a depth map: shape {shape}{more}",
        where=path,
        fix="store depth as a 16-bit grey PNG or as a 2D .npy array",
    )
