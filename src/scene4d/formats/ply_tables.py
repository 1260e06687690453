"""PLY files as tables: the header, its comments, and the rows of an element, whatever is in them.

The one reader of the package, for splats, their compressed kind, points and ``scene4d info``.
Binary files of either byte order and text files are read; properties may be of any scalar type and
in any order. What the header promises is compared with the file's size before memory is taken.
Format: G. Turk, "The PLY Polygon File Format" (1994).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scene4d.errors import DataError
from scene4d.files import open_regular

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "text"}
_LONGEST_LINE, _MOST_LINES = 1024, 1024
_LEAST_TEXT = 2
"""Bytes of the shortest number in a text file: a digit and what separates it from the next."""


@dataclass(kw_only=True)
class PlyElement:
    """One element of a PLY header."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    """Names, and NumPy kinds without the byte order; "list" for lists."""

    @property
    def has_lists(self) -> bool:
        """Whether rows are of different lengths."""
        return any(kind == "list" for _, kind in self.properties)

    def dtype(self, order: str, path: Path) -> np.dtype:
        """The layout of a row. Raises :class:`DataError` for lists and doubled names."""
        if self.has_lists:
            raise DataError(f"the element {self.name!r} holds lists: this is a mesh", where=path)
        names = [name for name, _ in self.properties]
        if len(set(names)) < len(names):
            raise DataError(f"the element {self.name!r} has a property twice", where=path)
        if not names:
            raise DataError(f"the element {self.name!r} has no properties", where=path)
        sign = "" if order == "text" else order
        return np.dtype([(name, sign + kind) for name, kind in self.properties])


@dataclass(frozen=True, kw_only=True)
class PlyHeader:
    """What a PLY file says before its data."""

    order: str
    """The byte order, < or >, or "text"."""
    elements: tuple[PlyElement, ...]
    comments: tuple[str, ...]
    start: int
    """Bytes before the data."""

    @property
    def form(self) -> str:
        """The format's name in the file."""
        return next(form for form, order in _ORDERS.items() if order == self.order)

    def element(self, name: str) -> PlyElement | None:
        """The element of that name."""
        return next((e for e in self.elements if e.name == name), None)


def read_header(path: Path) -> PlyHeader:
    """The header of ``path``. Raises :class:`DataError`."""
    path = Path(path)
    with open_regular(path) as file:
        return _header(file, path)


def read_tables(
    path: Path, wanted: Collection[str] | None = None, *, mapped: bool = False
) -> tuple[PlyHeader, dict[str, np.ndarray]]:
    """The header, and the rows of the elements ``wanted`` (None: all) that the file has.

    Elements behind the last one wanted are not looked at, so a mesh's vertices are read and its
    faces are not. ``mapped``: binary rows stay on the disk until they are looked at. Raises
    :class:`DataError`, for lists among what is read as well.
    """
    path = Path(path)
    tables: dict[str, np.ndarray] = {}
    with open_regular(path) as file:
        header = _header(file, path)
        size = path.stat().st_size
        present = {e.name for e in header.elements}
        missing = present if wanted is None else present & set(wanted)
        for element in header.elements:
            if not missing:
                break
            read = element.name in missing
            missing.discard(element.name)
            dtype = element.dtype(header.order, path)
            _require_room(file, header.order, element, dtype, path, size)
            if header.order == "text":
                rows = _text_rows(file, element, dtype, path, read=read)
            else:
                rows = _binary_rows(file, element, dtype, read=read, mapped=mapped)
            if rows is not None:
                tables[element.name] = rows
    return header, tables


def _require_room(
    file: BinaryIO, order: str, element: PlyElement, dtype: np.dtype, path: Path, size: int
) -> None:
    """Refuses an element that the file, from where it stands, is too short for."""
    left = size - file.tell()
    width = _LEAST_TEXT * len(element.properties) if order == "text" else dtype.itemsize
    # the last number of a text needs nothing behind it
    if element.count * width > left + (order == "text"):
        raise _cut_off(path, element, width, left)


