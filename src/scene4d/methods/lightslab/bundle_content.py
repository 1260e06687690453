"""Bundles of kind ``lightslab``: feature planes of light slabs, their network, and their MPIs.

Decoding needs no torch and gives planes, layers and texels; a picture is made from them by a
player, or by ``scene4d.methods.lightslab.bundle_parts``. SPEC.md, section 8. Source of the method:
LightSpeed, arXiv 2310.16832.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scene4d.bundle.arrays import MAX_COMPONENTS, CodedArray, dequantise, uniform
from scene4d.bundle.coding import Coded, Decoded, decode_scene, encode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.limits import VALUES, carried_bytes
from scene4d.bundle.quantise import rounded
from scene4d.bundle.splats import error_of
from scene4d.errors import DataError
from scene4d.methods.lightslab.block_transform import CHANNELS
from scene4d.methods.lightslab.bundle_mpi import (
    BLOCK,
    MpiArrays,
    MpiParts,
    array_sizes,
    check_mpi,
    mpi_arrays,
    mpi_of,
)

KIND = "lightslab"
OUTPUTS = 5
"""Red, green, blue, alpha, depth."""
WEIGHT_LEVELS = 255
"""Levels of a weight between its layer's smallest and largest."""
MAX_PRODUCTS = 200_000_000_000
"""Of the network, for a picture of 800 x 800 pixels: beyond it a device would stand still."""
MAX_TURN = 1e-3
"""How far the rows of a slab's rotation may be from orthonormal."""
_STREAMS = 4
"""Of the planes of one stage, decoded in parallel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LightSlabParts:
    """A light field as integers and steps, before coding."""

    structure: Mapping[str, Any]
    """The manifest's entry ``lightslab``."""
    codes: Sequence[np.ndarray]
    """Of each plane: [slabs, rows, columns, features] int32."""
    steps: Sequence[np.ndarray]
    """Of each plane: [slabs, features]."""
    weights: Mapping[str, np.ndarray]
    """``LAYER.weight`` and ``LAYER.bias`` of every layer of :func:`layer_shapes`, float32."""
    weight_levels: int = WEIGHT_LEVELS
    mpi: MpiParts | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LightSlabArrays:
    """A decoded light field."""

    structure: Mapping[str, Any]
    planes: Sequence[np.ndarray]
    """Of each plane: [slabs, rows, columns, features] float32; 0 where its stage was not read."""
    layers: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Weight, shaped as :func:`layer_shapes` says, and bias of each layer, float32."""
    bits: int
    """Of the planes' codes, sign included."""
    mpi: MpiArrays | None = None


def content_of(manifest: Mapping[str, Any]) -> str:
    """What a bundle of this kind holds, for people."""
    planes, slabs = (len(manifest[KIND][name]) for name in ("feature_planes", "slabs"))
    told = f"a light field of {slabs} slab{'s' * (slabs > 1)} and {planes} planes"
    mpi = manifest[KIND].get("mpi")
    if mpi is None:
        return told
    size, blocks = f"{mpi['columns']} x {mpi['rows']}", mpi["blocks"]
    number = slabs * len(manifest[KIND]["slabs"][0]["disparities"])
    return f"{told}, with {number} MPI planes of {size} texels, {blocks:,} of their blocks stored"


def encode_light_slab(parts: LightSlabParts) -> Coded:
    """Members, and the manifest's part, of a light field."""
    structure = parts.structure
    _check_structure(structure)
    arrays = []
    for name, shape in layer_shapes(structure).items():
        weight, bias = parts.weights[f"{name}.weight"], parts.weights[f"{name}.bias"]
        if weight.shape != shape or bias.shape != shape[:1]:
            raise ValueError(f"layer {name} is {weight.shape} and {bias.shape}, should be {shape}")
        arrays.append(_column(f"net_{name}_weight", weight, parts.weight_levels))
        # Few, and added to sums of many: they keep 16 bits.
        arrays.append(_column(f"net_{name}_bias", bias, (1 << 16) - 1))
    for number, (plane, codes, steps) in enumerate(
        zip(structure["feature_planes"], parts.codes, parts.steps, strict=True)
    ):
        if codes.shape != _shape(structure, plane):
            raise ValueError(f"plane {number} is {codes.shape}, unlike its entry {plane}")
        columns = np.moveaxis(codes, 0, 2).reshape(plane["rows"] * plane["columns"], -1)
        arrays.append(
            CodedArray(
                name=f"feature_plane_{number}",
                codes=np.asfortranarray(columns, dtype=np.int32),
                quantiser=uniform([rounded(float(s)) for s in steps.flat], steps.size),
                stage=plane["stage"],
                stream=f"planes{number % _STREAMS}",
                # The texel to the left tells more than the texel's other features, which with
                # many slabs are also more than a context may have: of a scene of 417,792 values
                # the planes take 305.4 kB with both and 306.1 without, but their tables 8.2, 5.7.
                own_contexts=False,
            )
        )
    if (parts.mpi is None) != ("mpi" not in structure):
        raise ValueError("MPIs without their entry, or an entry without MPIs")
    if parts.mpi is not None:
        arrays += mpi_arrays(parts.mpi, structure)
    coded = encode_scene(None, arrays)
    manifest = {"count": 0, "sh_degree": 0, KIND: dict(structure), **coded.manifest}
    checked_structure(manifest)
    return replace(coded, manifest=manifest)


