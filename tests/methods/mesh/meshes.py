"""Textured globes, and captures of them, that tests of meshes share."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rendering.mesh.meshes import bumpy, sphere

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene, View
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.representations.task import Task, World


def globe(rings: int = 10, rows: int = 32) -> MeshData:
    """A bumpy globe whose texture goes once around, with a seam and waves of colour."""
    vertices, triangles = sphere(rings)
    z, turn = vertices[:, 2], torch.atan2(vertices[:, 1], vertices[:, 0]) / (2 * math.pi)
    corners = (turn % 1.0)[torch.from_numpy(triangles)].numpy()
    corners = corners + (np.ptp(corners, axis=1, keepdims=True) > 0.5) * (corners < 0.5)
    heights = (torch.arccos(z.clamp(-1, 1)) / math.pi)[torch.from_numpy(triangles)].numpy()
    uv = np.stack([corners / 1.25, heights], axis=-1).reshape(-1, 2)
    v, u = np.mgrid[:rows, : 2 * rows] / rows
    waves = [np.sin(5 * u * math.pi) * np.cos(3 * v), np.cos(4 * v + u), np.sin(7 * v)]
    return MeshData(
        vertices=bumpy(vertices).numpy(),
        triangles=triangles,
        uv=uv,
        uv_triangles=np.arange(len(uv)).reshape(-1, 3),
        texture=(0.5 + 0.35 * np.stack(waves, axis=-1)).astype(np.float32),
    )


def board(x: float, half: float, first: float, cells: int) -> MeshData:
    """A grid of quads across the x axis, strip after strip; its colours are the texture's from
    u = ``first`` on: red waves below 0.5, green ones above."""
    along = np.linspace(-half, half, cells + 1)
    y, z = np.meshgrid(along, along, indexing="ij")
    number = np.arange(y.size).reshape(y.shape)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]
    quads = np.stack([np.stack([a, b, d], -1), np.stack([a, d, c], -1)], axis=2)
    uv = np.stack([first + 0.05 + 0.2 * (y / half + 1), 0.5 * (z / half + 1)], axis=-1)
    rows, columns = np.mgrid[:32, :64]
    waves = 0.5 + 0.3 * np.sin(rows / 2) * np.cos(columns / 3)
    texture = np.zeros((32, 64, 3), np.float32)
    texture[:, :32, 0], texture[:, 32:, 1] = waves[:, :32], waves[:, 32:]
    triangles = quads.reshape(-1, 3)
    return MeshData(
        vertices=np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3),
        triangles=triangles, uv=uv.reshape(-1, 2), uv_triangles=triangles, texture=texture,
    )  # fmt: skip


def joined(first: MeshData, second: MeshData) -> MeshData:
    """Both; they have one texture."""
    count = len(first.vertices)
    return MeshData(
        vertices=np.concatenate([first.vertices, second.vertices]),
        triangles=np.concatenate([first.triangles, count + second.triangles]),
        uv=np.concatenate([first.uv, second.uv]),
        uv_triangles=np.concatenate([first.uv_triangles, count + second.uv_triangles]),
        texture=first.texture,
    )


def camera_on_circle(angle: float, *, size: int = 64, distance: float = 4.0) -> Camera:
    """Looks at the origin from a circle that tilts a little."""
    back = torch.tensor([math.cos(angle), math.sin(angle), 0.4 * math.sin(2 * angle)])
    back = back / back.norm()
    right = torch.linalg.cross(torch.tensor([0.0, 0, 1]), back)
    right = right / right.norm()
    c2w = torch.eye(4)
    c2w[:3] = torch.stack([right, torch.linalg.cross(back, right), back, distance * back], dim=1)
    K = torch.tensor([[1.4 * size, 0, size / 2], [0, 1.4 * size, size / 2], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=size, height=size)


class Photographs:
    """Pictures of a mesh from a circle; ``gains`` are their exposures."""

    def __init__(self, mesh: MeshData, count: int = 12, gains: np.ndarray | None = None) -> None:
        self.cameras = [camera_on_circle(2 * math.pi * i / count) for i in range(count)]
        self.shown = TexturedMesh(mesh)
        self.gains = torch.ones(count) if gains is None else torch.as_tensor(gains).float()

    def camera(self, index: int, downscale: int = 1) -> Camera:
        return self.cameras[index].downscaled(downscale)

    def view(self, index: int, downscale: int = 1) -> View:
        camera = self.camera(index, downscale)
        with torch.no_grad():
            seen = self.shown.render(camera)
        rgb = self.gains[index] * seen.rgb / seen.alpha.clamp_min(1e-6)[..., None]
        return View(index=index, camera=camera, rgb=rgb.clamp(0, 1), alpha=seen.alpha)

    def task(self) -> Task:
        """Of all these pictures."""
        frames = [
            Frame(name=str(i), camera=camera, image_path=Path(f"{i}.png"))
            for i, camera in enumerate(self.cameras)
        ]
        scene = Scene(
            root=Path(), dataparser="none", frames=frames, train_indices=range(len(frames)),
            test_indices=[], split_rule="none", background=(0.0, 0.0, 0.0), pictures=self,
        )  # fmt: skip
        return Task(world=World.of(scene), capture=scene)


def grey(mesh: MeshData) -> MeshData:
    """The mesh before anything is painted on it."""
    return replace(mesh, texture=np.full_like(mesh.texture, 0.5))
