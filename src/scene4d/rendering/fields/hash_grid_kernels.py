"""The look-up in hash grids and its gradients, for the CPU.

Rows are counted in unsigned numbers: a signed index may count from the end, which costs a test at
each access, and a signed remainder costs several times an unsigned one. Where a level's rows are a
power of two the remainder is a mask. Kernels are compiled for one number of features, a constant
that the compiler unrolls.
"""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

# NaN must stay a value that comparisons see, so no "nnan" among the liberties.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp"},
}
DENSE, MASKED, MODULO = 0, 1, 2
"""How a vertex finds its row: each has one, or its hash's lowest bits, or its hash's remainder."""
BLOCK = 1024
"""Points that all levels look at before the next: their features stay in a core's cache."""
_ONE, _U2, _U3 = np.uint64(1), np.uint64(2), np.uint64(3)
_PRIME_B, _PRIME_C = np.uint64(2654435761), np.uint64(805459861)
_WORD = np.uint64(0xFFFFFFFF)
_0, _1 = np.float32(0.0), np.float32(1.0)


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _cell(value, side):
    """Lower vertex and fraction. NaN has no cell; in the first one its features are NaN."""
    value = _0 if value < _0 else value
    value = _1 if value > _1 else value
    scaled = value * np.float32(side)
    low = np.int64(scaled) if scaled >= _0 else np.int64(0)
    low = low if low < side else side - 1
    return np.uint64(low), scaled - np.float32(low)


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _corners(a, b, c, side_b, side_c, start, rows, way):
    """Rows of the cell's eight vertices in the table; the last axis runs fastest."""
    if way == DENSE:
        step_b = np.uint64(side_c) + _ONE
        step_a = step_b * (np.uint64(side_b) + _ONE)
        r0 = start + a * step_a + b * step_b + c
        r2, r4 = r0 + step_b, r0 + step_a
        r6 = r4 + step_b
        return r0, r0 + _ONE, r2, r2 + _ONE, r4, r4 + _ONE, r6, r6 + _ONE
    b0, c0 = b * _PRIME_B, c * _PRIME_C
    a1, b1, c1 = a + _ONE, b0 + _PRIME_B, c0 + _PRIME_C
    h00, h01, h10, h11 = a ^ b0, a ^ b1, a1 ^ b0, a1 ^ b1
    if way == MASKED:
        mask = rows - _ONE
        return (
            start + ((h00 ^ c0) & mask), start + ((h00 ^ c1) & mask),
            start + ((h01 ^ c0) & mask), start + ((h01 ^ c1) & mask),
            start + ((h10 ^ c0) & mask), start + ((h10 ^ c1) & mask),
            start + ((h11 ^ c0) & mask), start + ((h11 ^ c1) & mask),
        )  # fmt: skip
    return (
        start + _remainder(h00 ^ c0, rows), start + _remainder(h00 ^ c1, rows),
        start + _remainder(h01 ^ c0, rows), start + _remainder(h01 ^ c1, rows),
        start + _remainder(h10 ^ c0, rows), start + _remainder(h10 ^ c1, rows),
        start + _remainder(h11 ^ c0, rows), start + _remainder(h11 ^ c1, rows),
    )  # fmt: skip


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _remainder(hashed, rows):
    """Of the hash's 32 bits: half as long as with 64."""
    return np.uint64(np.uint32(hashed & _WORD) % np.uint32(rows))


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _shares(fa, fb, fc):
    """What each vertex counts, in the order of :func:`_corners`."""
    ga, gb, gc = _1 - fa, _1 - fb, _1 - fc
    p00, p01, p10, p11 = ga * gb, ga * fb, fa * gb, fa * fb
    return p00 * gc, p00 * fc, p01 * gc, p01 * fc, p10 * gc, p10 * fc, p11 * gc, p11 * fc


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _blend(t, f, i, w):
    """The value at ``f`` of eight rows."""
    near = w[0] * t[i[0] + f] + w[1] * t[i[1] + f] + w[2] * t[i[2] + f] + w[3] * t[i[3] + f]
    far = w[4] * t[i[4] + f] + w[5] * t[i[5] + f] + w[6] * t[i[6] + f] + w[7] * t[i[7] + f]
    return near + far


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _flat(rows, width):
    """First values of eight rows."""
    r0, r1, r2, r3, r4, r5, r6, r7 = rows
    return (r0 * width, r1 * width, r2 * width, r3 * width,
            r4 * width, r5 * width, r6 * width, r7 * width)  # fmt: skip


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _add_two(t, i, w, g0, g1):
    """Both are read before one is written: the compiler does not know that arrays never overlap."""
    v0, v1 = t[i] + w * g0, t[i + _ONE] + w * g1
    t[i], t[i + _ONE] = v0, v1


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _add_four(t, i, w, g0, g1, g2, g3):
    v0, v1, v2, v3 = t[i], t[i + _ONE], t[i + _U2], t[i + _U3]
    v0, v1, v2, v3 = v0 + w * g0, v1 + w * g1, v2 + w * g2, v3 + w * g3
    t[i], t[i + _ONE], t[i + _U2], t[i + _U3] = v0, v1, v2, v3


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _spread_one(t, f, i, w, grad, k):
    """A gradient goes to eight rows, each by its share."""
    g = grad[k + f]
    t[i[0] + f] += w[0] * g
    t[i[1] + f] += w[1] * g
    t[i[2] + f] += w[2] * g
    t[i[3] + f] += w[3] * g
    t[i[4] + f] += w[4] * g
    t[i[5] + f] += w[5] * g
    t[i[6] + f] += w[6] * g
    t[i[7] + f] += w[7] * g


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _spread_two(t, f, i, w, grad, k):
    g0, g1 = grad[k + f], grad[k + f + _ONE]
    _add_two(t, i[0] + f, w[0], g0, g1)
    _add_two(t, i[1] + f, w[1], g0, g1)
    _add_two(t, i[2] + f, w[2], g0, g1)
    _add_two(t, i[3] + f, w[3], g0, g1)
    _add_two(t, i[4] + f, w[4], g0, g1)
    _add_two(t, i[5] + f, w[5], g0, g1)
    _add_two(t, i[6] + f, w[6], g0, g1)
    _add_two(t, i[7] + f, w[7], g0, g1)


