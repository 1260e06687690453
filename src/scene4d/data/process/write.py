"""The folder that process-data leaves: transforms.json, points, pictures, diagnosis.

Everything is written into a temporary folder beside the target and renamed at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.data.process.depth_files import DEPTH_FOLDER, DepthFiles
from scene4d.data.process.sfm import SfmCamera, SfmModel
from scene4d.errors import DataError, UsageError
from scene4d.files import atomic_folder, read_json, write_json

MASK_FOLDER = "dynamic"
"""Of what moves, beside the pictures."""
_OWN_NAMES = frozenset(
    {"images", MASK_FOLDER, DEPTH_FOLDER, "transforms.json", "sparse_pc.ply", "diagnosis.json"}
)


@contextmanager
def staged_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside ``target`` that takes its place on success.

    On any exception the folder is removed and an earlier ``target`` stays as it was. See
    :func:`check_target` for what is refused before any work is done.
    """
    target = target.absolute()
    check_target(target, overwrite=overwrite)
    with atomic_folder(target) as fresh:
        yield fresh


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuses a target that exists, or that ``overwrite`` would delete foreign files from."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError("is a file, not a folder", where=target, fix="choose another --output-dir")
    names = {path.name for path in target.iterdir()}
    if not names or _is_failure_alone(target, names):
        return
    foreign = sorted(names - _OWN_NAMES)
    if foreign or not {"transforms.json", "diagnosis.json"} <= names:
        raise UsageError(
            "exists and is not the result of an earlier process-data"
            + (f" (it contains {foreign[0]!r})" if foreign else ""),
            where=target,
            fix="choose another --output-dir; nothing of yours is overwritten",
        )
    if not overwrite:
        raise UsageError(
            "holds the result of an earlier process-data",
            where=target,
            fix="choose another --output-dir, or add --overwrite to replace it",
        )


def _is_failure_alone(target: Path, names: Set[str]) -> bool:
    """Whether the folder holds nothing but what a run that failed had to say."""
    if names != {"diagnosis.json"}:
        return False
    try:
        diagnosis = read_json(target / "diagnosis.json")
    except (DataError, OSError):
        return False
    return isinstance(diagnosis, dict) and diagnosis.get("verdict") == "failed"


def write_failure(target: Path, diagnosis: Mapping[str, Any]) -> Path:
    """Writes the diagnosis of a run without poses; returns where.

    Into ``target``, or beside it when an earlier result stands there.
    """
    free = not target.exists() or {p.name for p in target.iterdir()} <= {"diagnosis.json"}
    path = target / "diagnosis.json" if free else target.with_name(f"{target.name}.failed.json")
    write_json(path, diagnosis)
    return path


def transforms_of(
    model: SfmModel,
    times: Mapping[str, float],
    masks: Mapping[str, str] | None = None,
    depths: DepthFiles | None = None,
) -> dict[str, Any]:
    """nerfstudio's transforms.json for ``model``; images lie in ``images/``.

    Camera-to-world with OpenGL axes in COLMAP's own frame; intrinsics at the top level when all
    frames share them, else with each frame. By picture name, ``times``: seconds, ``masks``:
    files in the capture that are white where something moves.
    """
    import torch

    from scene4d.cameras.conventions import c2w_from_viewmat

    shared = len(model.cameras) == 1
    result: dict[str, Any] = {}
    if shared:
        result |= _intrinsics(next(iter(model.cameras.values())))
    if times:
        result["time_unit"] = "seconds"
    if depths:
        result |= depths.facts()
    result["ply_file_path"] = "sparse_pc.ply"
    frames = []
    for image in sorted(model.images, key=lambda image: image.name):
        c2w = c2w_from_viewmat(torch.from_numpy(image.viewmat))
        frame: dict[str, Any] = {"file_path": f"images/{image.name}"}
        if not shared:
            frame |= _intrinsics(model.cameras[image.camera_id])
        if image.name in times:
            frame["time"] = times[image.name]
        if masks and image.name in masks:
            frame["dynamic_mask_path"] = masks[image.name]
        if depths and image.name in depths.names:
            frame["depth_file_path"] = depths.names[image.name]
        frames.append({**frame, "transform_matrix": c2w.tolist()})
    return {**result, "frames": frames}


def _intrinsics(camera: SfmCamera) -> dict[str, Any]:
    return {
        "camera_model": camera.model,
        "w": camera.width,
        "h": camera.height,
        **camera.params,
    }


def write_points(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """A binary PLY of coloured points: float32 ``xyz`` [N, 3], uint8 ``rgb`` [N, 3]."""
    kinds = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    rows = np.empty(len(xyz), dtype=kinds)
    for i, axis in enumerate("xyz"):
        rows[axis] = xyz[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        rows[channel] = rgb[:, i]
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    text = "\n".join([*header, *properties, "end_header"]) + "\n"
    path.write_bytes(text.encode("ascii") + rows.tobytes())
