"""What a .ply file holds: read from its header, and positions for the bounding box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.formats.ply import says_antialiased
from scene4d.formats.ply_tables import PlyElement, PlyHeader, read_header, read_tables

_SPLATS = {"f_dc_0", "opacity", "scale_0", "rot_0"}


def summarise_ply(path: Path) -> dict[str, Any]:
    """Counts, spherical-harmonics degree, bytes per attribute and the bounding box."""
    header = read_header(path)
    vertex = header.element("vertex")
    if vertex is None:
        raise DataError("has no element 'vertex'", where=path)
    names = {name for name, _ in vertex.properties}
    packed = "packed_position" in names
    splats = packed or names >= _SPLATS
    size = path.stat().st_size
    summary: dict[str, Any] = {
        "kind": "ply",
        "path": str(path.resolve()),
        "content": _content(splats=splats, packed=packed, header=header),
        "format": header.form,
        "bytes": size,
        ("num_gaussians" if splats else "num_vertices"): vertex.count,
    }
    if splats:
        summary["sh_degree"] = sh_degree(header.elements, path)
        summary["bytes_per_gaussian"] = round(size / max(vertex.count, 1), 2)
        said = says_antialiased(header)
        summary["antialiased"] = "filter_3D" in names if said is None else said
    summary["elements"] = [{"name": e.name, "count": e.count} for e in header.elements]
    summary["attributes"] = attribute_bytes(vertex)
    summary.update(_of_rows(path, header, splats=splats and not packed))
    return summary


def sh_degree(elements: Sequence[PlyElement], path: Path) -> int:
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


def attribute_bytes(vertex: PlyElement) -> list[dict[str, Any]]:
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


def _content(*, splats: bool, packed: bool, header: PlyHeader) -> str:
    if packed:
        return "Gaussian splats, compressed"
    if splats:
        vertex = header.element("vertex")
        flat = vertex is not None and "scale_2" not in dict(vertex.properties)
        return "Gaussian splats" + (", two sizes each (2DGS)" if flat else "")
    face = header.element("face")
    return "mesh" if face is not None and face.count else "points"


def _of_rows(path: Path, header: PlyHeader, *, splats: bool) -> dict[str, Any]:
    """The box around all finite positions, how many are not finite, and how many splats nothing can
    draw; nothing where lists stand before the vertices."""
    wanted = {"chunk", "vertex"} if header.element("chunk") else {"vertex"}
    for element in header.elements:
        if element.has_lists and wanted:
            return {}
        wanted.discard(element.name)
    _, tables = read_tables(path, {"chunk", "vertex"}, mapped=True)
    chunk, vertex = tables.get("chunk"), tables["vertex"]
    corners = {f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"}
    if chunk is not None and len(chunk) and corners <= set(chunk.dtype.names or ()):
        low, high = (
            np.stack([chunk[f"{end}_{axis}"] for axis in "xyz"], 1).astype(np.float64)
            for end in ("min", "max")
        )
        return _box(low, high)
    if not {"x", "y", "z"} <= set(vertex.dtype.names or ()):
        return {}
    positions = np.stack([vertex[axis] for axis in "xyz"], 1).astype(np.float64)
    return _box(positions, positions) | (_invalid(vertex) if splats else {})


def _invalid(vertex: np.ndarray) -> dict[str, Any]:
    """How many splats ``--drop-invalid`` leaves out, where there are any."""
    invalid = np.zeros(len(vertex), dtype=bool)
    turned = np.zeros(len(vertex), dtype=bool)
    for name in vertex.dtype.names or ():
        if _group(name) not in ("means", "sh0", "shN", "scales", "quats", "opacities"):
            continue
        column = vertex[name]
        bad = ~np.isfinite(column)
        if name == "opacity":
            bad = np.isnan(column)  # an infinite one is certain
        elif name.startswith("scale_"):
            bad &= ~np.isneginf(column)  # a size of 0
        elif name.startswith("rot_"):
            turned |= column != 0
        invalid |= bad
    count = int((invalid | ~turned).sum())
    return {"splats_not_drawable": count} if count else {}


def _box(low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(low).all(1) & np.isfinite(high).all(1)
    box: dict[str, Any] = {}
    if finite.any():
        corners = [low[finite].min(0).tolist(), high[finite].max(0).tolist()]
        box["bounding_box"] = corners
    if not finite.all():
        box["positions_not_finite"] = int((~finite).sum())
    return box
