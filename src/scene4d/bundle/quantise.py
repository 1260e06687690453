"""Quantisers of one column of numbers, and how a budget of bits is shared among columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scene4d.bundle.columns import quantised


def rounded(value: float) -> float:
    """``value`` with 7 significant digits: short in JSON, and what encoder and decoder both use."""
    return float(f"{value:.7g}")


def quantise_uniform(
    values: np.ndarray, step: float, *, offset: float = 0.0, dead_zone: float = 0.5
) -> np.ndarray:
    """int32 codes c [n] so that ``offset + step * c`` is near ``values`` [n].

    A code is rounded away from 0 from a fraction of ``dead_zone`` on; 0.5 is nearest, more makes
    more zeros.
    """
    column = np.asarray(values)[:, None]
    return quantised(column, np.array([step]), np.array([offset]), dead_zone)[:, 0]


def lloyd_max(values: np.ndarray, levels: int, *, iterations: int = 30) -> np.ndarray:
    """[<= levels] float32 sorted codebook of least mean square error. Source: Lloyd 1982.

    Starts from quantiles blended with an even spread, so that sparse tails get levels as well.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not len(ordered):
        return np.zeros(1, dtype=np.float32)
    distinct = np.unique(ordered)
    if len(distinct) <= levels:
        return distinct.astype(np.float32)
    even = np.linspace(ordered[0], ordered[-1], levels)
    book = 0.5 * even + 0.5 * np.quantile(ordered, (np.arange(levels) + 0.5) / levels)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(iterations):
        edges = np.searchsorted(ordered, (book[1:] + book[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(ordered)]])
        sizes = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(sizes, 1)
        book = np.sort(np.where(sizes > 0, means, book))
    return np.unique(book.astype(np.float32))


def quantise_codebook(values: np.ndarray, book: np.ndarray) -> np.ndarray:
    """int32 index of the nearest entry of the sorted ``book`` for every value."""
    middle = (book[1:].astype(np.float64) + book[:-1]) / 2
    return np.searchsorted(middle, values).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What a column's quantisation costs."""

    weight: float
    """Error added per squared step: d(error) / d(step^2), e.g. count / 12 times the squared
    sensitivity of the image."""
    spread: float
    """Standard deviation of the values; beyond a step of this size no bits are left to save."""
    count: int = 1
    """Codes in the column."""


def allocate_steps(columns: list[Sensitivity], total_bits: float) -> list[float]:
    """Steps of equal slope: no column would gain more error per bit than another.

    For a fine uniform quantiser bits = count * log2(spread * sqrt(2 pi e) / step) and error =
    weight * step^2, so error falls per bit as 2 ln 2 * weight * step^2 / count; equal slopes make
    step^2 proportional to count / weight (reverse water-filling, Cover and Thomas, 10.3).
    ``total_bits`` fixes the factor, found by bisection.
    """

    def steps(log_factor: float) -> list[float]:
        return [
            min(np.exp(log_factor) * np.sqrt(c.count / max(c.weight, 1e-300)), _zero_step(c))
            for c in columns
        ]

    def bits(log_factor: float) -> float:
        found = zip(columns, steps(log_factor), strict=True)
        return sum(c.count * np.log2(_zero_step(c) / s) for c, s in found)

    low, high = -80.0, 80.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if bits(middle) > total_bits else (low, middle)
    return [float(s) for s in steps(high)]


def _zero_step(column: Sensitivity) -> float:
    """The step at which the high-rate formula reaches 0 bits."""
    return max(column.spread, 1e-30) * float(np.sqrt(2 * np.pi * np.e))
