"""nerfstudio's ``transforms.json``: one file with cameras, images and optional extras.

Also reads instant-ngp's files of the same name. Format: docs.nerf.studio, "data conventions".
The frame of the file is kept, in float64: nothing is centred or scaled here.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.files import CaptureFiles, find_entry
from scene4d.data.dataparsers.lenses import times_for_all
from scene4d.data.dataparsers.transform_keys import unknown_keys, unknown_keys_warning
from scene4d.data.dataparsers.transforms import (
    TransformsFile,
    bounds_of,
    frames_of,
    name_key,
    points_of,
    read_transforms,
    source_from_scene,
    time_hints,
)
from scene4d.data.scene import Scene
from scene4d.data.split import Split, every_nth
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable

LOOKS_FOR = "a transforms.json"


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a transforms.json."""
    if root.is_file():
        return root.suffix.lower() == ".json" and not _is_blender_name(root)
    return is_regular_file(find_entry(root, "transforms.json"))


def _is_blender_name(path: Path) -> bool:
    names = ("transforms_train.json", "transforms_test.json", "transforms_val.json")
    return path.name.lower() in names


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: a folder with a transforms.json, or that file itself."""
    path = root if root.is_file() else find_entry(root, "transforms.json")
    file = read_transforms(path, CaptureFiles(path.parent))
    times_for_all([entry.get("time") for entry in file.entries], path)
    split = _split(file, options)
    there = file.files.present(file.pictures)
    position = {index: i for i, index in enumerate(there)}
    scene = Scene(
        root=path.parent,
        dataparser="nerfstudio",
        frames=frames_of(file, there),
        train_indices=[position[i] for i in split.train if i in position],
        test_indices=[position[i] for i in split.test if i in position],
        split_rule=split.rule,
        points=points_of(file),
        bounds=bounds_of(file),
        source_from_scene=source_from_scene(file),
        time_hints=time_hints(file),
    )
    file.files.tell()
    if message := unknown_keys_warning(*unknown_keys(file.meta, file.entries)):
        warnings.warn(f"{path}: {message}", stacklevel=2)
    if not any(frame.mask_path for frame in scene.frames) and _has_masks(path.parent):
        warnings.warn(
            f"{path}: the folder of masks is not used, as no frame has a 'mask_path'", stacklevel=2
        )
    return scene


def _has_masks(folder: Path) -> bool:
    return os.path.isdir(find_entry(folder, "masks"))


def _split(file: TransformsFile, options: ParseOptions) -> Split:
    """By the file's lists of names where it has them, else every n-th."""
    lists = {name: file.meta.get(f"{name}_filenames") or [] for name in ("train", "val", "test")}
    if not any(lists.values()):
        return every_nth(len(file.entries), options.test_every)
    index = {name_key(entry["file_path"]): i for i, entry in enumerate(file.entries)}
    found: dict[str, list[int]] = {}
    for name, names in lists.items():
        if not isinstance(names, list):
            raise DataError(f"{name}_filenames is not a list", where=file.path)
        missing = [entry for entry in names if name_key(entry) not in index]
        if missing:
            raise DataError(
                f"{name}_filenames lists {printable(repr(missing[0]))}, which no frame has"
                + (f", and {len(missing) - 1} others" if len(missing) > 1 else ""),
                where=file.path,
            )
        found[name] = sorted({index[name_key(entry)] for entry in names})
    held = found["test"] or found["val"]
    others = (i for i in range(len(file.entries)) if i not in {*held, *found["val"]})
    train = found["train"] or list(others)
    which = "test" if found["test"] else "val"
    return Split(train=train, test=held, rule=f"given by the capture ({which}_filenames)")
