"""Which Gaussians touch which 16x16-pixel tile, nearest first.

Order: visible Gaussians are sorted by depth once (stable radix sort), their parameters packed in
that order, and a stable counting sort by tile then keeps the depth order inside every tile. A
Gaussian is listed in a tile only if its ellipse of ``alpha >= 1/255`` reaches a row of pixel
centres there. Nothing depends on the number of threads.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from scene4d.rendering.splats.simd import prefetch

TILE = 16
_SHIFT = 4
ALPHA_MIN = 1.0 / 255.0

# One packed Gaussian is 16 float32: a cache line.
STRIDE = 16
X, Y = 0, 1  # mean, px
A, B, C = 2, 3, 4  # -a/16, -b/8, -c/16: then A dx^2 + B dx dy + C dy^2 is -sigma/8
OPACITY = 5
COLOR = 6  # three channels; further ones live in an array of their own
SLOPE = 9  # x of the ellipse's middle line grows by SLOPE per px of y
HALF2, FALL = 10, 11  # half width at dy is sqrt(HALF2 - FALL dy^2)
TOP = 12  # dy of the rightmost point
REACH_Y, REACH_X = 13, 14  # half extents, px

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
@no_type_check
def _is_visible(g, means2d, conics, opacities, depths, radii, width, height):
    rx, ry = radii[g, 0], radii[g, 1]
    if rx <= 0 or ry <= 0 or not opacities[g] >= np.float32(ALPHA_MIN):
        return False
    x, y = means2d[g, 0], means2d[g, 1]
    finite = x + y + conics[g, 0] + conics[g, 1] + conics[g, 2] + opacities[g] + depths[g]
    if not math.isfinite(finite):
        return False
    return x + rx > 0 and x - rx < width and y + ry > 0 and y - ry < height


@njit(**_OPTIONS)
@no_type_check
def _depth_key(bits):
    """Unsigned key in the order of the float with these bits."""
    if bits & np.uint32(0x80000000):
        return np.uint32(~bits)
    return np.uint32(bits | np.uint32(0x80000000))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def visible_by_depth(means2d, conics, opacities, depths, radii, width, height, chunks):
    """Indices of the Gaussians that can be seen, nearest first, ties by index; int32 [M]."""
    n = means2d.shape[0]
    depth_bits = depths.view(np.uint32)
    starts = np.zeros(chunks + 1, np.int64)
    low = np.full(chunks, 0xFFFFFFFF, np.uint32)
    high = np.zeros(chunks, np.uint32)
    keys0 = np.empty(n, np.uint32)
    kept0 = np.empty(n, np.int32)
    for c in prange(chunks):
        begin, end = n * c // chunks, n * (c + 1) // chunks
        at, lo, hi = begin, np.uint32(0xFFFFFFFF), np.uint32(0)
        for g in range(begin, end):
            if _is_visible(g, means2d, conics, opacities, depths, radii, width, height):
                key = _depth_key(depth_bits[g])
                keys0[at] = key
                kept0[at] = g
                lo, hi = min(lo, key), max(hi, key)
                at += 1
        starts[c + 1] = at - begin
        low[c], high[c] = lo, hi
    for c in range(chunks):
        starts[c + 1] += starts[c]
    m = starts[chunks]
    keys = np.empty(m, np.uint32)
    kept = np.empty(m, np.int32)
    base = low.min()
    for c in prange(chunks):
        begin = n * c // chunks
        for i in range(starts[c + 1] - starts[c]):
            keys[starts[c] + i] = keys0[begin + i] - base
            kept[starts[c] + i] = kept0[begin + i]
    span = np.int64(high.max()) - np.int64(base) if m > 0 else 0
    bits = 0
    while span >> bits:
        bits += 1
    passes = (bits + 10) // 11
    width_bits = (bits + passes - 1) // passes if passes > 0 else 0
    other_keys = keys0[:m]
    other = kept0[:m]
    buckets = 1 << width_bits
    table = np.empty((chunks, buckets), np.int64)
    for p in range(passes):
        shift = np.uint32(p * width_bits)
        digit = np.uint32(buckets - 1)
        for c in prange(chunks):
            table[c, :] = 0
            for i in range(m * c // chunks, m * (c + 1) // chunks):
                table[c, (keys[i] >> shift) & digit] += 1
        total = 0
        for b in range(buckets):
            for c in range(chunks):
                count = table[c, b]
                table[c, b] = total
                total += count
        for c in prange(chunks):
            for i in range(m * c // chunks, m * (c + 1) // chunks):
                d = (keys[i] >> shift) & digit
                to = table[c, d]
                table[c, d] = to + 1
                other_keys[to] = keys[i]
                other[to] = kept[i]
        keys, other_keys = other_keys, keys
        kept, other = other, kept
    return kept


@njit(**_OPTIONS)
@no_type_check
def _pack_ellipse(packed, at, a, b, c, opacity, rx, ry):
    """Extents of ``alpha >= 1/255``, in float64 and a little generous, as the tests want them."""
    limit = 2.0 * math.log(max(opacity, ALPHA_MIN) * 255.0) * 1.002 + 0.002
    det = a * c - b * b
    slope, half2, fall, top, reach_y, reach_x = 0.0, 1e30, 0.0, 0.0, ry, rx
    # A conic that is not clearly an ellipse is bounded by its radii alone.
    if a > 0.0 and c > 0.0 and det > 1e-6 * a * c:
        slope = -b / a
        half2 = limit / a
        fall = det / (a * a)
        right = math.sqrt(limit * c / det)
        top = -b / c * right
        reach_x = min(rx, right)
        reach_y = min(ry, math.sqrt(limit * a / det))
    packed[at + SLOPE] = slope
    packed[at + HALF2] = half2
    packed[at + FALL] = fall
    packed[at + TOP] = top
    packed[at + REACH_Y] = reach_y
    packed[at + REACH_X] = reach_x
    packed[at + 15] = 0.0


@njit(parallel=True, **_OPTIONS)
@no_type_check
def pack(order, means2d, conics, opacities, colors, radii):
    """Parameters in depth order: float32 [M * STRIDE] and channels beyond the third [M, D - 3]."""
    m = order.shape[0]
    channels = colors.shape[1]
    packed = np.empty(m * STRIDE, np.float32)
    extra = np.empty((m, max(channels - 3, 0)), np.float32)
    for i in prange(m):
        ahead = np.int64(order[min(i + 16, m - 1)])
        prefetch(means2d, 2 * ahead)
        prefetch(conics, 3 * ahead)
        prefetch(opacities, ahead)
        prefetch(colors, channels * ahead)
        prefetch(radii, 2 * ahead)
        g = order[i]
        at = i * STRIDE
        a, b, c = np.float64(conics[g, 0]), np.float64(conics[g, 1]), np.float64(conics[g, 2])
        packed[at + X] = means2d[g, 0]
        packed[at + Y] = means2d[g, 1]
        packed[at + A] = -a / 16.0
        packed[at + B] = -b / 8.0
        packed[at + C] = -c / 16.0
        packed[at + OPACITY] = opacities[g]
        for k in range(3):
            packed[at + COLOR + k] = colors[g, k] if k < channels else np.float32(0.0)
        for k in range(3, channels):
            extra[i, k - 3] = colors[g, k]
        _pack_ellipse(
            packed, at, a, b, c, np.float64(opacities[g]), float(radii[g, 0]), float(radii[g, 1])
        )
    return packed, extra


@njit(**_OPTIONS)
@no_type_check
def _tile_rows(packed, at, tiles_y):
    """First and last row of tiles that the ellipse's extent touches (last < first: none)."""
    y, reach = packed[at + Y], packed[at + REACH_Y]
    # Edges, not centres of pixels: the last row's centres lie half a pixel above the last edge.
    end = np.float32(tiles_y * TILE)
    first_px, last_px = max(y - reach, np.float32(0.0)), min(y + reach, end)
    if not first_px <= last_px:
        return 1, 0
    return np.int64(first_px) >> _SHIFT, min(np.int64(last_px) >> _SHIFT, tiles_y - 1)


