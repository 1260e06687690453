"""The pictures of a capture as files: found, checked, measured and copied."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scene4d.data.image_files import open_picture

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_UNSUPPORTED = {
    ".heic": "HEIC is not supported: export the photos as JPEG",
    ".heif": "HEIF is not supported: export the photos as JPEG",
    ".dng": "raw photos are not supported: develop them to JPEG or PNG",
    ".cr2": "raw photos are not supported: develop them to JPEG or PNG",
    ".nef": "raw photos are not supported: develop them to JPEG or PNG",
    ".arw": "raw photos are not supported: develop them to JPEG or PNG",
}
_EXIF_ORIENTATION, _EXIF_MAKE, _EXIF_MODEL = 0x0112, 0x010F, 0x0110
_EXIF_IFD, _EXIF_FOCAL = 0x8769, 0x920A
_MEASURED_SIDE = 1024
"""Sharpness is compared at this size, so that pictures of different sizes can be compared."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is known of one readable picture before any matching."""

    name: str
    """Path relative to the image folder, with forward slashes."""
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


def find_pictures(root: Path, *, skip: Path | None = None) -> tuple[list[Path], dict[str, str]]:
    """Picture files under ``root`` in name order, and those of kinds nobody here can read.

    Hidden files and folders and everything under ``skip`` are passed over.
    """
    found: list[Path] = []
    refused: dict[str, str] = {}
    skip = skip.resolve() if skip else None
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        if skip and path.resolve().is_relative_to(skip):
            continue
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            found.append(path)
        elif suffix in _UNSUPPORTED:
            refused[relative.as_posix()] = _UNSUPPORTED[suffix]
    return found, refused


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


def place_picture(source: Path, target: Path, name: str) -> Picture:
    """Copies ``source`` to ``target`` and measures it; ``source`` is not touched.

    The bytes are copied as they are, but for a picture that EXIF says is stored on its side: that
    one is turned upright, since readers disagree on whether to honour the tag. Raises OSError or
    ValueError when the picture cannot be decoded in full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_picture(source) as image:
        image.load()
        exif = image.getexif()
        lens = _lens(exif)
        turned = exif.get(_EXIF_ORIENTATION, 1) not in (0, 1)
        upright = ImageOps.exif_transpose(image) if turned else image
    if turned:
        upright.save(target, quality=97, subsampling=0, exif=upright.getexif())
    else:
        shutil.copy2(source, target)
    return measure(upright, name=name, lens=lens)


def measure(image: Image.Image, *, name: str, lens: str = "", time: float | None = None) -> Picture:
    """The facts of a decoded picture."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
    small = rgb.convert("L")
    small.thumbnail((_MEASURED_SIDE, _MEASURED_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    return Picture(
        name=name,
        width=rgb.width,
        height=rgb.height,
        sharpness=sharpness(grey),
        brightness=float(grey.mean()) / 255.0,
        digest=digest,
        lens=lens,
        time=time,
    )


def _lens(exif: Image.Exif) -> str:
    parts = [str(exif.get(tag, "")).strip(" \0") for tag in (_EXIF_MAKE, _EXIF_MODEL)]
    parts.append(str(exif.get_ifd(_EXIF_IFD).get(_EXIF_FOCAL, "")))
    return " ".join(parts).strip()
