"""Cameras in a PLY's comments: written, read, and passed over where they make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formats.splat_files import random_cloud

from scene4d.bundle.container import open_bundle
from scene4d.bundle.ply_cameras import MOST, camera_comments, cameras_in_ply
from scene4d.cameras.camera import Camera
from scene4d.cli.main import main
from scene4d.exporters.bundle import export as export_bundle
from scene4d.exporters.splats import export_compressed_ply, export_ply
from scene4d.formats.ply import read_ply, write_ply
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras


def ring(count: int) -> list[Camera]:
    """Cameras around the origin at a distance of 4, with z up."""
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([-np.sin(angle), np.cos(angle), 0.0])
        c2w = np.eye(4)
        c2w[:3] = np.stack([right, [0, 0, 1], back, 4 * back], axis=1)
        K = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
        cameras.append(Camera(c2w=torch.tensor(c2w).float(), K=K, width=64, height=48))
    return cameras


def scene(count: int, *, photographed: bool = True, move: torch.Tensor | None = None):
    cameras = SceneCameras(
        train=ring(count),
        train_names=[f"IMG {i} \n.jpg" for i in range(count)],
        photographed=photographed,
        source_from_scene=torch.eye(4, dtype=torch.float64) if move is None else move,
    )
    representation = GaussianSplats.of(random_cloud(50))
    return OpenedScene(path=Path("run"), representation=representation, cameras=cameras)


@pytest.mark.parametrize("name", ["a.ply", "a.compressed.ply"])
def test_a_run_s_file_says_where_it_was_seen_from_in_its_own_coordinates(name, tmp_path):
    path = tmp_path / name
    # Twice as large, turned by 90 degrees about x, and shifted.
    move = torch.tensor(
        [[2.0, 0, 0, 1], [0, 0, -2, 0], [0, 2, 0, -3], [0, 0, 0, 1]], dtype=torch.float64
    )
    write = export_compressed_ply if "compressed" in name else export_ply
    write(scene(3, move=move), path)
    found = cameras_in_ply(path)
    assert [view.name for view in found] == [f"IMG {i} .jpg" for i in range(3)]
    for view, camera in zip(found, ring(3), strict=True):
        moved = move.numpy() @ camera.c2w.double().numpy()
        moved[:3, :3] /= 2
        # six digits are written
        assert np.allclose(view.c2w, moved, atol=1e-4)
        assert (view.fx, view.cy, view.width, view.height) == (60, 24, 64, 48)


def test_few_cameras_are_named_and_the_header_stays_short(tmp_path):
    export_ply(scene(100), tmp_path / "a.ply")
    found = cameras_in_ply(tmp_path / "a.ply")
    assert len(found) == MOST
    assert (found[0].name, found[-1].name) == ("IMG 0 .jpg", "IMG 99 .jpg")
    # Some programs look for its end in the first 10 kB.
    assert (tmp_path / "a.ply").read_bytes().index(b"end_header") < 10_000


def test_a_bundle_of_the_file_has_its_cameras(tmp_path):
    export_ply(scene(5), tmp_path / "a.ply")
    export_bundle(open_scene(tmp_path / "a.ply"), tmp_path / "a.s4d")
    cameras = open_bundle(tmp_path / "a.s4d").manifest["cameras"]
    assert len(cameras) == 5
    assert np.allclose(cameras[2]["c2w"], ring(5)[2].c2w, atol=1e-4)


def test_converting_hands_them_on_unless_the_splats_move(tmp_path):
    source = str(tmp_path / "a.ply")
    export_ply(scene(5), Path(source))
    for name in ("b.compressed.ply", "b.s4d", "moved.ply"):
        words = ["--scale", "2"] if name == "moved.ply" else []
        assert main(["convert", source, str(tmp_path / name), *words]) == 0
    kept = cameras_in_ply(tmp_path / "b.compressed.ply")
    assert kept == cameras_in_ply(Path(source))
    cameras = open_bundle(tmp_path / "b.s4d").manifest["cameras"]
    assert [camera["name"] for camera in cameras] == [view.name for view in kept]
    assert cameras_in_ply(tmp_path / "moved.ply") == ()


def test_nothing_is_said_where_nobody_took_a_photograph(tmp_path):
    export_ply(scene(5, photographed=False), tmp_path / "a.ply")
    write_ply(tmp_path / "b.ply", random_cloud(50))
    for name in ("a.ply", "b.ply"):
        assert cameras_in_ply(tmp_path / name) == ()


POSE = "1 0 0 0 0 1 0 0 0 0 1 4"


@pytest.mark.parametrize(
    "comment",
    [
        "scene4d camera",
        f"scene4d camera {POSE} 60 60 32 24 64",
        f"scene4d camera {POSE} 60 60 32 24 64 x name",
        f"scene4d camera {POSE} 60 nan 32 24 64 48 name",
        f"scene4d camera {POSE} -60 60 32 24 64 48 name",
        f"scene4d camera {POSE} 60 60 32 24 1e300 48 name",
        f"scene4d camera {POSE.replace('1', '2')} 60 60 32 24 64 48 name",
        f"scene4d views {POSE} 60 60 32 24 64 48 name",
    ],
)
def test_other_comments_are_passed_over(comment, tmp_path):
    good = camera_comments([])  # none
    write_ply(tmp_path / "a.ply", random_cloud(5), comments=[*good, comment])
    assert cameras_in_ply(tmp_path / "a.ply") == ()
    assert len(read_ply(tmp_path / "a.ply")) == 5
