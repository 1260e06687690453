"""Front-to-back alpha compositing of projected Gaussians on the CPU, with gradients.

Semantics are gsplat's (Ye et al., arXiv:2409.06765; Kerbl et al. 2023, eq. 3): with
``sigma = (a dx^2 + c dy^2) / 2 + b dx dy``, ``alpha = min(0.999, opacity exp(-sigma))``; a Gaussian
is skipped where ``sigma < 0`` or ``alpha < 1/255``; a pixel stops before the Gaussian that would
leave a transmittance of 1e-4 or less. Design and figures: docs/rasteriser.md.
"""

from __future__ import annotations

import threading
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit, prange
from torch import Tensor

from scene4d.rendering.splats import binning
from scene4d.rendering.splats.binning import (
    ALPHA_MIN,
    COLOR,
    FALL,
    HALF2,
    OPACITY,
    REACH_X,
    REACH_Y,
    SLOPE,
    STRIDE,
    TILE,
    TOP,
    A,
    B,
    C,
    X,
    Y,
)
from scene4d.rendering.splats.simd import (
    LANES,
    absolute,
    ceil,
    equal,
    fetch_add,
    floor,
    fma,
    greater,
    greater_equal,
    int_greater,
    int_splat,
    lane_column,
    less_equal,
    load,
    mask_bits,
    maximum,
    minimum,
    neg,
    prefetch,
    row_bits,
    select,
    splat,
    sqrt,
    store,
    sums_of_eight,
    total,
    trailing_zeros,
)

ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4

# A vector covers a block of 4 x 2 pixels; a tile's blocks are the bits of one uint32.
_WIDE = 4
_HIGH = LANES // _WIDE
_ACROSS = TILE // _WIDE
_PIXELS = TILE * TILE
_NEVER = 2**31 - 1
# Hits whose blocks are found at once, before any is composited: then few branches are missed.
_AHEAD = 64
# Planes of a tile's scratch; channels beyond the third follow.
_LEFT = _PIXELS
_CH0, _CH1, _CH2 = 2 * _PIXELS, 3 * _PIXELS, 4 * _PIXELS
# Gradient row of a hit: sum v, v dx, v dy, v dx^2, v dx dy, v dy^2, three colours, then
# sum |v (a dx + b dy)|/8, |v (b dx + c dy)|/8 (absgrad), then further channels; v = dL/dsigma.
_ROW = 9
_ROW_ABS = 11

# Hits whose gradients are held at once; more are composited in bands of tiles.
MAX_GRADIENT_BYTES = 384 * 2**20

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
# The workqueue threading layer of Numba must not be entered by two threads at once.
_LOCK = threading.RLock()


@njit(inline="never", **_OPTIONS)
@no_type_check
def _blocks(packed, at, x0, y0):
    """Blocks of the tile at pixel (x0, y0) that the ellipse ``alpha >= 1/255`` may touch."""
    zero = splat(np.float32(0.0))
    reach_y = splat(packed[at + REACH_Y])
    below = splat(y0 + np.float32(0.5) - packed[at + Y])
    low = fma(lane_column(LANES), splat(np.float32(_HIGH)), below)
    high = minimum(low + splat(np.float32(_HIGH - 1)), reach_y)
    low = maximum(low, neg(reach_y))
    valid = less_equal(low, high)
    top, slope = splat(packed[at + TOP]), splat(packed[at + SLOPE])
    half2, fall = splat(packed[at + HALF2]), splat(packed[at + FALL])
    reach_x = splat(packed[at + REACH_X])
    dy = minimum(maximum(top, low), high)
    half = sqrt(maximum(half2 - fall * dy * dy, zero))
    right = minimum(fma(slope, dy, half), reach_x)
    dy = minimum(maximum(neg(top), low), high)
    half = sqrt(maximum(half2 - fall * dy * dy, zero))
    left = maximum(fma(slope, dy, neg(half)), neg(reach_x))
    middle = splat(packed[at + X] - np.float32(0.5) - x0)
    last = floor(minimum(middle + right, splat(np.float32(TILE - 1))))
    first = ceil(maximum(middle + left, zero))
    valid = valid & less_equal(first, last)
    quarter = splat(np.float32(1.0 / _WIDE))
    return row_bits(first * quarter, last * quarter, valid, _ACROSS)


