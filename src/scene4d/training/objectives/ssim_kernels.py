"""Numba kernels of the fused L1 + SSIM loss; ``fused_ssim.py`` states the mathematics.

Images are split into planes with a border of 5 zeros (more on the right, see
:func:`padded_width`). The 11-tap window is separable: for a row, the columns are windowed into row
buffers, then the buffers along the row. ``w`` holds the first six weights (the window is
symmetric). All arrays of a call share one float type; float64 exists for tests.

What makes LLVM vectorise: unsigned indices (signed ones bring wrap-around handling), all row
buffers in one flat array at constant distances (no overlap checks at run time), widths that are
multiples of 32 (no scalar remainder), and NumPy's division (no branch on zero).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

_OPTIONS = {
    "cache": True,
    "nogil": True,
    # lets LLVM vectorise sums and fuse multiply-adds; NaN and infinity keep their meaning
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    # Python's check for division by zero is a branch that keeps a loop scalar
    "error_model": "numpy",
}

# The constants are unsigned, too, because uint64 + int64 is float64 in Numba.
_I0, _I1, _I2, _I3, _I4, _I5 = (np.uint64(i) for i in range(6))
_I6, _I7, _I8, _I9, _I10 = (np.uint64(i) for i in range(6, 11))
_BLOCK_ROWS = np.uint64(8)
"""Rows per unit of parallel work."""
_LANES = np.uint64(32)
_TILE = np.uint64(448)
"""Columns per row buffer at most."""
_SLOT = np.uint64(512)
"""Distance of the row buffers in their flat array; eight of float32 fill half a 32 KiB cache."""
_SLOTS = 8


def padded_width(width: int) -> int:
    """The columns of a plane: the image's, rounded up to 32, and 32 for the window's borders."""
    return -(-width // 32) * 32 + 32


@numba.njit(**_OPTIONS)
@no_type_check
def _across(rows, x, w):
    """The windowed sum along a row buffer; ``x`` counts from the window's first column."""
    return (
        w[0] * (rows[x] + rows[x + _I10])
        + w[1] * (rows[x + _I1] + rows[x + _I9])
        + w[2] * (rows[x + _I2] + rows[x + _I8])
        + w[3] * (rows[x + _I3] + rows[x + _I7])
        + w[4] * (rows[x + _I4] + rows[x + _I6])
        + w[5] * rows[x + _I5]
    )


@numba.njit(parallel=True, **_OPTIONS)
@no_type_check
def split_planes(pred, target, mask, planes, valid):
    """Fills ``planes`` [2, 3, rows, columns] and ``valid`` [height, columns]; L1 sums [3, height].

    ``mask`` [height, width], or [0, 0] for none. A pixel of ``pred`` that is not valid takes the
    value of ``target``.
    """
    height, width = np.uint64(pred.shape[0]), np.uint64(pred.shape[1])
    columns = np.uint64(planes.shape[3])
    masked = mask.shape[0] > 0
    sums = np.zeros((3, pred.shape[0]), planes.dtype)
    for padded_row in numba.prange(planes.shape[2]):
        v = np.uint64(padded_row)
        planes[:, :, v, :] = 0
        if v >= _I5 and v < height + _I5:
            y = v - _I5
            for x in range(columns):
                valid[y, x] = x < width and (not masked or mask[y, x])
            for c in range(np.uint64(3)):
                total = planes[_I0, _I0, v, _I0]
                for x in range(width):
                    b = target[y, x, c]
                    a = pred[y, x, c] if valid[y, x] > 0 else b
                    planes[_I0, c, v, x + _I5] = a
                    planes[_I1, c, v, x + _I5] = b
                    total += abs(a - b)
                sums[c, y] = total
    return sums


@numba.njit(**_OPTIONS)
@no_type_check
def _down_moments(p, t, y, start, count, w, rows):
    """E[p], E[t], E[pp], E[tt], E[pt] of the column windows around row ``y``, into slots 0-4."""
    centre_p, centre_t, weight = p[y + _I5, start:], t[y + _I5, start:], w[5]
    for x in range(count):
        a, b = centre_p[x], centre_t[x]
        rows[x] = weight * a
        rows[x + _SLOT] = weight * b
        rows[x + _I2 * _SLOT] = weight * (a * a)
        rows[x + _I3 * _SLOT] = weight * (b * b)
        rows[x + _I4 * _SLOT] = weight * (a * b)
    for k in range(_I5):
        weight = w[k]
        above_p, above_t = p[y + k, start:], t[y + k, start:]
        below_p, below_t = p[y + _I10 - k, start:], t[y + _I10 - k, start:]
        for x in range(count):
            a, b, c, d = above_p[x], above_t[x], below_p[x], below_t[x]
            rows[x] += weight * (a + c)
            rows[x + _SLOT] += weight * (b + d)
            rows[x + _I2 * _SLOT] += weight * (a * a + c * c)
            rows[x + _I3 * _SLOT] += weight * (b * b + d * d)
            rows[x + _I4 * _SLOT] += weight * (a * b + c * d)


