"""Integer frequency tables of the entropy coder, and the member ``tables.bin`` that holds them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from scene4d.errors import DataError

PRECISION = 12
TOTAL = 1 << PRECISION
"""Frequencies of a table sum to this."""
MAX_TABLES = 4096
MAX_ENTRIES = 1 << 20
"""Bounds a decoder may rely on before it allocates."""


class Tables:
    """All tables of a bundle, one behind the other; frequency 0 marks a symbol that never comes."""

    def __init__(self, tables: Sequence[np.ndarray]) -> None:
        """``tables``: integer arrays, each summing to 4096."""
        self.sizes = np.array([len(t) for t in tables], dtype=np.int64)
        flat = np.concatenate([*tables, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        self._base = np.concatenate([[0], np.cumsum(self.sizes)])
        starts = np.concatenate([[0], np.cumsum(flat)])[:-1] % TOTAL
        # A trailing symbol of frequency 0 starts at 4096, which wraps to 0; nobody reads it.
        self._freq = flat.astype(np.uint16)
        self._start = starts.astype(np.uint16)
        self._slots: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def frequencies(self, table: int) -> np.ndarray:
        """[n] frequencies of one table."""
        return self._freq[self._base[table] : self._base[table + 1]]

    def arrays(self, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets of the tables from ``first`` on, all frequencies, all starts."""
        return self._base[first:], self._freq, self._start

    def slots(self) -> np.ndarray:
        """[tables, 4096] the symbol of every slot."""
        if self._slots is None:
            symbols = np.arange(len(self._freq)) - np.repeat(self._base[:-1], self.sizes)
            filled = np.repeat(symbols.astype(np.uint16), self._freq)
            self._slots = filled.reshape(len(self), TOTAL)
        return self._slots

    def to_bytes(self) -> bytes:
        """The member: zlib over, per table, the varint number of symbols and their frequencies."""
        values = [np.concatenate([[len(t)], t]) for t in map(self.frequencies, range(len(self)))]
        flat = np.concatenate([*values, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        return zlib.compress(_varints(flat), 9)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tables:
        """Reads the member. Raises :class:`DataError` on anything that is not sound tables."""
        values = _parse_varints(_inflate(data))
        tables: list[np.ndarray] = []
        at = 0
        while at < len(values):
            size = int(values[at])
            table = values[at + 1 : at + 1 + size]
            if not 0 < size <= TOTAL or len(table) != size:
                raise DataError(f"frequency table {len(tables)} has {size} symbols or is cut off")
            if table.sum() != TOTAL or table.max() > TOTAL:
                raise DataError(
                    f"frequency table {len(tables)} sums to {int(table.sum())}, not {TOTAL}"
                )
            tables.append(table)
            at += 1 + size
        if len(tables) > MAX_TABLES:
            raise DataError(f"has {len(tables)} frequency tables; at most {MAX_TABLES} are allowed")
        return cls(tables)


def frequency_table(counts: np.ndarray) -> np.ndarray:
    """[n] int64 frequencies that sum to 4096, at least 1 where ``counts`` [n] is not 0.

    Starts from rounded shares, then moves single units where they change the code length least.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.any():
        counts = np.ones_like(counts)
    used = counts > 0
    if used.sum() > TOTAL:
        raise ValueError(f"a table can hold {TOTAL} different symbols, got {int(used.sum())}")
    freq = np.where(used, np.maximum(1, np.rint(counts * (TOTAL / counts.sum()))), 0.0)
    while (excess := int(freq.sum()) - TOTAL) != 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            if excess > 0:
                cost = np.where(freq > 1, counts * np.log(freq / (freq - 1)), np.inf)
            else:
                cost = np.where(used, -counts * np.log((freq + 1) / freq), np.inf)
        batch = max(1, min(abs(excess) // 2, int((freq > 1).sum()) // 4))
        best = np.argsort(cost, kind="stable")[:batch]
        freq[best] -= np.sign(excess)
    return freq.astype(np.int64)


def coarse_table(counts: np.ndarray) -> np.ndarray:
    """[n] frequencies of as few significant bits as ``counts`` [n] deserve.

    A count c is itself uncertain by its square root, so log2(sqrt(c)) - 1 significant bits lose
    next to nothing; the tables, with fewer different numbers, deflate to two thirds. The largest
    frequency takes what is missing to 4096.
    """
    counts = np.asarray(counts)
    exact = frequency_table(counts)
    if not counts.any():
        return exact
    keep = np.maximum(1, np.ceil(0.5 * np.log2(np.maximum(counts, 1)) - 1)).astype(np.int64)
    length = np.floor(np.log2(np.maximum(exact, 1))).astype(np.int64) + 1
    drop = np.maximum(0, length - keep)
    table = ((exact + ((1 << drop) >> 1)) >> drop) << drop
    table = np.where(exact > 0, np.maximum(table, 1), 0)
    largest = int(exact.argmax())
    table[largest] += TOTAL - int(table.sum())
    return table if table[largest] > 0 else exact


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    limit = 2 * (MAX_ENTRIES + MAX_TABLES)
    try:
        raw = inflater.decompress(data, limit)
    except zlib.error as error:
        raise DataError(f"the frequency tables cannot be inflated ({error})") from error
    if not inflater.eof or inflater.unused_data:
        raise DataError(f"the frequency tables are cut off or larger than {limit} bytes")
    return raw


def _varints(values: np.ndarray) -> bytes:
    """Values below 2^14 as 1 or 2 bytes, 7 bits each, low bits first, bit 7: another follows."""
    pairs = np.stack([(values & 127) | np.where(values > 127, 128, 0), values >> 7], axis=1)
    keep = np.stack([np.ones(len(values), dtype=bool), values > 127], axis=1)
    return pairs[keep].astype(np.uint8).tobytes()


def _parse_varints(raw: bytes) -> np.ndarray:
    data = np.frombuffer(raw, dtype=np.uint8).astype(np.int64)
    first = np.ones(len(data), dtype=bool)
    first[1:] = data[:-1] < 128
    if len(data) and (data[-1] > 127 or (~first[1:] & ~first[:-1]).any() or not first[0]):
        raise DataError("the frequency tables contain a number longer than two bytes")
    starts = np.flatnonzero(first)
    values = data[starts] & 127
    long = data[starts] > 127
    values[long] |= data[starts[long] + 1] << 7
    return values
