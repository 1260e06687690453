"""Arrays of numbers from .npy files: the one door, which believes no header."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.files import checked_file, printable

_FIX = "the file is truncated or damaged: restore it"


def read_npy(path: Path) -> np.ndarray:
    """The array in ``path``: real numbers, no larger than the file. Raises :class:`DataError`."""
    shape, dtype, fortran, start = _header(path)
    try:
        values = np.fromfile(path, dtype=dtype, count=math.prod(shape), offset=start)
        return values.reshape(shape, order="F" if fortran else "C")
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"is damaged: it cannot be read as an array ({error})", where=path, fix=_FIX
        ) from error


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array in ``path``, without reading it. Raises :class:`DataError`."""
    return _header(path)[0]


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Shape, type, whether in Fortran's order, and where the numbers begin."""
    size = checked_file(path).stat().st_size
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = _read_header(file, version)
            start = file.tell()
    except Exception as error:  # NumPy parses the header as Python's literals: any error may come
        raise DataError(
            f"is damaged: it cannot be read as an array ({printable(error)})", where=path, fix=_FIX
        ) from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise DataError(
            f"is damaged: it cannot be read as an array of numbers (its type is {dtype})",
            where=path,
            fix=_FIX,
        )
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size - start:
        raise DataError(
            f"is damaged: it cannot be read as an array (it declares the shape {shape}, "
            "more than it holds)",
            where=path,
            fix=_FIX,
        )
    return shape, dtype, fortran, start


def _read_header(file: Any, version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} is not known")
