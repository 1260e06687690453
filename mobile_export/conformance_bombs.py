"""Small bundles that would take much memory or time: each is sound but for what it costs.

Codes that never differ take no bytes at all, and zeros behind the poster make a file of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conformance_lies import array
from conformance_scenes import cloud, family

from scene4d.bundle.arrays import CodedArray, uniform
from scene4d.bundle.coding import Coded, PointSet, encode_scene
from scene4d.bundle.container import BundleWriter, open_bundle
from scene4d.bundle.limits import CODES, POINTS, VALUES
from scene4d.bundle.scene_info import default_info, info_entries
from scene4d.methods.lightslab.bundle_content import layer_shapes
from scene4d.methods.lpgs.bundle_content import array_name
from scene4d.methods.lpgs.bundle_content import layer_shapes as family_shapes

Bombs = dict[str, tuple[bytes, str, str]]
POINTS_ROOM, CODES_ROOM = 50_000, 14_000
"""Zeros behind the poster, for which readers of before believed so many points or codes."""


def bombs(light: Path, mpi: Path) -> Bombs:
    """Bytes, reason and scene4d's error by name; ``light``, ``mpi``: sound light fields."""
    return {
        "bomb_points": (
            padded("splats", *same_splats(POINTS.free + 4096), room=POINTS_ROOM),
            "266,240 splats in a few bytes, with zeros behind the poster", "points in",
        ),
        "bomb_codes": (
            padded("splats", *same_splats(1, zeros("what", CODES.free + (1 << 16))),
                   room=CODES_ROOM),
            "4.2 million codes in a few bytes", "codes in",
        ),
        "bomb_basis": (
            padded("splats", *same_splats(1, *wide_array())),
            "5.2 million values of 5,120 codes by their basis", "values in",
        ),
        "bomb_children": (
            padded("lpgs", *one_family(9000, 0xFF, sh_degree=3, hidden=1, num_children=8)),
            "72,000 children of 9,000 parents that are all the same", "values in",
        ),
        "bomb_network": (
            padded("lpgs", *one_family(18_000, 0, hidden=256, num_children=8, attention=True)),
            "5.8 billion products for parents without children", "products in",
        ),
        "bomb_picture": (_slow_picture(light), "203 billion products for a picture",
                         "products of lightslab.decoder"),
        "bomb_blocks": (_many_blocks(mpi), "22,000 blocks in a few bytes", "values in"),
    }  # fmt: skip


def padded(kind: str, coded: Coded, entries: dict[str, Any], *, room: int = 0) -> bytes:
    """A bundle with ``room`` zeros behind its poster."""
    info, images = info_entries(default_info(cloud(2, 0, 10)))
    manifest = {"format": "s4d", "version": "1.0", "kind": kind, "generator": "", **info}
    writer = BundleWriter({**manifest, **entries, **coded.manifest})
    for name, data in {**images, **coded.members}.items():
        writer.add(name, data + bytes(room if name == manifest["poster"] else 0))
    return writer.to_bytes()


def zeros(
    name: str, items: int, components: int = 1, stage: int | None = 0, stream: str = "points"
) -> CodedArray:
    """Codes that are all 0."""
    codes = np.zeros((components, items), dtype=np.int32).T
    return CodedArray(
        name=name, codes=codes, quantiser=uniform(1.0, components), stage=stage, stream=stream
    )


def same_splats(count: int, *more: CodedArray) -> tuple[Coded, dict[str, Any]]:
    """Splats that are all one, and ``more`` arrays."""
    widths = {"opacity": 1, "log_scales": 3, "rotation": 3, "dc": 3}
    own = [zeros(name, count, width, None) for name, width in widths.items()]
    return encode_scene(_same_place(count, 1), [*more, *own]), {"count": count, "sh_degree": 0}


def _same_place(count: int, bits: int) -> PointSet:
    middle = np.full((count, 3), 1 << (bits - 1), dtype=np.uint32)
    return PointSet(
        points=middle, bits=bits, origin=(0.0, 0.0, 0.0), step=2.0**-bits,
        stages=np.zeros(count, dtype=np.int64),
    )  # fmt: skip


