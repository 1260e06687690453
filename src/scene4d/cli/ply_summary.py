"""What a .ply file holds: read from its header, and positions for the bounding box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scene4d.errors import DataError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ENDIAN = {"binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 20


@dataclass(kw_only=True)
class Element:
    """One element of the header, such as vertex."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    """Names and NumPy types."""
    has_lists: bool = False

    def dtype(self, endian: str) -> np.dtype:
        """The layout of one row in a binary file."""
        return np.dtype([(name, endian + kind) for name, kind in self.properties])


def summarise_ply(path: Path) -> dict[str, Any]:
    """Counts, spherical-harmonics degree, bytes per attribute and the bounding box."""
    with open(path, "rb") as file:
        form, elements = read_header(file, path)
        start = file.tell()
    vertex = next((e for e in elements if e.name == "vertex"), None)
    if vertex is None:
        raise DataError("has no element 'vertex'", where=path)
    names = [name for name, _ in vertex.properties]
    packed = "packed_position" in names
    splats = packed or {"f_dc_0", "opacity", "scale_0", "rot_0"} <= set(names)
    size = path.stat().st_size
    summary: dict[str, Any] = {
        "kind": "ply",
        "path": str(path.resolve()),
        "content": _content(splats=splats, packed=packed, elements=elements),
        "format": form,
        "bytes": size,
        ("num_gaussians" if splats else "num_vertices"): vertex.count,
    }
    if splats:
        summary["sh_degree"] = sh_degree(elements, path)
        summary["bytes_per_gaussian"] = round(size / max(vertex.count, 1), 2)
    summary["elements"] = [{"name": e.name, "count": e.count} for e in elements]
    summary["attributes"] = attribute_bytes(vertex)
    summary.update(_bounds(path, form, elements, start))
    return summary


def read_header(file: BinaryIO, path: Path) -> tuple[str, list[Element]]:
    """The format's name and the elements; leaves ``file`` at the first byte of data."""
    if file.readline(16).strip() != b"ply":
        raise DataError("is not a PLY file: it does not begin with 'ply'", where=path)
    form, elements = "", []
    while True:
        line = file.readline(4096)
        if not line or file.tell() > _LONGEST_HEADER:
            raise DataError("the header does not end", where=path)
        words = line.decode("ascii", "replace").split()
        if words == ["end_header"]:
            break
        try:
            if words[:1] == ["format"]:
                form = words[1]
            elif words[:1] == ["element"]:
                elements.append(Element(name=words[1], count=int(words[2])))
            elif words[:2] == ["property", "list"]:
                elements[-1].has_lists = True
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _TYPES[words[1]]))
        except (IndexError, KeyError, ValueError) as error:
            text = line.decode("ascii", "replace").strip()
            raise DataError(f"the header line {text!r} cannot be read", where=path) from error
    if form not in (*_ENDIAN, "ascii"):
        raise DataError(f"has the unknown format {form!r}", where=path)
    if any(element.count < 0 for element in elements):
        raise DataError("an element has a negative count", where=path)
    return form, elements


def sh_degree(elements: Sequence[Element], path: Path) -> int:
    """The degree whose bands have as many coefficients as there are ``f_rest`` properties."""
    rest = sum(name.startswith("f_rest_") for e in elements for name, _ in e.properties)
    degree = math.isqrt(rest // 3 + 1) - 1
    if rest != 3 * ((degree + 1) ** 2 - 1):
        element_names = [e.name for e in elements]
        if "sh" not in element_names:
            raise DataError(f"{rest} f_rest properties fit no whole degree", where=path)
    if rest == 0:  # the compressed variant keeps them in an element of their own
        packed = next((e for e in elements if e.name == "sh"), None)
        degree = 0 if packed is None else math.isqrt(len(packed.properties) // 3 + 1) - 1
    return degree


def attribute_bytes(vertex: Element) -> list[dict[str, Any]]:
    """Bytes of each group of vertex properties, for one vertex and for all."""
    groups: dict[str, int] = {}
    for name, kind in vertex.properties:
        group = _group(name)
        groups[group] = groups.get(group, 0) + np.dtype(kind).itemsize
    return [
        {"name": name, "bytes_each": size, "bytes": size * vertex.count}
        for name, size in groups.items()
    ]


def _group(name: str) -> str:
    """What a vertex property belongs to."""
    prefixes = {"f_dc_": "sh0", "f_rest_": "shN", "scale_": "scales", "rot_": "quats"}
    for prefix, group in prefixes.items():
        if name.startswith(prefix):
            return group
    singles = {"x": "means", "y": "means", "z": "means", "opacity": "opacities"}
    normals = dict.fromkeys(("nx", "ny", "nz"), "normals")
    colours = dict.fromkeys(("red", "green", "blue", "alpha"), "colours")
    return {**singles, **normals, **colours}.get(name, name)


def _content(*, splats: bool, packed: bool, elements: Sequence[Element]) -> str:
    if packed:
        return "Gaussian splats, compressed"
    if splats:
        return "Gaussian splats"
    faces = any(e.name == "face" and e.count for e in elements)
    return "mesh" if faces else "points"


def _bounds(path: Path, form: str, elements: Sequence[Element], start: int) -> dict[str, Any]:
    """The box around all finite positions, and how many are not finite."""
    if form == "ascii":
        return _bounds_of_text(path, elements)
    endian, offset = _ENDIAN[form], start
    for element in elements:
        if element.has_lists:
            return {}
        dtype = element.dtype(endian)
        end = offset + dtype.itemsize * element.count
        if end > path.stat().st_size:
            raise DataError(
                f"is cut off: element '{element.name}' needs {end} bytes, the file has "
                f"{path.stat().st_size}",
                where=path,
            )
        names = set(dtype.names or ())
        if element.count and element.name == "chunk" and "min_x" in names:
            rows = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(element.count,))
            low = np.stack([rows[f"min_{axis}"] for axis in "xyz"], 1)
            high = np.stack([rows[f"max_{axis}"] for axis in "xyz"], 1)
            return _box(low.astype(np.float64), high.astype(np.float64))
        if element.count and element.name == "vertex" and {"x", "y", "z"} <= names:
            rows = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(element.count,))
            positions = np.stack([rows[axis] for axis in "xyz"], 1).astype(np.float64)
            return _box(positions, positions)
        offset = end
    return {}


def _bounds_of_text(path: Path, elements: Sequence[Element]) -> dict[str, Any]:
    vertex = elements[0]
    names = [name for name, _ in vertex.properties]
    if vertex.name != "vertex" or not {"x", "y", "z"} <= set(names) or not vertex.count:
        return {}
    with open(path, "rb") as file:
        read_header(file, path)
        columns = [names.index(axis) for axis in "xyz"]
        try:
            positions = np.loadtxt(file, usecols=columns, max_rows=vertex.count, ndmin=2)
        except ValueError as error:
            raise DataError(f"its text cannot be read ({error})", where=path) from error
    if len(positions) != vertex.count:
        raise DataError(
            f"is cut off: {vertex.count} vertices stated, {len(positions)} there", where=path
        )
    return _box(positions, positions)


def _box(low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(low).all(1) & np.isfinite(high).all(1)
    box: dict[str, Any] = {}
    if finite.any():
        corners = [low[finite].min(0).tolist(), high[finite].max(0).tolist()]
        box["bounding_box"] = corners
    if not finite.all():
        box["positions_not_finite"] = int((~finite).sum())
    return box
