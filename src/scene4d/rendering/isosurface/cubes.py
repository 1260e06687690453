"""Which cubes of a grid the surface passes through, and which of their vertices its faces join.

Dual marching cubes (Nielson 2004): a vertex for each loop of crossed edges of a cube, a
quadrilateral for each crossed edge of the grid, between the vertices of the four cubes around it.
Where two cubes meet in an ambiguous face that would be pinched in both, the inside corners of that
face are joined instead of kept apart, in both cubes (as Wenger, "Isosurfaces", 2013, does for cases
16 and 19). So away from the border each edge has exactly two faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.cubes import CORNERS, loops, pinched_face
from scene4d.rendering.isosurface import kernels


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceCubes:
    """The cubes of a grid that a surface passes through."""

    places: Int[np.ndarray, "num_cubes 3"]
    """The first corner of each, x, y, z; sorted."""
    cube_of_vertex: Int[np.ndarray, " num_vertices"]
    firsts: Int[np.ndarray, " num_vertices_1"]
    """Where the crossings of a vertex begin in ``edges``; the end of the last, too."""
    edges: Int[np.ndarray, " num_crossings"]
    """Of its cube, rows of ``scene4d.cubes.EDGES``."""
    quads: Int[np.ndarray, "num_quads 4"]
    """Vertices around each crossed edge of the grid, counter-clockwise as seen from outside."""

    @property
    def nodes(self) -> Int[np.ndarray, "num_cubes 8 3"]:
        """Places in the grid of the corners of the cubes."""
        return self.places[:, None] + CORNERS


@cache
def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[2, 256, 12] loop of each edge or -1, [2, 256] number of loops, as they are and with the
    pinched face joined; [256] that face or -1."""
    loop_of_edge = np.full((2, 256, 12), -1, dtype=np.int64)
    counts = np.zeros((2, 256), dtype=np.int64)
    pinched = np.full(256, -1, dtype=np.int64)
    for case in range(256):
        face = pinched_face(case)
        pinched[case] = -1 if face is None else face
        for joined in (0, 1):
            found = loops(case, face if joined else None)
            counts[joined, case] = len(found)
            for number, loop in enumerate(found):
                loop_of_edge[joined, case, loop] = number
    return loop_of_edge, counts, pinched


def surface_cubes(sdf: Float[Tensor, "nx ny nz"]) -> SurfaceCubes:
    """Where ``sdf``, on the corners of (nx - 1) x (ny - 1) x (nz - 1) cubes, changes sign.

    Negative is inside, 0 is not. Raises ValueError for numbers that are not finite and for grids
    without a cube.
    """
    values = sdf.detach().cpu().numpy()
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"distances of shape {values.shape}: expected 3 axes of 2 or more each")
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise ValueError(f"{wrong} of {values.size} distances are not finite")
    inside = (values < 0).astype(np.uint8)
    nx, ny, nz = (n - 1 for n in inside.shape)
    cases = np.zeros((nx, ny, nz), dtype=np.uint8)
    for bit, (x, y, z) in enumerate(CORNERS):
        cases |= inside[x : x + nx, y : y + ny, z : z + nz] << np.uint8(bit)
    flat = np.flatnonzero((cases != 0) & (cases != 255))
    places = np.stack(np.unravel_index(flat, cases.shape), axis=1)
    loop_of_edge, counts, pinched = _table()
    case = cases.ravel()[flat]
    joined = _joined(places, cases, pinched)
    count = counts[joined, case]
    first = np.cumsum(count) - count
    within = loop_of_edge[joined, case]
    vertices = np.where(within < 0, -1, within + first[:, None])
    firsts, edges = kernels.crossings(vertices, int(count.sum()))
    row = np.full(cases.shape, -1, dtype=np.int64)
    row.ravel()[flat] = np.arange(len(flat))
    quads = np.empty((3 * len(flat), 4), dtype=np.int64)
    found = kernels.quads(places, case, vertices, row, quads)
    return SurfaceCubes(
        places=places,
        cube_of_vertex=np.repeat(np.arange(len(flat)), count),
        firsts=firsts,
        edges=edges,
        quads=quads[:found].copy(),
    )


def _joined(
    places: Int[np.ndarray, "num_cubes 3"], cases: np.ndarray, pinched: np.ndarray
) -> Int[np.ndarray, " num_cubes"]:
    """1 for cubes whose pinched face is so in the cube beyond it, too."""
    joined = np.zeros(len(places), dtype=np.int64)
    face = pinched[cases[tuple(places.T)]]
    rows = np.flatnonzero(face >= 0)
    beyond = places[rows]
    beyond[np.arange(len(rows)), face[rows] // 2] += 2 * (face[rows] % 2) - 1
    within = ((beyond >= 0) & (beyond < cases.shape)).all(axis=1)
    rows, beyond = rows[within], beyond[within]
    joined[rows] = pinched[cases[tuple(beyond.T)]] == face[rows] ^ 1
    return joined
