"""Points from PLY files: the one reader for captures, which believes no header.

PLY: G. Turk, "The PLY polygon file format", 1994. Vertices alone are read; faces are passed over.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scene4d.errors import DataError
from scene4d.files import checked_file, printable

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_LONGEST_HEADER = 1 << 18
_COLOURS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
_HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
_SH_C0 = 0.28209479177387814
_FIX = "the file is truncated or damaged: restore it, or leave the points out"


@dataclass(kw_only=True)
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_lists: bool = False

    def dtype(self, order: str) -> np.dtype:
        return np.dtype([(name, order + kind) for name, kind in self.properties])


def read_ply_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 3] in float64 and colours [n, 3] in uint8 (grey where there are none).

    Raises :class:`DataError` on what is no PLY file, or promises more than it holds.
    """
    size = checked_file(path).stat().st_size
    try:
        with open(path, "rb") as file:
            order, elements = _header(file)
            rows = _vertices(file, order, elements, size)
        xyz = np.stack([rows[axis].astype(np.float64) for axis in ("x", "y", "z")], axis=1)
        return xyz, _colours(rows)
    except (ValueError, OverflowError, MemoryError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot be read as points ({printable(error)})", where=path, fix=_FIX
        ) from error


def _header(file: BinaryIO) -> tuple[str, list[_Element]]:
    """The byte order (``=`` for text) and the elements; the file stands at the first of them."""
    if file.readline(16).strip() != b"ply":
        raise ValueError("it is not a PLY file; export the points as PLY")
    order, elements = "", list[_Element]()
    while file.tell() < _LONGEST_HEADER:
        line = file.readline(_LONGEST_HEADER)
        words = line.decode("ascii", "replace").split()
        if words == ["end_header"]:
            if not order:
                raise ValueError("its header names no format")
            return order, elements
        if not line:
            break
        if words[:1] == ["format"]:
            order = _ORDERS.get(words[1] if len(words) > 1 else "", "")
        elif words[:1] == ["element"] and len(words) == 3 and words[2].isdecimal():
            elements.append(_Element(name=words[1], count=int(words[2])))
        elif words[:1] == ["property"] and elements:
            _add_property(elements[-1], words)
        elif words[:1] not in ([], ["comment"], ["obj_info"]):
            raise ValueError(f"its header has the line {printable(' '.join(words))!r}")
    raise ValueError("its header has no end")


def _add_property(element: _Element, words: list[str]) -> None:
    if words[1:2] == ["list"]:
        element.has_lists = True
    elif len(words) == 3 and words[1] in _TYPES:
        element.properties.append((words[2], _TYPES[words[1]]))
    else:
        raise ValueError(f"its header has the line {printable(' '.join(words))!r}")


def _vertices(file: BinaryIO, order: str, elements: list[_Element], size: int) -> np.ndarray:
    """The rows of the element ``vertex``, whose number the file must be able to hold."""
    start, lines = file.tell(), 0
    for element in elements:
        if element.name == "vertex":
            break
        if order != "=" and element.has_lists:
            raise ValueError(f"the element {element.name} with lists stands before the vertices")
        lines += element.count
        start += element.dtype("<").itemsize * element.count
    else:
        raise ValueError("it has no element 'vertex'")
    names = [name for name, _ in element.properties]
    if element.has_lists or not {"x", "y", "z"} <= set(names):
        raise ValueError("its vertices are not plain numbers with x, y and z")
    if element.count == 0:
        raise ValueError("it holds no points")
    if order == "=":
        return _text_rows(file, element, lines, size)
    dtype = element.dtype(order)
    if element.count * dtype.itemsize > size - start:
        raise ValueError(f"it declares {element.count} vertices, more than it holds")
    file.seek(start)
    return np.frombuffer(file.read(element.count * dtype.itemsize), dtype)


def _text_rows(file: BinaryIO, element: _Element, lines: int, size: int) -> np.ndarray:
    names = [name for name, _ in element.properties]
    if 2 * element.count * len(names) > size or lines > size:
        raise ValueError(f"it declares {element.count} vertices, more than it holds")
    text = io.TextIOWrapper(file, encoding="ascii", errors="replace")
    try:
        values = np.loadtxt(
            text, max_rows=element.count, skiprows=lines, usecols=range(len(names)),
            ndmin=2, comments=None,
        )  # fmt: skip
    finally:
        text.detach()
    if len(values) != element.count:
        raise ValueError(f"it declares {element.count} vertices and holds {len(values)}")
    rows = np.empty(len(values), element.dtype("="))
    with np.errstate(all="ignore"):  # a number that its type does not hold is that file's fault
        for column, name in enumerate(names):
            rows[name] = values[:, column]
    return rows


def _colours(rows: np.ndarray) -> np.ndarray:
    names = rows.dtype.names or ()
    found = next((group for group in _COLOURS if set(group) <= set(names)), None)
    if found is None and set(_HARMONICS) <= set(names):  # a splat file's own colours
        values = [255 * (0.5 + _SH_C0 * rows[name].astype(np.float64)) for name in _HARMONICS]
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
