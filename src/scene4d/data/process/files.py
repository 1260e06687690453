"""What lies in a folder of photos: pictures to try, pictures that cannot be read, and the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scene4d.errors import DataError
from scene4d.image_files import open_picture, reads_heif


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READ = _words(
    "jpg jpeg jpe jfif jif jfi pjpeg pjp mpo png apng webp bmp dib tif tiff gif"
    " jp2 j2k jpf jpx j2c avif avifs ppm pgm pbm pnm"
)
"""Endings of what Pillow reads. Other files are told by their content; these, when they cannot be
read, are damaged pictures rather than no pictures."""
_HEIF = _words("heic heif heics heifs hif")
_RAW = _words(
    "dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 raw rwl pef ptx srw x3f iiq 3fr fff mef mos"
    " mrw dcr kdc dcs erf gpr cap eip bay ari"
)
"""Of all makers. Many are TIFF files, of which Pillow would read the thumbnail."""
_VIDEO = _words(
    "mp4 mov m4v avi mkv webm mts m2ts ts 3gp wmv mpg mpeg ogv flv insv lrv 360 braw r3d"
)
_DEVELOP = "raw photos are not supported: develop them to JPEG or PNG"
_UNREAD = {
    **dict.fromkeys(_RAW, _DEVELOP),
    "exr": "OpenEXR is not supported: tone-map it to JPEG or PNG",
    "hdr": "Radiance HDR is not supported: tone-map it to JPEG or PNG",
    "jxl": "JPEG XL is not supported: convert it to JPEG or PNG (djxl)",
    "psd": "Photoshop files are not supported: export JPEG or PNG",
    "psb": "Photoshop files are not supported: export JPEG or PNG",
    "tga": "TGA is not supported: convert it to PNG",
    "dds": "DDS is not supported: convert it to PNG",
    "svg": "a drawing is no photo",
    "insp": "a 360 degree photo: export ordinary views from the camera's program",
}
_NEEDS_HEIF = "HEIC needs a reader: pip install pi-heif (or pillow-heif), or export as JPEG"


@dataclass(frozen=True, kw_only=True)
class FolderFiles:
    """All files of a folder but the hidden ones; names are relative, with forward slashes."""

    pictures: list[Path] = field(default_factory=list)
    """To be decoded, in name order."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Pictures of kinds that nobody here reads, and what to do."""
    others: dict[str, str] = field(default_factory=dict)
    """What is no picture, and what it is."""


def find_pictures(root: Path, *, skip: Path | None = None) -> FolderFiles:
    """Every file under ``root``, links followed, sorted into what can become of it.

    Hidden files and folders and everything under ``skip`` are passed over.
    """
    found = FolderFiles()
    skip = skip.resolve() if skip else None
    for path in sorted(_walk(root)):
        if skip and path.resolve().is_relative_to(skip):
            continue
        name, kind = path.relative_to(root).as_posix(), path.suffix.lower().lstrip(".")
        if not path.is_file():
            gone = not path.exists()
            found.others[name] = "a link to nothing" if gone else "a pipe or a device"
        elif kind in _READ:
            found.pictures.append(path)
        elif kind in _HEIF and not reads_heif():
            found.unreadable[name] = _NEEDS_HEIF
        elif kind in _UNREAD:
            found.unreadable[name] = _UNREAD[kind]
        elif kind in _VIDEO:
            found.others[name] = "a video: scene4d process-data video"
        elif kind in _HEIF or _is_picture(path):
            found.pictures.append(path)
        else:
            found.others[name] = "not a picture"
    return found


def is_video_name(path: Path) -> bool:
    """Whether the ending is that of a video."""
    return path.suffix.lower().lstrip(".") in _VIDEO


def is_picture_name(path: Path) -> bool:
    """Whether the ending is that of a photo, readable or not."""
    kind = path.suffix.lower().lstrip(".")
    return kind in _READ or kind in _HEIF or kind in _UNREAD


def why_unreadable(path: Path, error: DataError) -> str:
    """The error in a line; a HEIC photo by another name is told."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1"):
        return f"by its content it is HEIC, whatever its name. {_NEEDS_HEIF}"
    return error.what


def _walk(root: Path) -> Iterator[Path]:
    """Files below ``root``; a folder that links lead to twice is entered once."""
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in files if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    try:
        with open_picture(path):
            return True
    except DataError:
        return False
