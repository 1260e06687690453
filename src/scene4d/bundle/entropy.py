"""Columns of integer codes as rANS passes, each with tables that other columns' codes choose.

A *channel* is one component of one array: a column of int32 codes, an item each. Its code c is
stored as a symbol (c - low) >> low_bits, coded by a frequency table, and low_bits plain bits. The
table may depend on the item's codes in channels decoded before (its *context*). All arithmetic is
on integers, so that every machine decodes the same codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scene4d.bundle.columns import add_weighted, bins, count_symbols, finish_codes
from scene4d.bundle.rans import RansDecoder, RansEncoder
from scene4d.bundle.tables import PRECISION, TOTAL, Tables, coarse_table

MAX_CONTEXTS = 16
"""Tables that one context is tried with before they are merged."""
_JOINT = 6
"""Tables along each axis when a context and the previous symbol choose together."""
_TABLE_ENTRY_BITS = 7.0
"""What a used entry of a table costs in tables.bin after zlib, about; decides what pays."""
_FEW_CODES = 16
"""So few get no plain bits where contexts, which say nothing of those, save more than
:data:`_CONTEXT_BITS`, about what one takes in the manifest."""
_CONTEXT_BITS = 256.0
_FIT_ITEMS = 100_000
"""Contexts are chosen on so many evenly spread items; the tables then count all."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Chooses one of ``len(edges) + 1`` tables by v = sum of weight * code (or |code|).

    The table's number is how many ``edges`` are <= v.
    """

    channels: tuple[str, ...]
    """Names of channels that are decoded earlier and have as many items."""
    weights: tuple[int, ...]
    magnitude: bool = False
    """Takes |code| instead of code."""
    edges: tuple[int, ...] = ()

    def value(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n] int64 v of every item."""
        total = np.zeros(len(columns[self.channels[0]]), dtype=np.int64)
        for name, weight in zip(self.channels, self.weights, strict=True):
            add_weighted(total, columns[name], weight, self.magnitude)
        return total


class RunningSum:
    """The value of the last context, to which the next one often only adds a channel."""

    def __init__(self) -> None:
        self._key: tuple[tuple[tuple[str, int], ...], bool] = ((), False)
        self._total = np.zeros(0, dtype=np.int64)

    def rows(self, context: Context, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n] uint8: how many edges of ``context`` are <= its value."""
        parts = tuple(zip(context.channels, context.weights, strict=True))
        done, magnitude = self._key
        if not done or magnitude != context.magnitude or parts[: len(done)] != done:
            self._total = np.zeros(len(columns[context.channels[0]]), dtype=np.int64)
            done = ()
        for name, weight in parts[len(done) :]:
            add_weighted(self._total, columns[name], weight, context.magnitude)
        self._key = (parts, context.magnitude)
        return bins(self._total, np.asarray(context.edges, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class ChannelModel:
    """How one channel is coded."""

    low: int
    """Smallest code."""
    low_bits: int = 0
    table: int = 0
    """Number of the first table."""
    context: Context | None = None
    previous: tuple[int, ...] = ()
    """Edges over the symbol of the item before (0 before the first); they choose as well."""

    @property
    def num_tables(self) -> int:
        """Tables from ``table`` on."""
        return (len(self.previous) + 1) * (len(self.context.edges) + 1 if self.context else 1)

    def previousbins(self) -> np.ndarray:
        """[4096] uint8: how many of the edges are <= each symbol."""
        return np.searchsorted(self.previous, np.arange(TOTAL), side="right").astype(np.uint8)

    def rows(
        self,
        symbols: np.ndarray,
        context_rows: np.ndarray | None,
        starts: Sequence[int] = (0,),
    ) -> np.ndarray | None:
        """[n] uint8 numbers of the symbols' tables; None: all 0. ``starts``: of each stage."""
        if not self.previous:
            return context_rows
        before = self.previousbins()[_before(symbols, starts)]
        stride = np.uint8(len(self.previous) + 1)
        return before if context_rows is None else context_rows * stride + before


class TableBuilder:
    """Collects tables while channels are fitted; equal tables are stored once."""

    def __init__(self) -> None:
        self._tables: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def add(self, counts: np.ndarray) -> int:
        """Number of the first of the tables made from ``counts`` [tables, n] (or [n])."""
        made = [_without_tail(coarse_table(row)) for row in np.atleast_2d(counts)]
        key = b"|".join(t.tobytes() for t in made)
        if key not in self._known:
            self._known[key] = len(self._tables)
            self._tables.extend(made)
        return self._known[key]

    def __len__(self) -> int:
        return len(self._tables)

    def build(self) -> Tables:
        """All tables so far."""
        return Tables(self._tables)