def _binary_rows(
    file: BinaryIO, element: PlyElement, dtype: np.dtype, *, read: bool, mapped: bool
) -> np.ndarray | None:
    """The element's rows, from where ``file`` stands; passed over unless ``read``."""
    length = element.count * dtype.itemsize
    if not read:
        file.seek(length, 1)
        return None
    if mapped and element.count:
        start = file.tell()
        rows = np.memmap(file, dtype=dtype, mode="r", offset=start, shape=(element.count,))
        file.seek(start + length)
        return rows
    return np.frombuffer(file.read(length), dtype=dtype, count=element.count)


def _cut_off(path: Path, element: PlyElement, width: int, left: int) -> DataError:
    """The error for an element that the file is too short for."""
    return DataError(
        f"is cut off: the header promises {element.count} rows '{element.name}' of {width} bytes"
        f" at least, but only {max(left, 0)} bytes are there",
        where=path,
        fix="copy or download the file again",
    )


def _text_rows(
    file: BinaryIO, element: PlyElement, dtype: np.dtype, path: Path, *, read: bool
) -> np.ndarray | None:
    if not read:
        for _ in range(element.count):
            file.readline()
        return None
    rows = np.empty(element.count, dtype=dtype)
    if not element.count:
        return rows
    try:
        with warnings.catch_warnings():  # an empty rest is told below
            warnings.simplefilter("ignore")
            numbers = np.loadtxt(
                file, max_rows=element.count, ndmin=2, comments=None, encoding="latin1"
            )
    except (ValueError, OverflowError) as error:
        raise DataError(f"its text cannot be read ({str(error)[:120]})", where=path) from error
    promised = (element.count, len(element.properties))
    if numbers.shape != promised:
        raise DataError(
            f"is cut off: {promised[0]} rows '{element.name}' of {promised[1]} numbers are"
            f" promised, {numbers.shape[0]} of {numbers.shape[1]} are there",
            where=path,
            fix="copy or download the file again",
        )
    for column, name in enumerate(dtype.names or ()):
        _require_in_range(numbers[:, column], dtype[name], name, path)
        with np.errstate(over="ignore"):  # beyond float32: infinite, which the splats' check tells
            rows[name] = numbers[:, column]
    return rows


def _require_in_range(numbers: np.ndarray, kind: np.dtype, name: str, path: Path) -> None:
    if kind.kind not in "iu":
        return
    bounds = np.iinfo(kind)
    if not ((numbers >= bounds.min) & (numbers <= bounds.max)).all():
        raise DataError(f"its property {name} has numbers that {kind.name} cannot say", where=path)


def _header(file: BinaryIO, path: Path) -> PlyHeader:
    if file.readline(_LONGEST_LINE).strip() != b"ply":
        raise DataError("is not a PLY file: it does not begin with 'ply'", where=path)
    order = ""
    elements: list[PlyElement] = []
    comments: list[str] = []
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE)
        words = line.decode("ascii", "replace").split()
        if words == ["end_header"]:
            break
        if not line:
            raise DataError("the header does not end", where=path)
        try:
            if words[:1] == ["format"]:
                order = _order_of(words[1], path)
            elif words[:1] == ["comment"]:
                comments.append(" ".join(words[1:]))
            elif words[:1] == ["element"]:
                elements.append(PlyElement(name=words[1], count=_count(words[2])))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[4], "list"))
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _TYPES[words[1]]))
        except (IndexError, KeyError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            text = " ".join(words)
            raise DataError(f"the header line {text!r} makes no sense", where=path) from error
    else:
        raise DataError("the header does not end", where=path)
    if not order:
        raise DataError("the header names no format", where=path)
    return PlyHeader(
        order=order, elements=tuple(elements), comments=tuple(comments), start=file.tell()
    )


def _order_of(form: str, path: Path) -> str:
    if form not in _ORDERS:
        raise DataError(f"has the unknown format {form!r}", where=path)
    return _ORDERS[form]


def _count(word: str) -> int:
    count = int(word)
    if count < 0 or count > 2**40:
        raise ValueError(word)
    return count
