"""The NeRF-synthetic layout: transforms_train.json and transforms_test.json, RGBA images.

D-NeRF's captures are the same with a ``time`` per frame; instant-ngp's state lenses of their own
for each file. The benchmark composites on white.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.files import CaptureFiles, find_entry
from scene4d.data.dataparsers.lenses import times_for_all
from scene4d.data.dataparsers.transform_keys import unknown_keys, unknown_keys_warning
from scene4d.data.dataparsers.transforms import (
    TransformsFile,
    bounds_of,
    frames_of,
    points_of,
    read_transforms,
    source_from_scene,
    time_hints,
)
from scene4d.data.scene import Scene
from scene4d.data.split import every_nth
from scene4d.files import is_regular_file

LOOKS_FOR = "a transforms_train.json"


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a transforms_train.json."""
    if root.is_file():
        return root.name.lower() == "transforms_train.json"
    return is_regular_file(_path(root, "train"))


def _path(folder: Path, split: str) -> Path:
    return find_entry(folder, f"transforms_{split}.json")


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: train frames first, then the test frames (``val`` if no ``test``)."""
    folder = root.parent if root.is_file() else root
    files = CaptureFiles(folder)
    held_out = next(
        (name for name in ("test", "val") if is_regular_file(_path(folder, name))), None
    )
    given = [_read(folder, name, files) for name in ("train", held_out) if name is not None]
    entries = [entry for file in given for entry in file.entries]
    times_for_all([entry.get("time") for entry in entries], folder)
    frames = [frames_of(file, range(len(file.entries))) for file in given]
    scene = Scene(
        root=folder,
        dataparser="blender",
        frames=[frame for part in frames for frame in part],
        train_indices=range(len(frames[0])),
        test_indices=range(len(frames[0]), sum(map(len, frames))),
        split_rule=f"given by the capture (transforms_{held_out}.json)",
        points=points_of(given[0]),
        bounds=bounds_of(given[0]),
        background=(1.0, 1.0, 1.0),
        source_from_scene=source_from_scene(given[0]),
        time_hints=time_hints(given[0]),
    )
    files.tell()
    unknown = [unknown_keys(file.meta, file.entries) for file in given]
    if message := unknown_keys_warning(
        *(set().union(*keys) for keys in zip(*unknown, strict=True))
    ):
        warnings.warn(f"{folder}: {message}", stacklevel=2)
    if held_out is not None:
        return scene
    split = every_nth(len(scene.frames), options.test_every)
    return replace(scene, train_indices=split.train, test_indices=split.test, split_rule=split.rule)


def _read(folder: Path, split: str, files: CaptureFiles) -> TransformsFile:
    """The file of one split, without the frames whose pictures are missing."""
    file = read_transforms(_path(folder, split), files, in_order=False)
    there = files.present(file.pictures)
    return replace(
        file,
        entries=[file.entries[i] for i in there],
        pictures=[file.pictures[i] for i in there],
    )
