"""Reading pictures, masks and depth maps from files, with one clear error for a bad one.

EXIF orientation is not applied: the pixels are used as they are stored, as nerfstudio and COLMAP
do, because that is the picture that the poses and intrinsics were computed for.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError

from scene4d.data.masks import mask_of
from scene4d.errors import DataError

_BAD_IMAGE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on missing, truncated and hostile files."""


def image_header(path: Path) -> tuple[int, int, bool]:
    """Width, height and whether there may be an alpha channel, without decoding the pixels."""
    if not path.is_file():
        raise DataError("image not found", where=path, fix="restore the file or remove its frame")
    try:
        with Image.open(path) as image:
            alpha = "A" in image.getbands() or "transparency" in image.info
            return image.width, image.height, alpha
    except _BAD_IMAGE as error:
        raise _unreadable(path, error) from error


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, without decoding the pixels."""
    return image_header(path)[:2]


def read_picture(path: Path) -> UInt8[np.ndarray, "height width channels"]:
    """The pixels as RGB or, where the file has transparency, RGBA with straight alpha."""
    image_header(path)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            alpha = "A" in image.getbands() or "transparency" in image.info
            return np.array(image.convert("RGBA" if alpha else "RGB"))
    except _BAD_IMAGE as error:
        raise _unreadable(path, error) from error


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Which pixels count; see :func:`scene4d.data.masks.mask_of`. Raises :class:`DataError`."""
    image_header(path)
    try:
        with Image.open(path) as image:
            return mask_of(image)
    except _BAD_IMAGE as error:
        raise _unreadable(path, error) from error


def depth_size(path: Path) -> tuple[int, int]:
    """Width and height of a depth map (PNG or npy), without reading it where possible."""
    if path.suffix.lower() == ".npy":
        return read_depth(path, 1.0).shape[::-1]
    return image_size(path)


def read_depth(path: Path, unit: float) -> Float[np.ndarray, "height width"]:
    """Depth in scene units, 0 where there is none: 16-bit PNG or .npy times ``unit``."""
    if not path.is_file():
        raise DataError("depth map not found", where=path)
    if path.suffix.lower() == ".npy":
        try:
            stored = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(path, error) from error
    else:
        try:
            with Image.open(path) as image:
                stored = np.array(image)
        except _BAD_IMAGE as error:
            raise _unreadable(path, error) from error
    stored = stored[..., 0] if stored.ndim == 3 and stored.shape[-1] == 1 else stored
    if stored.ndim != 2 or not np.issubdtype(stored.dtype, np.number):
        raise DataError(
            f"is not a depth map: shape {stored.shape}, type {stored.dtype}",
            where=path,
            fix="store depth as a 16-bit grey PNG or as a 2D .npy array",
        )
    depth = stored.astype(np.float32) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot be read as an image ({error})"
        if path.suffix != ".npy"
        else f"is damaged ({error})",
        where=path,
        fix="the file is missing, truncated or damaged: restore it, or remove its frame",
    )