def encode_channels(
    encoder: RansEncoder,
    names: Iterable[str],
    models: Mapping[str, ChannelModel],
    columns: Mapping[str, np.ndarray],
) -> None:
    """Adds the passes of the named channels in order. ``columns`` also holds their contexts."""
    running = RunningSum()
    for name in names:
        model = models[name]
        shifted = columns[name] - np.int32(model.low)
        symbols = shifted >> model.low_bits if model.low_bits else shifted
        rows = running.rows(model.context, columns) if model.context else None
        encoder.symbols(symbols, model.table, model.rows(symbols, rows))
        if model.low_bits:
            encoder.bits(shifted & ((1 << model.low_bits) - 1), model.low_bits)


def decode_channels(
    decoder: RansDecoder,
    models: Mapping[str, ChannelModel],
    columns: Mapping[str, np.ndarray],
    into: Mapping[str, np.ndarray],
) -> None:
    """Decodes the channels of ``models`` in order ``into`` int32 arrays of their items.

    ``columns`` holds the channels decoded before.
    """
    known = {**columns, **into}
    running = RunningSum()
    for name, model in models.items():
        codes = into[name]
        rows = running.rows(model.context, known) if model.context else None
        previous = model.previousbins() if model.previous else None
        decoder.symbols(len(codes), model.table, rows, previous, out=codes)
        if model.low_bits or model.low:
            finish_codes(codes, model.low_bits, model.low)
        if model.low_bits:
            codes += decoder.bits(len(codes), model.low_bits)


def fit_channel(
    name: str,
    columns: Mapping[str, np.ndarray],
    candidates: Sequence[Context],
    builder: TableBuilder,
    starts: Sequence[int] = (0,),
    running: RunningSum | None = None,
    *,
    most: int = _JOINT**2,
) -> tuple[ChannelModel, float]:
    """The cheapest model among no context, ``candidates`` and the previous symbol, of at most
    ``most`` tables; size in bits.

    Edges are put at quantiles of the context's value; neighbouring tables are merged while that
    saves more in tables than it costs in codes. The best candidate and the previous symbol are
    also tried together. ``starts``: the first item of each stage, which has no item before it.
    """
    codes = columns[name]
    low = int(codes.min()) if len(codes) else 0
    shifted = codes - np.int32(low)
    low_bits = _best_low_bits(shifted)
    fitted = _fit_symbols(shifted, low_bits, columns, candidates, starts, running, most)
    if low_bits and int(shifted.max()) < _FEW_CODES:
        whole = _fit_symbols(shifted, 0, columns, candidates, starts, running, most)
        fitted = whole if whole[2] + _CONTEXT_BITS < fitted[2] else fitted
    model, counts, size = fitted
    return replace(model, low=low, table=builder.add(counts)), size


def _fit_symbols(
    shifted: np.ndarray,
    low_bits: int,
    columns: Mapping[str, np.ndarray],
    candidates: Sequence[Context],
    starts: Sequence[int],
    running: RunningSum | None,
    most: int,
) -> tuple[ChannelModel, np.ndarray, float]:
    """The cheapest model with so many plain bits of codes from 0 on; what its tables count, and the
    size in bits."""
    symbols = shifted >> low_bits if low_bits else shifted
    size = int(symbols.max()) + 1 if len(symbols) else 1
    model = ChannelModel(low=0, low_bits=low_bits)
    if len(symbols):
        model = _choose_context(model, symbols, columns, candidates, starts, most)
    context = None
    if model.context is not None:
        context = (running or RunningSum()).rows(model.context, columns)
    rows = model.rows(symbols, context, starts)
    counts = np.zeros((model.num_tables, size), dtype=np.int64)
    count_symbols(counts, np.zeros(1, dtype=np.uint8) if rows is None else rows, symbols)
    return model, counts, _cost(counts, 1) + low_bits * len(symbols)