@njit(**_OPTIONS)
@no_type_check
def _alpha(sigma8, opacity):
    """``opacity exp(-sigma)`` from -sigma/8, relative error 1e-6: a polynomial to the 8th power.

    Below -0.7 (alpha < 1/255 at any opacity up to 1) it stays constant.
    """
    x = maximum(sigma8, splat(np.float32(-0.7)))
    p = fma(splat(np.float32(0.00588525)), x, splat(np.float32(0.03984831)))
    p = fma(p, x, splat(np.float32(0.1660284)))
    p = fma(p, x, splat(np.float32(0.49989978)))
    p = fma(p, x, splat(np.float32(0.99999476)))
    p = fma(p, x, splat(np.float32(1.0)))
    p = p * p
    p = p * p
    p = p * p
    return opacity * p


@njit(**_OPTIONS)
@no_type_check
def _find_centres(px, py, centres):
    """Pixel centres of a tile's blocks: of each block eight x, then eight y."""
    for k in range(_PIXELS):
        block, lane = k // LANES, k % LANES
        x = px + (block % _ACROSS) * _WIDE + lane % _WIDE
        y = py + (block // _ACROSS) * _HIGH + lane // _WIDE
        centres[2 * block * LANES + lane] = np.float32(x) + np.float32(0.5)
        centres[(2 * block + 1) * LANES + lane] = np.float32(y) + np.float32(0.5)


@njit(**_OPTIONS)
@no_type_check
def _start_tile(px, py, width, height, state, stops, base):
    """Clear a tile's state; returns the blocks inside the image. Pixels outside count as stopped."""
    state[:] = np.float32(0.0)
    live = np.uint32(0)
    for k in range(_PIXELS):
        block, lane = k // LANES, k % LANES
        x = px + (block % _ACROSS) * _WIDE + lane % _WIDE
        y = py + (block // _ACROSS) * _HIGH + lane // _WIDE
        inside = x < width and y < height
        state[k] = np.float32(1.0) if inside else np.float32(np.nan)
        stops[base + k] = _NEVER if inside else 0
        if inside:
            live |= np.uint32(1) << np.uint32(block)
    return live


@njit(**_OPTIONS)
@no_type_check
def _forward_tile(
    px, py, base, packed, extra, hits, begin, end, background,
    masks, transmittance, stops, state, centres, rendered, alphas,
):  # fmt: skip
    """Composite one tile. ``state``: transmittance, that of stopped pixels, then the channels."""
    height, width, _ = rendered.shape
    live = _start_tile(px, py, width, height, state, stops, base)
    _find_centres(px, py, centres)
    x0, y0 = np.float32(px), np.float32(py)
    zero = splat(np.float32(0.0))
    for h in range(begin, end):
        if (h - begin) % _AHEAD == 0:
            for ahead in range(h, min(h + _AHEAD, end)):
                prefetch(packed, np.int64(hits[min(ahead + 16, end - 1)]) * STRIDE)
                masks[ahead] = _blocks(packed, np.int64(hits[ahead]) * STRIDE, x0, y0)
        blocks = masks[h] & live
        masks[h] = blocks
        if not blocks:
            continue
        i = np.int64(hits[h])
        at = i * STRIDE
        x, y = splat(packed[at + X]), splat(packed[at + Y])
        a, b, c = splat(packed[at + A]), splat(packed[at + B]), splat(packed[at + C])
        opacity = splat(packed[at + OPACITY])
        c0, c1 = splat(packed[at + COLOR]), splat(packed[at + COLOR + 1])
        c2 = splat(packed[at + COLOR + 2])
        while blocks:
            block = trailing_zeros(blocks)
            blocks &= blocks - np.uint32(1)
            k = block * LANES
            dx = load(centres, 2 * k) - x
            dy = load(centres, 2 * k + LANES) - y
            sigma8 = fma(fma(a, dx, b * dy), dx, c * dy * dy)
            alpha = minimum(_alpha(sigma8, opacity), splat(np.float32(ALPHA_MAX)))
            hit = less_equal(sigma8, zero) & greater_equal(alpha, splat(np.float32(ALPHA_MIN)))
            t = load(state, k)
            after = fma(neg(alpha), t, t)
            # Stopped pixels hold NaN, which compares false both ways.
            stay = hit & greater(after, splat(np.float32(TRANSMITTANCE_MIN)))
            stop = hit & less_equal(after, splat(np.float32(TRANSMITTANCE_MIN)))
            weight = select(stay, alpha * t, zero)
            # Not a select: LLVM would make it a masked store, ten times slower on AMD.
            t = t - weight
            store(state, k, t)
            store(state, _CH0 + k, fma(weight, c0, load(state, _CH0 + k)))
            store(state, _CH1 + k, fma(weight, c1, load(state, _CH1 + k)))
            store(state, _CH2 + k, fma(weight, c2, load(state, _CH2 + k)))
            if extra is not None:
                for e in range(extra.shape[1]):
                    at_e = _CH2 + (1 + e) * _PIXELS + k
                    store(state, at_e, fma(weight, splat(extra[i, e]), load(state, at_e)))
            if mask_bits(stop):
                # What was left is kept for the output; the live value becomes NaN.
                store(state, _LEFT + k, select(stop, t, load(state, _LEFT + k)))
                index = int_splat(h - begin)
                store(stops, base + k, select(stop, index, load(stops, base + k)))
                t = select(stop, splat(np.float32(np.nan)), t)
                store(state, k, t)
                if not mask_bits(equal(t, t)):
                    live &= ~(np.uint32(1) << np.uint32(block))
        if not live:
            for rest in range(h + 1, end):
                masks[rest] = np.uint32(0)
            break
    _finish_tile(px, py, base, background, transmittance, state, rendered, alphas)


@njit(**_OPTIONS)
@no_type_check
def _finish_tile(px, py, base, background, transmittance, state, rendered, alphas):
    """Blend the background in and write a tile's pixels to the image."""
    height, width, channels = rendered.shape
    for k in range(_PIXELS):
        if state[k] != state[k]:
            state[k] = state[_LEFT + k]
        transmittance[base + k] = state[k]
    for y in range(min(TILE, height - py)):
        for x in range(min(TILE, width - px)):
            block = (y // _HIGH) * _ACROSS + x // _WIDE
            k = block * LANES + (y % _HIGH) * _WIDE + x % _WIDE
            t = state[k]
            alphas[py + y, px + x] = np.float32(1.0) - t
            for ch in range(channels):
                rendered[py + y, px + x, ch] = state[_CH0 + ch * _PIXELS + k] + t * background[ch]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def forward_band(
    packed, extra, hits, starts, first_tile, tiles_x, background,
    masks, transmittance, stops, rendered, alphas, workers,
):  # fmt: skip
    """Composite a band of tiles; fills masks, transmittance, stops, rendered and alphas."""
    height, width, channels = rendered.shape
    tiles = starts.shape[0] - 1
    queue = np.zeros(1, np.int64)
    for _ in prange(workers):
        state = np.empty((max(channels, 3) + 2) * _PIXELS, np.float32)
        centres = np.empty(2 * _PIXELS, np.float32)
        t = fetch_add(queue, 0, 1)
        while t < tiles:
            tile = first_tile + t
            px, py = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            _forward_tile(
                px, py, tile * _PIXELS, packed, extra, hits, starts[t], starts[t + 1],
                background, masks, transmittance, stops, state, centres, rendered, alphas,
            )  # fmt: skip
            t = fetch_add(queue, 0, 1)


@njit(**_OPTIONS)
@no_type_check
def channels_offset(channels):
    return max(channels, 3) * _PIXELS


@njit(**_OPTIONS)
@no_type_check
def _gather_gradients(px, py, base, background, transmittance, grad_rendered, grad_alphas, scratch):
    """Fill a tile's scratch: the output gradient by channel, then what lies behind the pixel.

    "Behind" is the gradient's product with all that is composited behind the current Gaussian: at
    first the background, and minus the gradient of alpha, since alpha is 1 - T.
    """
    height, width, channels = grad_rendered.shape
    behind = channels_offset(channels)
    scratch[: behind + _PIXELS] = np.float32(0.0)
    for y in range(min(TILE, height - py)):
        for x in range(min(TILE, width - px)):
            block = (y // _HIGH) * _ACROSS + x // _WIDE
            k = block * LANES + (y % _HIGH) * _WIDE + x % _WIDE
            total_ = -grad_alphas[py + y, px + x]
            for ch in range(channels):
                g = grad_rendered[py + y, px + x, ch]
                scratch[ch * _PIXELS + k] = g
                total_ += g * background[ch]
            scratch[behind + k] = total_ * transmittance[base + k]


@njit(**_OPTIONS)
@no_type_check
def _backward_tile(
    tile, tiles_x, packed, extra, hits, homes, begin, end, background, masks, transmittance, stops,
    grad_rendered, grad_alphas, absolute_too, scratch, centres, rows,
):  # fmt: skip
    channels = grad_rendered.shape[2]
    base = tile * _PIXELS
    px, py = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
    _gather_gradients(px, py, base, background, transmittance, grad_rendered, grad_alphas, scratch)
    behind_at = channels_offset(channels)
    sums_at = behind_at + _PIXELS
    _find_centres(px, py, centres)
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    flat = rows.reshape(-1)
    stride = rows.shape[1]
    for h in range(end - 1, begin - 1, -1):
        prefetch(packed, np.int64(hits[max(h - 8, begin)]) * STRIDE)
        prefetch(flat, np.int64(homes[max(h - 4, begin)]) * stride)
        blocks = masks[h]
        if not blocks:
            rows[homes[h], :] = np.float32(0.0)
            continue
        i = np.int64(hits[h])
        home = np.int64(homes[h]) * stride
        at = i * STRIDE
        x, y = splat(packed[at + X]), splat(packed[at + Y])
        a, b, c = splat(packed[at + A]), splat(packed[at + B]), splat(packed[at + C])
        opacity = splat(packed[at + OPACITY])
        c0, c1 = splat(packed[at + COLOR]), splat(packed[at + COLOR + 1])
        c2 = splat(packed[at + COLOR + 2])
        index = int_splat(h - begin)
        s0, sx, sy, sxx, sxy, syy = zero, zero, zero, zero, zero, zero
        r0, r1, r2, abs_x, abs_y = zero, zero, zero, zero, zero
        if extra is not None:
            for e in range(extra.shape[1]):
                store(scratch, sums_at + e * LANES, zero)
        while blocks:
            block = trailing_zeros(blocks)
            blocks &= blocks - np.uint32(1)
            k = block * LANES
            dx = load(centres, 2 * k) - x
            dy = load(centres, 2 * k + LANES) - y
            sigma8 = fma(fma(a, dx, b * dy), dx, c * dy * dy)
            raw = _alpha(sigma8, opacity)
            alpha = minimum(raw, splat(np.float32(ALPHA_MAX)))
            used = less_equal(sigma8, zero) & greater_equal(alpha, splat(np.float32(ALPHA_MIN)))
            used = used & int_greater(load(stops, base + k), index)
            g0, g1 = load(scratch, k), load(scratch, _PIXELS + k)
            g2 = load(scratch, 2 * _PIXELS + k)
            value = fma(c0, g0, fma(c1, g1, c2 * g2))
            if extra is not None:
                for e in range(extra.shape[1]):
                    g = load(scratch, (3 + e) * _PIXELS + k)
                    value = fma(splat(extra[i, e]), g, value)
            # Not a select of t: LLVM would make it a masked store, ten times slower on AMD.
            inverse = select(used, one / (one - alpha), one)
            t = load(transmittance, base + k) * inverse
            behind = load(scratch, behind_at + k)
            weight = select(used, alpha * t, zero)
            # dL/dalpha = T value - behind / (1 - alpha); dalpha/dsigma = -alpha unless clamped.
            v = fma(behind, inverse, neg(t * value)) * alpha
            v = select(used & less_equal(raw, splat(np.float32(ALPHA_MAX))), v, zero)
            store(transmittance, base + k, t)
            store(scratch, behind_at + k, fma(weight, value, behind))
            r0, r1, r2 = fma(weight, g0, r0), fma(weight, g1, r1), fma(weight, g2, r2)
            if extra is not None:
                for e in range(extra.shape[1]):
                    g = load(scratch, (3 + e) * _PIXELS + k)
                    at_e = sums_at + e * LANES
                    store(scratch, at_e, fma(weight, g, load(scratch, at_e)))
            vx, vy = v * dx, v * dy
            s0, sx, sy = s0 + v, sx + vx, sy + vy
            sxx, sxy, syy = fma(vx, dx, sxx), fma(vx, dy, sxy), fma(vy, dy, syy)
            if absolute_too is not None:
                abs_x = abs_x + absolute(fma(a + a, vx, b * vy))
                abs_y = abs_y + absolute(fma(b, vx, (c + c) * vy))
        store(flat, home, sums_of_eight(s0, sx, sy, sxx, sxy, syy, r0, r1))
        flat[home + 8] = total(r2)
        row = _ROW
        if absolute_too is not None:
            flat[home + 9] = total(abs_x)
            flat[home + 10] = total(abs_y)
            row = _ROW_ABS
        if extra is not None:
            for e in range(extra.shape[1]):
                flat[home + row + e] = total(load(scratch, sums_at + e * LANES))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def backward_band(
    packed, extra, hits, homes, starts, first_tile, tiles_x, background, masks, transmittance, stops,
    grad_rendered, grad_alphas, absolute_too, rows, workers,
):  # fmt: skip
    """Gradient row of every hit of a band; ``transmittance`` is used up."""
    channels = grad_rendered.shape[2]
    tiles = starts.shape[0] - 1
    queue = np.zeros(1, np.int64)
    for _ in prange(workers):
        scratch = np.empty((max(channels, 3) + 1) * _PIXELS + channels * LANES, np.float32)
        centres = np.empty(2 * _PIXELS, np.float32)
        t = fetch_add(queue, 0, 1)
        while t < tiles:
            _backward_tile(
                first_tile + t, tiles_x, packed, extra, hits, homes, starts[t], starts[t + 1], background,
                masks, transmittance, stops, grad_rendered, grad_alphas, absolute_too, scratch,
                centres, rows,
            )  # fmt: skip
            t = fetch_add(queue, 0, 1)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def reduce_rows(order, packed, slots, places, rows, absolute_too, grads):
    """Add the gradient rows of each Gaussian's hits, in order of tiles, to the Gaussian's own.

    ``grads`` = means2d, conics, opacities, colors, absgrad.
    """
    grad_means, grad_conics, grad_opacities, grad_colors, grad_abs = grads
    channels = grad_colors.shape[1]
    width = rows.shape[1]
    eight = np.float32(8.0)
    last = order.shape[0] - 1
    for i in prange(order.shape[0]):
        ahead = np.int64(order[min(i + 12, last)])
        prefetch(grad_means, 2 * ahead)
        prefetch(grad_conics, 3 * ahead)
        prefetch(grad_opacities, ahead)
        prefetch(grad_colors, channels * ahead)
        s0 = sx = sy = sxx = sxy = syy = np.float32(0.0)
        ax = ay = np.float32(0.0)
        g = order[i]
        for slot in range(slots[i], slots[i + 1]):
            p = slot
            s0 += rows[p, 0]
            sx += rows[p, 1]
            sy += rows[p, 2]
            sxx += rows[p, 3]
            sxy += rows[p, 4]
            syy += rows[p, 5]
            for k in range(min(channels, 3)):
                grad_colors[g, k] += rows[p, 6 + k]
            if absolute_too is not None:
                ax += rows[p, 9]
                ay += rows[p, 10]
            for k in range(3, channels):
                grad_colors[g, k] += rows[p, width - channels + k]
        at = i * STRIDE
        a, b, c = packed[at + A], packed[at + B], packed[at + C]
        grad_means[g, 0] += eight * (np.float32(2.0) * a * sx + b * sy)
        grad_means[g, 1] += eight * (b * sx + np.float32(2.0) * c * sy)
        grad_conics[g, 0] += np.float32(0.5) * sxx
        grad_conics[g, 1] += sxy
        grad_conics[g, 2] += np.float32(0.5) * syy
        grad_opacities[g] -= s0 / packed[at + OPACITY]
        if absolute_too is not None:
            grad_abs[g, 0] += eight * ax
            grad_abs[g, 1] += eight * ay


def _bands(tile_hits: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """Runs of tiles with at most ``limit`` hits each; a tile with more is a run of its own."""
    bands, begin, held = [], 0, 0
    for tile, hits in enumerate(tile_hits):
        if held and held + hits > limit:
            bands.append((begin, tile))
            begin, held = tile, 0
        held += int(hits)
    bands.append((begin, len(tile_hits)))
    return bands


class _Binned:
    """One camera's Gaussians, packed by depth, and their hits band by band."""

    def __init__(self, means, conics, colors, opacities, depths, radii, width, height, row) -> None:
        self.width, self.height = width, height
        self.tiles_x, self.tiles_y = -(-width // TILE), -(-height // TILE)
        self.workers = numba.get_num_threads()
        self.chunks = 4 * self.workers
        self.order = binning.visible_by_depth(
            means, conics, opacities, depths, radii, width, height, self.chunks
        )
        self.packed, extra = binning.pack(self.order, means, conics, opacities, colors, radii)
        self.extra = extra if extra.shape[1] else None
        counted = self._count(0, self.tiles_x * self.tiles_y)
        limit = MAX_GRADIENT_BYTES // (4 * row)
        self.bands = _bands(counted[0].sum(axis=0), limit)
        self.only_band = self._list(0, counted) if len(self.bands) == 1 else None

    def _count(self, first, last):
        return binning.count_hits(
            self.packed, self.tiles_x, self.tiles_y, self.width, first, last, self.chunks
        )

    def _list(self, first, counted):
        return binning.list_hits(
            self.packed, *counted, self.tiles_x, self.tiles_y, self.width, first
        )

    def band(self, index: int) -> tuple[Any, ...]:
        """``hits, starts, slots, places`` of one band."""
        if self.only_band is not None:
            return self.only_band
        first, last = self.bands[index]
        return self._list(first, self._count(first, last))


class _Frame:
    """What compositing one camera writes, and what going back needs of it."""

    def __init__(self, binned: _Binned, channels: int) -> None:
        pixels = binned.tiles_x * binned.tiles_y * _PIXELS
        self.transmittance = np.empty(pixels, np.float32)
        self.stops = np.empty(pixels, np.int32)
        self.rendered = np.empty((binned.height, binned.width, channels), np.float32)
        self.alphas = np.empty((binned.height, binned.width), np.float32)
        self.masks = np.empty(0, np.uint32)

    def draw(self, binned: _Binned, index: int, listed: tuple[Any, ...], background) -> None:
        """Composite one band of tiles; the block masks of its hits stay in ``masks``."""
        hits, starts, _, _ = listed
        self.masks = np.empty(len(hits), np.uint32)
        forward_band(
            binned.packed, binned.extra, hits, starts, binned.bands[index][0], binned.tiles_x,
            background, self.masks, self.transmittance, self.stops, self.rendered, self.alphas,
            binned.workers,
        )  # fmt: skip


def _array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return tensor.detach().to("cpu", dtype).contiguous().numpy()


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, conics, colors, opacities, depths, radii, backgrounds, size, absgrad):
        width, height = size
        cameras, n, channels = colors.shape
        arrays = [_array(t) for t in (means2d, conics, colors, opacities, depths)]
        extents = _array(radii, torch.int32)
        background = np.zeros((cameras, channels), np.float32)
        if backgrounds is not None:
            background[:] = _array(backgrounds)
        row = (_ROW_ABS if absgrad else _ROW) + max(channels - 3, 0)
        rendered = np.empty((cameras, height, width, channels), np.float32)
        alphas = np.empty((cameras, height, width, 1), np.float32)
        kept = []
        with _LOCK:
            for c in range(cameras):
                binned = _Binned(*(a[c] for a in arrays), extents[c], width, height, row)
                frame = _Frame(binned, channels)
                frame.rendered, frame.alphas = rendered[c], alphas[c, :, :, 0]
                for index in range(len(binned.bands)):
                    frame.draw(binned, index, binned.band(index), background[c])
                frame.rendered = frame.alphas = None
                kept.append((binned, frame))
        ctx.kept, ctx.background, ctx.row, ctx.absgrad = kept, background, row, absgrad
        ctx.means2d = means2d if absgrad else None
        ctx.shape = (cameras, n, channels)
        return torch.from_numpy(rendered), torch.from_numpy(alphas)

    @staticmethod
    def backward(ctx, grad_rendered, grad_alphas):
        cameras, n, channels = ctx.shape
        g_rendered, g_alphas = _array(grad_rendered), _array(grad_alphas)
        shapes = [(n, 2), (n, 3), (n,), (n, channels), (n, 2) if ctx.absgrad else (0, 2)]
        grads = [np.zeros((cameras, *s), np.float32) for s in shapes]
        grad_background = np.zeros((cameras, channels), np.float32)
        with _LOCK:
            for c, (binned, frame) in enumerate(ctx.kept):
                if ctx.needs_input_grad[6]:
                    grad_background[c] = _background_gradient(binned, frame, g_rendered[c])
                into = tuple(g[c] for g in grads)
                _backward_camera(
                    binned, frame, ctx.background[c], g_rendered[c], g_alphas[c, :, :, 0],
                    ctx.row, ctx.absgrad, into,
                )  # fmt: skip
        means, conics, opacities, colors, absolute_means = map(torch.from_numpy, grads)
        if ctx.absgrad:
            ctx.means2d.absgrad = absolute_means
        background = torch.from_numpy(grad_background) if ctx.needs_input_grad[6] else None
        return means, conics, colors, opacities, None, None, background, None, None


def _backward_camera(binned, frame, background, g_rendered, g_alphas, row, absgrad, grads) -> None:
    absolute_too = True if absgrad else None
    transmittance, stops = frame.transmittance, frame.stops
    for index in range(len(binned.bands)):
        listed = binned.band(index)
        masks = frame.masks
        if len(binned.bands) > 1:
            again = _Frame(binned, g_rendered.shape[2])
            again.draw(binned, index, listed, background)
            masks = again.masks
        hits, starts, slots, places = listed
        rows = np.empty((len(hits), row), np.float32)
        backward_band(
            binned.packed, binned.extra, hits, places, starts, binned.bands[index][0], binned.tiles_x,
            background, masks, transmittance.copy(), stops, g_rendered, g_alphas, absolute_too,
            rows, binned.workers,
        )  # fmt: skip
        reduce_rows(binned.order, binned.packed, slots, places, rows, absolute_too, grads)


def _background_gradient(binned, frame, g_rendered) -> np.ndarray:
    """Sum over pixels of the transmittance left, times the output gradient; in float64."""
    across = (binned.tiles_y, binned.tiles_x, TILE // _HIGH, _ACROSS, _HIGH, _WIDE)
    image = frame.transmittance.reshape(across).transpose(0, 2, 4, 1, 3, 5)
    image = image.reshape(binned.tiles_y * TILE, binned.tiles_x * TILE)
    left = image[: binned.height, : binned.width].astype(np.float64)
    return np.einsum("hw,hwd->d", left, g_rendered)


def composite(
    means2d: Float[Tensor, "C N 2"],
    conics: Float[Tensor, "C N 3"],
    colors: Float[Tensor, "C N D"],
    opacities: Float[Tensor, "C N"],
    depths: Float[Tensor, "C N"],
    radii: Int[Tensor, "C N 2"],
    backgrounds: Float[Tensor, "C D"] | None,
    *,
    width: int,
    height: int,
    absgrad: bool = False,
) -> tuple[Float[Tensor, "C height width D"], Float[Tensor, "C height width 1"]]:
    """Composite projected Gaussians front to back: ``rendered`` and ``alphas``.

    ``means2d`` in px with pixel centres at +0.5; ``conics`` (a, b, c) of the inverse 2D covariance
    in 1/px^2; ``opacities`` in 0..1; ``depths`` only order (ties by index); ``radii`` half extents
    in px, 0 or less where culled: they must enclose ``alpha >= 1/255``, what lies outside may or
    may not be drawn. Differentiable in means2d, conics, colors, opacities and backgrounds. With
    ``absgrad``, ``means2d.absgrad`` [C, N, 2] holds after the backward pass the sum over pixels of
    the gradient's absolute value (Ye et al., arXiv:2404.10484).

    The same inputs give the same bits, whatever the number of threads.
    """
    return _Composite.apply(
        means2d, conics, colors, opacities, depths, radii, backgrounds, (width, height), absgrad
    )
