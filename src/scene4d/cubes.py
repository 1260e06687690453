"""How a surface passes through a cube, by the signs at its corners: for all kinds of iso-surfaces.

The cases are made here instead of copied from anybody's table (Lorensen and Cline, "Marching
cubes", SIGGRAPH 1987, has the first). The edges of a face are joined by its four signs alone, so
two cubes that share a face always agree, and surfaces have no holes.
"""

from __future__ import annotations

import numpy as np

CORNERS = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)])
"""[8, 3] places along x, y, z: corner i has bit 0 of i along x, and so on."""
EDGES = [(corner, axis) for axis in range(3) for corner in range(8) if not corner >> axis & 1]
"""As the corner that they start from and the axis along which they run."""
FACES = [(0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6)]
"""Corners in turn, counter-clockwise as seen from outside; face 2 a + 1 lies beyond 2 a along axis
a."""


def loops(case: int, joined: int | None = None) -> list[list[int]]:
    """Closed polygons of edges around the inside corners of a cube, counter-clockwise as seen from
    the outside ones.

    ``case`` has bit i where corner i is inside. A face of four crossed edges is ambiguous: its
    inside corners are kept apart, but for those of face ``joined``.
    """
    after: dict[int, int] = {}
    for number, face in enumerate(FACES):
        inside = [bool(case >> corner & 1) for corner in face]
        for k in range(4):
            if inside[k] or not inside[(k + 1) % 4]:
                continue
            if number == joined and is_ambiguous(case, number):
                last = k + 3  # around the outside corner
            else:
                last = next(j for j in range(k + 1, k + 5) if not inside[(j + 1) % 4])
            enter = edge_between(face[k], face[(k + 1) % 4])
            after[enter] = edge_between(face[last % 4], face[(last + 1) % 4])
    found = []
    while after:
        start, edge = next(iter(after.items()))
        del after[start]
        loop = [start]
        while edge != start:
            loop.append(edge)
            edge = after.pop(edge)
        found.append(loop)
    return found


def is_ambiguous(case: int, face: int) -> bool:
    """Whether all four edges of the face are crossed."""
    a, b, c, d = (case >> corner & 1 for corner in FACES[face])
    return a == c and b == d and a != b


def pinched_face(case: int) -> int | None:
    """The ambiguous face whose four edges lie in a single loop; no case has two.

    Two cubes that meet in a face that is such for both would touch along more than a line there.
    """
    rings = [set(loop) for loop in loops(case)]
    pinched = [
        number
        for number, face in enumerate(FACES)
        if is_ambiguous(case, number)
        and any({edge_between(face[k - 1], face[k]) for k in range(4)} <= ring for ring in rings)
    ]
    assert len(pinched) <= 1
    return pinched[0] if pinched else None


def edge_between(first: int, second: int) -> int:
    """The row of ``EDGES`` between two corners."""
    low, axis = min(first, second), (first ^ second).bit_length() - 1
    return EDGES.index((low, axis))
