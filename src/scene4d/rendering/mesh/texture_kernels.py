"""The kernels of ``textures``: which level of the pyramid a pixel reads, reading it, and back.

A pyramid is one array [N, C]: level after level, row after row; ``sizes`` [L, 2] are rows and
columns of the levels, ``starts`` [L] where they begin.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

from scene4d.rendering.mesh.kernels import BANDS, edge_functions

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_QUARTER = np.float32(0.25)
"""In float32, so that four or more texels are added at once."""


@njit(parallel=True, **_OPTIONS)
@no_type_check
def levels(corners, triangles, faces, depths, uv_triangles, uv, at, rows, columns, out):
    """``out`` [H, W]: log2 of the texels that a pixel is wide, where it is widest (OpenGL 4.6,
    8.14.1); ``at`` [H, W, 2] is uv as interpolated."""
    height, width = faces.shape
    for band in prange(BANDS):
        last = -1
        for row in range(height * band // BANDS, height * (band + 1) // BANDS):
            for column in range(width):
                out[row, column] = 0.0
                t = faces[row, column]
                if t < 0:
                    continue
                if t != last:  # a row crosses few triangles
                    a0, a1, _, b0, b1, _, c0, c1, _, det = edge_functions(
                        corners, triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    )
                    last = t
                total = det / depths[row, column]
                a, b, c = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
                u, v = at[row, column, 0], at[row, column, 1]
                ua, ub, uc = uv[a, 0] - u, uv[b, 0] - u, uv[c, 0] - u
                va, vb, vc = uv[a, 1] - v, uv[b, 1] - v, uv[c, 1] - v
                along_u = columns * (a0 * ua + b0 * ub + c0 * uc) / total
                along_v = rows * (a0 * va + b0 * vb + c0 * vc) / total
                down_u = columns * (a1 * ua + b1 * ub + c1 * uc) / total
                down_v = rows * (a1 * va + b1 * vb + c1 * vc) / total
                widest = max(along_u**2 + along_v**2, down_u**2 + down_v**2)
                out[row, column] = 0.5 * np.log2(max(widest, 1e-12))


@njit(inline="always", **_OPTIONS)
@no_type_check
def _texels(u, v, rows, columns, start):
    """The four texels around (u, v), of a level that begins at ``start``: upper left and right,
    lower left and right, and the shares of the right and of the lower ones; the border goes on
    outside. The last two say whether the place may move along u and v."""
    x, y = u * columns - 0.5, v * rows - 0.5
    inside_x = x > 0.0 and x < columns - 1.0
    inside_y = y > 0.0 and y < rows - 1.0
    x = min(x if x > 0.0 else 0.0, columns - 1.0)  # also of what is not a number
    y = min(y if y > 0.0 else 0.0, rows - 1.0)
    left, top = min(int(x), max(columns - 2, 0)), min(int(y), max(rows - 2, 0))
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    above, below = start + top * columns, start + bottom * columns
    a, b = np.uintp(above + left), np.uintp(above + right)
    c, d = np.uintp(below + left), np.uintp(below + right)
    return a, b, c, d, x - left, y - top, inside_x, inside_y


@njit(inline="always", **_OPTIONS)
@no_type_check
def _two_levels(level, count):
    """The finer and the coarser level that are mixed, and the share of the coarser one."""
    at = min(float(level) if level > 0.0 else 0.0, count - 1.0)
    fine = min(int(at), max(count - 2, 0))
    return fine, min(fine + 1, count - 1), at - fine


@njit(parallel=True, **_OPTIONS)
@no_type_check
def sample(pyramid, sizes, starts, faces, uv, level, out):
    """``out`` [H, W, C]: bilinear in two levels, linear between them; 0 where there is no face."""
    height, width = faces.shape
    channels = pyramid.shape[1]
    for band in prange(BANDS):
        for line in range(height * band // BANDS, height * (band + 1) // BANDS):
            row = np.uintp(line)
            for column in range(np.uintp(width)):
                for k in range(np.uintp(channels)):
                    out[row, column, k] = 0.0
                if faces[row, column] < 0:
                    continue
                fine, coarse, share = _two_levels(level[row, column], len(sizes))
                for which in range(2):
                    index, weight = (fine, 1.0 - share) if which == 0 else (coarse, share)
                    if weight == 0.0:
                        continue
                    rows, columns = sizes[index, 0], sizes[index, 1]
                    a, b, c, d, fx, fy, _, _ = _texels(
                        uv[row, column, 0], uv[row, column, 1], rows, columns, starts[index]
                    )
                    for k in range(np.uintp(channels)):
                        above = (1.0 - fx) * pyramid[a, k] + fx * pyramid[b, k]
                        below = (1.0 - fx) * pyramid[c, k] + fx * pyramid[d, k]
                        out[row, column, k] += weight * ((1.0 - fy) * above + fy * below)


@njit(**_OPTIONS)
@no_type_check
def sample_backward(pyramid, sizes, starts, faces, uv, level, g_out, g_pyramid, g_uv):
    """Adds to ``g_pyramid`` (where it has rows), and writes ``g_uv``."""
    height, width = faces.shape
    channels = pyramid.shape[1]
    to_texels = len(g_pyramid) > 0
    for row in range(np.uintp(height)):
        for column in range(np.uintp(width)):
            g_u, g_v = 0.0, 0.0
            if faces[row, column] >= 0:
                fine, coarse, share = _two_levels(level[row, column], len(sizes))
                for which in range(2):
                    index, weight = (fine, 1.0 - share) if which == 0 else (coarse, share)
                    if weight == 0.0:
                        continue
                    rows, columns = sizes[index, 0], sizes[index, 1]
                    a, b, c, d, fx, fy, free_x, free_y = _texels(
                        uv[row, column, 0], uv[row, column, 1], rows, columns, starts[index]
                    )
                    across, down = 0.0, 0.0
                    for k in range(np.uintp(channels)):
                        g = weight * g_out[row, column, k]
                        pa, pb, pc, pd = pyramid[a, k], pyramid[b, k], pyramid[c, k], pyramid[d, k]
                        across += g * ((1.0 - fy) * (pb - pa) + fy * (pd - pc))
                        down += g * ((1.0 - fx) * (pc - pa) + fx * (pd - pb))
                        if to_texels:
                            above, below = (1.0 - fy) * g, fy * g
                            g_pyramid[a, k] += (1.0 - fx) * above
                            g_pyramid[b, k] += fx * above
                            g_pyramid[c, k] += (1.0 - fx) * below
                            g_pyramid[d, k] += fx * below
                    g_u += columns * across if free_x else 0.0
                    g_v += rows * down if free_y else 0.0
            g_uv[row, column, 0] = g_u
            g_uv[row, column, 1] = g_v


@njit(**_OPTIONS)
@no_type_check
def _rows(pyramid, sizes, starts, index, row):
    """Numbers of that row of level ``index``, and of the two of the level before that it is the
    mean of: flat views, which loops run over without asking for a texel's place."""
    flat, channels = pyramid.ravel(), pyramid.shape[1]
    columns, wide = sizes[index, 1], sizes[index - 1, 1]
    here = (starts[index] + row * columns) * channels
    above = (starts[index - 1] + 2 * row * wide) * channels
    below, count = above + wide * channels, columns * channels
    return (
        flat[here : here + count],
        flat[above : above + 2 * count],
        flat[below : below + 2 * count],
    )


