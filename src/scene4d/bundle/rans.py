"""Range asymmetric numeral systems (rANS) on 32-bit integers: four lanes, 12-bit frequencies.

Source: Duda 2013 (arXiv 1311.2540); byte order and interleaving as in Giesen 2014 (arXiv
1402.3392), section 2. A step needs one multiplication of 12 by 20 bits, so a decoder in JavaScript
stays within its 32-bit integers; everything is exact on every machine. ``mobile_export/SPEC.md``,
section "Entropy coding", is the description for other implementations.

The ``constriction`` library was measured first: its state has 64 bits and its probabilities 24,
which costs a JavaScript decoder five times the time per symbol, and its Python binding holds the
interpreter lock, so that two cores decode no faster than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from scene4d.bundle.tables import PRECISION, TOTAL, Tables
from scene4d.errors import DataError

LANES = 4
LOW = 1 << 16
"""States lie in [LOW, 2^32); a lane starts and ends at LOW."""
HEADER_BYTES = 4 * LANES
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_MASK = TOTAL - 1


@dataclass(frozen=True, eq=False)
class _Pass:
    """Symbols of one pass with their tables, or uniform bits (``width`` > 0)."""

    symbols: np.ndarray
    rows: np.ndarray | None
    first_table: int
    width: int


class RansEncoder:
    """Collects passes in decoding order; :meth:`finish` codes them backwards."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._passes: list[_Pass] = []

    def symbols(self, symbols: np.ndarray, table: int, rows: np.ndarray | None = None) -> None:
        """A pass over ``symbols`` [n]; symbol i uses table ``table + rows[i]`` (rows: all 0)."""
        flat = np.ascontiguousarray(symbols, dtype=np.int32)
        choice = None if rows is None else np.ascontiguousarray(rows, dtype=np.uint8)
        self._passes.append(_Pass(flat, choice, table, 0))

    def bits(self, values: np.ndarray, width: int) -> None:
        """A pass over ``values`` [n] in 0 .. 2^width - 1, each as ``width`` <= 12 plain bits."""
        if not 0 < width <= PRECISION:
            raise ValueError(f"width must be 1 to {PRECISION}, got {width}")
        self._passes.append(_Pass(np.ascontiguousarray(values, dtype=np.int32), None, 0, width))

    def finish(self) -> bytes:
        """The stream: four states (uint32), then 16-bit words, all little-endian."""
        words = np.empty(sum(len(p.symbols) for p in self._passes), dtype=np.uint16)
        states = np.full(LANES, LOW, dtype=np.uint64)
        at = len(words)
        for step in reversed(self._passes):
            if step.width:
                at = _encode_bits(step.symbols, step.width, states, words, at)
                continue
            base, freq, start = self._tables.arrays(step.first_table)
            rows = _one_row(step.rows, len(step.symbols))
            at = _encode_symbols(step.symbols, rows, base, freq, start, states, words, at)
            if at < 0:
                raise ValueError("a symbol has frequency 0 in its table")
        return states.astype("<u4").tobytes() + words[at:].astype("<u2").tobytes()


