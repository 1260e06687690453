"""Small meshes and cameras that the rasteriser's tests share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scene4d.rendering.mesh.rasterization import Atlas, Mesh


def sphere(rings: int, radius: float = 1.0) -> tuple[Tensor, np.ndarray]:
    """Vertices [V, 3] float64 and outward triangles [about 4 rings^2, 3] of a globe."""
    around = 2 * rings
    polar = torch.linspace(0, torch.pi, rings + 1, dtype=torch.float64)[1:-1, None]
    turn = 2 * torch.pi * torch.arange(around, dtype=torch.float64)[None] / around
    grid = torch.stack(
        [polar.sin() * turn.cos(), polar.sin() * turn.sin(), polar.cos().expand(-1, around)], -1
    )
    poles = torch.tensor([[0.0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    vertices = radius * torch.cat([grid.reshape(-1, 3), poles])
    north, south = len(vertices) - 2, len(vertices) - 1
    here = np.arange((rings - 1) * around).reshape(rings - 1, around)
    beside = np.roll(here, -1, axis=1)
    a, b, c, d = here[:-1].ravel(), beside[:-1].ravel(), here[1:].ravel(), beside[1:].ravel()
    top = [np.full(around, north), here[0], beside[0]]
    bottom = [np.full(around, south), beside[-1], here[-1]]
    parts = [[a, c, b], [b, c, d], top, bottom]
    triangles = np.concatenate([np.stack(part, axis=1) for part in parts])
    return vertices, triangles.astype(np.int64)


def bumpy(vertices: Tensor) -> Tensor:
    """A globe with hills and valleys."""
    x, y, z = (5 * vertices).unbind(-1)
    return vertices * (1 + 0.08 * (x.sin() * y.cos() + (1.3 * z + 1).sin()))[:, None]


def two_spheres(rings: int) -> tuple[Tensor, np.ndarray, Tensor]:
    """Vertices, triangles and colours of two bumpy globes, one before the other; the colours are
    smooth within each, so that pictures change where its outline is."""
    globe, triangles = sphere(rings)
    first = bumpy(globe) + globe.new_tensor([0.45, 0.1, -1.0])
    second = 0.9 * bumpy(globe.flip(-1)) + globe.new_tensor([-0.45, -0.2, 1.0])
    colours = torch.cat([0.75 + 0.1 * globe, 0.3 + 0.1 * globe.flip(-1)])
    both = np.concatenate([triangles, triangles[:, ::-1] + len(globe)])
    return torch.cat([first, second]), np.ascontiguousarray(both), colours


def looking_at_origin(size: int, *, distance: float = 5.0, focal: float = 1.5):
    """``viewmat`` and ``K`` of a picture of ``size`` x ``size``, float64; focal in widths."""
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[2, 3] = distance
    K = torch.tensor(
        [[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1]], dtype=torch.float64
    )
    return viewmat, K


def square(texture: Tensor, *, z: float = 0.0, half: float = 1.0) -> Mesh:
    """A textured square that fills x and y from -half to half; texture row 0 at y = -half."""
    ends = [[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]
    triangles = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int64)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    return Mesh(
        vertices=torch.tensor(ends),
        triangles=triangles,
        atlas=Atlas(uv=uv, triangles=triangles, texture=texture),
    )