def wide_array(items: int = VALUES.free // 1024 + 1024) -> tuple[CodedArray, CodedArray]:
    """Codes whose basis makes 1,024 values of each."""
    return zeros("wide_basis", 1, 1024), replace(zeros("wide", items), basis="wide_basis")


def one_family(parents: int, mask: int, **shape: Any) -> tuple[Coded, dict[str, Any]]:
    """Parents that are all one, with the children of ``mask``, and a network of zeros."""
    structure = dict(family(1, 1, position_bits=1, **shape).structure)
    rest = 3 * ((structure["sh_degree"] + 1) ** 2 - 1)
    widths = {"opacity": 1, "log_scales": 3, "rotation": 3, "dc": 3, "sh": rest}
    arrays = [zeros(name, parents, width, None) for name, width in widths.items()]
    for name, (outputs, inputs) in family_shapes(structure).items():
        arrays.append(zeros(array_name(f"{name}.weight"), outputs * inputs))
        arrays.append(zeros(array_name(f"{name}.bias"), outputs))
    children = CodedArray(name="children", codes=np.full((parents, 1), mask, dtype=np.int32))
    born = parents * bin(mask).count("1")
    entries = {"count": parents + born, "sh_degree": structure["sh_degree"], "lpgs": structure}
    return encode_scene(_same_place(parents, 1), [*arrays, children]), entries


def _slow_picture(path: Path) -> bytes:
    """A light field of 75 planes of one texel each, and a decoder of 3 million weights."""

    def change(field: dict[str, Any]) -> None:
        plane = {**field["feature_planes"][0], "columns": 1, "rows": 1, "stage": 0}
        field.update(features=64, feature_planes=[plane] * 75, slabs=field["slabs"][:1])
        field["decoder"].update(
            samples=8, encoded=128, width=1, blocks=0, channels=[1, 256, 256]
        )  # fmt: skip

    return field_of(path, change)


def _many_blocks(path: Path) -> bytes:
    """22,000 blocks of one frequency each."""

    def change(field: dict[str, Any]) -> None:
        field["mpi"].update(columns=1024, rows=1024, blocks=22_000, steps=[[8]] * 4)

    return field_of(path, change)


def field_of(path: Path, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The light field with an entry that ``change`` makes, and codes that are all the same."""
    bundle = open_bundle(path)
    field = bundle.manifest["lightslab"]
    change(field)
    arrays = []
    for number, plane in enumerate(field["feature_planes"]):
        values = len(field["slabs"]) * field["features"]
        arrays.append(zeros(f"feature_plane_{number}", plane["rows"] * plane["columns"], values,
                            plane["stage"]))  # fmt: skip
    for name, shape in layer_shapes(field).items():
        arrays.append(zeros(f"net_{name}_weight", int(np.prod(shape))))
        arrays.append(zeros(f"net_{name}_bias", shape[0]))
    if "mpi" in field:
        arrays += _blocks(field)
    coded = encode_scene(None, arrays)
    for name in ("mpi_blocks", "mpi_levels", "mpi_frequencies"):
        if "mpi" in field:
            array(coded.manifest, name).pop("quantiser", None)
    return padded("lightslab", coded, {"count": 0, "sh_degree": 0, "lightslab": field})


def _blocks(field: dict[str, Any]) -> list[CodedArray]:
    """The first places have the blocks; all of these are empty."""
    mpi, slabs = field["mpi"], field["slabs"]
    places = mpi["columns"] * mpi["rows"] // 64 * len(slabs) * len(slabs[0]["disparities"])
    stored = (np.arange(places) < mpi["blocks"]).astype(np.int32)[:, None]
    return [
        replace(zeros("mpi_blocks", places), codes=stored),
        zeros("mpi_levels", mpi["blocks"]),
        zeros("mpi_frequencies", mpi["blocks"], 4 * len(mpi["steps"][0])),
    ]
