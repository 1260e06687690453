"""Reading pictures from files: the one door, with one clear error.

Every picture that anybody hands to scene4d is opened by :func:`open_picture`: raster formats alone
(PostScript would start Ghostscript), bounded before it is decoded, regular files alone.

EXIF orientation is not applied: the pixels are used as they are stored, as nerfstudio and COLMAP
do, because that is the picture that the poses and intrinsics were computed for.
"""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from scene4d.errors import DataError, Scene4dError
from scene4d.memory import available_ram_bytes
from scene4d.ranges import MOST_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Pillow's names of what is opened. Never EPS, PDF or WMF, which start other programs, nor what
has no marks of its own to be told by. HEIF is there when pi-heif or pillow-heif is."""
MAX_PIXELS = MOST_PIXELS
_BYTES_PER_PIXEL = 12
"""While a picture is decoded: Pillow's own pixels, their conversion and an array, 4 bytes each."""
_UNREADABLE = "the file is missing, truncated or damaged: restore it, or remove its frame"

_lock = threading.Lock()
_loaded = False


@contextmanager
def open_picture(
    source: Path | bytes,
    *,
    where: object = None,
    formats: Sequence[str] = FORMATS,
    max_pixels: int | None = None,
) -> Iterator[Image.Image]:
    """Yields the picture, not yet decoded; whatever goes wrong with it is a :class:`DataError`.

    ``source``: a file, or its content, which ``where`` names. ``max_pixels``: None for
    :data:`MAX_PIXELS`, or less where a quarter of the free memory does not hold their copies.
    Pipes, devices and folders are refused without being opened. Errors of the ``with`` block are
    told as the picture's: do nothing there but decode.
    """
    where = source if where is None and isinstance(source, Path) else where
    file = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        if isinstance(source, Path):
            _check_regular(source)
        with _opened(file, formats) as image:
            _check_size(image, max_pixels, where)
            yield image
    except Scene4dError:
        raise
    except MemoryError as error:
        raise DataError("there is not enough memory to decode the picture", where=where) from error
    except Exception as error:  # what Pillow's parsers raise on hostile bytes has no common type
        raise DataError(
            f"cannot be read as an image ({_plainly(error, source)})",
            where=where,
            fix=_UNREADABLE if isinstance(source, Path) else None,
        ) from error


def _plainly(error: Exception, source: Path | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        if isinstance(source, Path) and source.stat().st_size == 0:
            return "the file is empty"
        return "in no picture format that is read here: " + ", ".join(FORMATS[:-1])
    return str(error) or type(error).__name__


def _check_regular(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        raise DataError("is a folder, not an image", where=path)
    if path.exists():
        raise DataError("is a pipe or a device, not an image file", where=path)
    raise DataError("image not found", where=path, fix="restore the file or remove its frame")


def _opened(file: Path | io.BytesIO, formats: Sequence[str]) -> Image.Image:
    """Pillow's own limit on the size is put aside: it warns, and refuses phones' 200 megapixels."""
    load_formats()
    known = [name for name in formats if name in Image.OPEN]
    with _lock:
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=known)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def load_formats() -> None:
    """Loads Pillow's codecs, and that for HEIC where pi-heif or pillow-heif is installed; once."""
    global _loaded
    if _loaded:
        return
    Image.init()
    for package in ("pi_heif", "pillow_heif"):
        with suppress(ImportError, OSError):
            importlib.import_module(package).register_heif_opener()
            break
    _loaded = True


def reads_heif() -> bool:
    """Whether HEIC photos can be opened here."""
    load_formats()
    return "HEIF" in Image.OPEN


def _check_size(image: Image.Image, max_pixels: int | None, where: object) -> None:
    fits = int(available_ram_bytes() / 4 / _BYTES_PER_PIXEL)
    limit = min(MAX_PIXELS, fits) if max_pixels is None else max_pixels
    if image.width * image.height > limit:
        raise DataError(
            f"is {image.width} x {image.height} pixels large, and at most {limit:,} pixels are"
            " decoded here",
            where=where,
            fix="make the picture smaller" + ("" if limit == MAX_PIXELS else ", or free memory"),
        )


def image_header(path: Path) -> tuple[int, int, bool]:
    """Width, height and whether there may be an alpha channel, without decoding the pixels."""
    with open_picture(path) as image:
        return image.width, image.height, _has_alpha(image)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, without decoding the pixels."""
    return image_header(path)[:2]


def read_picture(path: Path) -> UInt8[np.ndarray, "height width channels"]:
    """The pixels as RGB or, where the file has transparency, RGBA with straight alpha."""
    with open_picture(path) as image:
        return np.array(plain_colours(image))


def plain_colours(image: Image.Image) -> Image.Image:
    """The picture with 8 bits a channel as RGB, or RGBA where it has transparency.

    Of 16 bits the upper 8 are taken. Floating point, whose white nobody knows, is a ValueError.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers; store them in 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        upper = np.clip(grey >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(np.repeat(upper[..., None], 3, axis=-1))
    kind = "RGBA" if _has_alpha(image) else "RGB"
    return image if image.mode == kind else image.convert(kind)


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info