@njit(**_OPTIONS)
@no_type_check
def _tile_columns(packed, at, row, width):
    """First and last tile that the ellipse touches in a row of tiles (last < first: none)."""
    y = packed[at + Y]
    reach = packed[at + REACH_Y]
    low = max(np.float32(row * TILE) + np.float32(0.5) - y, -reach)
    high = min(np.float32(row * TILE + TILE - 1) + np.float32(0.5) - y, reach)
    if not low <= high:
        return 1, 0
    right = packed[at + REACH_X]
    left = -right
    if low > -reach or high < reach:  # part of the ellipse lies in other rows
        top, slope = packed[at + TOP], packed[at + SLOPE]
        half2, fall = packed[at + HALF2], packed[at + FALL]
        dy = min(max(top, low), high)
        half = math.sqrt(max(half2 - fall * dy * dy, np.float32(0.0)))
        right = min(slope * dy + half, right)
        dy = min(max(-top, low), high)
        half = math.sqrt(max(half2 - fall * dy * dy, np.float32(0.0)))
        left = max(slope * dy - half, left)
    middle = packed[at + X] - np.float32(0.5)
    first_px = max(middle + left, np.float32(0.0))
    last_px = min(middle + right, np.float32(width - 1))
    if not first_px <= last_px:
        return 1, 0
    first, last = np.int64(first_px), np.int64(last_px)
    if np.float32(first) < first_px:
        first += 1
    if first > last:
        return 1, 0
    return first >> _SHIFT, last >> _SHIFT


