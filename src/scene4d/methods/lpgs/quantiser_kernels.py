"""Rounding, and the bits of what is rounded, with their gradients, for the CPU.

``quantisers.py`` states the mathematics. Rows are taken in chunks, and the chunks' sums are added
in order, so nothing depends on the number of threads.

With w = 1 / width and d = -|value / step - place|, a code's probability, sigmoid((d + 1/2) w) -
sigmoid((d - 1/2) w), is (1 - h^2) E / (E + h) / (1 + E h), where E = exp(d w) and h = exp(-w / 2)
lie between 0 and 1: one exponential, and no difference of what is nearly equal.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, prange
from numba.core import types
from numba.extending import intrinsic

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}
CHUNK = 1024
"""Rows that a thread takes at a time."""
SMALLEST_PROBABILITY = 2.0**-16
SHARPEST = 80.0
"""Largest w: beyond it one code has all of the probability that float32 can tell from 1."""
_LOWEST = np.float32(-85.0)
"""Of exponents: E stays a normal float32, and far below the smallest probability's."""
_0, _1, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)
_LEAST = np.float32(SMALLEST_PROBABILITY)
_LOG2_E, _LN2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)


def num_chunks(rows: int) -> int:
    """How many chunks so many rows are."""
    return -(-rows // CHUNK)


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(**_OPTIONS)
@no_type_check
def _exp(x):
    """exp of ``x`` in -87 .. 88 to 2e-7, as loops over it are vectorised: 2^n times the Taylor
    series of 2^f, f in -1/2 .. 1/2."""
    y = x * _LOG2_E
    n = np.rint(y)
    f = (y - n) * _LN2
    p = np.float32(1 / 720) * f + np.float32(1 / 120)
    p = p * f + np.float32(1 / 24)
    p = p * f + np.float32(1 / 6)
    p = p * f + _HALF
    p = (p * f + _1) * f + _1
    return p * _float_of(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def round_rows(values, rows, steps, out):
    """``out`` [n, c] gets rows ``rows`` [n] of ``values`` [p, c], rounded to whole ``steps``."""
    count, channels = out.shape
    for chunk in prange(-(-count // CHUNK)):
        for i in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            value, result = values[rows[i]], out[i]
            for j in range(channels):
                result[j] = np.rint(value[j] / steps[j]) * steps[j]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def round_backward(values, rows, steps, grad, d_values, sums):
    """``sums`` [chunks, c] gets what reaches the steps from ``grad`` [n, c] of rounded rows, and
    ``d_values`` [p, c], zeros before, that gradient itself, unless it has no rows."""
    count, channels = grad.shape
    for chunk in prange(len(sums)):
        into = sums[chunk]
        for i in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            value, g = values[rows[i]], grad[i]
            for j in range(channels):
                scaled = value[j] / steps[j]
                into[j] += g[j] * (np.rint(scaled) - scaled)
            if len(d_values) > 0:
                result = d_values[rows[i]]
                for j in range(channels):
                    result[j] = g[j]


@njit(**_OPTIONS)
@no_type_check
def _probability(e, h):
    return (_1 - h * h) * e / ((e + h) * (_1 + e * h))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def bits_of_rows(values, rows, law, bits, powers):
    """``bits`` [n] of rows ``rows`` of ``values`` [p, c]; ``powers`` [n, c] gets E.

    ``law`` [4, c]: the channels' steps, places, w and h.
    """
    count, channels = powers.shape
    steps, places, sharps, halves = law[0], law[1], law[2], law[3]  # unpacked they have strides
    for chunk in prange(-(-count // CHUNK)):
        for i in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            value, power = values[rows[i]], powers[i]
            product = 1.0  # float64 holds that of 45 channels: 2^-720
            for j in range(channels):
                away = abs(value[j] / steps[j] - places[j])
                e = _exp(max(-away * sharps[j], _LOWEST))
                power[j] = e
                product *= max(_probability(e, halves[j]), _LEAST)
            bits[i] = -math.log2(product)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def bits_backward(values, rows, law, powers, grad, d_values, sums):
    """Gradients of :func:`bits_of_rows`'s bits, ``grad`` [n]: ``d_values`` [p, c], zeros before,
    and ``sums`` [chunks, 3, c] in steps, places and w.

    ``law`` [5, c]: as there, and 1 / (exp(w) - 1).
    """
    count, channels = powers.shape
    steps, places, sharps = law[0], law[1], law[2]
    halves, rests = law[3], law[4]
    for chunk in prange(len(sums)):
        d_steps, d_places, d_sharps = sums[chunk, 0], sums[chunk, 1], sums[chunk, 2]
        for i in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
            value, power, result = values[rows[i]], powers[i], d_values[rows[i]]
            g = grad[i] * _LOG2_E
            for j in range(channels):
                e, h = power[j], halves[j]
                counts = g if _probability(e, h) >= _LEAST else _0
                low, high = h / (e + h), e * h / (_1 + e * h)
                scaled = value[j] / steps[j]
                away = scaled - places[j]
                slope = counts * (low - high)  # d bits / d (|away| w)
                aside = slope * sharps[j] if away > _0 else -slope * sharps[j]
                result[j] = aside / steps[j]
                d_steps[j] -= aside * scaled / steps[j]
                d_places[j] -= aside
                d_sharps[j] += slope * abs(away) - counts * (rests[j] + _HALF * (low + high))
