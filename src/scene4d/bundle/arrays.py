"""Arrays of codes with their quantisers: what attributes, networks, grids and palettes are made of.

:class:`CodedArray` is the exchange form: a kind's writer makes them, :mod:`scene4d.bundle.coding`
turns a list of them into members, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scene4d.bundle.entropy import ChannelModel, Context
from scene4d.errors import DataError

MAX_COMPONENTS = 1024
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """value = offset + step * code in float64, rounded to float32; one step and offset each."""

    step: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """Every code is a row number of another array; the rows stand one behind the other.

    With a book of one column this is a scalar codebook, with one component a palette.
    """

    array: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedArray:
    """Integer codes [items, components] and how they become numbers."""

    name: str
    codes: np.ndarray
    """[items, components] int32."""
    quantiser: Uniform | Codebook | None = None
    """None: the codes are the values."""
    basis: str | None = None
    """Array B [components, columns]: values become values @ B, in float32."""
    mean: str | None = None
    """Array of one row that is added at the end."""
    stage: int | None = None
    """None: an item per point, split among the stages; else all items belong to this stage."""
    stream: str = "points"
    """Arrays of one stream are coded one behind the other; streams decode in parallel."""
    hints: tuple[str, ...] = ()
    """Channels of earlier arrays that the encoder may try as contexts."""
    error: Mapping[str, float] | None = None
    """``max`` and ``rms`` of the error made, in the attribute's own unit; for `scene4d info`."""
    models: tuple[ChannelModel, ...] = field(default=())
    """Filled in when read or coded."""

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.dtype != np.int32:
            raise ValueError(f"{self.name}: codes must be int32 [items, components]")

    def channels(self) -> list[str]:
        """Names of the components: ``name.0``, ``name.1`` ..."""
        return [f"{self.name}.{i}" for i in range(self.codes.shape[1])]

    def columns(self) -> dict[str, np.ndarray]:
        """The channels' codes."""
        return {name: self.codes[:, i] for i, name in enumerate(self.channels())}


def uniform(step: float | Sequence[float], components: int, offset: float = 0.0) -> Uniform:
    """A :class:`Uniform` with one step for all or one each."""
    steps = [step] * components if isinstance(step, (int, float)) else list(step)
    return Uniform(step=tuple(map(float, steps)), offset=(float(offset),) * components)


def dequantise(name: str, arrays: Mapping[str, CodedArray]) -> np.ndarray:
    """[items, columns] float32 values of one array (int32 codes when it has no quantiser)."""
    return _values(name, arrays, depth=0)


def _values(name: str, arrays: Mapping[str, CodedArray], *, depth: int) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"array {name!r} is missing")
    if depth > 4:
        raise DataError(f"array {name!r} refers to itself")
    array = arrays[name]
    values = _quantised(array, arrays, depth)
    if array.basis is not None:
        basis = _values(array.basis, arrays, depth=depth + 1)
        if basis.shape[0] != values.shape[1]:
            raise DataError(
                f"array {name!r} has {values.shape[1]} components, its basis {basis.shape[0]} rows"
            )
        values = values.astype(np.float32) @ basis.astype(np.float32)
    if array.mean is not None:
        mean = _values(array.mean, arrays, depth=depth + 1)
        if mean.shape != (1, values.shape[1]):
            raise DataError(f"array {name!r} has {values.shape[1]} columns, its mean {mean.shape}")
        values = values + mean
    return values


