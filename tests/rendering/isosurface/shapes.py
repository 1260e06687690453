"""Signed distances on grids, and what a mesh is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from scene4d.rendering.isosurface.flexicubes import IsoSurface
from scene4d.rendering.mesh.edges import edges_of

LOWER = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64)
UPPER = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)


def on_grid(distance: Callable[[Tensor], Tensor], cells: int) -> Tensor:
    """``distance`` of the corners of ``cells`` cubed cubes between LOWER and UPPER."""
    at = torch.linspace(-1, 1, cells + 1, dtype=torch.float64)
    return distance(torch.stack(torch.meshgrid(at, at, at, indexing="ij"), dim=-1))


def ball(at: Tensor) -> Tensor:
    return (at - at.new_tensor([0.03, -0.05, 0.02])).norm(dim=-1) - 0.7


def torus(at: Tensor) -> Tensor:
    ring = at[..., :2].norm(dim=-1) - 0.6
    return (ring.square() + at[..., 2].square()).sqrt() - 0.25


def noise(cells: int, seed: int) -> Tensor:
    """Every sign by chance, and outside all around."""
    values = torch.rand(3 * (cells + 1,), generator=torch.Generator().manual_seed(seed)) - 0.5
    inner = values[1:-1, 1:-1, 1:-1].clone()
    values = values.abs() + 0.01
    values[1:-1, 1:-1, 1:-1] = inner
    return values.double()


def area(surface: IsoSurface) -> Tensor:
    return _crosses(surface)[1].norm(dim=-1).sum() / 2


def volume(surface: IsoSurface) -> Tensor:
    first, cross = _crosses(surface)
    return (first * cross).sum() / 6


def _crosses(surface: IsoSurface) -> tuple[Tensor, Tensor]:
    a, b, c = (surface.vertices[torch.from_numpy(surface.triangles[:, i])] for i in range(3))
    return a, torch.linalg.cross(b - a, c - a)


def euler_number(surface: IsoSurface) -> int:
    edges = len(edges_of(surface.triangles).ends)
    return len(surface.vertices) - edges + len(surface.triangles)


def is_closed_manifold(surface: IsoSurface) -> bool:
    """Each directed edge once and once the other way; the faces of a vertex a single fan."""
    triangles = surface.triangles
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    forward = {tuple(edge) for edge in directed.tolist()}
    if len(forward) < len(directed) or {(b, a) for a, b in forward} != forward:
        return False
    # Corners of a vertex are joined where their triangles share an edge at it.
    at = {}
    for face, (a, b, c) in enumerate(triangles.tolist()):
        at.update({(a, b): 3 * face, (b, c): 3 * face + 1, (c, a): 3 * face + 2})
    joined = []
    for (a, b), corner in at.items():
        across = at[b, a]  # the corner at b, there; the one at a comes next in its triangle
        joined.append((corner, across - across % 3 + (across + 1) % 3))
    rows, columns = np.array(joined).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=2 * (triangles.size,))
    fans, _ = connected_components(graph, directed=False)
    return fans == len(np.unique(triangles)) == len(surface.vertices)
