"""Arrays of codes with their quantisers: what attributes, networks, grids and palettes are made of.

:class:`CodedArray` is the exchange form: a kind's writer makes them, :mod:`scene4d.bundle.coding`
turns a list of them into members, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scene4d.bundle.columns import dequantise_into_basis, dequantised, in_blocks
from scene4d.bundle.entropy import ChannelModel, Context
from scene4d.errors import DataError

MAX_COMPONENTS = 1024
_MOST_REFERENCES = 4
_MOST_CHANNELS = 256


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
    """None: the codes are the values (below 2^24, so exact in float32)."""
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
    own_contexts: bool = True
    """Whether the encoder may also try the array's own components."""
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


def dequantise(
    name: str,
    arrays: Mapping[str, CodedArray],
    *,
    out: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """[items, columns] float32 values of one array, in ``out`` when it is given.

    Raises :class:`DataError` before it takes memory where they are not of ``shape`` (``out``'s).
    """
    width = _width(name, arrays, 0)
    items = len(arrays[name].codes)
    wanted = shape if out is None else out.shape
    if wanted not in (None, (items, width)):
        raise DataError(
            f"array {name!r} should be {' x '.join(map(str, wanted))}, got {items} x {width}"
        )
    result = np.empty((items, width), dtype=np.float32) if out is None else out
    array = arrays[name]
    basis = None if array.basis is None else dequantise(array.basis, arrays)
    mean = None if array.mean is None else dequantise(array.mean, arrays)
    book = None
    if isinstance(array.quantiser, Codebook):
        book = dequantise(array.quantiser.array, arrays)
    _refuse_bad_codes(array, book)

    def fill(start: int, end: int) -> None:
        if isinstance(array.quantiser, Uniform) and basis is not None and mean is None:
            step, offset = np.array(array.quantiser.step), np.array(array.quantiser.offset)
            columns = array.codes.T[:, start:end]
            dequantise_into_basis(columns, step, offset, basis, result[start:end])
            return
        values = _quantised(array, array.codes[start:end], book)
        if basis is not None:
            values = values @ basis
        result[start:end] = values if mean is None else values + mean

    in_blocks(items, fill)
    return result


def _width(name: str, arrays: Mapping[str, CodedArray], depth: int) -> int:
    """Columns of an array's values; checks that the arrays it refers to exist and fit."""
    array = arrays.get(name)
    if array is None:
        raise DataError(f"array {name!r} is missing")
    if depth > _MOST_REFERENCES:
        raise DataError(f"array {name!r} refers to itself, or through too many others")
    width = array.codes.shape[1]
    if isinstance(array.quantiser, Codebook):
        width *= _width(array.quantiser.array, arrays, depth + 1)
    if array.basis is not None:
        columns = _width(array.basis, arrays, depth + 1)
        rows = len(arrays[array.basis].codes)
        if rows != width:
            raise DataError(f"array {name!r} has {width} values an item, its basis {rows} rows")
        width = columns
    if array.mean is not None:
        mean = (len(arrays[array.mean].codes) if array.mean in arrays else 1,
                _width(array.mean, arrays, depth + 1))  # fmt: skip
        if mean != (1, width):
            raise DataError(
                f"array {name!r} has {width} columns, its mean is {mean[0]} x {mean[1]}"
            )
    if width > MAX_COMPONENTS:
        raise DataError(f"array {name!r} has {width} columns; at most {MAX_COMPONENTS} are allowed")
    return width


def _quantised(array: CodedArray, codes: np.ndarray, book: np.ndarray | None) -> np.ndarray:
    """float32 values of some items before basis and mean."""
    if book is not None:
        return book[codes].reshape(len(codes), codes.shape[1] * book.shape[1])
    if isinstance(array.quantiser, Uniform):
        return dequantised(codes, np.array(array.quantiser.step), np.array(array.quantiser.offset))
    return codes.astype(np.float32)


def _refuse_bad_codes(array: CodedArray, book: np.ndarray | None) -> None:
    """Raises :class:`DataError` on codes outside the book or values beyond float32."""
    if not array.codes.size:
        return
    ends = np.stack([array.codes.min(axis=0), array.codes.max(axis=0)]).astype(np.float64)
    if book is not None and (ends.min() < 0 or ends.max() >= len(book)):
        raise DataError(f"array {array.name!r} has a code outside its book of {len(book)} rows")
    if isinstance(array.quantiser, Uniform):
        step, offset = np.array(array.quantiser.step), np.array(array.quantiser.offset)
        if not (np.abs(offset + step * ends) < 3.4e38).all():
            raise DataError(f"array {array.name!r} has values beyond float32")


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
    entry: dict[str, Any] = {"of": _as_ranges(context.channels), "edges": list(context.edges)}
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
    channels = _from_ranges(entry["of"])
    weights = entry.get("weights", [1] * len(channels))
    edges = entry["edges"]
    if len(weights) != len(channels) or edges != sorted(set(edges)):
        raise DataError(f"array {name!r} has a context with unfitting weights or unsorted edges")
    return Context(
        channels=channels,
        weights=tuple(weights),
        magnitude=entry.get("magnitude", False),
        edges=tuple(edges),
    )


def _as_ranges(channels: Sequence[str]) -> list[str]:
    """Runs of neighbouring channels of an array as ``name.first-last``."""
    runs: list[list[Any]] = []
    for channel in channels:
        name, _, number = channel.rpartition(".")
        if runs and runs[-1][0] == name and runs[-1][2] + 1 == int(number):
            runs[-1][2] = int(number)
        else:
            runs.append([name, int(number), int(number)])
    return [f"{name}.{a}" if a == b else f"{name}.{a}-{b}" for name, a, b in runs]


def _from_ranges(texts: Sequence[str]) -> tuple[str, ...]:
    channels: list[str] = []
    for text in texts:
        name, _, numbers = text.rpartition(".")
        first, _, last = numbers.partition("-")
        numbered = range(int(first), int(last or first) + 1)
        if not numbered or len(channels) + len(numbered) > _MOST_CHANNELS:
            raise DataError(f"a context has no channel, or more than {_MOST_CHANNELS}")
        channels += [f"{name}.{i}" for i in numbered]
    return tuple(channels)


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
