"""Marching cubes on distances whose surface is known, and on noise, which meets every case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trimesh
from scipy.ndimage import gaussian_filter

from scene4d.data.marching_cubes import BLOCK, case_table, surface_points, triangles


def mesh_of(
    function: Callable[[np.ndarray], np.ndarray], reach: int = 2, seen: float = np.inf
) -> trimesh.Trimesh:
    """Of ``function`` [..., 3] -> [...] on blocks around the origin; ``seen``: the largest x."""
    corner = np.arange(-reach, reach)
    coords = np.stack(np.meshgrid(corner, corner, corner, indexing="ij"), -1).reshape(-1, 3)
    inner = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), axis=-1)
    grid = coords[:, None, None, None] * BLOCK + inner
    distance = function(grid).astype(np.float32)
    observed = grid[..., 0] <= seen
    colour = np.repeat((grid[..., :1] / (2.0 * reach * BLOCK) + 0.5), 3, -1).astype(np.float32)
    positions, colours, ids = surface_points(coords, distance, colour, observed)
    faces = triangles(coords, distance, observed, ids)
    expected = positions[:, 0] / (2.0 * reach * BLOCK) + 0.5
    np.testing.assert_allclose(colours[:, 0], expected, atol=1e-5)  # linear along an edge
    return trimesh.Trimesh(positions, faces, process=False)


def test_a_sphere_has_its_area_and_volume_and_no_holes() -> None:
    centre, radius = np.array([0.3, -0.2, 0.1]), 20.0
    mesh = mesh_of(lambda grid: np.linalg.norm(grid - centre, axis=-1) - radius)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    # chords of a voxel in a circle of 20: short by (1/20)^2 / 2 at most; outwards, so positive
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=2.5e-3)
    assert mesh.area == pytest.approx(4 * np.pi * radius**2, rel=2.5e-3)
    off = np.linalg.norm(mesh.vertices - centre, axis=1) - radius
    assert abs(off).max() < 0.01  # a distance is all but linear within a voxel


def test_noise_meets_every_case_and_leaves_no_hole() -> None:
    side = 4 * BLOCK
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(side,) * 3), 0.5)
    for axis in range(3):
        edge = np.moveaxis(noise, axis, 0)
        edge[0] = edge[-1] = 1.0
    signs = (noise < 0).astype(int)
    corners = [signs[i & 1 :, i >> 1 & 1 :, i >> 2 :] for i in range(8)]
    cases = sum(c[: side - 1, : side - 1, : side - 1] << i for i, c in enumerate(corners))
    assert len(np.unique(cases)) == 256
    mesh = mesh_of(lambda grid: noise[tuple(np.moveaxis(grid + 2 * BLOCK, -1, 0))])
    edges = np.sort(mesh.edges, axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses % 2 == 0).all()  # two triangles at each edge; four where two MPI planes touch
    assert mesh.is_winding_consistent
    assert mesh.area_faces.min() > 0


def test_what_was_not_observed_has_no_surface() -> None:
    mesh = mesh_of(lambda grid: grid[..., 2] - 0.4, seen=3)
    used = mesh.vertices[np.unique(mesh.faces)]
    assert used[:, 0].max() == 3
    np.testing.assert_allclose(used[:, 2], 0.4, atol=1e-6)
    assert (mesh.face_normals[:, 2] > 0.999).all()
    assert mesh.area == pytest.approx(35 * 63)  # voxels from -32 to 3, and to 31


def test_a_surface_through_the_corners_is_kept() -> None:
    mesh = mesh_of(lambda grid: grid[..., 2].astype(float))
    np.testing.assert_allclose(mesh.vertices[:, 2], 0.0, atol=2e-3)
    assert mesh.area == pytest.approx(63 * 63, rel=1e-5)
    assert mesh.area_faces.min() > 0


def test_the_table_is_symmetric_under_turning_inside_out() -> None:
    table = case_table()
    assert (table[[0, 255]] == -1).all()
    counts = (table >= 0).sum(axis=1)
    assert counts.max() == 15 and (counts % 3 == 0).all()
