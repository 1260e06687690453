"""What nerfstudio's transforms.json and the NeRF-synthetic transforms_train.json have in common.

Also instant-ngp's files of these names. Format: docs.nerf.studio, "data conventions", and
docs/captures.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scene4d.data.dataparsers.files import CaptureFiles
from scene4d.data.dataparsers.lenses import finite_number, make_camera, pose_matrix
from scene4d.data.dataparsers.transform_lens import (
    crop_radius_of,
    distortion_of,
    image_size_of,
    intrinsics_of,
)
from scene4d.data.points import read_points
from scene4d.data.scene import Frame, Points, TimeHints
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable, read_json

_MILLIMETRE = 0.001


@dataclass(frozen=True, kw_only=True)
class TransformsFile:
    """One file: what it says for all frames, and its frames in the order of their names."""

    path: Path
    meta: Mapping[str, Any]
    entries: Sequence[Mapping[str, Any]]
    pictures: Sequence[Path]
    """Where each entry's picture is, or would be."""
    files: CaptureFiles


def read_transforms(path: Path, files: CaptureFiles, *, in_order: bool = True) -> TransformsFile:
    """The file at ``path`` with its pictures looked for, none opened. Raises DataError."""
    meta = read_json(path)
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
        raise DataError("has no list of 'frames'", where=path)
    entries = [_checked(entry, path) for entry in meta["frames"]]
    if in_order:
        entries.sort(key=lambda entry: entry["file_path"])
    pictures = [files.picture(e["file_path"], where_of(path, e)) for e in entries]
    return TransformsFile(path=path, meta=meta, entries=entries, pictures=pictures, files=files)