@njit(parallel=True, **_OPTIONS)
@no_type_check
def count_hits(packed, tiles_x, tiles_y, width, first_tile, last_tile, chunks):
    """Hits per chunk and tile, int64 [chunks, tiles], and per Gaussian, int32 [M], in a band.

    The band is the tiles ``first_tile <= t < last_tile`` in row-major order.
    """
    m = packed.shape[0] // STRIDE
    table = np.zeros((chunks, last_tile - first_tile), np.int64)
    per_gaussian = np.empty(m, np.int32)
    for chunk in prange(chunks):
        for i in range(m * chunk // chunks, m * (chunk + 1) // chunks):
            at = i * STRIDE
            hits = 0
            row0, row1 = _tile_rows(packed, at, tiles_y)
            row0, row1 = max(row0, first_tile // tiles_x), min(row1, (last_tile - 1) // tiles_x)
            for row in range(row0, row1 + 1):
                col0, col1 = _tile_columns(packed, at, row, width)
                t0 = max(row * tiles_x + col0, first_tile)
                t1 = min(row * tiles_x + col1, last_tile - 1)
                for tile in range(t0, t1 + 1):
                    table[chunk, tile - first_tile] += 1
                hits += max(t1 - t0 + 1, 0)
            per_gaussian[i] = hits
    return table, per_gaussian


@njit(parallel=True, **_OPTIONS)
@no_type_check
def list_hits(packed, table, per_gaussian, tiles_x, tiles_y, width, first_tile):
    """The hits of a band: Gaussians by tile, where each tile starts, and the way back.

    Returns ``hits`` int32 [H] (rows of ``packed``, nearest first in each tile), ``starts`` int64
    [tiles + 1], ``slots`` int64 [M + 1] and ``homes`` int32 [H]: Gaussian i owns the gradient rows
    ``slots[i]`` to ``slots[i + 1]``, and a hit writes row ``homes[hit]``. ``table`` is used up.
    """
    chunks, tiles = table.shape
    last_tile = first_tile + tiles
    m = per_gaussian.shape[0]
    starts = np.zeros(tiles + 1, np.int64)
    total = 0
    for t in range(tiles):
        for c in range(chunks):
            count = table[c, t]
            table[c, t] = total
            total += count
        starts[t + 1] = total
    slots = np.zeros(m + 1, np.int64)
    for i in range(m):
        slots[i + 1] = slots[i] + per_gaussian[i]
    hits = np.empty(total, np.int32)
    homes = np.empty(total, np.int32)
    for chunk in prange(chunks):
        for i in range(m * chunk // chunks, m * (chunk + 1) // chunks):
            at = i * STRIDE
            slot = slots[i]
            row0, row1 = _tile_rows(packed, at, tiles_y)
            row0, row1 = max(row0, first_tile // tiles_x), min(row1, (last_tile - 1) // tiles_x)
            for row in range(row0, row1 + 1):
                col0, col1 = _tile_columns(packed, at, row, width)
                t0 = max(row * tiles_x + col0, first_tile)
                t1 = min(row * tiles_x + col1, last_tile - 1)
                for tile in range(t0, t1 + 1):
                    place = table[chunk, tile - first_tile]
                    table[chunk, tile - first_tile] = place + 1
                    hits[place] = i
                    homes[place] = slot
                    slot += 1
    return hits, starts, slots, homes
