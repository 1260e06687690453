"""A trained scene's splats in any format."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from scene4d.bundle.ply_cameras import PLY, camera_comments
from scene4d.bundle.scene_info import CameraView
from scene4d.errors import UsageError
from scene4d.exporters.bundle import camera_view, views_of_file
from scene4d.formats.placing import FrameChoice
from scene4d.formats.registry import (
    describe_written,
    format_by_suffix,
    format_named,
    write_splats,
)
from scene4d.training.opened import OpenedScene


def _export(
    source: OpenedScene,
    path: Path,
    options: object = None,
    *,
    name: str,
    frame: FrameChoice = "auto",
) -> str:
    """Writes the splats of ``source`` in the input's frame; returns a line that describes them.

    A PLY file says where a capture was seen from, unless it is moved from there.
    """
    del options  # there are none
    form, path = format_named(name), Path(path)
    by_name = format_by_suffix(path)
    if by_name is None or by_name.name != name:
        raise UsageError(
            f"splats in the format {name} are written as {form.suffixes[0]}",
            where=path,
            fix=f"name the file SOMETHING{form.suffixes[0]}",
        )
    cloud = source.cloud()
    more: dict[str, Any] = {}
    if name in PLY and not cloud.far and frame != "local":
        more = {"comments": camera_comments(_views(source))}
    write_splats(path, cloud, name=name, frame=frame, **more)
    return describe_written(path, cloud, form)


def _views(source: OpenedScene) -> list[CameraView]:
    """The cameras that photographs were taken with, in the input's frame, or those that the file
    names."""
    cameras = source.cameras
    if not cameras.photographed:
        return []
    if not cameras.train:
        return list(views_of_file(source))
    names = cameras.train_names or [f"camera {i}" for i in range(len(cameras.train))]
    return [
        camera_view(name, camera.moved(source.source_from_scene))
        for name, camera in zip(names, cameras.train, strict=True)
    ]


export_ply = partial(_export, name="ply")
export_compressed_ply = partial(_export, name="compressed-ply")
export_splat = partial(_export, name="splat")
export_spz = partial(_export, name="spz")
export_sog = partial(_export, name="sog")
export_glb = partial(_export, name="glb")
