"""Surfaces out of sparse blocks of signed distances: marching cubes with shared vertices.

Lorensen and Cline, "Marching cubes", SIGGRAPH 1987, with the cases of ``scene4d.cubes``.
"""

from __future__ import annotations

from functools import cache
from typing import no_type_check

import numpy as np
from numba import njit, prange

from scene4d.cubes import CORNERS, EDGES, loops

BLOCK = 16
"""Voxels along an edge of a block."""
_OPTIONS = {"cache": True, "nogil": True}
_MOST = 5
"""Triangles of a cube."""
_T_MARGIN = 1e-3
"""Of a voxel that a vertex keeps from the grid's corners, so that no triangle has no area."""


@cache
def case_table() -> np.ndarray:
    """[256, 3 * _MOST] edges of the triangles for each set of inside corners; -1 ends a row.

    Triangles are counter-clockwise as seen from outside (positive distance).
    """
    table = np.full((256, 3 * _MOST), -1, dtype=np.int8)
    for case in range(256):
        flat = [
            edge
            for loop in loops(case)
            for k in range(1, len(loop) - 1)
            for edge in (loop[0], loop[k], loop[k + 1])
        ]
        table[case, : len(flat)] = flat
    return table


def surface_points(
    coords: np.ndarray, distance: np.ndarray, colour: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the distance changes sign between observed neighbours along an axis.

    ``coords`` [B, 3] int64 of the blocks in sorted order, ``distance`` [B, 16, 16, 16] (negative
    inside), ``colour`` [B, 16, 16, 16, 3], ``observed`` [B, 16, 16, 16]. Returns positions [N, 3]
    float64 in voxels, colours [N, 3] float32, and ids [B, 16, 16, 16, 3] int64: the row for each
    edge, or -1.
    """
    near = _neighbours(coords)
    ids = np.full((*distance.shape, 3), -1, dtype=np.int64)
    if not len(coords):
        return np.empty((0, 3)), np.empty((0, 3), np.float32), ids
    counts = _mark_edges(near, distance, observed, ids)
    start = np.concatenate([[0], np.cumsum(counts)])
    positions = np.empty((start[-1], 3))
    colours = np.empty((start[-1], 3), dtype=np.float32)
    _place_vertices(coords, near, distance, colour, ids, start, positions, colours)
    return positions, colours, ids


def triangles(
    coords: np.ndarray, distance: np.ndarray, observed: np.ndarray, ids: np.ndarray
) -> np.ndarray:
    """[M, 3] rows of :func:`surface_points` of the triangles in cubes observed at all corners."""
    if not len(coords):
        return np.empty((0, 3), dtype=np.int64)
    near, table = _neighbours(coords), case_table()
    edges = np.array(EDGES, dtype=np.int64)
    counts = np.zeros(len(coords), dtype=np.int64)
    none = np.empty((0, 3), dtype=np.int64)
    _cubes(near, distance, observed, ids, table, edges, counts, none, False)
    start = np.concatenate([[0], np.cumsum(counts)])
    found = np.empty((start[-1], 3), dtype=np.int64)
    _cubes(near, distance, observed, ids, table, edges, start, found, True)
    return found


def _neighbours(coords: np.ndarray) -> np.ndarray:
    """[B, 8] row of the block one further along x (1), y (2), z (4) and their sums, or -1."""
    row = {tuple(c): i for i, c in enumerate(coords.tolist())}
    steps = [tuple(corner) for corner in CORNERS.tolist()]
    return np.array(
        [[row.get((x + a, y + b, z + c), -1) for a, b, c in steps] for x, y, z in coords.tolist()],
        dtype=np.int64,
    ).reshape(-1, 8)


@njit(inline="always", **_OPTIONS)
@no_type_check
def _at(near, block, x, y, z):
    """The block and place of a voxel that may lie in the next block; block -1 where none is."""
    step = (x == BLOCK) + 2 * (y == BLOCK) + 4 * (z == BLOCK)
    return near[block, step], x % BLOCK, y % BLOCK, z % BLOCK


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _mark_edges(near, distance, observed, ids):
    """Numbers the crossed edges of each block from 0; returns how many each has."""
    counts = np.zeros(len(near), dtype=np.int64)
    for block in prange(len(near)):
        number = 0
        for x in range(BLOCK):
            for y in range(BLOCK):
                for z in range(BLOCK):
                    if not observed[block, x, y, z]:
                        continue
                    inside = distance[block, x, y, z] < 0
                    for axis in range(3):
                        other, u, v, w = _at(
                            near, block, x + (axis == 0), y + (axis == 1), z + (axis == 2)
                        )
                        if other < 0 or not observed[other, u, v, w]:
                            continue
                        if (distance[other, u, v, w] < 0) != inside:
                            ids[block, x, y, z, axis] = number
                            number += 1
        counts[block] = number
    return counts


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _place_vertices(coords, near, distance, colour, ids, start, positions, colours):
    """Interpolates along each marked edge, and makes the numbers run through all blocks."""
    for block in prange(len(near)):
        for x in range(BLOCK):
            for y in range(BLOCK):
                for z in range(BLOCK):
                    for axis in range(3):
                        if ids[block, x, y, z, axis] < 0:
                            continue
                        row = start[block] + ids[block, x, y, z, axis]
                        ids[block, x, y, z, axis] = row
                        other, u, v, w = _at(
                            near, block, x + (axis == 0), y + (axis == 1), z + (axis == 2)
                        )
                        here, there = distance[block, x, y, z], distance[other, u, v, w]
                        t = min(max(here / (here - there), _T_MARGIN), 1 - _T_MARGIN)
                        positions[row, 0] = coords[block, 0] * BLOCK + x
                        positions[row, 1] = coords[block, 1] * BLOCK + y
                        positions[row, 2] = coords[block, 2] * BLOCK + z
                        positions[row, axis] += t
                        for c in range(3):
                            colours[row, c] = (1 - t) * colour[block, x, y, z, c] + t * colour[
                                other, u, v, w, c
                            ]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _cubes(near, distance, observed, ids, table, edges, place, found, write):
    """Counts the triangles of each block into ``place``, or writes them from there on."""
    for block in prange(len(near)):
        number = 0
        for x in range(BLOCK):
            for y in range(BLOCK):
                for z in range(BLOCK):
                    case, whole = 0, True
                    for corner in range(8):
                        other, u, v, w = _at(
                            near, block, x + (corner & 1), y + (corner >> 1 & 1), z + (corner >> 2)
                        )
                        if other < 0 or not observed[other, u, v, w]:
                            whole = False
                            break
                        if distance[other, u, v, w] < 0:
                            case |= 1 << corner
                    if not whole or case == 0 or case == 255:
                        continue
                    k = 0
                    while k < table.shape[1] and table[case, k] >= 0:
                        if write:
                            for i in range(3):
                                corner, axis = edges[table[case, k + i]]
                                other, u, v, w = _at(
                                    near,
                                    block,
                                    x + (corner & 1),
                                    y + (corner >> 1 & 1),
                                    z + (corner >> 2),
                                )
                                found[place[block] + number, i] = ids[other, u, v, w, axis]
                        number += 1
                        k += 3
        if not write:
            place[block] = number