def _choose_context(
    model: ChannelModel,
    symbols: np.ndarray,
    columns: Mapping[str, np.ndarray],
    candidates: Sequence[Context],
    starts: Sequence[int],
    most: int,
) -> ChannelModel:
    """``model`` with the context and edges of the previous symbol that pay most."""
    size = int(symbols.max()) + 1
    alone, jointly = min(MAX_CONTEXTS, most), min(_JOINT, math.isqrt(most))
    stride = max(1, len(symbols) // _FIT_ITEMS)
    sample = symbols[::stride].astype(np.int64)
    before = _before(symbols, starts)[::stride].astype(np.int64)
    best_cost, best = _cost(np.bincount(sample, minlength=size)[None], stride), model
    best_context, context_cost = None, np.inf
    for candidate in candidates:
        thinned = {channel: columns[channel][::stride] for channel in candidate.channels}
        value = candidate.value(thinned)
        edges, cost = _fit_edges(value, sample, size, stride, most=alone)
        if edges and cost < context_cost:
            context_cost, best_context = cost, (replace(candidate, edges=edges), value)
    if best_context is not None and context_cost < best_cost:
        best_cost, best = context_cost, replace(model, context=best_context[0])
    edges, cost = _fit_edges(before, sample, size, stride, most=alone)
    if edges and cost < best_cost:
        best_cost, best = cost, replace(model, previous=edges)
    if edges and best_context is not None:
        context, value = best_context
        coarse, _ = _fit_edges(value, sample, size, stride, most=jointly)
        edges, _ = _fit_edges(before, sample, size, stride, most=jointly)
        joint = replace(model, context=replace(context, edges=coarse), previous=edges)
        rows = bins(value, np.asarray(coarse, dtype=np.int64)).astype(np.int64)
        rows = rows * (len(edges) + 1) + bins(before, np.asarray(edges, dtype=np.int64))
        counts = np.bincount(rows * size + sample, minlength=joint.num_tables * size)
        if _cost(counts.reshape(-1, size), stride) < best_cost:
            best = joint
    return best


def _fit_edges(
    values: np.ndarray, symbols: np.ndarray, size: int, stride: int, *, most: int
) -> tuple[tuple[int, ...], float]:
    """Edges of at most ``most`` bins of a context, and the size in bits that they give."""
    edges = _candidate_edges(values)
    if not edges:
        return (), np.inf
    rows = bins(values, np.asarray(edges, dtype=np.int64)).astype(np.int64)
    counts = np.bincount(rows * size + symbols, minlength=(len(edges) + 1) * size)
    tables = counts.reshape(len(edges) + 1, size)
    costs = list(_costs(tables, stride))
    merged = list(_costs(tables[:-1] + tables[1:], stride))
    while merged:
        gains = [costs[i] + costs[i + 1] - merged[i] for i in range(len(merged))]
        at = int(np.argmax(gains))
        if gains[at] <= 0 and len(tables) <= most:
            break
        tables[at] += tables[at + 1]
        tables = np.delete(tables, at + 1, axis=0)
        costs[at : at + 2] = [merged[at]]
        del edges[at], merged[at]
        around = [i for i in (at - 1, at) if 0 <= i < len(merged)]
        for i, cost in zip(around, _costs(tables[around] + tables[[i + 1 for i in around]], stride),
                           strict=True):  # fmt: skip
            merged[i] = cost
    return tuple(edges), float(sum(costs))


def _candidate_edges(values: np.ndarray) -> list[int]:
    """Quantiles of the values, and of those besides the commonest, which often is nearly all."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= MAX_CONTEXTS:
        return [int(v) for v in distinct[1:]]
    inner = np.linspace(0, 1, MAX_CONTEXTS + 1)[1:-1]
    mode = int(counts.argmax())
    others = counts.copy()
    others[mode] = 0
    chosen = {mode, mode + 1}
    for weights in (counts, others):
        reached = np.cumsum(weights)
        chosen |= set(np.searchsorted(reached, inner * reached[-1]).tolist())
    return [int(distinct[i]) for i in sorted(chosen) if 0 < i < len(distinct)]


def _best_low_bits(shifted: np.ndarray) -> int:
    """The number of plain bits that makes codes and table together smallest."""
    if not len(shifted):
        return 0
    top = int(shifted.max())
    if top >> PRECISION >= TOTAL:
        raise ValueError(f"codes of a channel span {top + 1} values; {TOTAL << PRECISION} at most")
    least = max(0, top.bit_length() - PRECISION)
    counts = np.bincount(shifted >> least)
    best, best_cost = least, np.inf
    for low_bits in range(least, min(top.bit_length(), PRECISION) + 1):
        cost = _cost(counts[None], 1) + low_bits * len(shifted)
        if cost < best_cost and np.count_nonzero(counts) <= TOTAL // 2:
            best, best_cost = low_bits, cost
        counts = np.add.reduceat(counts, np.arange(0, len(counts), 2))
    return best


def _cost(counts: np.ndarray, stride: int) -> float:
    """Bits of the symbols counted in ``counts`` [tables, n] (every ``stride``-th) with tables."""
    return float(_costs(counts, stride).sum())


def _costs(counts: np.ndarray, stride: int) -> np.ndarray:
    """As :func:`_cost`, of each table [tables]."""
    total = counts.sum(axis=1, keepdims=True)
    used = counts > 0
    # A symbol's share in its table is at least 1/4096.
    share = np.maximum(counts, total / TOTAL) / np.maximum(total, 1)
    bits = -(counts * np.log2(share, where=used, out=np.zeros(counts.shape))).sum(axis=1)
    return bits * stride + used.sum(axis=1) * _TABLE_ENTRY_BITS


def _before(symbols: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """[n] symbol of the item before; 0 at the ``starts``."""
    result = np.empty_like(symbols)
    result[1:] = symbols[:-1]
    result[[start for start in starts if start < len(result)]] = 0
    return result


def _without_tail(table: np.ndarray) -> np.ndarray:
    return table[: int(np.flatnonzero(table)[-1]) + 1]