def _column(name: str, values: np.ndarray, levels: int) -> CodedArray:
    """One layer's weights or biases as one column."""
    column = values.reshape(-1, 1).astype(np.float64)
    step = rounded(float(2 * np.abs(column).max() / (levels - 1)) or 1.0)
    codes = np.rint(column / step).astype(np.int32)
    return CodedArray(
        name=name, codes=codes, quantiser=uniform(step, 1), stage=0, stream="network",
        error=error_of(step * codes - column),
    )  # fmt: skip


def layer_shapes(structure: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the layers' weights by name, in their order: (outputs, inputs), of convolutions
    (outputs, inputs, 3, 3)."""
    d = structure["decoder"]
    encoded, width, channels = d["encoded"], d["width"], d["channels"]
    inputs = len(structure["feature_planes"]) * structure["features"]
    shapes: dict[str, tuple[int, ...]] = {
        "encode": (encoded, inputs),
        "first": (width, d["samples"] ** 2 * encoded),
    }
    for i in range(d["blocks"]):
        shapes |= {f"block_{i}_0": (width, width), f"block_{i}_1": (width, width)}
    shapes["last"] = (4 * channels[0], width)
    skip = d["samples"].bit_length() - 2
    for j, (into, out) in enumerate(zip(channels, [*channels[1:], OUTPUTS], strict=True)):
        shapes[f"sharpen_{j}"] = (4 * out, into + (encoded if j == skip else 0), 3, 3)
    return shapes


def picture_products(structure: Mapping[str, Any]) -> int:
    """Multiplications of the network for a picture of 800 x 800 pixels, look-ups left out."""
    decoder = structure["decoder"]
    rays, total = 800 / (2 << len(decoder["channels"])), 0.0
    for name, shape in layer_shapes(structure).items():
        finer = 2 << int(name[8:]) if name.startswith("sharpen_") else 1
        across = decoder["samples"] if name == "encode" else finer
        total += float(np.prod(shape)) * (rays * across) ** 2
    return round(total)


def decode_light_slab(bundle: Bundle, *, stages: int | None = None) -> LightSlabArrays:
    """Planes and layers of an opened bundle; of its first ``stages``. Raises :class:`DataError`."""
    manifest = bundle.manifest
    if manifest["kind"] != KIND:
        raise DataError(f"is of kind {manifest['kind']!r}, not {KIND}", where=bundle.path)
    try:
        structure = checked_structure(manifest)
        return _arrays_of(structure, decode_scene(bundle, stages=stages))
    except DataError as error:
        raise DataError(error.what, where=bundle.path, fix=error.fix) from error


def checked_structure(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest's entry ``lightslab``, checked against the rest.

    Types and ranges of single entries are the schema's matter.
    """
    structure = manifest.get(KIND)
    if structure is None:
        raise DataError(f"the manifest has no entry {KIND!r}")
    points = sum(stage["points"] for stage in manifest["stages"])
    if manifest["count"] or manifest["sh_degree"] or points or "positions" in manifest:
        raise DataError("a light field has no points: count, sh_degree and points must be 0")
    _check_structure(structure)
    if "mpi" in structure:  # each stored block becomes 8 x 8 texels of 4 values
        VALUES.check(CHANNELS * BLOCK**2 * structure["mpi"]["blocks"], carried_bytes(manifest))
    arrays = {entry["name"]: entry for entry in manifest["arrays"]}
    for number, plane in enumerate(structure["feature_planes"]):
        slabs, rows, columns, features = _shape(structure, plane)
        size = (rows * columns, slabs * features, plane["stage"])
        _check_array(arrays, f"feature_plane_{number}", size)
    for name, shape in layer_shapes(structure).items():
        _check_array(arrays, f"net_{name}_weight", (int(np.prod(shape)), 1, 0))
        _check_array(arrays, f"net_{name}_bias", (shape[0], 1, 0))
    for name, size in array_sizes(structure).items():
        _check_array(arrays, name, size)
        if "quantiser" in arrays[name]:
            raise DataError(f"array {name!r} has a quantiser, which it must not have")
    return structure


def _check_array(
    arrays: Mapping[str, Mapping[str, Any]], name: str, size: tuple[int, int, int]
) -> None:
    """An array's items, components and stage, before anything is decoded."""
    entry = arrays.get(name)
    if entry is None:
        raise DataError(f"array {name!r} is missing")
    found = (entry.get("items"), entry["components"], entry.get("stage"))
    if found != size:
        raise DataError(
            f"array {name!r} should be {size[0]} x {size[1]} of stage {size[2]},"
            f" got {found[0]} x {found[1]} of stage {found[2]}"
        )
    if entry.get("basis") or entry.get("mean") or entry.get("quantiser", {}).get("array"):
        raise DataError(f"array {name!r} refers to another, which kind {KIND} does not allow")


def _shape(structure: Mapping[str, Any], plane: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Slabs, rows, columns, features of a plane."""
    return len(structure["slabs"]), plane["rows"], plane["columns"], structure["features"]


def _check_structure(structure: Mapping[str, Any]) -> None:
    """What the schema cannot say of the entry by itself."""
    count = len(structure["slabs"][0]["disparities"])
    for number, slab in enumerate(structure["slabs"]):
        lists = {name: np.array(slab[name], dtype=np.float64) for name in ("low", "high")}
        if len(slab["disparities"]) != count or {len(v) for v in lists.values()} != {count}:
            raise DataError(f"{KIND}.slabs[{number}] has another number of planes than the first")
        if not (lists["low"].astype(np.float32) < lists["high"].astype(np.float32)).all():
            raise DataError(f"{KIND}.slabs[{number}] has a range whose low is not below its high")
        turn = np.array(slab["rotation"], dtype=np.float64)
        if np.abs(turn @ turn.T - np.eye(3)).max() > MAX_TURN or np.linalg.det(turn) < 0:
            raise DataError(f"{KIND}.slabs[{number}].rotation is no rotation")
        if (np.diff(np.float32(slab["disparities"])) <= 0).any():
            raise DataError(f"the disparities of {KIND}.slabs[{number}] do not rise")
    stages = [plane["stage"] for plane in structure["feature_planes"]]
    if stages[0] != 0 or stages != sorted(stages):
        raise DataError(f"the stages of {KIND}.feature_planes do not rise from 0")
    if any(max(plane["axes"]) >= 2 * count for plane in structure["feature_planes"]):
        raise DataError(f"a plane of {KIND} has an axis beyond the {2 * count} coordinates")
    if len(structure["slabs"]) * structure["features"] > MAX_COMPONENTS:
        raise DataError(f"slabs times features of {KIND} are above {MAX_COMPONENTS}")
    check_mpi(structure)
    decoder = structure["decoder"]
    if decoder["samples"] not in [1 << i for i in range(len(decoder["channels"]) + 1)]:
        raise DataError(
            f"{KIND}.decoder takes {decoder['samples']} samples, no power of 2 up to"
            f" {1 << len(decoder['channels'])}"
        )
    products = picture_products(structure)
    if products > MAX_PRODUCTS:
        raise DataError(
            f"a picture of 800 x 800 takes {products} products of {KIND}.decoder; at most"
            f" {MAX_PRODUCTS} are allowed"
        )


def _arrays_of(structure: Mapping[str, Any], decoded: Decoded) -> LightSlabArrays:
    planes, largest = [], 1
    for number, plane in enumerate(structure["feature_planes"]):
        slabs, rows, columns, features = _shape(structure, plane)
        name = f"feature_plane_{number}"
        if name in decoded.arrays:
            values = dequantise(name, decoded.arrays).reshape(rows, columns, slabs, features)
            planes.append(np.moveaxis(values, 2, 0))
            codes = decoded.arrays[name].codes
            largest = max(largest, int(codes.max()), -int(codes.min()))
        else:
            planes.append(np.zeros((slabs, rows, columns, features), dtype=np.float32))
    layers = {}
    for name, shape in layer_shapes(structure).items():
        weight = dequantise(f"net_{name}_weight", decoded.arrays).reshape(shape)
        layers[name] = weight, dequantise(f"net_{name}_bias", decoded.arrays)[:, 0]
    return LightSlabArrays(
        structure=structure, planes=planes, layers=layers, bits=largest.bit_length() + 1,
        mpi=mpi_of(structure, decoded.arrays),
    )  # fmt: skip
