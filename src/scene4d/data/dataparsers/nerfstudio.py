"""nerfstudio's ``transforms.json``: one file with cameras, images and optional extras.

Also reads instant-ngp's files of the same name. Format: docs.nerf.studio, "data conventions".
The frame of the file is kept: nothing is centred or scaled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scene4d.cameras.distortion import Distortion
from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.lenses import (
    existing_image,
    finite_number,
    make_camera,
    pose_matrix,
    times_for_all,
)
from scene4d.data.image_files import image_size
from scene4d.data.points import read_points
from scene4d.data.scene import Frame, Points, Scene
from scene4d.data.split import Split, every_nth
from scene4d.errors import DataError
from scene4d.files import path_inside, read_json

LOOKS_FOR = "a transforms.json"

_PINHOLE_MODELS = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "PERSPECTIVE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
)
"""As in nerfstudio, these differ in name only: whatever coefficients are given apply."""
_FISHEYE_MODELS = ("OPENCV_FISHEYE", "FISHEYE")
_OPENCV_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")

_FrameMeta = Mapping[str, Any]


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a transforms.json."""
    if root.is_file():
        return root.suffix == ".json" and not _is_blender_name(root)
    return (root / "transforms.json").is_file()


def _is_blender_name(path: Path) -> bool:
    return path.name in ("transforms_train.json", "transforms_test.json", "transforms_val.json")


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: a folder with a transforms.json, or that file itself."""
    json_path = root if root.is_file() else root / "transforms.json"
    folder = json_path.parent
    meta = read_json(json_path)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise DataError("has no list of 'frames'", where=json_path)
    frame_metas = [_checked_frame(entry, json_path) for entry in meta["frames"]]
    frame_metas.sort(key=lambda entry: entry["file_path"])
    times_for_all([entry.get("time") for entry in frame_metas], json_path)
    frames = [_frame(folder, json_path, meta, entry) for entry in frame_metas]
    split = _split(meta, frame_metas, options, json_path)
    return Scene(
        root=folder,
        dataparser="nerfstudio",
        frames=frames,
        train_indices=split.train,
        test_indices=split.test,
        split_rule=split.rule,
        points=_points(folder, json_path, meta),
        bounds=_bounds(meta, frame_metas, json_path),
        source_from_scene=_source_from_scene(meta, json_path),
    )


def _checked_frame(entry: Any, json_path: Path) -> _FrameMeta:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise DataError("a frame has no 'file_path'", where=json_path)
    if "transform_matrix" not in entry:
        raise DataError(
            "the frame has no 'transform_matrix'", where=f"{json_path}, frame {entry['file_path']}"
        )
    return entry


def _frame(folder: Path, json_path: Path, meta: _FrameMeta, entry: _FrameMeta) -> Frame:
    where = f"{json_path}, frame {entry['file_path']}"
    image_path = existing_image(path_inside(folder, entry["file_path"], where=where))
    both = {**meta, **entry}
    size = _size(both, image_path, where)
    focal, centre = _intrinsics(both, size, where)
    time = None if "time" not in entry else finite_number(entry["time"], "time", where)
    depth = entry.get("depth_file_path", entry.get("depth_path"))
    unit = both.get("depth_unit_scale_factor", both.get("depth_unit_scale", 0.001))
    return Frame(
        name=image_path.relative_to(folder.resolve()).as_posix(),
        camera=make_camera(
            c2w=pose_matrix(entry["transform_matrix"], where),
            focal=focal,
            centre=centre,
            size=size,
            distortion=_distortion(both, where),
            time=time,
        ),
        image_path=image_path,
        mask_path=_optional_path(folder, entry.get("mask_path"), where),
        depth_path=_optional_path(folder, depth, where),
        depth_unit_m=finite_number(unit, "the depth unit", where),
    )


def _optional_path(folder: Path, value: Any, where: str) -> Path | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"a path should be a text, not {value!r}", where=where)
    return path_inside(folder, value, where=where)


def _size(both: _FrameMeta, image_path: Path, where: str) -> tuple[int, int]:
    """Width and height as stated, else those of the image."""
    if "w" in both and "h" in both:
        width, height = (int(finite_number(both[key], key, where)) for key in ("w", "h"))
        if width < 1 or height < 1:
            raise DataError(f"the image size {width} x {height} is impossible", where=where)
        return width, height
    return image_size(image_path)


def _intrinsics(
    both: _FrameMeta, size: tuple[int, int], where: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and principal point in pixels."""
    focal: list[float] = []
    for axis, key, angle_key in ((0, "fl_x", "camera_angle_x"), (1, "fl_y", "camera_angle_y")):
        if key in both:
            value = finite_number(both[key], key, where)
        elif angle_key in both:
            angle = finite_number(both[angle_key], angle_key, where)
            value = 0.5 * size[axis] / math.tan(0.5 * angle) if angle > 0 else 0.0
        elif focal:
            value = focal[0]
        else:
            raise DataError(
                "neither fl_x nor camera_angle_x is given",
                where=where,
                fix="state the intrinsics for the whole file or for each frame",
            )
        if value <= 0:
            raise DataError(f"{key} should be positive, not {value}", where=where)
        focal.append(value)
    centre = tuple(
        finite_number(both.get(key, size[axis] / 2), key, where)
        for axis, key in enumerate(("cx", "cy"))
    )
    return (focal[0], focal[1]), (centre[0], centre[1])


