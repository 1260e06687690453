"""The kernels of ``compositing``: one tile forward, one tile backward, and the sums per Gaussian.

Every vector is a block of 4 x 2 pixels; docs/rasteriser.md explains the design.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

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
WIDE = 4
HIGH = LANES // WIDE
ACROSS = TILE // WIDE
PIXELS = TILE * TILE
_NEVER = 2**31 - 1
# Hits whose blocks are found at once, before any is composited: then few branches are missed.
_AHEAD = 64
# Planes of a tile's scratch; channels beyond the third follow.
_LEFT = PIXELS
_CH0, _CH1, _CH2 = 2 * PIXELS, 3 * PIXELS, 4 * PIXELS
# Gradient row of a hit: sum v, v dx, v dy, v dx^2, v dx dy, v dy^2, three colours, then
# sum |v (a dx + b dy)|/8, |v (b dx + c dy)|/8 (absgrad), then further channels; v = dL/dsigma.
ROW = 9
ROW_ABS = 11

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(inline="never", **_OPTIONS)
@no_type_check
def _blocks(packed, at, x0, y0):
    """Blocks of the tile at pixel (x0, y0) that the ellipse ``alpha >= 1/255`` may touch."""
    zero = splat(np.float32(0.0))
    reach_y = splat(packed[at + REACH_Y])
    below = splat(y0 + np.float32(0.5) - packed[at + Y])
    low = fma(lane_column(LANES), splat(np.float32(HIGH)), below)
    high = minimum(low + splat(np.float32(HIGH - 1)), reach_y)
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
    quarter = splat(np.float32(1.0 / WIDE))
    return row_bits(first * quarter, last * quarter, valid, ACROSS)


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
    for k in range(PIXELS):
        block, lane = k // LANES, k % LANES
        x = px + (block % ACROSS) * WIDE + lane % WIDE
        y = py + (block // ACROSS) * HIGH + lane // WIDE
        centres[2 * block * LANES + lane] = np.float32(x) + np.float32(0.5)
        centres[(2 * block + 1) * LANES + lane] = np.float32(y) + np.float32(0.5)


@njit(**_OPTIONS)
@no_type_check
def _start_tile(px, py, width, height, state, stops, base):
    """Clear a tile's state and return its blocks in the image; pixels outside count as stopped."""
    state[:] = np.float32(0.0)
    live = np.uint32(0)
    for k in range(PIXELS):
        block, lane = k // LANES, k % LANES
        x = px + (block % ACROSS) * WIDE + lane % WIDE
        y = py + (block // ACROSS) * HIGH + lane // WIDE
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
                    at_e = _CH2 + (1 + e) * PIXELS + k
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
    for k in range(PIXELS):
        if state[k] != state[k]:
            state[k] = state[_LEFT + k]
        transmittance[base + k] = state[k]
    for y in range(min(TILE, height - py)):
        for x in range(min(TILE, width - px)):
            block = (y // HIGH) * ACROSS + x // WIDE
            k = block * LANES + (y % HIGH) * WIDE + x % WIDE
            t = state[k]
            alphas[py + y, px + x] = np.float32(1.0) - t
            for ch in range(channels):
                rendered[py + y, px + x, ch] = state[_CH0 + ch * PIXELS + k] + t * background[ch]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def forward_band(
    packed, extra, hits, starts, first_tile, tiles_x, background,
    masks, transmittance, stops, rendered, alphas, workers,
):  # fmt: skip
    """Composite a band of tiles; fills masks, transmittance, stops, rendered and alphas."""
    channels = rendered.shape[2]
    tiles = starts.shape[0] - 1
    queue = np.zeros(1, np.int64)
    for _ in prange(workers):
        state = np.empty((max(channels, 3) + 2) * PIXELS, np.float32)
        centres = np.empty(2 * PIXELS, np.float32)
        t = fetch_add(queue, 0, 1)
        while t < tiles:
            tile = first_tile + t
            px, py = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
            _forward_tile(
                px, py, tile * PIXELS, packed, extra, hits, starts[t], starts[t + 1],
                background, masks, transmittance, stops, state, centres, rendered, alphas,
            )  # fmt: skip
            t = fetch_add(queue, 0, 1)


@njit(**_OPTIONS)
@no_type_check
def _behind_plane(channels):
    """Where a backward tile's scratch holds what lies behind, after the channels' gradients."""
    return max(channels, 3) * PIXELS


@njit(**_OPTIONS)
@no_type_check
def _gather_gradients(px, py, base, background, transmittance, grad_rendered, grad_alphas, scratch):
    """Fill a tile's scratch: the output gradient by channel, then what lies behind the pixel.

    "Behind" is the gradient's product with all that is composited behind the current Gaussian: at
    first the background, and minus the gradient of alpha, since alpha is 1 - T.
    """
    height, width, channels = grad_rendered.shape
    behind = _behind_plane(channels)
    scratch[:] = np.float32(0.0)
    for y in range(min(TILE, height - py)):
        for x in range(min(TILE, width - px)):
            block = (y // HIGH) * ACROSS + x // WIDE
            k = block * LANES + (y % HIGH) * WIDE + x % WIDE
            total_ = -grad_alphas[py + y, px + x]
            for ch in range(channels):
                g = grad_rendered[py + y, px + x, ch]
                scratch[ch * PIXELS + k] = g
                total_ += g * background[ch]
            scratch[behind + k] = total_ * transmittance[base + k]


@njit(**_OPTIONS)
@no_type_check
def _add_extra_value(value, extra, i, scratch, k):
    """The colour's product with the output gradient, channels beyond the third added."""
    for e in range(extra.shape[1]):
        value = fma(splat(extra[i, e]), load(scratch, (3 + e) * PIXELS + k), value)
    return value


@njit(**_OPTIONS)
@no_type_check
def _add_extra_sums(weight, count, scratch, k, sums_at):
    for e in range(count):
        at = sums_at + e * LANES
        g = load(scratch, (3 + e) * PIXELS + k)
        store(scratch, at, fma(weight, g, load(scratch, at)))


@njit(**_OPTIONS)
@no_type_check
def _store_extra_sums(flat, at, count, scratch, sums_at):
    """Write the sums of the channels beyond the third to a row, and clear them."""
    for e in range(count):
        flat[at + e] = total(load(scratch, sums_at + e * LANES))
        store(scratch, sums_at + e * LANES, splat(np.float32(0.0)))


@njit(**_OPTIONS)
@no_type_check
def _backward_tile(
    tile, tiles_x, packed, extra, hits, homes, begin, end, background, masks, transmittance, stops,
    grad_rendered, grad_alphas, absolute_too, scratch, centres, rows,
):  # fmt: skip
    channels = grad_rendered.shape[2]
    base = tile * PIXELS
    px, py = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
    _gather_gradients(px, py, base, background, transmittance, grad_rendered, grad_alphas, scratch)
    behind_at = _behind_plane(channels)
    sums_at = behind_at + PIXELS
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
            g0, g1 = load(scratch, k), load(scratch, PIXELS + k)
            g2 = load(scratch, 2 * PIXELS + k)
            value = fma(c0, g0, fma(c1, g1, c2 * g2))
            if extra is not None:
                value = _add_extra_value(value, extra, i, scratch, k)
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
                _add_extra_sums(weight, extra.shape[1], scratch, k, sums_at)
            vx, vy = v * dx, v * dy
            s0, sx, sy = s0 + v, sx + vx, sy + vy
            sxx, sxy, syy = fma(vx, dx, sxx), fma(vx, dy, sxy), fma(vy, dy, syy)
            if absolute_too is not None:
                abs_x = abs_x + absolute(fma(a + a, vx, b * vy))
                abs_y = abs_y + absolute(fma(b, vx, (c + c) * vy))
        store(flat, home, sums_of_eight(s0, sx, sy, sxx, sxy, syy, r0, r1))
        flat[home + 8] = total(r2)
        row = ROW
        if absolute_too is not None:
            flat[home + 9] = total(abs_x)
            flat[home + 10] = total(abs_y)
            row = ROW_ABS
        if extra is not None:
            _store_extra_sums(flat, home + row, extra.shape[1], scratch, sums_at)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def backward_band(
    packed, extra, hits, homes, starts, first_tile, tiles_x, background, masks, transmittance,
    stops, grad_rendered, grad_alphas, absolute_too, rows, workers,
):  # fmt: skip
    """Gradient row of every hit of a band; ``transmittance`` is used up."""
    channels = grad_rendered.shape[2]
    tiles = starts.shape[0] - 1
    queue = np.zeros(1, np.int64)
    for _ in prange(workers):
        scratch = np.empty((max(channels, 3) + 1) * PIXELS + channels * LANES, np.float32)
        centres = np.empty(2 * PIXELS, np.float32)
        t = fetch_add(queue, 0, 1)
        while t < tiles:
            _backward_tile(
                first_tile + t, tiles_x, packed, extra, hits, homes, starts[t], starts[t + 1],
                background, masks, transmittance, stops, grad_rendered, grad_alphas, absolute_too,
                scratch, centres, rows,
            )  # fmt: skip
            t = fetch_add(queue, 0, 1)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def reduce_rows(order, packed, slots, rows, absolute_too, grads):
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
