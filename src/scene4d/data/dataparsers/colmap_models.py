"""Which of a capture's sparse models is used, and in which folder its pictures and masks are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scene4d.data.dataparsers.colmap_files import find_model, read_images
from scene4d.data.dataparsers.files import CaptureFiles, find_entry
from scene4d.data.dataparsers.lenses import IMAGE_SUFFIXES
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable

MODEL_FOLDERS = ("sparse", "colmap/sparse", "dense/sparse", "undistorted/sparse", ".")
"""Each may hold a model, or numbered folders with one each (``sparse/0``, ``sparse/1``)."""
_PICTURE_FOLDERS = ("images", "input", "rgb", "dense/images")
_MASK_FOLDERS = ("masks", "mask")


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Where the images are, and how many times smaller than the model says."""

    path: Path
    pictures: list[Path]
    """One for each image of the model, in its order; some may be missing."""
    files: CaptureFiles
    factor: int = 1


def model_folders(root: Path) -> list[Path]:
    """The sparse models of the first place that has any, the usual one (``0``) first."""
    for name in MODEL_FOLDERS:
        place = find_entry(root, name)
        folders = [] if name == "." else _numbered(place)
        found = [folder for folder in (*folders, place) if find_model(folder)]
        if found:
            return found
    return []


def _numbered(place: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(place), key=lambda name: (len(name), name))
    except OSError:
        return []
    return [place / name for name in names if os.path.isdir(place / name)]


def chosen_model(root: Path) -> Path | None:
    """The folder of the model with the most pictures; what lies in the others is told."""
    folders = model_folders(root)
    if len(folders) < 2:
        return folders[0] if folders else None
    names = {folder: _names(folder) for folder in folders}
    best = max(folders, key=lambda folder: len(names[folder]))
    others = [
        f"{folder.relative_to(root).as_posix()} with {len(names[folder])}"
        for folder in folders
        if folder != best
    ]
    lost = len(set().union(*names.values()) - names[best])
    warnings.warn(
        f"{root}: COLMAP made {len(folders)} models; {best.relative_to(root).as_posix()} with "
        f"{len(names[best])} pictures is used, not {', '.join(others)}; {lost} of "
        f"{lost + len(names[best])} pictures are in the others alone",
        stacklevel=3,
    )
    return best


def _names(folder: Path) -> set[str]:
    """The names of a model's images; none when it is damaged, as it cannot be used then."""
    found = find_model(folder)
    try:
        return set() if found is None else {image.name for image in read_images(found)}
    except DataError:
        return set()


def image_folder(root: Path, names: Sequence[str], wanted: int, where: Path) -> ImageFolder:
    """Where most of the images are: ``images_N`` if asked for, ``images``, or the model's own."""
    places = [(f"images_{wanted}", wanted)] if wanted > 1 else []
    places += [(name, 1) for name in _PICTURE_FOLDERS]
    places += [(f"images_{n}", 1) for n in (2, 4, 8)] + [(".", 1)]
    best, most = None, 0
    for name, factor in places:
        files = CaptureFiles(find_entry(root, name))
        pictures = [files.picture(n, f"{where}, image {printable(n)}") for n in names]
        there = sum(map(is_regular_file, pictures))
        if there > most:
            best, most = (
                ImageFolder(path=files.root, pictures=pictures, files=files, factor=factor),
                there,
            )
        if there == len(names):
            break
    if best is None:
        raise DataError(
            f"the images of the model were not found (looked for {printable(names[0])})",
            where=root,
            fix="put them into a folder 'images' beside the model",
        )
    return best


def mask_paths(root: Path, place: Path, names: Sequence[str]) -> list[Path | None]:
    """The mask of each image, COLMAP's way: ``masks/NAME.png``, or of the same name or stem."""
    for parent in dict.fromkeys((place.parent, root, place)):
        for folder in _MASK_FOLDERS:
            masks = find_entry(parent, folder)
            if os.path.isdir(masks) and parent.is_relative_to(os.path.abspath(root)):
                return _masks_in(masks, names, root)
    return [None] * len(names)


def _masks_in(masks: Path, names: Sequence[str], root: Path) -> list[Path | None]:
    found: list[Path | None] = []
    files = CaptureFiles(masks)
    for name in names:
        stem = os.path.splitext(name)[0]
        tried = (files.file(n, masks) for n in (f"{name}.png", name, f"{stem}.png"))
        found.append(next((path for path in tried if is_regular_file(path)), None))
    others = _pictures_in(masks) - sum(path is not None for path in found)
    if others > 0:
        warnings.warn(
            f"{root}: {others} pictures in {masks.name} are the mask of no image; the mask of "
            f"{printable(names[0])} is called {printable(names[0])}.png",
            stacklevel=4,
        )
    return found


def _pictures_in(folder: Path) -> int:
    return sum(
        name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in os.walk(folder) for name in names
    )
