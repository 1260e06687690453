"""Points from PLY files. Vertices alone are read; faces are passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.formats.packing import SH_C0
from scene4d.formats.ply_tables import read_tables

_COLOURS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
_FIX = "the file is truncated or damaged: restore it, or leave the points out"


def read_ply_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 3] in float64 and colours [n, 3] in uint8 (grey where there are none).

    Raises :class:`DataError` on what is no PLY file, or promises more than it holds.
    """
    _, tables = read_tables(path, {"vertex"})
    rows = tables.get("vertex")
    if rows is None:
        raise DataError("has no element 'vertex': no points", where=path, fix=_FIX)
    if not {"x", "y", "z"} <= set(rows.dtype.names or ()):
        raise DataError("its vertices have no x, y and z", where=path, fix=_FIX)
    if not len(rows):
        raise DataError("holds no points", where=path, fix=_FIX)
    xyz = np.stack([rows[axis].astype(np.float64) for axis in ("x", "y", "z")], axis=1)
    return xyz, _colours(rows)


def _colours(rows: np.ndarray) -> np.ndarray:
    names = rows.dtype.names or ()
    found = next((group for group in _COLOURS if set(group) <= set(names)), None)
    if found is None and set(_HARMONICS) <= set(names):  # a splat file's own colours
        values = [255 * (0.5 + SH_C0 * rows[name].astype(np.float64)) for name in _HARMONICS]
    elif found is None:
        return np.full((len(rows), 3), 128, np.uint8)
    else:
        values = [_in_bytes(rows[name]) for name in found]
    stacked = np.nan_to_num(np.stack(values, axis=1), nan=128.0)
    return np.rint(stacked).clip(0, 255).astype(np.uint8)


def _in_bytes(values: np.ndarray) -> np.ndarray:
    """0..255 of any type: integers by their range, floating point by whether it goes beyond 1."""
    if values.dtype.kind in "iu":
        return values.astype(np.float64) * (255.0 / np.iinfo(values.dtype).max)
    plain = values.astype(np.float64)
    return plain if np.nanmax(plain, initial=0.0) > 1.0 else plain * 255.0
