"""Loops over columns of codes: quantising, dequantising, sums and bins of contexts.

Columns are kept one behind the other (Fortran order), since coding goes channel by channel.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, no_type_check

import numpy as np
from numba import njit

THREADS = 2
_BLOCK = 1 << 16
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def in_blocks(count: int, work: Callable[[int, int], None]) -> None:
    """Calls ``work(start, end)`` over blocks of items; on all threads when there are many."""
    if count <= 2 * _BLOCK:
        work(0, count)
        return
    starts = range(0, count, _BLOCK)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda start: work(start, min(count, start + _BLOCK)), starts))


def quantised(
    values: np.ndarray, step: np.ndarray, offset: np.ndarray, dead_zone: float
) -> np.ndarray:
    """[n, c] int32 (Fortran order): the nearest codes of ``values`` [n, c].

    A code is rounded away from 0 from a fraction of ``dead_zone`` on; 0.5 is nearest.
    """
    codes = np.empty(values.shape[::-1], dtype=np.int32)
    in_blocks(
        len(values), lambda a, b: _quantise(values[a:b], step, offset, dead_zone, codes[:, a:b])
    )
    return codes.T


def dequantised(codes: np.ndarray, step: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """[n, c] float32(offset + step * code), exactly: in float64, not fused, rounded once."""
    columns = codes.T
    result = np.empty(codes.shape, dtype=np.float32)
    in_blocks(len(codes), lambda a, b: _dequantise(columns[:, a:b], step, offset, result[a:b]))
    return result


@njit(**_OPTIONS)
@no_type_check
def _quantise(values, step, offset, dead_zone, codes):  # pragma: no cover
    for c in range(len(codes)):
        for i in range(len(values)):
            scaled = (np.float64(values[i, c]) - offset[c]) / step[c]
            size = np.floor(abs(scaled) + (1.0 - dead_zone))
            codes[c, i] = np.int32(size if scaled >= 0 else -size)


@njit(**_OPTIONS)
@no_type_check
def _dequantise(codes, step, offset, result):  # pragma: no cover
    # Blocks of items keep the rows being written in the cache.
    for start in range(0, codes.shape[1], 256):
        end = min(start + 256, codes.shape[1])
        for c in range(codes.shape[0]):
            for i in range(start, end):
                result[i, c] = np.float32(offset[c] + step[c] * np.float64(codes[c, i]))


@njit(**_OPTIONS)
@no_type_check
def dequantise_into_basis(codes, step, offset, basis, result):  # pragma: no cover
    """result [n, d] = float32(offset + step * code) @ basis; most codes of a transform are 0."""
    # The result may be part of wider rows; sums in a buffer of their own run at full width.
    row = np.empty(result.shape[1], dtype=np.float32)
    for i in range(codes.shape[1]):
        row[:] = np.float32(0)
        for c in range(codes.shape[0]):
            value = np.float32(offset[c] + step[c] * np.float64(codes[c, i]))
            if value != 0:
                for d in range(len(row)):
                    row[d] += value * basis[c, d]
        result[i] = row


@njit(**_OPTIONS)
@no_type_check
def add_weighted(total, codes, weight, magnitude):  # pragma: no cover
    """total [n] int64 += weight * code, or weight * |code|."""
    for i in range(len(total)):
        value = np.int64(codes[i])
        total[i] += weight * (abs(value) if magnitude else value)


def bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[n] uint8: how many of the rising ``edges`` are <= each of ``values`` [n] int64."""
    result = np.zeros(len(values), dtype=np.uint8)
    if not len(edges):
        return result
    span = int(edges[-1]) - int(edges[0]) + 2
    if span > _BLOCK:
        result[:] = np.searchsorted(edges, values, side="right")
        return result
    first = int(edges[0]) - 1
    table = np.searchsorted(edges, first + np.arange(span), side="right").astype(np.uint8)
    _look_up(values, first, table, result)
    return result


@njit(**_OPTIONS)
@no_type_check
def _look_up(values, first, table, result):  # pragma: no cover
    last = len(table) - 1
    for i in range(len(values)):
        result[i] = table[min(max(values[i] - first, 0), last)]


@njit(**_OPTIONS)
@no_type_check
def finish_codes(codes, low_bits, low):  # pragma: no cover
    """codes [n] int32, symbols so far: shifted by ``low_bits`` and lifted to ``low``."""
    for i in range(len(codes)):
        codes[i] = (codes[i] << low_bits) + low


@njit(**_OPTIONS)
@no_type_check
def count_symbols(counts, rows, symbols):  # pragma: no cover
    """counts [tables, n] += the symbols by their rows (one row for all: an array of one 0)."""
    if len(rows) != len(symbols):
        for i in range(len(symbols)):
            counts[0, symbols[i]] += 1
    else:
        for i in range(len(symbols)):
            counts[rows[i], symbols[i]] += 1