def _quantised(array: CodedArray, arrays: Mapping[str, CodedArray], depth: int) -> np.ndarray:
    if array.quantiser is None:
        return array.codes
    if isinstance(array.quantiser, Codebook):
        book = _values(array.quantiser.array, arrays, depth=depth + 1)
        codes = array.codes
        if codes.size and (codes.min() < 0 or codes.max() >= len(book)):
            raise DataError(f"array {array.name!r} has a code outside its book of {len(book)} rows")
        width = codes.shape[1] * book.shape[1]
        return book.astype(np.float32)[codes].reshape(len(codes), width)
    result = np.empty(array.codes.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        for i in range(array.codes.shape[1]):
            step, offset = array.quantiser.step[i], array.quantiser.offset[i]
            _uniform_column(array.codes[:, i], step, offset, result[:, i])
    if not np.isfinite(result).all():
        raise DataError(f"array {array.name!r} has values beyond float32")
    return result


def _uniform_column(codes: np.ndarray, step: float, offset: float, result: np.ndarray) -> None:
    """float32(offset + step * code), through a table where the codes are few."""
    if not len(codes):
        return
    low, high = int(codes.min()), int(codes.max())
    if high - low < min(len(codes), _CHUNK):
        table = (offset + step * np.arange(low, high + 1, dtype=np.float64)).astype(np.float32)
        np.take(table, codes - low, out=result)
    else:
        result[:] = offset + step * codes.astype(np.float64)


def array_entry(array: CodedArray) -> dict[str, Any]:
    """The array's entry in the manifest; defaults are left out."""
    models = array.models
    entry: dict[str, Any] = {"name": array.name, "components": array.codes.shape[1]}
    if array.stage is not None:
        entry |= {"items": len(array.codes), "stage": array.stage}
    entry["low"] = [m.low for m in models]
    entry["tables"] = [m.table for m in models]
    if any(m.low_bits for m in models):
        entry["low_bits"] = [m.low_bits for m in models]
    if any(m.context for m in models):
        entry["contexts"] = [m.context and context_entry(m.context) for m in models]
    if any(m.previous for m in models):
        entry["previous"] = [list(m.previous) for m in models]
    if isinstance(array.quantiser, Uniform):
        step, offset = array.quantiser.step, array.quantiser.offset
        entry["quantiser"] = {"type": "uniform", "step": list(step), "offset": list(offset)}
    elif isinstance(array.quantiser, Codebook):
        entry["quantiser"] = {"type": "codebook", "array": array.quantiser.array}
    entry |= {k: v for k, v in (("basis", array.basis), ("mean", array.mean)) if v is not None}
    if array.error is not None:
        entry["error"] = dict(array.error)
    return entry


def context_entry(context: Context) -> dict[str, Any]:
    """A context in the manifest."""
    entry: dict[str, Any] = {"of": list(context.channels), "edges": list(context.edges)}
    if set(context.weights) != {1}:
        entry["weights"] = list(context.weights)
    if context.magnitude:
        entry["magnitude"] = True
    return entry


def array_from_entry(entry: Mapping[str, Any], codes: np.ndarray) -> CodedArray:
    """The array of a manifest entry whose codes are decoded."""
    return CodedArray(
        name=entry["name"],
        codes=codes,
        quantiser=_quantiser(entry),
        basis=entry.get("basis"),
        mean=entry.get("mean"),
        stage=entry.get("stage"),
        error=entry.get("error"),
        models=tuple(models_of(entry).values()),
    )


def models_of(entry: Mapping[str, Any]) -> dict[str, ChannelModel]:
    """The channels of a manifest entry. Raises :class:`DataError` on lists of unequal length."""
    size = entry["components"]
    low_bits = entry.get("low_bits", [0] * size)
    contexts = entry.get("contexts", [None] * size)
    previous = entry.get("previous", [[]] * size)
    lists = {"low": entry["low"], "tables": entry["tables"], "low_bits": low_bits,
             "contexts": contexts, "previous": previous}  # fmt: skip
    for name, values in lists.items():
        if len(values) != size:
            raise DataError(
                f"array {entry['name']!r} has {size} components but {len(values)} in {name!r}"
            )
    if any(edges != sorted(set(edges)) for edges in previous):
        raise DataError(f"array {entry['name']!r} has unsorted edges")
    return {
        f"{entry['name']}.{i}": ChannelModel(
            low=entry["low"][i],
            low_bits=low_bits[i],
            table=entry["tables"][i],
            context=_context(contexts[i], entry["name"]),
            previous=tuple(previous[i]),
        )
        for i in range(size)
    }


def _context(entry: Mapping[str, Any] | None, name: str) -> Context | None:
    if entry is None:
        return None
    weights = entry.get("weights", [1] * len(entry["of"]))
    edges = entry["edges"]
    if len(weights) != len(entry["of"]) or edges != sorted(set(edges)):
        raise DataError(f"array {name!r} has a context with unfitting weights or unsorted edges")
    return Context(
        channels=tuple(entry["of"]),
        weights=tuple(weights),
        magnitude=entry.get("magnitude", False),
        edges=tuple(edges),
    )


def _quantiser(entry: Mapping[str, Any]) -> Uniform | Codebook | None:
    value = entry.get("quantiser")
    if value is None:
        return None
    if value["type"] == "codebook":
        return Codebook(array=value["array"])
    if len(value["step"]) != entry["components"] or len(value["offset"]) != entry["components"]:
        raise DataError(f"array {entry['name']!r} needs a step and an offset per component")
    return Uniform(
        step=tuple(float(s) for s in value["step"]), offset=tuple(float(o) for o in value["offset"])
    )
