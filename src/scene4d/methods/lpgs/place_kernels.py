"""Places rounded to the cells of contracted space, for the CPU; in float64 within."""

from __future__ import annotations

import math
from typing import Any, no_type_check

from numba import njit, prange

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
@no_type_check
def _cell(local, cells):
    """Along one axis, of -1/2 .. 1/2."""
    return min(max(math.floor((local + 0.5) * cells), 0.0), cells - 1.0)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def round_places(points, rows, centre, radius, cells, found, out):
    """Rows ``rows`` [n] of ``points`` [p, 3]: the cells ``found`` [n, 3] that they lie in, of
    ``cells`` along each axis of the unit cube, and the middles of these, ``out`` [n, 3]."""
    a, b, c = centre
    limit = 0.5 - 2.0 / cells  # cells where space ends have their middles beyond it
    for i in prange(len(rows)):
        point = points[rows[i]]
        x, y, z = (point[0] - a) / radius, (point[1] - b) / radius, (point[2] - c) / radius
        norm = max(1.0, math.sqrt(x * x + y * y + z * z))
        inwards = (2.0 - 1.0 / norm) / norm / 4.0
        x, y, z = x * inwards, y * inwards, z * inwards
        length = math.sqrt(x * x + y * y + z * z)
        if length > limit:
            x, y, z = x * limit / length, y * limit / length, z * limit / length
        x, y, z = _cell(x, cells), _cell(y, cells), _cell(z, cells)
        found[i, 0], found[i, 1], found[i, 2] = x, y, z
        x, y, z = (
            4.0 * ((x + 0.5) / cells - 0.5),
            4.0 * ((y + 0.5) / cells - 0.5),
            4.0 * ((z + 0.5) / cells - 0.5),
        )
        norm = max(1.0, math.sqrt(x * x + y * y + z * z))
        outwards = radius / (norm * (2.0 - norm))
        out[i, 0], out[i, 1], out[i, 2] = x * outwards + a, y * outwards + b, z * outwards + c
