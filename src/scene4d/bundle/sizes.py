"""What each part of a bundle and each attribute takes, and the error that it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, Uniform
from scene4d.bundle.coding import decode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.entropy import ChannelModel, RunningSum
from scene4d.bundle.tables import PRECISION, Tables

_NETWORK = "net_"


@dataclass(frozen=True, kw_only=True)
class AttributeSize:
    """One attribute of a bundle. Errors are in the attribute's own unit; None: not known."""

    name: str
    bytes: int
    """Length of its codes, without its share in the frequency tables."""
    half_step: float | None = None
    """The largest error of plain rounding, of the coarsest component."""
    max_error: float | None = None
    """As its writer measured it."""
    rms_error: float | None = None


def part_sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of the parts; the sum is the file's size (a folder has no container)."""
    manifest = bundle.manifest
    lengths = {entry["name"]: entry["length"] for entry in manifest["members"]}
    parts = {"poster": lengths.pop(manifest["poster"], 0),
             "frequency tables": lengths.pop(manifest["tables"], 0)}  # fmt: skip
    for number, stage in enumerate(manifest["stages"]):
        lengths.pop(stage["member"], None)
        for stream in stage["streams"]:
            name = f"stage {number}: {_stream_name(stream)}"
            parts[name] = parts.get(name, 0) + stream["length"]
    references = [lengths.pop(r["member"], 0) for r in manifest["references"]]
    if references:
        parts["references"] = sum(references)
    if lengths:
        parts["other members"] = sum(lengths.values())
    parts["manifest and container"] = bundle.size - sum(parts.values())
    return parts


def _stream_name(stream: Mapping[str, Any]) -> str:
    if "positions" in stream:
        return "positions"
    names = ["network" if name.startswith(_NETWORK) else name for name in stream["arrays"]]
    return ", ".join(dict.fromkeys(names))


def attribute_sizes(bundle: Bundle) -> list[AttributeSize]:
    """Positions, then the arrays in the manifest's order; a network's layers are one."""
    manifest = bundle.manifest
    decoded = decode_scene(bundle)
    bits = array_bits(decoded.arrays, decoded.stage_points, Tables.from_bytes(
        bundle.read(manifest["tables"])))  # fmt: skip
    found = []
    if "positions" in manifest:
        streams = [s for stage in manifest["stages"] for s in stage["streams"] if "positions" in s]
        error = manifest["positions"].get("error") or {}
        size = sum(s["length"] for s in streams)
        found.append(AttributeSize(name="positions", bytes=size, **_errors(error)))
    layers = [a for a in decoded.arrays.values() if a.name.startswith(_NETWORK)]
    for array in decoded.arrays.values():
        if array not in layers:
            found.append(_attribute(array.name, [array], bits))
        elif array is layers[0]:
            found.append(_attribute("network", layers, bits))
    return found


def _attribute(name: str, arrays: list[CodedArray], bits: Mapping[str, float]) -> AttributeSize:
    steps = [s for a in arrays if isinstance(a.quantiser, Uniform) for s in a.quantiser.step]
    errors = [a.error for a in arrays if a.error is not None]
    counts = [a.codes.size for a in arrays if a.error is not None]
    error: dict[str, float] = {}
    if errors and sum(counts):
        squares = sum(n * e["rms"] ** 2 for n, e in zip(counts, errors, strict=True))
        error = {"max": max(e["max"] for e in errors), "rms": (squares / sum(counts)) ** 0.5}
    return AttributeSize(
        name=name,
        bytes=round(sum(bits[a.name] for a in arrays) / 8),
        half_step=max(steps) / 2 if steps else None,
        **_errors(error),
    )


def _errors(error: Mapping[str, float]) -> dict[str, float | None]:
    return {"max_error": error.get("max"), "rms_error": error.get("rms")}


def array_bits(
    arrays: Mapping[str, CodedArray], stage_points: tuple[int, ...], tables: Tables
) -> dict[str, float]:
    """Length of the codes of each array: the logarithms of the frequencies that were used."""
    bits = dict.fromkeys(arrays, 0.0)
    ends = np.cumsum([0, *stage_points])
    for number in range(len(stage_points)):
        part = slice(int(ends[number]), int(ends[number + 1]))
        here = {n: a for n, a in arrays.items() if a.stage in (None, number)}
        columns = {
            channel: codes[part] if array.stage is None else codes
            for array in here.values()
            for channel, codes in array.columns().items()
        }
        for name, array in here.items():
            running = RunningSum()
            for channel, model in zip(array.channels(), array.models, strict=True):
                bits[name] += _channel_bits(channel, model, columns, tables, running)
    return bits


def _channel_bits(
    channel: str,
    model: ChannelModel,
    columns: Mapping[str, np.ndarray],
    tables: Tables,
    running: RunningSum,
) -> float:
    symbols = (columns[channel] - np.int32(model.low)) >> model.low_bits
    if not len(symbols):
        return 0.0
    context = running.rows(model.context, columns) if model.context else None
    rows = model.rows(symbols, context)
    base, frequencies, _ = tables.arrays(model.table)
    first = base[0] if rows is None else base[rows]
    used = frequencies[first + symbols].astype(np.float64)
    return float((PRECISION + model.low_bits) * len(symbols) - np.log2(used).sum())