@njit(parallel=True, **_OPTIONS)
@no_type_check
def build(pyramid, sizes, starts):
    """Fills every level after the first with the means of 2 x 2 texels of the one before."""
    channels = pyramid.shape[1]
    for index in range(1, len(sizes)):
        count = sizes[index, 0]
        for band in prange(BANDS):
            sums = np.empty(2 * sizes[index, 1] * channels, np.float32)
            for row in range(count * band // BANDS, count * (band + 1) // BANDS):
                here, above, below = _rows(pyramid, sizes, starts, index, row)
                for i in range(len(sums)):
                    sums[i] = _QUARTER * (above[i] + below[i])
                for column in range(sizes[index, 1]):
                    at, left = column * channels, 2 * column * channels
                    for k in range(channels):
                        here[at + k] = sums[left + k] + sums[left + channels + k]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def build_backward(g_pyramid, sizes, starts):
    """Hands the gradient of every level down to the first."""
    channels = g_pyramid.shape[1]
    for index in range(len(sizes) - 1, 0, -1):
        count = sizes[index, 0]
        for band in prange(BANDS):
            shares = np.empty(2 * sizes[index, 1] * channels, np.float32)
            for row in range(count * band // BANDS, count * (band + 1) // BANDS):
                here, above, below = _rows(g_pyramid, sizes, starts, index, row)
                if not here.any():
                    continue
                for column in range(sizes[index, 1]):
                    at, left = column * channels, 2 * column * channels
                    for k in range(channels):
                        share = _QUARTER * here[at + k]
                        shares[left + k] = share
                        shares[left + channels + k] = share
                for i in range(len(shares)):
                    above[i] += shares[i]
                for i in range(len(shares)):
                    below[i] += shares[i]