def _distortion(both: _FrameMeta, where: str) -> Distortion | None:
    model = both.get("camera_model", "OPENCV_FISHEYE" if both.get("is_fisheye") else "OPENCV")
    if model in _FISHEYE_MODELS:
        values = tuple(finite_number(both.get(key, 0.0), key, where) for key in _FISHEYE_KEYS)
        return Distortion("fisheye", values)
    if model not in _PINHOLE_MODELS or both.get("k5") or both.get("k6"):
        raise DataError(
            f"camera model {model!r} is not supported"
            if model not in _PINHOLE_MODELS
            else "the rational lens model (k5, k6) is not supported",
            where=where,
            fix=f"undistort the images, or use {', '.join(_PINHOLE_MODELS + _FISHEYE_MODELS)}",
        )
    values = tuple(finite_number(both.get(key, 0.0), key, where) for key in _OPENCV_KEYS)
    return Distortion("opencv", values) if any(values) else None


def _split(
    meta: _FrameMeta, frames: Sequence[_FrameMeta], options: ParseOptions, json_path: Path
) -> Split:
    """By the file's lists of names where it has them, else every n-th."""
    lists = {name: meta.get(f"{name}_filenames") for name in ("train", "val", "test")}
    if not any(lists.values()):
        return every_nth(len(frames), options.test_every)
    index = {entry["file_path"]: i for i, entry in enumerate(frames)}
    found: dict[str, list[int]] = {}
    for name, names in lists.items():
        if not isinstance(names or [], list):
            raise DataError(f"{name}_filenames is not a list", where=json_path)
        missing = [entry for entry in names or [] if entry not in index]
        if missing:
            raise DataError(
                f"{name}_filenames lists {missing[0]!r}, which no frame has"
                + (f", and {len(missing) - 1} others" if len(missing) > 1 else ""),
                where=json_path,
            )
        found[name] = sorted({index[entry] for entry in names or []})
    held = found["test"] or found["val"]
    train = found["train"] or [i for i in range(len(frames)) if i not in {*held, *found["val"]}]
    which = "test" if found["test"] else "val"
    return Split(train=train, test=held, rule=f"given by the capture ({which}_filenames)")


def _points(folder: Path, json_path: Path, meta: _FrameMeta) -> Points | None:
    path = _optional_path(folder, meta.get("ply_file_path"), f"{json_path}, ply_file_path")
    return None if path is None else read_points(path)


def _bounds(
    meta: _FrameMeta, frames: Sequence[_FrameMeta], json_path: Path
) -> tuple[float, float] | None:
    """The nearest near and the farthest far: of the frames if all have them, else of the file."""
    stated = [entry for entry in frames if "near" in entry and "far" in entry]
    if not stated or len(stated) != len(frames):
        stated = [meta] if "near" in meta and "far" in meta else []
    if not stated:
        return None
    near = min(finite_number(entry["near"], "near", json_path) for entry in stated)
    far = max(finite_number(entry["far"], "far", json_path) for entry in stated)
    if not 0 < near < far:
        raise DataError(f"near {near} and far {far} are not 0 < near < far", where=json_path)
    return near, far


def _source_from_scene(meta: _FrameMeta, json_path: Path) -> torch.Tensor:
    """Undoes ``applied_transform`` (A) and then-applied ``applied_scale`` (s): x = s A x_source."""
    where = f"{json_path}, applied_transform"
    applied = torch.eye(4, dtype=torch.float64)
    if meta.get("applied_transform") is not None:
        applied = pose_matrix(meta["applied_transform"], where)
    scale = finite_number(meta.get("applied_scale", 1.0), "applied_scale", json_path)
    applied = torch.diag(applied.new_tensor([scale, scale, scale, 1.0])) @ applied
    determinant = torch.linalg.det(applied)
    if not torch.isfinite(determinant) or determinant.abs() < 1e-12:
        raise DataError("cannot be inverted", where=where)
    return torch.linalg.inv(applied).float()
