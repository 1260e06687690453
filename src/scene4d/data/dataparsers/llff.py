"""LLFF's ``poses_bounds.npy``: a 3x5 pose and near/far for each image, in order of names.

Each row: [R | t | (h, w, f)] with camera-to-world axes (down, right, backward), then near, far.
h, w and f belong to the full-size images and are scaled to the images that are there. Mildenhall
et al., "Local light field fusion", 2019; every 8th image is the benchmark's test split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.files import find_entry
from scene4d.data.dataparsers.lenses import IMAGE_SUFFIXES, make_camera
from scene4d.data.npy_files import read_npy
from scene4d.data.scene import Frame, Scene
from scene4d.data.split import every_nth
from scene4d.errors import DataError
from scene4d.files import is_regular_file
from scene4d.image_files import image_size

LOOKS_FOR = "a poses_bounds.npy"
_SMALL_FOLDERS = (2, 4, 8)


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a poses_bounds.npy."""
    if root.is_file():
        return root.name.lower() == "poses_bounds.npy"
    return is_regular_file(find_entry(root, "poses_bounds.npy"))


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``."""
    path = root if root.is_file() else find_entry(root, "poses_bounds.npy")
    folder = path.parent
    rows = _read(path)
    images, factor = _images(folder, len(rows), options.downscale_factor)
    frames = [
        _frame(image, row, f"{path}, row {i} ({image.name})")
        for i, (image, row) in enumerate(zip(images, rows, strict=True))
    ]
    split = every_nth(len(frames), options.test_every)
    near, far = float(rows[:, 15].min()), float(rows[:, 16].max())
    if not 0 < near < far < 1e30:
        raise DataError(f"near {near} and far {far} are not 0 < near < far", where=path)
    return Scene(
        root=folder,
        dataparser="llff",
        frames=frames,
        train_indices=split.train,
        test_indices=split.test,
        split_rule=split.rule,
        bounds=(near, far),
        metadata={"stored_downscale": str(factor)} if factor > 1 else {},
    )


def _read(path: Path) -> np.ndarray:
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 17:
        raise DataError(f"has shape {np.shape(rows)}, not (images, 17)", where=path)
    if len(rows) == 0:
        raise DataError("holds no numbers", where=path)
    return rows.astype(np.float64)


def _images(folder: Path, count: int, wanted: int) -> tuple[list[Path], int]:
    """The images in order of names, and how much smaller than ``images`` their folder says.

    ``images_N`` where N is asked for and there; else ``images``; else the largest ``images_N``.
    """
    full = find_entry(folder, "images")
    if wanted > 1 and (folder / f"images_{wanted}").is_dir() and full.is_dir():
        chosen, factor = folder / f"images_{wanted}", wanted
    elif full.is_dir():
        chosen, factor = full, 1
    else:
        small = [folder / f"images_{n}" for n in _SMALL_FOLDERS]
        chosen = next((path for path in small if path.is_dir()), full)
        factor = 1
    if not chosen.is_dir():
        raise DataError("there is no folder of images", where=chosen)
    pictures = (p for p in chosen.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    found = sorted(p for p in pictures if not p.name.startswith("dynamic_mask_"))
    if len(found) != count:
        raise DataError(
            f"holds {len(found)} images for {count} poses",
            where=chosen,
            fix="poses_bounds.npy needs one row for each image, in the order of names",
        )
    return found, factor


def _frame(image: Path, row: np.ndarray, where: str) -> Frame:
    matrix = row[:15].reshape(3, 5)
    height, width, focal = (float(value) for value in matrix[:, 4])
    if not (0.5 < height < 2**20 and 0.5 < width < 2**20 and 1e-3 < focal < 1e9):
        raise DataError(
            f"height, width and focal length ({height}, {width}, {focal}) are not positive, or "
            "impossible",
            where=where,
        )
    c2w = np.eye(4)
    # Columns are down, right, backward; ours are right, up, backward.
    c2w[:3] = np.stack([matrix[:, 1], -matrix[:, 0], matrix[:, 2], matrix[:, 3]], axis=1)
    size = round(width), round(height)
    camera = make_camera(
        c2w=torch.from_numpy(c2w), focal=(focal, focal), centre=(width / 2, height / 2), size=size
    )
    real = image_size(image)
    if abs(real[0] * size[1] - real[1] * size[0]) > 0.01 * real[0] * size[1]:
        raise DataError(
            f"the image is {real}, its pose is for {size}: not the same shape", where=where
        )
    return Frame(name=image.name, camera=camera.resized(*real), image_path=image)