@njit(forceinline=True, **_OPTIONS)
@no_type_check
def _spread_four(t, f, i, w, grad, k):
    j = k + f
    g0, g1, g2, g3 = grad[j], grad[j + _ONE], grad[j + _U2], grad[j + _U3]
    _add_four(t, i[0] + f, w[0], g0, g1, g2, g3)
    _add_four(t, i[1] + f, w[1], g0, g1, g2, g3)
    _add_four(t, i[2] + f, w[2], g0, g1, g2, g3)
    _add_four(t, i[3] + f, w[3], g0, g1, g2, g3)
    _add_four(t, i[4] + f, w[4], g0, g1, g2, g3)
    _add_four(t, i[5] + f, w[5], g0, g1, g2, g3)
    _add_four(t, i[6] + f, w[6], g0, g1, g2, g3)
    _add_four(t, i[7] + f, w[7], g0, g1, g2, g3)


@cache
def forward_kernel(features: int) -> Any:
    """``forward(points [n, axes], table [values], layout [levels, 9], out [values])``."""
    fours = features // 4 * 4
    twos = features // 2 * 2

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def forward(points, table, layout, out):
        count, levels = points.shape[0], layout.shape[0]
        width, stride = np.uint64(features), np.uint64(levels * features)
        for block in prange((count + BLOCK - 1) // BLOCK):
            for level in range(levels):
                side_a, side_b, side_c, start, rows, way, axis_a, axis_b, axis_c = layout[level]
                start, rows, offset = np.uint64(start), np.uint64(rows), np.uint64(level * features)
                for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                    a, fa = _cell(points[n, axis_a], side_a)
                    b, fb = _cell(points[n, axis_b], side_b)
                    c, fc = _cell(points[n, axis_c], side_c)
                    i = _flat(_corners(a, b, c, side_b, side_c, start, rows, way), width)
                    w = _shares(fa, fb, fc)
                    k = np.uint64(n) * stride + offset
                    for four in range(0, fours, 4):
                        f = np.uint64(four)
                        v0 = _blend(table, f, i, w)
                        v1 = _blend(table, f + _ONE, i, w)
                        v2 = _blend(table, f + _U2, i, w)
                        v3 = _blend(table, f + _U3, i, w)
                        j = k + f
                        out[j], out[j + _ONE], out[j + _U2], out[j + _U3] = v0, v1, v2, v3
                    for two in range(fours, twos, 2):
                        f = np.uint64(two)
                        v0, v1 = _blend(table, f, i, w), _blend(table, f + _ONE, i, w)
                        out[k + f], out[k + f + _ONE] = v0, v1
                    for one in range(twos, features):
                        out[k + np.uint64(one)] = _blend(table, np.uint64(one), i, w)

    return forward


@cache
def table_kernel(features: int) -> Any:
    """``backward(points, layout, grad [values], groups, d_table [values])``."""
    fours = features // 4 * 4
    twos = features // 2 * 2

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def backward(points, layout, grad, groups, d_table):
        count, levels = points.shape[0], layout.shape[0]
        width, stride = np.uint64(features), np.uint64(levels * features)
        # Each thread has levels of its own, whose rows never meet: no races, and every sum is
        # taken in the order of the points, however many threads there are.
        for q in prange(groups):
            for block in range((count + BLOCK - 1) // BLOCK):
                for level in range(q, levels, groups):
                    side_a, side_b, side_c, start, rows, way, axis_a, axis_b, axis_c = layout[level]
                    start, rows = np.uint64(start), np.uint64(rows)
                    offset = np.uint64(level * features)
                    for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                        a, fa = _cell(points[n, axis_a], side_a)
                        b, fb = _cell(points[n, axis_b], side_b)
                        c, fc = _cell(points[n, axis_c], side_c)
                        i = _flat(_corners(a, b, c, side_b, side_c, start, rows, way), width)
                        w = _shares(fa, fb, fc)
                        k = np.uint64(n) * stride + offset
                        for four in range(0, fours, 4):
                            _spread_four(d_table, np.uint64(four), i, w, grad, k)
                        for two in range(fours, twos, 2):
                            _spread_two(d_table, np.uint64(two), i, w, grad, k)
                        for one in range(twos, features):
                            _spread_one(d_table, np.uint64(one), i, w, grad, k)

    return backward


@cache
def points_kernel(features: int) -> Any:
    """``backward(points, table, layout, grad [values], d_points [n, axes])``."""

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def backward(points, table, layout, grad, d_points):
        levels, width = layout.shape[0], np.uint64(features)
        for n in prange(points.shape[0]):
            for level in range(levels):
                row = layout[level]
                side_a, side_b, side_c = row[0], row[1], row[2]
                start, rows = np.uint64(row[3]), np.uint64(row[4])
                a, fa = _cell(points[n, row[6]], side_a)
                b, fb = _cell(points[n, row[7]], side_b)
                c, fc = _cell(points[n, row[8]], side_c)
                i = _flat(_corners(a, b, c, side_b, side_c, start, rows, row[5]), width)
                first = np.uint64((n * levels + level) * features)
                da = db = dc = _0
                ga, gb, gc = _1 - fa, _1 - fb, _1 - fc
                for one in range(features):
                    f = np.uint64(one)
                    g = grad[first + f]
                    v0, v1, v2, v3 = (
                        table[i[0] + f], table[i[1] + f], table[i[2] + f], table[i[3] + f]
                    )  # fmt: skip
                    v4, v5, v6, v7 = (
                        table[i[4] + f], table[i[5] + f], table[i[6] + f], table[i[7] + f]
                    )  # fmt: skip
                    da += g * ((v4 - v0) * gb * gc + (v5 - v1) * gb * fc
                               + (v6 - v2) * fb * gc + (v7 - v3) * fb * fc)  # fmt: skip
                    db += g * ((v2 - v0) * ga * gc + (v3 - v1) * ga * fc
                               + (v6 - v4) * fa * gc + (v7 - v5) * fa * fc)  # fmt: skip
                    dc += g * ((v1 - v0) * ga * gb + (v3 - v2) * ga * fb
                               + (v5 - v4) * fa * gb + (v7 - v6) * fa * fb)  # fmt: skip
                # No gradient where a value was clamped.
                if points[n, row[6]] >= _0 and points[n, row[6]] <= _1:
                    d_points[n, row[6]] += da * np.float32(side_a)
                if points[n, row[7]] >= _0 and points[n, row[7]] <= _1:
                    d_points[n, row[7]] += db * np.float32(side_b)
                if points[n, row[8]] >= _0 and points[n, row[8]] <= _1:
                    d_points[n, row[8]] += dc * np.float32(side_c)

    return backward