@numba.njit(**_OPTIONS)
@no_type_check
def _ssim_row(rows, count, w, constants, valid):
    """The sum of SSIM over the valid pixels of a row; its derivatives into slots 5-7."""
    c1, c2, total = constants
    for x in range(count):
        mu_a, mu_b = _across(rows, x, w), _across(rows, x + _SLOT, w)
        aa, bb, ab = mu_a * mu_a, mu_b * mu_b, mu_a * mu_b
        lum_den = aa + bb + c1
        var_a = _across(rows, x + _I2 * _SLOT, w) - aa
        var_den = var_a + (_across(rows, x + _I3 * _SLOT, w) - bb) + c2
        half_cov = _across(rows, x + _I4 * _SLOT, w) - ab
        lum, cov = ab + ab + c1, half_cov + half_cov + c2
        scale = valid[x] / (lum_den * var_den)
        similarity = lum * cov * scale
        total += similarity
        by_aa = -similarity * lum_den / (lum_den * var_den)
        by_ab = (lum + lum) * scale
        half_by_a = mu_b * cov * scale - mu_a * (similarity / lum_den + by_aa)
        rows[x + _I5 * _SLOT] = half_by_a + half_by_a - mu_b * by_ab
        rows[x + _I6 * _SLOT] = by_aa
        rows[x + _I7 * _SLOT] = by_ab
    return total


@numba.njit(**_OPTIONS)
@no_type_check
def _task_counts(height, columns):
    """Blocks of rows, and tiles of columns, of a picture in ``columns`` wide planes."""
    blocks = (np.uint64(height) + _BLOCK_ROWS - _I1) // _BLOCK_ROWS
    return blocks, (np.uint64(columns) - _LANES + _TILE - _I1) // _TILE


@numba.njit(parallel=True, **_OPTIONS)
@no_type_check
def ssim_maps(planes, valid, w, constants, maps):
    """The SSIM sums [3, height, tiles]; the derivatives by E[p], E[pp], E[pt] into ``maps``.

    ``maps`` is [3 channels, 3 derivatives, rows, columns], its border zero, or empty where no
    gradient is wanted.
    """
    height, columns = np.uint64(valid.shape[0]), np.uint64(valid.shape[1])
    blocks, tiles = _task_counts(height, columns)
    sums = np.zeros((3, np.int64(height), np.int64(tiles)), planes.dtype)
    for task in numba.prange(np.int64(_I3 * blocks)):
        c, first = np.uint64(task) // blocks, np.uint64(task) % blocks * _BLOCK_ROWS
        rows = np.empty(_SLOTS * np.int64(_SLOT), planes.dtype)
        for y in range(first, min(first + _BLOCK_ROWS, height)):
            for tile in range(tiles):
                start = tile * _TILE
                count = min(_TILE, columns - _LANES - start)
                _down_moments(planes[_I0, c], planes[_I1, c], y, start, count + _LANES, w, rows)
                sums[c, y, tile] = _ssim_row(rows, count, w, constants, valid[y, start:])
                if maps.shape[0] > 0:
                    for k in range(_I3):
                        out = maps[c, k, y + _I5, start + _I5 :]
                        for x in range(count):
                            out[x] = rows[x + (_I5 + k) * _SLOT]
    return sums


@numba.njit(**_OPTIONS)
@no_type_check
def _down(plane, y, start, count, w, row):
    """The column windows around row ``y`` of one plane, into ``row``."""
    # two loops: past eight pointers LLVM gives up checking whether they overlap
    r0, r1, r2 = plane[y, start:], plane[y + _I1, start:], plane[y + _I2, start:]
    r8, r9, r10 = plane[y + _I8, start:], plane[y + _I9, start:], plane[y + _I10, start:]
    for x in range(count):
        row[x] = w[0] * (r0[x] + r10[x]) + w[1] * (r1[x] + r9[x]) + w[2] * (r2[x] + r8[x])
    r3, r4, r5 = plane[y + _I3, start:], plane[y + _I4, start:], plane[y + _I5, start:]
    r6, r7 = plane[y + _I6, start:], plane[y + _I7, start:]
    for x in range(count):
        row[x] += w[3] * (r3[x] + r7[x]) + w[4] * (r4[x] + r6[x]) + w[5] * r5[x]


@numba.njit(**_OPTIONS)
@no_type_check
def _gradient_row(rows, count, c, w, p, t, scales):
    """One row of one channel's gradient, from slots 0-2 into slot 3 + ``c``."""
    l1_scale, ssim_scale, zero = scales
    for x in range(count):
        a, b = p[x + _I5], t[x + _I5]
        similarity = _across(rows, x, w) + (a + a) * _across(rows, x + _SLOT, w)
        similarity += b * _across(rows, x + _I2 * _SLOT, w)
        sign = l1_scale if a > b else zero
        sign -= l1_scale if a < b else zero
        rows[x + (_I3 + c) * _SLOT] = sign + ssim_scale * similarity


@numba.njit(parallel=True, **_OPTIONS)
@no_type_check
def gradient(planes, maps, valid, w, scales, grad):
    """Fills the gradient [height, width, 3] by ``pred``.

    ``scales``: what L1's sign and SSIM's derivative are multiplied with, and 0.
    """
    height, width, columns = np.uint64(grad.shape[0]), np.uint64(grad.shape[1]), valid.shape[1]
    blocks, tiles = _task_counts(height, columns)
    for task in numba.prange(np.int64(blocks)):
        first = np.uint64(task) * _BLOCK_ROWS
        rows = np.empty(_SLOTS * np.int64(_SLOT), planes.dtype)
        for y in range(first, min(first + _BLOCK_ROWS, height)):
            for tile in range(tiles):
                start = tile * _TILE
                count = min(_TILE, np.uint64(columns) - _LANES - start)
                for c in range(_I3):
                    for k in range(_I3):
                        _down(maps[c, k], y, start, count + _LANES, w, rows[k * _SLOT :])
                    p, t = planes[_I0, c, y + _I5, start:], planes[_I1, c, y + _I5, start:]
                    _gradient_row(rows, count, c, w, p, t, scales)
                for x in range(min(count, width - start)):
                    inside = valid[y, start + x]
                    for c in range(_I3):
                        grad[y, start + x, c] = rows[x + (_I3 + c) * _SLOT] * inside