def _checked(entry: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise DataError("a frame has no 'file_path'", where=path)
    if "transform_matrix" not in entry:
        raise DataError(
            "the frame has no 'transform_matrix'",
            where=where_of(path, entry),
            fix="where poses are not known, scene4d process-data images estimates them",
        )
    return entry


def where_of(path: Path, entry: Mapping[str, Any]) -> str:
    """The frame, for messages."""
    return f"{path}, frame {printable(entry['file_path'])}"


def frames_of(file: TransformsFile, wanted: Sequence[int]) -> list[Frame]:
    """The frames at the indices ``wanted``, whose pictures are there."""
    return [_frame(file, file.entries[i], file.pictures[i]) for i in wanted]


def _frame(file: TransformsFile, entry: Mapping[str, Any], image_path: Path) -> Frame:
    where, meta = where_of(file.path, entry), file.meta
    size = image_size_of(meta, entry, image_path, where)
    focal, centre = intrinsics_of(meta, entry, size, where)
    distortion = distortion_of(meta, entry, where)
    mask = optional_path(file, entry.get("mask_path"), where)
    to_ignore = None if mask is not None else _dynamic_mask(image_path)
    depth = entry.get("depth_file_path") or entry.get("depth_path")
    return Frame(
        name=file.files.name_of(image_path),
        camera=make_camera(
            c2w=pose_matrix(entry["transform_matrix"], where),
            focal=focal,
            centre=centre,
            size=size,
            distortion=distortion,
            time=_time(entry, where),
        ),
        weight=_weight(entry, where),
        camera_id=_camera_id(entry),
        image_path=image_path,
        mask_path=mask or to_ignore,
        mask_ignores=to_ignore is not None,
        crop_radius=crop_radius_of(meta, entry, distortion, where),
        depth_path=optional_path(file, depth, where),
        depth_unit_m=_depth_unit({**meta, **entry}, where),
        depth_estimated=_depth_estimated({**meta, **entry}, where),
        covisible_path=optional_path(file, entry.get("covisible_mask_path"), where),
        moving_path=optional_path(file, entry.get("dynamic_mask_path"), where),
    )


def _time(entry: Mapping[str, Any], where: str) -> float | None:
    time = None if entry.get("time") is None else finite_number(entry["time"], "time", where)
    if time is not None and abs(time) > 1e30:
        raise DataError(f"the time {time:g} is impossible", where=where)
    return time


def _weight(entry: Mapping[str, Any], where: str) -> float:
    weight = finite_number(entry.get("weight", 1.0), "the weight", where)
    if not 0 <= weight <= 1e6:
        raise DataError(f"the weight should be 0 to 1e6, not {weight:g}", where=where)
    return weight


def _camera_id(entry: Mapping[str, Any]) -> str | None:
    """The camera that took the picture, by the first key that says so."""
    for key in ("camera", "camera_id", "camera_name", "camera_label"):
        value = entry.get(key)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
    return None


def time_hints(file: TransformsFile) -> TimeHints:
    """``time_unit``, ``fps`` and ``duration_s`` of the file, which say what its times are."""
    unit = file.meta.get("time_unit")
    if unit is not None and not isinstance(unit, str):
        raise DataError(f"time_unit should be a text, not {printable(repr(unit))}", where=file.path)
    return TimeHints(
        unit=unit or None, fps=_said(file, "fps"), duration_s=_said(file, "duration_s")
    )


def _said(file: TransformsFile, key: str) -> float | None:
    """A number of the file, where its times need it."""
    if file.meta.get(key) is None or not any("time" in entry for entry in file.entries):
        return None
    value = finite_number(file.meta[key], key, file.path)
    if not 1e-9 < value < 1e12:
        raise DataError(f"{key} should be positive, not {value:g}", where=file.path)
    return value


def _dynamic_mask(image_path: Path) -> Path | None:
    """instant-ngp's mask beside a picture, bright where there is something to ignore."""
    path = image_path.with_name(f"dynamic_mask_{image_path.stem}.png")
    return path if is_regular_file(path) else None


def _depth_unit(both: Mapping[str, Any], where: str) -> float:
    """Scene units for one step of the stored depth.

    As in nerfstudio, maps are in the unit of the source, so ``applied_scale`` scales them like the
    poses; instant-ngp's ``integer_depth_scale`` is in the unit of the file.
    """
    keys = ("depth_unit_scale_factor", "depth_unit_scale")
    key = next((key for key in keys if both.get(key) is not None), None)
    if key is None and both.get("integer_depth_scale") is not None:
        key, scale = "integer_depth_scale", 1.0
    else:
        scale = applied_scale(both, where)
    unit = (
        _MILLIMETRE if key is None else finite_number(both[key], f"the depth unit, {key},", where)
    )
    if not 0 < unit * scale < 1e30:
        raise DataError(f"the depth unit should be positive, not {unit * scale:g}", where=where)
    return unit * scale


def _depth_estimated(both: Mapping[str, Any], where: str) -> bool:
    """Whether ``depth_kind`` says that depth is a network's guess."""
    kind = both.get("depth_kind")
    if kind not in (None, "measured", "estimated"):
        raise DataError(
            f"depth_kind should be 'measured' or 'estimated', not {printable(repr(kind))}",
            where=where,
        )
    return kind == "estimated"


def applied_scale(both: Mapping[str, Any], where: object) -> float:
    """``applied_scale``: what the source's lengths were multiplied with; 1 where it is not said."""
    stated = both.get("applied_scale")
    scale = 1.0 if stated is None else finite_number(stated, "applied_scale", where)
    if not 1e-15 < scale < 1e15:
        raise DataError(f"applied_scale should be positive, not {scale:g}", where=where)
    return scale


def optional_path(file: TransformsFile, value: Any, where: str) -> Path | None:
    """Where the file called ``value`` is; None for nothing."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"a path should be a text, not {printable(repr(value))}", where=where)
    return file.files.file(value, where)


def points_of(file: TransformsFile) -> Points | None:
    """The points of ``ply_file_path``, already in the file's frame."""
    path = optional_path(file, file.meta.get("ply_file_path"), f"{file.path}, ply_file_path")
    return None if path is None else read_points(path)


def bounds_of(file: TransformsFile) -> tuple[float, float] | None:
    """The nearest near and the farthest far: of the frames if all have them, else of the file."""
    stated = [entry for entry in file.entries if "near" in entry and "far" in entry]
    if not stated or len(stated) != len(file.entries):
        stated = [file.meta] if "near" in file.meta and "far" in file.meta else []
    if not stated:
        return None
    near = min(finite_number(entry["near"], "near", file.path) for entry in stated)
    far = max(finite_number(entry["far"], "far", file.path) for entry in stated)
    if not 0 < near < far < 1e30:
        raise DataError(f"near {near} and far {far} are not 0 < near < far", where=file.path)
    return near, far


def source_from_scene(file: TransformsFile) -> torch.Tensor:
    """Undoes ``applied_transform`` (A) and then-applied ``applied_scale`` (s): x = s A x_source."""
    where = f"{file.path}, applied_transform"
    applied = torch.eye(4, dtype=torch.float64)
    if file.meta.get("applied_transform") is not None:
        applied = pose_matrix(file.meta["applied_transform"], where)
    scale = applied_scale(file.meta, file.path)
    applied = torch.diag(applied.new_tensor([scale, scale, scale, 1.0])) @ applied
    determinant = torch.linalg.det(applied)
    if not torch.isfinite(applied).all() or not 1e-45 < determinant.abs() < 1e45:
        raise DataError("cannot be inverted", where=where)
    if not torch.equal(applied[3], applied.new_tensor([0.0, 0.0, 0.0, 1.0])):
        raise DataError(f"has the last row {applied[3].tolist()}, not 0 0 0 1", where=where)
    return torch.linalg.inv(applied)


def name_key(text: Any) -> str | None:
    """A name in one spelling, to compare the names of lists with those of frames."""
    return os.path.normpath(text.replace("\\", "/")) if isinstance(text, str) and text else None
