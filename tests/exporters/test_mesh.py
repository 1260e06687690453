"""Meshes fused from rendered depth, tested on a sphere that is rendered by exact ray casting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError, UsageError
from scene4d.exporters.mesh import export, export_mesh, largest_parts
from scene4d.exporters.options import MeshOptions
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.opened import OpenedScene

trimesh = import_or_skip("trimesh")

RADIUS = 1.0
VOXEL = 0.04


class Sphere(Representation):
    """An opaque sphere around the origin, red where x > 0 and green elsewhere."""

    def __init__(self, radius: float = RADIUS, opacity: float = 1.0) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.opacity = opacity

    def render(
        self, camera: Camera, *, background: Tensor | None = None, want: Want = RGB
    ) -> Render:
        row, column = torch.meshgrid(
            torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
        )
        x = (column - camera.K[0, 2]) / camera.K[0, 0]
        y = (row - camera.K[1, 2]) / camera.K[1, 1]
        # unit depth along the viewing axis, so the ray parameter is the depth
        rays = torch.stack([x, -y, -torch.ones_like(x)], -1) @ camera.c2w[:3, :3].T
        origin = camera.position
        a, b = (rays * rays).sum(-1), (rays @ origin)
        c = origin @ origin - self.radius**2
        inside = b * b - a * c
        hit = inside > 0
        z = torch.where(hit, (-b - inside.clamp_min(0).sqrt()) / a, 0.0)
        right = (origin + rays * z[..., None])[..., :1] > 0
        colour = torch.where(right, torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0]))
        alpha = hit.float() * self.opacity
        return Render(rgb=colour * alpha[..., None], alpha=alpha, depth=z if want.depth else None)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(name="radius", parameters=[self.radius], learning_rate=0.0)]

    def plain_data(self) -> Mapping[str, Any]:
        return {"opacity": self.opacity}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Sphere:
        return cls(float(tensors["radius"]), plain["opacity"])


def camera_at(position: list[float]) -> Camera:
    """Looks at the origin; 160 pixels wide, about 60 degrees."""
    centre = torch.tensor(position, dtype=torch.float32)
    back = centre / centre.norm()
    up = torch.tensor([0.0, 0, 1]) if abs(back[2]) < 0.9 else torch.tensor([0.0, 1, 0])
    right = torch.linalg.cross(up, back)
    right = right / right.norm()
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
    c2w[:3, 3] = centre
    K = torch.tensor([[140.0, 0, 80], [0, 140, 60], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=160, height=120)


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    around = [[3.5 * np.cos(a), 3.5 * np.sin(a), 0.3] for a in np.arange(8) * np.pi / 4]
    return [camera_at(p) for p in [*around, [0.0, 0, 3.5], [0.0, 0, -3.5]]]


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_the_sphere_comes_out_with_its_radius_and_colours(
    tmp_path: Path, cameras: list[Camera], suffix: str
) -> None:
    path = tmp_path / f"ball{suffix}"
    summary = export_mesh(Sphere(), cameras, path, options=MeshOptions(voxel=VOXEL))
    mesh = trimesh.load(path, force="mesh", process=False)
    assert (len(mesh.vertices), len(mesh.faces)) == (summary.num_vertices, summary.num_triangles)
    assert abs(radii(mesh) - RADIUS).max() < VOXEL
    assert abs(radii(mesh).mean() - RADIUS) < VOXEL / 5  # no half-pixel or half-voxel shift
    assert abs(mesh.vertices.mean(axis=0)).max() < VOXEL / 2
    assert (mesh.face_normals * mesh.triangles_center).sum(axis=1).min() > 0  # turned outwards
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(float)
    x = mesh.vertices[:, 0] * (-1 if suffix == ".glb" else 1)  # half a turn about z, y up
    right = x > 2 * VOXEL
    left = x < -2 * VOXEL
    green = 255 * ((0.5 + 0.055) / 1.055) ** 2.4 if suffix == ".glb" else 127.5
    np.testing.assert_allclose(colours[right].mean(axis=0), (255, 0, 0), atol=1)  # one 8-bit step
    np.testing.assert_allclose(colours[left].mean(axis=0), (0, green, 0), atol=1)


def radii(mesh: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(mesh.vertices), axis=1)


def test_the_mesh_lies_in_the_inputs_frame(tmp_path: Path, cameras: list[Camera]) -> None:
    similarity = torch.eye(4)
    similarity[:3, :3] = 2 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    similarity[:3, 3] = torch.tensor([10.0, 20, 30])
    for name, matrix, scale in (("here", None, 1), ("there", similarity, 2)):
        options = MeshOptions(voxel=scale * VOXEL)  # in the input's unit
        path = tmp_path / f"{name}.ply"
        export_mesh(Sphere(), cameras, path, options=options, source_from_scene=matrix)
    here, there = (
        np.asarray(trimesh.load(tmp_path / f"{n}.ply", process=False).vertices)
        for n in ("here", "there")
    )
    expected = here @ similarity[:3, :3].numpy().T + similarity[:3, 3].numpy()
    np.testing.assert_allclose(there, expected, atol=1e-5)  # float32 of values up to 32


def test_defaults_follow_the_depth(tmp_path: Path, cameras: list[Camera]) -> None:
    small = [
        c.with_pose(torch.cat([c.c2w[:, :3], c.c2w[:, 3:] * c.c2w.new_tensor(
            [[0.01], [0.01], [0.01], [1.0]])], dim=1))
        for c in cameras
    ]  # fmt: skip
    summary = export_mesh(Sphere(0.01), small, tmp_path / "a.ply")
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert 0.00005 < summary.voxel < 0.0005
    assert abs(radii(mesh) - 0.01).max() < 2 * summary.voxel


def test_half_transparent_surfaces_keep_their_colour(tmp_path: Path, cameras: list[Camera]) -> None:
    export_mesh(Sphere(opacity=0.6), cameras, tmp_path / "a.ply", options=MeshOptions(voxel=VOXEL))
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.asarray(mesh.visual.vertex_colors)[:, 0].max() >= 254


def test_nothing_opaque_is_an_error_that_leaves_an_earlier_file(
    tmp_path: Path, cameras: list[Camera]
) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(b"earlier")
    with pytest.raises(DataError, match="no opaque surface"):
        export_mesh(Sphere(opacity=0.4), cameras, path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path, cameras: list[Camera]) -> None:
    for name in ("a", "b"):
        options = MeshOptions(voxel=VOXEL, max_cameras=4)
        export_mesh(Sphere(), cameras, tmp_path / f"{name}.ply", options=options)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_small_parts_are_dropped() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    speck = trimesh.creation.box(extents=(0.1, 0.1, 0.1))
    speck.apply_translation([5, 0, 0])
    both = trimesh.util.concatenate([ball, speck])
    colours = np.zeros((len(both.vertices), 3))
    vertices, _, triangles, dropped = largest_parts(both.vertices, colours, both.faces, 0.05)
    assert (len(vertices), len(triangles), dropped) == (len(ball.vertices), len(ball.faces), 1)
    assert vertices[:, 0].max() <= 1.0
    assert largest_parts(both.vertices, colours, both.faces, 0.0)[3] == 0


def test_wrong_use_is_told(tmp_path: Path, cameras: list[Camera]) -> None:
    with pytest.raises(UsageError, match="stl"):
        export_mesh(Sphere(), cameras, tmp_path / "a.stl")
    with pytest.raises(UsageError, match="--voxel"):
        MeshOptions(voxel=0.0)
    floats = {"means": (1, 3), "quats": (1, 4), "log_scales": (1, 3), "logit_opacities": (1,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in floats.items()}
    splats = SplatCloud(**arrays, sh=np.ones((1, 1, 3), np.float32))
    with pytest.raises(UsageError, match="run folder"):
        export(
            OpenedScene(path=tmp_path / "a.ply", representation=GaussianSplats.of(splats)),
            tmp_path / "b.glb",
        )
    with pytest.raises(UsageError, match="Sphere"):
        OpenedScene(path=tmp_path, representation=Sphere()).cloud()
