"""The NeRF-synthetic layout: transforms_train.json and transforms_test.json, RGBA images.

D-NeRF's captures are the same with a ``time`` per frame. The benchmark composites on white.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.lenses import (
    existing_image,
    finite_number,
    make_camera,
    pose_matrix,
    times_for_all,
)
from scene4d.data.image_files import image_size
from scene4d.data.scene import Frame, Scene
from scene4d.data.split import every_nth
from scene4d.errors import DataError
from scene4d.files import path_inside, read_json

LOOKS_FOR = "a transforms_train.json"


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a transforms_train.json."""
    if root.is_file():
        return root.name == "transforms_train.json"
    return (root / "transforms_train.json").is_file()


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: train frames first, then the test frames (``val`` if no ``test``)."""
    folder = root.parent if root.is_file() else root
    train = _frames(folder, folder / "transforms_train.json")
    held_out = next(
        (name for name in ("test", "val") if (folder / f"transforms_{name}.json").is_file()), None
    )
    test = [] if held_out is None else _frames(folder, folder / f"transforms_{held_out}.json")
    frames = [*train, *test]
    times_for_all([None if f.camera.time is None else 0.0 for f in frames], folder)
    if held_out is None:
        split = every_nth(len(train), options.test_every)
        train_indices, test_indices, rule = split.train, split.test, split.rule
    else:
        train_indices = range(len(train))
        test_indices = range(len(train), len(frames))
        rule = f"given by the capture (transforms_{held_out}.json)"
    return Scene(
        root=folder,
        dataparser="blender",
        frames=frames,
        train_indices=train_indices,
        test_indices=test_indices,
        split_rule=rule,
        background=(1.0, 1.0, 1.0),
    )


def _frames(folder: Path, json_path: Path) -> list[Frame]:
    meta = read_json(json_path)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise DataError("has no list of 'frames'", where=json_path)
    return [_frame(folder, json_path, meta, entry) for entry in meta["frames"]]


def _frame(folder: Path, json_path: Path, meta: dict[str, Any], entry: Any) -> Frame:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise DataError("a frame has no 'file_path'", where=json_path)
    where = f"{json_path}, frame {entry['file_path']}"
    image_path = existing_image(path_inside(folder, entry["file_path"], where=where))
    size = image_size(image_path)
    angle = finite_number(
        entry.get("camera_angle_x", meta.get("camera_angle_x")), "camera_angle_x", where
    )
    if not 0 < angle < math.pi:
        raise DataError(f"camera_angle_x should be between 0 and pi, not {angle}", where=where)
    focal = 0.5 * size[0] / math.tan(0.5 * angle)
    return Frame(
        name=image_path.relative_to(folder.resolve()).as_posix(),
        camera=make_camera(
            c2w=pose_matrix(entry.get("transform_matrix"), where),
            focal=(focal, focal),
            centre=(size[0] / 2, size[1] / 2),
            size=size,
            time=finite_number(entry["time"], "time", where) if "time" in entry else None,
        ),
        image_path=image_path,
    )
