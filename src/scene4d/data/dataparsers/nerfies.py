"""The layout of Nerfies, HyperNeRF and DyCheck: dataset.json, metadata.json, a camera in each JSON.

``camera/ID.json`` holds a world-to-camera ``orientation`` (OpenCV axes), the ``position``, one
focal length with the pixels' aspect ratio, skew, and OpenCV's distortion, for pictures of
``image_size``; those are in ``rgb/1x``, smaller ones in ``rgb/2x`` and so on. Positions are the
input's; ``scene.json`` says how training code moves and scales them, and near and far are of that
scaled world. Time is a number of frames; DyCheck's ``extra.json`` knows the rate. Park et al.,
"Nerfies", 2021 (its README states the format); Gao et al., "Monocular dynamic view synthesis: a
reality check", 2022 (depth, covisible masks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.rays import project
from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.files import CaptureFiles, find_entry
from scene4d.data.dataparsers.lenses import finite_number, make_camera, times_for_all
from scene4d.data.npy_files import read_npy
from scene4d.data.scene import Frame, Points, Scene, TimeHints
from scene4d.data.split import Split, every_nth
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable, read_json
from scene4d.image_files import image_size, open_picture

LOOKS_FOR = "a dataset.json beside a folder 'camera'"
_SCALES = (1, 2, 4, 8, 16)
_TIME_KEYS = ("time_id", "warp_id", "appearance_id")
"""Numbers of frames, the first that is there: a code for the warp is one for each time."""
_COLOURING = 8
"""Training pictures that points get their colours from."""


def recognises(root: Path) -> bool:
    """Whether ``root`` is or holds a dataset.json with cameras beside it."""
    if root.is_file():
        return root.name.lower() == "dataset.json" and find_entry(root.parent, "camera").is_dir()
    return is_regular_file(find_entry(root, "dataset.json")) and find_entry(root, "camera").is_dir()


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: the frames of dataset.json that are trained on or held out."""
    path = root if root.is_file() else find_entry(root, "dataset.json")
    folder, files = path.parent, CaptureFiles(path.parent)
    ids, split = _ids(path, options)
    factor = _stored(folder, "rgb", options.downscale_factor)
    pictures = [files.picture(f"rgb/{factor}x/{name}.png", path) for name in ids]
    there = files.present(pictures)
    place = {index: i for i, index in enumerate(there)}
    metadata, meta_path = _object(folder / "metadata.json"), folder / "metadata.json"
    notes = [_note(metadata, ids[i], meta_path) for i in there]
    times, hints = _times(notes, ids, folder)
    test = {i for i in split.test if i in place}
    frames = [
        _frame(files, ids[i], pictures[i], factor=factor, test=i in test, time=time, note=note)
        for i, time, note in zip(there, times, notes, strict=True)
    ]
    smaller = options.downscale_factor == factor > 1
    scene = Scene(
        root=folder,
        dataparser="nerfies",
        frames=frames,
        train_indices=[place[i] for i in split.train if i in place],
        test_indices=sorted(place[i] for i in test),
        split_rule=split.rule,
        bounds=_bounds(folder / "scene.json"),
        time_hints=hints,
        metadata={"stored_downscale": str(factor)} if smaller else {},
    )
    files.tell()
    return replace(scene, points=_points(folder / "points.npy", scene))


def _object(path: Path) -> Mapping[str, Any]:
    """The JSON object in ``path``; empty where there is no such file."""
    if not is_regular_file(path):
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError("is not a JSON object", where=path)
    return value


def _ids(path: Path, options: ParseOptions) -> tuple[list[str], Split]:
    """The frames' names in order, and which are held out."""
    value = _object(path)
    lists: dict[str, list[str]] = {}
    for key in ("ids", "train_ids", "val_ids"):
        given = value.get(key) or []
        if not isinstance(given, list) or not all(_is_id(name) for name in given):
            raise DataError(f"{key} is not a list of names", where=path)
        lists[key] = list(dict.fromkeys(str(name) for name in given))
    held = lists["val_ids"]
    train = lists["train_ids"] or [name for name in lists["ids"] if name not in set(held)]
    if not train:
        raise DataError("lists no frames: 'train_ids' and 'ids' are empty", where=path)
    if not held:
        split = every_nth(len(train), options.test_every)
        return train, split
    names = list(dict.fromkeys((*train, *held)))
    index = {name: i for i, name in enumerate(names)}
    return names, Split(
        train=[index[name] for name in train],
        test=[index[name] for name in held],
        rule="given by the capture (val_ids)",
    )


