"""The pictures of a capture as files: checked, measured, copied or converted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scene4d.data.process.names import unused_name
from scene4d.image_files import open_picture, plain_colours

_EXIF_ORIENTATION, _EXIF_MAKE, _EXIF_MODEL = 0x0112, 0x010F, 0x0110
_EXIF_IFD, _EXIF_FOCAL = 0x8769, 0x920A
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright."""
_LOSSLESS = frozenset({"PNG", "BMP", "DIB", "TIFF", "GIF", "PPM"})
_ENDINGS = {"jpg": ("jpg", "jpeg"), "png": ("png",)}
_MEASURED_SIDE = 1024
"""Sharpness is compared at this size, so that pictures of different sizes can be compared."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is known of one readable picture before any matching."""

    name: str
    """Path relative to the image folder, with forward slashes."""
    source: str = ""
    """The name it was found under, where that is another one."""
    width: int
    height: int
    sharpness: float
    """Variance of the Laplacian over the variance of the picture; see :func:`sharpness`."""
    brightness: float
    """Mean grey value, 0..1."""
    digest: str
    """SHA-256 of size and pixels: equal for copies of one picture under two names."""
    lens: str = ""
    """Make, model and focal length from EXIF; pictures of one lens and size share intrinsics."""
    time: float | None = None
    """Seconds from the start of the video it was taken from."""


def sharpness(grey: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian of ``grey`` [H, W] over the variance of ``grey``.

    The classical focus measure (Pech-Pacheco et al. 2000), divided by the contrast so that a
    dull picture does not count as a blurred one. 0 for a uniform picture.
    """
    if min(grey.shape) < 3:
        return 0.0
    grey = grey.astype(np.float32)
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    contrast = float(grey.var())
    return float(laplacian.var()) / contrast if contrast > 1e-6 else 0.0


def place_picture(source: Path, images: Path, name: str, taken: Set[str] = frozenset()) -> Picture:
    """Brings ``source`` into the folder ``images`` and measures it; ``source`` is not touched.

    JPEG and PNG that every reader takes for the same picture are copied byte by byte. What is
    stored on its side is turned upright, since readers disagree on EXIF's tag, and what COLMAP does
    not read (WebP, AVIF, HEIC, CMYK, palettes, 16 bits) is written as JPEG (quality 97, colours at
    full resolution) or PNG: its name then ends so. ``taken``: names that are not free. Raises
    :class:`DataError` when it cannot be decoded in full.
    """
    with open_picture(source) as image:
        plain_file = _is_plain_file(image)
        image.load()
        exif = _exif_of(image)
        turn = _TURNS.get(exif.get(_EXIF_ORIENTATION, 1))
        pixels = plain_colours(image)
        icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
        kind = "png" if pixels.mode == "RGBA" or image.format in _LOSSLESS else "jpg"
        if turn is not None:
            pixels = pixels.transpose(turn)
    target = images / unused_name(_with_ending(name, kind), taken)
    target.parent.mkdir(parents=True, exist_ok=True)
    if plain_file and turn is None:
        shutil.copy2(source, target)
    else:
        extra = {"icc_profile": icc, "exif": _upright_exif(exif)}
        given: dict[str, Any] = {key: value for key, value in extra.items() if value}
        pixels.save(target, quality=97, subsampling=0, **given)
    written = target.relative_to(images).as_posix()
    return measure(pixels, name=written, source=name, lens=_lens(exif))


def _is_plain_file(image: Image.Image) -> bool:
    """Told before decoding, which forgets the bits of a channel."""
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    modes = {"JPEG": ("RGB", "L"), "MPO": ("RGB", "L"), "PNG": ("RGB", "L", "RGBA", "LA")}
    animated = getattr(image, "n_frames", 1) > 1 and image.format == "PNG"
    return image.mode in modes.get(image.format or "", ()) and not deep and not animated


def _with_ending(name: str, kind: str) -> str:
    """``name`` ending as its content says: what is a.webp becomes a.jpg, what is a.JPG stays."""
    stem, dot, ending = name.rpartition(".")
    if dot and ending.lower() in _ENDINGS[kind]:
        return name
    return f"{stem if dot and '/' not in ending else name}.{kind}"


def _exif_of(image: Image.Image) -> Image.Exif:
    """Damaged EXIF data is no reason to refuse a picture."""
    try:
        return image.getexif()
    except Exception:  # as with pixels, parsers of hostile bytes raise anything
        return Image.Exif()


def _upright_exif(exif: Image.Exif) -> bytes | None:
    """What COLMAP takes the focal length from, without the orientation."""
    exif.pop(_EXIF_ORIENTATION, None)
    try:
        return exif.tobytes() if len(exif) else None
    except Exception:
        return None


def measure(
    image: Image.Image, *, name: str, source: str = "", lens: str = "", time: float | None = None
) -> Picture:
    """The facts of a decoded picture."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
    small = rgb.convert("L")
    small.thumbnail((_MEASURED_SIDE, _MEASURED_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    return Picture(
        name=name,
        source=source,
        width=rgb.width,
        height=rgb.height,
        sharpness=sharpness(grey),
        brightness=float(grey.mean()) / 255.0,
        digest=digest,
        lens=lens,
        time=time,
    )


def _lens(exif: Image.Exif) -> str:
    try:
        parts = [str(exif.get(tag, "")).strip(" \0") for tag in (_EXIF_MAKE, _EXIF_MODEL)]
        parts.append(str(exif.get_ifd(_EXIF_IFD).get(_EXIF_FOCAL, "")))
    except Exception:
        return ""
    return " ".join(parts).strip()