class RansDecoder:
    """Reads the passes of one stream in order; :meth:`finish` checks that nothing is left."""

    def __init__(self, data: bytes, tables: Tables) -> None:
        if len(data) < HEADER_BYTES or len(data) % 2:
            raise DataError(f"a coded stream has {len(data)} bytes; it is cut off")
        self._tables = tables
        self._states = np.frombuffer(data, dtype="<u4", count=LANES).astype(np.uint64)
        self._words = np.frombuffer(data, dtype="<u2", offset=HEADER_BYTES).astype(np.uint16)
        self._at = 0
        if (self._states < LOW).any():
            raise DataError("a coded stream starts in an impossible state")

    def symbols(
        self,
        count: int,
        table: int,
        rows: np.ndarray | None = None,
        previous: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """[count] int32 (``out``, when given); symbol i by table ``table + rows[i]``.

        With ``previous`` [4096] uint8, symbol i uses table ``table + rows[i] * stride +
        previous[symbol i - 1]``, stride being the largest entry + 1; before the first is symbol 0.
        """
        result = np.empty(count, dtype=np.int32) if out is None else out
        base, freq, start = self._tables.arrays(table)
        slots = self._tables.slots()[table:]
        if previous is not None:
            self._at = _decode_chained(
                _one_row(rows, count), previous, int(previous.max()) + 1, slots, base, freq, start,
                self._states, self._words, self._at, result,
            )  # fmt: skip
        elif rows is None:
            self._at = _decode_one_table(
                slots[0], freq[base[0] :], start[base[0] :], self._states, self._words, self._at,
                result,
            )  # fmt: skip
        else:
            self._at = _decode_symbols(
                rows, slots, base, freq, start, self._states, self._words, self._at, result
            )
        self._check()
        return result

    def bits(self, count: int, width: int) -> np.ndarray:
        """[count] int32 of ``width`` plain bits each."""
        result = np.empty(count, dtype=np.int32)
        self._at = _decode_bits(width, self._states, self._words, self._at, result)
        self._check()
        return result

    def finish(self) -> None:
        """Raises :class:`DataError` unless the stream ended exactly here."""
        if self._at != len(self._words) or (self._states != LOW).any():
            raise DataError("a coded stream does not end where its symbols end; it is damaged")

    def _check(self) -> None:
        if self._at < 0:
            raise DataError("a coded stream ends before its last symbol; it is damaged")


def _one_row(rows: np.ndarray | None, count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.uint8) if rows is None else rows


@njit(**_OPTIONS)
@no_type_check
def _encode_symbols(symbols, rows, base, freq, start, states, words, at):  # pragma: no cover
    for i in range(len(symbols) - 1, -1, -1):
        entry = base[rows[i]] + symbols[i]
        f = np.uint64(freq[entry])
        if f == 0:
            return -1
        lane = i & (LANES - 1)
        x = states[lane]
        if x >= f << np.uint64(20):
            at -= 1
            words[at] = x & np.uint64(0xFFFF)
            x >>= np.uint64(16)
        quotient = x // f
        states[lane] = (quotient << np.uint64(PRECISION)) + (x - quotient * f) + start[entry]
    return at


@njit(**_OPTIONS)
@no_type_check
def _encode_bits(values, width, states, words, at):  # pragma: no cover
    shift = np.uint64(PRECISION - width)
    for i in range(len(values) - 1, -1, -1):
        lane = i & (LANES - 1)
        x = states[lane]
        if x >= np.uint64(1) << (np.uint64(20) + shift):
            at -= 1
            words[at] = x & np.uint64(0xFFFF)
            x >>= np.uint64(16)
        rest = x & ((np.uint64(1) << shift) - np.uint64(1))
        states[lane] = (
            ((x >> shift) << np.uint64(PRECISION)) + (np.uint64(values[i]) << shift) + rest
        )
    return at


@njit(**_OPTIONS)
@no_type_check
def _decode_one_table(slots, freq, start, states, words, at, result):  # pragma: no cover
    x = states.astype(np.uint32)
    for i in range(len(result)):
        lane = i & (LANES - 1)
        state = x[lane]
        slot = state & np.uint32(_MASK)
        symbol = slots[slot]
        result[i] = symbol
        state = np.uint32(freq[symbol]) * (state >> np.uint32(PRECISION)) + slot - start[symbol]
        if state < np.uint32(LOW):
            if at >= len(words):
                return -1
            state = (np.uint32(state) << np.uint32(16)) | words[at]
            at += 1
        x[lane] = state
    states[:] = x
    return at


@njit(**_OPTIONS)
@no_type_check
def _decode_symbols(rows, slots, base, freq, start, states, words, at, result):  # pragma: no cover
    x = states.astype(np.uint32)
    for i in range(len(result)):
        lane = i & (LANES - 1)
        state = x[lane]
        slot = state & np.uint32(_MASK)
        symbol = slots[rows[i], slot]
        entry = base[rows[i]] + symbol
        result[i] = symbol
        state = np.uint32(freq[entry]) * (state >> np.uint32(PRECISION)) + slot - start[entry]
        if state < np.uint32(LOW):
            if at >= len(words):
                return -1
            state = (np.uint32(state) << np.uint32(16)) | words[at]
            at += 1
        x[lane] = state
    states[:] = x
    return at


@njit(**_OPTIONS)
@no_type_check
def _decode_chained(
    rows, previous, stride, slots, base, freq, start, states, words, at, result
):  # pragma: no cover
    x = states.astype(np.uint32)
    symbol = np.uint16(0)
    for i in range(len(result)):
        lane = i & (LANES - 1)
        row = np.int64(rows[i]) * stride + previous[symbol]
        state = x[lane]
        slot = state & np.uint32(_MASK)
        symbol = slots[row, slot]
        entry = base[row] + symbol
        result[i] = symbol
        state = np.uint32(freq[entry]) * (state >> np.uint32(PRECISION)) + slot - start[entry]
        if state < np.uint32(LOW):
            if at >= len(words):
                return -1
            state = (np.uint32(state) << np.uint32(16)) | words[at]
            at += 1
        x[lane] = state
    states[:] = x
    return at


@njit(**_OPTIONS)
@no_type_check
def _decode_bits(width, states, words, at, result):  # pragma: no cover
    x = states.astype(np.uint32)
    shift = np.uint32(PRECISION - width)
    rest = (np.uint32(1) << shift) - np.uint32(1)
    for i in range(len(result)):
        lane = i & (LANES - 1)
        state = x[lane]
        result[i] = (state & np.uint32(_MASK)) >> shift
        state = ((state >> np.uint32(PRECISION)) << shift) + (state & rest)
        if state < np.uint32(LOW):
            if at >= len(words):
                return -1
            state = (np.uint32(state) << np.uint32(16)) | words[at]
            at += 1
        x[lane] = state
    states[:] = x
    return at