def _is_id(name: Any) -> bool:
    return isinstance(name, (str, int)) and not isinstance(name, bool) and name != ""


def _stored(folder: Path, kind: str, wanted: int) -> int:
    """The factor N of the folder ``kind/Nx`` to read: the one wanted, else the largest pictures."""
    for factor in (wanted, *_SCALES):
        if find_entry(find_entry(folder, kind), f"{factor}x").is_dir():
            return factor
    raise DataError("there is no folder of images", where=folder / kind / "1x")


def _note(metadata: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    """What metadata.json says of a frame."""
    note = metadata.get(name, {})
    if not isinstance(note, dict):
        raise DataError("is not an object", where=f"{path}, {printable(name)}")
    return note


def _times(
    notes: Sequence[Mapping[str, Any]], ids: Sequence[str], folder: Path
) -> tuple[list[float | None], TimeHints | None]:
    """Each frame's time in the capture's unit: ``time``, else the number of the frame."""
    path = folder / "metadata.json"
    timed = any("time" in note for note in notes)
    key = "time" if timed else next((k for k in _TIME_KEYS if any(k in n for n in notes)), None)
    if key is None:
        return [None] * len(notes), None
    times = [None if key not in n else finite_number(n[key], key, path) for n in notes]
    times_for_all(times, path)
    extra = _object(folder / "extra.json")
    fps = None if "fps" not in extra else finite_number(extra["fps"], "fps", folder / "extra.json")
    if fps is not None and not 0 < fps < 1e6:
        raise DataError(f"fps should be positive, not {fps:g}", where=folder / "extra.json")
    return times, TimeHints(unit=None if timed else "frames", fps=fps)


def _frame(
    files: CaptureFiles,
    name: str,
    picture: Path,
    *,
    factor: int,
    test: bool,
    time: float | None,
    note: Mapping[str, Any],
) -> Frame:
    camera_file = files.file(f"camera/{name}.json", files.root / "dataset.json")
    value = read_json(camera_file)
    if not isinstance(value, dict):
        raise DataError("is not a camera", where=camera_file)
    taken_by = note.get("camera_id")
    return Frame(
        name=files.name_of(picture),
        camera=_resized(_camera(value, time, camera_file), picture),
        image_path=picture,
        camera_id=str(taken_by) if _is_id(taken_by) else None,
        depth_path=_beside(files, "depth", f"{name}.npy", factor),
        depth_unit_m=1.0,
        covisible_path=_beside(files, "covisible", f"val/{name}.png", factor) if test else None,
    )


def _resized(camera: Camera, picture: Path) -> Camera:
    """The camera at the size of its picture, which may be stored smaller by a whole factor."""
    width, height = image_size(picture)
    if abs(width * camera.height - height * camera.width) > 0.01 * width * camera.height:
        return camera  # not the same shape: refused where all captures are checked
    return camera.resized(width, height)


def _camera(value: Mapping[str, Any], time: float | None, where: Path) -> Camera:
    """The camera of one JSON file, for pictures of its ``image_size``."""
    width, height = (round(x) for x in _numbers(value, "image_size", 2, where))
    if not (1 <= width < 2**20 and 1 <= height < 2**20):
        raise DataError(f"the image size {width} x {height} is impossible", where=where)
    focal = finite_number(value.get("focal_length"), "focal_length", where)
    ratio = finite_number(value.get("pixel_aspect_ratio", 1.0), "pixel_aspect_ratio", where)
    if not (1e-3 < focal < 1e9 and 1e-3 < ratio < 1e3):
        raise DataError(
            f"focal_length {focal:g} or pixel_aspect_ratio {ratio:g} is impossible", where=where
        )
    turn = np.array(_numbers(value, "orientation", 9, where)).reshape(3, 3)
    c2w = np.eye(4)
    c2w[:3, :3] = turn.T * [1.0, -1.0, -1.0]  # OpenCV's axes to OpenGL's
    c2w[:3, 3] = _numbers(value, "position", 3, where)
    old = "tangential" if "tangential" in value else "tangential_distortion"
    radial = _numbers(value, "radial_distortion", 3, where, missing=0.0)
    tangential = _numbers(value, old, 2, where, missing=0.0)
    lens = Distortion("opencv", (radial[0], radial[1], *tangential, radial[2]))
    cx, cy = _numbers(value, "principal_point", 2, where)
    camera = make_camera(
        c2w=torch.from_numpy(c2w),
        focal=(focal, focal * ratio),
        centre=(cx, cy),
        size=(width, height),
        distortion=lens,
        time=time,
    )
    skew = finite_number(value.get("skew", 0.0), "skew", where)
    if skew == 0:
        return camera
    camera.K[0, 1] = skew
    return replace(camera, distortion=lens)  # a picture of slanted pixels is resampled, too


def _numbers(
    value: Mapping[str, Any], key: str, count: int, where: Path, *, missing: float | None = None
) -> list[float]:
    """``count`` finite numbers, nested or not; all ``missing`` where that is given and they are."""
    given = value.get(key)
    if given is None and missing is not None:
        return [missing] * count
    rows = given if isinstance(given, list) else [given]
    flat = [x for row in rows for x in (row if isinstance(row, list) else [row])]
    if len(flat) != count:
        raise DataError(f"{key} should be {count} numbers, not {len(flat)}", where=where)
    return [finite_number(x, key, where) for x in flat]


def _beside(files: CaptureFiles, kind: str, name: str, factor: int) -> Path | None:
    """The map of that kind, of the pictures' size where it is there, or of another."""
    for scale in dict.fromkeys((factor, *_SCALES)):
        path = files.file(f"{kind}/{scale}x/{name}", files.root / "dataset.json")
        if is_regular_file(path):
            return path
    return None


def _bounds(path: Path) -> tuple[float, float] | None:
    """Near and far in the cameras' unit: the file's are of the scaled world."""
    value = _object(path)
    if "near" not in value or "far" not in value:
        return None
    scale = finite_number(value.get("scale", 1.0), "scale", path)
    near, far = (finite_number(value[key], key, path) for key in ("near", "far"))
    if not (0 < near < far < 1e30 and 1e-15 < scale < 1e15):
        raise DataError(
            f"near {near:g} and far {far:g} are not 0 < near < far, or the scale {scale:g} is "
            "impossible",
            where=path,
        )
    return near / scale, far / scale


def _points(path: Path, scene: Scene) -> Points | None:
    """The points of points.npy, in the mean colours of the training pictures that they fall on."""
    if not is_regular_file(path):
        return None
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise DataError(f"has shape {np.shape(rows)}, not (points, 3)", where=path)
    xyz = torch.from_numpy(rows.astype(np.float64))
    xyz = xyz[torch.isfinite(xyz).all(-1)]
    if len(xyz) == 0:
        return None
    total, hits = torch.zeros(len(xyz), 3), torch.zeros(len(xyz), 1)
    step = -(-len(scene.train_indices) // _COLOURING)
    for index in scene.train_indices[::step]:
        frame = scene.frames[index]
        pixels, depth = project(replace(frame.camera, K=frame.camera.K.double()), xyz)
        with open_picture(frame.image_path) as image:
            colours = torch.from_numpy(np.array(image.convert("RGB"))).float()
        size = torch.tensor([colours.shape[1], colours.shape[0]])
        column, row = pixels.clamp(-1, 1e6).floor().long().unbind(-1)
        seen = (depth > 0) & (column >= 0) & (row >= 0) & (column < size[0]) & (row < size[1])
        total[seen] += colours[row[seen], column[seen]]
        hits[seen] += 1
    mean = torch.where(hits > 0, total / hits.clamp_min(1), torch.full_like(total, 128.0))
    return Points(xyz=xyz, rgb=mean.round().to(torch.uint8))
