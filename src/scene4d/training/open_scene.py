"""The one door to trained scenes: a run, a file or a bundle becomes an OpenedScene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from scene4d.bundle.container import Bundle, open_bundle
from scene4d.bundle.kinds import bundle_kinds, kind_of
from scene4d.bundle.scene_info import FACING, MADE_UP
from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.packing import checked
from scene4d.formats.placing import cloud_offset, placed_points, read_sidecar
from scene4d.formats.registry import format_by_content, is_splats, read_splats
from scene4d.formats.splat_cloud import SplatCloud, inverse_similarity, is_far
from scene4d.formats.textured_gltf import holds_mesh, read_textured_mesh
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.device import choose_device
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.run import load_run


def open_scene(path: Path, *, device: str = "cpu", drop_invalid: bool = False) -> OpenedScene:
    """The run, splat file, GLB of a mesh or bundle (file or folder) at ``path``, on ``device``.

    A run comes as the :class:`LoadedRun` that it is. What files hold far from the origin is moved
    there, with the way back. ``drop_invalid``: without splats that nothing can draw,
    which are counted in the log. Raises :class:`DataError` where there is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("not found", where=path)
    if is_bundle(path):
        opened = scene_of_bundle(open_bundle(path))
    elif holds_mesh(path):
        opened = scene_of_mesh(path)
    elif is_splats(path):
        opened = scene_of_cloud(path, read_splats(path, drop_invalid=drop_invalid))
    else:
        if path.is_file() and path.name != "config.toml":
            raise DataError(
                "is neither a splat file nor a run folder",
                where=path,
                fix="docs/formats.md lists the formats",
            )
        run = load_run(path, device=str(choose_device(device)))
        return without_invalid(run) if drop_invalid else run
    if device != "cpu":
        opened.representation.to(choose_device(device))
    return opened


def is_bundle(path: Path) -> bool:
    """Whether a file or folder is a bundle, by its first bytes."""
    form = format_by_content(path) if path.is_file() or path.is_dir() else None
    return form is not None and form.name == "s4d"


def scene_of_cloud(path: Path, cloud: SplatCloud) -> OpenedScene:
    """The splats of the file ``path``; those far from the origin are moved there."""
    home = np.eye(4)
    if is_far(cloud.means, cloud.log_scales):
        home = cloud_offset(cloud)
        cloud = cloud.transformed(inverse_similarity(home))
    return OpenedScene(
        path=path,
        representation=GaussianSplats.of(cloud),
        cameras=SceneCameras(source_from_scene=torch.from_numpy(home)),
    )


def scene_of_mesh(path: Path) -> OpenedScene:
    """The textured mesh of a GLB, in the axes and the frame of splat files."""
    source_from_file = read_sidecar(path)
    mesh = read_textured_mesh(path).transformed(GLTF_FROM_SOURCE)
    if source_from_file is not None:
        mesh = mesh.transformed(source_from_file)
    near, moved, _ = placed_points(mesh.vertices, path, "auto", moves=True)
    home = np.eye(4)
    home[:3, 3] = moved
    found = (kind.of_mesh(replace(mesh, vertices=near)) for kind in bundle_kinds().values())
    representation = next((shown for shown in found if shown is not None), None)
    if representation is None:
        raise DataError("is a mesh, and nothing that is installed draws one", where=path)
    return OpenedScene(
        path=path,
        representation=representation,
        cameras=SceneCameras(source_from_scene=torch.from_numpy(home)),
    )


def scene_of_bundle(bundle: Bundle) -> OpenedScene:
    """What a bundle holds, in bundle coordinates, with the cameras that somebody stood at."""
    manifest = bundle.manifest
    first, *rest = manifest["cameras"]
    made_up = first["name"] in (MADE_UP, FACING)
    views = rest if made_up else manifest["cameras"]
    return OpenedScene(
        path=bundle.path,
        representation=kind_of(bundle).open(bundle),
        cameras=SceneCameras(
            train=[_camera(view) for view in views],
            train_names=[view["name"] for view in views],
            start=_camera(first) if made_up else None,
            source_from_scene=torch.tensor(manifest["transform"], dtype=torch.float64),
            photographed=not made_up,
        ),
    )


def _camera(view: dict) -> Camera:  # type: ignore[type-arg]
    intrinsics = [[view["fx"], 0, view["cx"]], [0, view["fy"], view["cy"]], [0, 0, 1]]
    time = view.get("time")
    return Camera(
        c2w=torch.tensor(view["c2w"], dtype=torch.float32),
        K=torch.tensor(intrinsics, dtype=torch.float32),
        width=view["width"],
        height=view["height"],
        time=None if time is None else torch.tensor(time, dtype=torch.float32),
    )


def without_invalid(scene: OpenedScene) -> OpenedScene:
    """Plain splats without those that nothing can draw; other representations as they are."""
    if not isinstance(scene.representation, GaussianSplats):
        return scene
    cloud = checked(scene.scene_cloud(), scene.path, drop_invalid=True)
    return replace(scene, representation=GaussianSplats.of(cloud))
