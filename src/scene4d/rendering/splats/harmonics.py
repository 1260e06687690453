"""Colours from spherical harmonics on the CPU, and the gradients back.

What is computed is ``reference.sh_colors``, in float32. Directions and basis functions are worked
out for eight Gaussians at a time; the coefficients, which are most of the memory, are read and
their gradients written once, row by row. Only visible Gaussians cost more than a row of zeros.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import njit, prange
from torch import Tensor

from scene4d.rendering.splats.interleave import load3, store3
from scene4d.rendering.splats.projection import empty, flat
from scene4d.rendering.splats.projection_kernels import CHUNK, num_chunks
from scene4d.rendering.splats.reference import SH_C0, camera_centres, check_shapes
from scene4d.rendering.splats.simd import (
    LANES,
    absolute,
    fma,
    greater,
    greater_equal,
    lane_column,
    less_equal,
    load,
    mask_bits,
    neg,
    select,
    splat,
    sqrt,
    store,
    total,
)
from scene4d.rendering.threads import KERNEL_LOCK

_ROW = 16
"""Basis functions of degree 3, and the length of a Gaussian's row of them."""
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

# Constants of reference.sh_basis, band by band.
_C1 = 0.4886025119029199
_C2, _C20 = 1.0925484305920792, 0.31539156525252005
_C3, _C31, _C32, _C30 = (
    0.5900435899266435,
    0.4570457994644658,
    2.890611442640554,
    0.3731763325901154,
)


@njit(**_OPTIONS)
@no_type_check
def _direction(mean, centre):
    """Unit vectors from the camera and their inverse lengths; both 0 where there is no length."""
    dx, dy, dz = mean[0] - splat(centre[0]), mean[1] - splat(centre[1]), mean[2] - splat(centre[2])
    squared = fma(dx, dx, fma(dy, dy, dz * dz))
    inverse = select(greater(squared, splat(0.0)), splat(1.0) / sqrt(squared), splat(0.0))
    return (dx * inverse, dy * inverse, dz * inverse), inverse


@njit(**_OPTIONS)
@no_type_check
def _basis(direction, degree, basis):
    """Basis functions of eight directions: function k in ``basis[8 k : 8 k + 8]``."""
    x, y, z = direction
    one = splat(1.0)
    store(basis, 0, splat(SH_C0))
    if degree >= 1:
        store(basis, 8, splat(-_C1) * y)
        store(basis, 16, splat(_C1) * z)
        store(basis, 24, splat(-_C1) * x)
    if degree >= 2:
        store(basis, 32, splat(_C2) * x * y)
        store(basis, 40, splat(-_C2) * y * z)
        store(basis, 48, splat(_C20) * fma(splat(3.0) * z, z, neg(one)))
        store(basis, 56, splat(-_C2) * x * z)
        store(basis, 64, splat(0.5 * _C2) * (x * x - y * y))
    if degree >= 3:
        five = fma(splat(5.0) * z, z, neg(one))
        store(basis, 72, splat(-_C3) * y * (splat(3.0) * x * x - y * y))
        store(basis, 80, splat(_C32) * x * y * z)
        store(basis, 88, splat(-_C31) * y * five)
        store(basis, 96, splat(_C30) * z * (five - splat(2.0)))
        store(basis, 104, splat(-_C31) * x * five)
        store(basis, 112, splat(0.5 * _C32) * z * (x * x - y * y))
        store(basis, 120, splat(-_C3) * x * (x * x - splat(3.0) * y * y))


@njit(**_OPTIONS)
@no_type_check
def _direction_gradient(direction, inverse, degree, g):
    """From the basis functions' gradients ``g[8 k + lane]`` to the vector from the camera."""
    x, y, z = direction
    c1 = splat(_C1)
    gx, gy, gz = neg(c1) * load(g, 24), neg(c1) * load(g, 8), c1 * load(g, 16)
    if degree >= 2:
        g4, g5, g7, g8 = load(g, 32), load(g, 40), load(g, 56), load(g, 64)
        c2 = splat(_C2)
        gx = fma(c2, y * g4 - z * g7 + x * g8, gx)
        gy = fma(c2, x * g4 - z * g5 - y * g8, gy)
        gz = fma(splat(6.0 * _C20) * z, load(g, 48), gz)
        gz = gz - c2 * (y * g5 + x * g7)
    if degree >= 3:
        g9, g10, g11, g12 = load(g, 72), load(g, 80), load(g, 88), load(g, 96)
        g13, g14, g15 = load(g, 104), load(g, 112), load(g, 120)
        five = fma(splat(5.0) * z, z, splat(-1.0))
        square, product = splat(3.0 * _C3) * (x * x - y * y), splat(6.0 * _C3) * x * y
        c31, c32 = splat(_C31), splat(_C32)
        gx = gx - product * g9 - square * g15 - c31 * five * g13
        gx = fma(c32 * z, y * g10 + x * g14, gx)
        gy = gy - square * g9 + product * g15 - c31 * five * g11
        gy = fma(c32 * z, x * g10 - y * g14, gy)
        gz = fma(c32, fma(x * y, g10, splat(0.5) * (x * x - y * y) * g14), gz)
        gz = fma(splat(-10.0 * _C31) * z, y * g11 + x * g13, gz)
        gz = fma(splat(3.0 * _C30) * five, g12, gz)
    along = fma(x, gx, fma(y, gy, z * gz))
    return inverse * (gx - x * along), inverse * (gy - y * along), inverse * (gz - z * along)


@njit(**_OPTIONS)
@no_type_check
def _turn(a, b, rows, columns):
    """Write ``a`` [rows, columns] to ``b`` [columns, rows], both flat."""
    for i in range(rows):
        for k in range(columns):
            b[k * rows + i] = a[i * columns + k]


# Coefficients lie three by three (r, g, b). Where a Gaussian lies is told in such triples: tensors
# [N, K, 3] have their constant function's at K n and the others' at K n + 1; a pair [N, 1, 3] and
# [N, K - 1, 3] at n and (K - 1) n. A layout is (first, triples per Gaussian, rest, offset, triples
# per Gaussian, triples per camera of first, of rest), the last two 0 if all cameras share them.
#
# Degree 2 has 8 triples after the first one, degree 3 has 15: two vectors that share one of them.


@njit(**_OPTIONS)
@no_type_check
def _weights(basis, lane, degree):
    """Functions 1-8 and 8-15 of a Gaussian as vectors, the second with function 8 blanked."""
    low = load(basis, _ROW * lane + 1)
    if degree == 2:
        return low, splat(0.0)
    high = load(basis, _ROW * lane + 8)
    return low, select(greater(lane_column(LANES), splat(0.0)), high, splat(0.0))


@njit(**_OPTIONS)
@no_type_check
def _shade(basis, lane, degree, first, i, rest, j):
    """One colour before the clamp: r, g, b."""
    b, half = basis[_ROW * lane], np.float32(0.5)
    red, green = _multiply_add(b, first[3 * i], half), _multiply_add(b, first[3 * i + 1], half)
    blue = _multiply_add(b, first[3 * i + 2], half)
    if degree == 1:
        for k in range(3):
            b, at = basis[_ROW * lane + k + 1], 3 * (j + k)
            red, green = _multiply_add(b, rest[at], red), _multiply_add(b, rest[at + 1], green)
            blue = _multiply_add(b, rest[at + 2], blue)
    if degree >= 2:
        low, high = _weights(basis, lane, degree)
        r, g, b = load3(rest, j)
        r, g, b = low * r, low * g, low * b
        if degree == 3:
            r2, g2, b2 = load3(rest, j + 7)
            r, g, b = fma(high, r2, r), fma(high, g2, g), fma(high, b2, b)
        red, green, blue = red + total(r), green + total(g), blue + total(b)
    return red, green, blue


@njit(**_OPTIONS)
@no_type_check
def _multiply_add(a, b, c):
    """``a b + c`` of scalars."""
    return a * b + c


@njit(**_OPTIONS)
@no_type_check
def _add3(array, at, weight, color):
    """Add ``weight`` times a colour to eight triples."""
    r, g, b = load3(array, at)
    store3(array, at, fma(weight, color[0], r), fma(weight, color[1], g), fma(weight, color[2], b))


@njit(**_OPTIONS)
@no_type_check
def _against(rest, at, color):
    """Inner products of eight triples with a colour."""
    r, g, b = load3(rest, at)
    return fma(r, color[0], fma(g, color[1], b * color[2]))


@njit(**_OPTIONS)
@no_type_check
def _unshade(basis, lane, degree, color, rest, grads, i, j, g_basis):
    """Add one colour's gradient ``color`` to the coefficients', and set the basis functions'."""
    g_first, g_rest = grads
    for k in range(3):
        g_first[3 * i + k] += basis[_ROW * lane] * color[k]
    if degree == 1:
        for k in range(3):
            at = 3 * (j + k)
            along = rest[at] * color[0] + rest[at + 1] * color[1] + rest[at + 2] * color[2]
            g_basis[_ROW * lane + k + 1] = along
            for channel in range(3):
                g_rest[at + channel] += basis[_ROW * lane + k + 1] * color[channel]
    if degree >= 2:
        low, high = _weights(basis, lane, degree)
        wide = (splat(color[0]), splat(color[1]), splat(color[2]))
        store(g_basis, _ROW * lane + 1, _against(rest, j, wide))
        _add3(g_rest, j, low, wide)
        if degree == 3:
            store(g_basis, _ROW * lane + 8, _against(rest, j + 7, wide))
            _add3(g_rest, j + 7, high, wide)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def shade_forward(means, centres, visible, layout, degree, n, colors):
    """``colors`` [C * N, 3] of all Gaussians and cameras; 0 where not visible."""
    first, first_step, rest, offset, rest_step, first_camera, rest_camera = layout
    cameras = len(centres)
    chunks, zero = num_chunks(n), np.float32(0.0)
    for chunk in prange(chunks):
        by_function, basis = np.zeros(_ROW * LANES, np.float32), np.zeros(_ROW * LANES, np.float32)
        end = n if chunk == chunks - 1 else (chunk + 1) * CHUNK
        for begin in range(chunk * CHUNK, end, LANES):
            row = min(begin, n - LANES)
            mean = load3(means, row)
            for c in range(cameras):
                _basis(_direction(mean, centres[c])[0], degree, by_function)
                _turn(by_function, basis, _ROW, LANES)
                for lane in range(LANES):
                    at, color = row + lane, (zero, zero, zero)
                    if visible[c * n + at]:
                        i = c * first_camera + at * first_step
                        j = c * rest_camera + at * rest_step + offset
                        color = _shade(basis, lane, degree, first, i, rest, j)
                    for k in range(3):
                        colors[3 * (c * n + at) + k] = max(color[k], zero)


@njit(**_OPTIONS)
@no_type_check
def _unclamped(colors, g_colors, start, g, active):
    """Gradients before the clamp at 0 into ``g`` (red, green, blue), 0 where it holds.

    ``active`` gets 1 where any is not 0 (or not a number), and the result is whether any is.
    """
    zero = splat(0.0)
    values, gradients = load3(colors, start), load3(g_colors, start)
    red = select(greater(values[0], zero), gradients[0], zero)
    green = select(greater(values[1], zero), gradients[1], zero)
    blue = select(greater(values[2], zero), gradients[2], zero)
    store(g, 0, red)
    store(g, LANES, green)
    store(g, 2 * LANES, blue)
    nothing = less_equal(absolute(red) + absolute(green) + absolute(blue), zero)
    store(active, 0, select(nothing, zero, splat(1.0)))
    return mask_bits(nothing) != (1 << LANES) - 1


@njit(**_OPTIONS)
@no_type_check
def _backward_block(row, g, active, coeffs, grads, degree, basis, g_basis):
    """Coefficient gradients of eight Gaussians seen by one camera; leaves ``g_basis``."""
    _, first_step, rest, offset, rest_step, first_base, rest_base = coeffs
    g_basis[:] = np.float32(0.0)
    for lane in range(LANES):
        if active[lane] > 0:
            color = (g[lane], g[LANES + lane], g[2 * LANES + lane])
            i = first_base + (row + lane) * first_step
            j = rest_base + (row + lane) * rest_step + offset
            _unshade(basis, lane, degree, color, rest, grads, i, j, g_basis)


@njit(**_OPTIONS)
@no_type_check
def _clear_block(row, coeffs, grads):
    """Zero the coefficient gradients of eight Gaussians."""
    _, first_step, _, offset, rest_step, first_base, rest_base = coeffs
    begin, zero = 3 * (first_base + row * first_step), splat(0.0)
    for k in range(3 * first_step):
        store(grads[0], begin + LANES * k, zero)
    if offset == 0:  # a pair
        begin = 3 * (rest_base + row * rest_step)
        for k in range(3 * rest_step):
            store(grads[1], begin + LANES * k, zero)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def shade_backward(means, centres, colors, g_colors, layout, grads, degree, n, g_means, sums):
    """Gradients of coefficients into ``grads``, of means, and of camera centres into ``sums``."""
    first, first_step, rest, offset, rest_step, first_camera, rest_camera = layout
    chunks, cameras = num_chunks(n), len(centres)
    for chunk in prange(chunks):
        by_function, basis = np.zeros(_ROW * LANES, np.float32), np.zeros(_ROW * LANES, np.float32)
        g_basis = np.empty(_ROW * LANES, np.float32)
        g, active = np.empty(3 * LANES, np.float32), np.empty(LANES, np.float32)
        end = n if chunk == chunks - 1 else (chunk + 1) * CHUNK
        for begin in range(chunk * CHUNK, end, LANES):
            row = min(begin, n - LANES)
            fresh = greater_equal(lane_column(LANES), splat(np.float32(begin - row)))
            mean, zero = load3(means, row), splat(0.0)
            gx, gy, gz = zero, zero, zero
            for c in range(cameras):
                coeffs = (
                    first, first_step, rest, offset, rest_step,
                    c * first_camera, c * rest_camera,
                )  # fmt: skip
                if c == 0 or first_camera > 0:
                    _clear_block(row, coeffs, grads)
                if not _unclamped(colors, g_colors, c * n + row, g, active):
                    continue
                direction, inverse = _direction(mean, centres[c])
                _basis(direction, degree, by_function)
                _turn(by_function, basis, _ROW, LANES)
                _backward_block(row, g, active, coeffs, grads, degree, basis, g_basis)
                if degree == 0:
                    continue
                _turn(g_basis, by_function, LANES, _ROW)
                x, y, z = _direction_gradient(direction, inverse, degree, by_function)
                counts = greater(load(active, 0), zero)
                gx, gy, gz = (
                    gx + select(counts, x, zero),
                    gy + select(counts, y, zero),
                    gz + select(counts, z, zero),
                )
                into, counts = sums[chunk, c], counts & fresh
                store(into, 0, load(into, 0) - select(counts, x, zero))
                store(into, 8, load(into, 8) - select(counts, y, zero))
                store(into, 16, load(into, 16) - select(counts, z, zero))
            if degree > 0:
                store3(g_means, row, gx, gy, gz)


def _layout(first: Tensor, rest: Tensor | None) -> tuple[Any, ...]:
    """Where the kernels find coefficients; see above."""
    a, n, step = flat(first), first.shape[-3], first.shape[-2]
    per_camera = first.ndim == 4
    if rest is None:
        return a, step, a, 1, step, n * step * per_camera, n * step * per_camera
    rest_step = rest.shape[-2]
    return a, step, flat(rest), 0, rest_step, n * step * per_camera, n * rest_step * per_camera


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, centres, visible, first, rest, degree):
        n, cameras = len(means), len(centres)
        colors = empty(cameras, n, 3)
        places = centres.detach().contiguous().numpy()
        with KERNEL_LOCK:
            shade_forward(
                flat(means), places, flat(visible), _layout(first, rest), degree, n,
                flat(colors),
            )  # fmt: skip
        ctx.save_for_backward(means, centres, first, rest, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    def backward(ctx, g_colors):
        means, centres, first, rest, colors = ctx.saved_tensors
        n, degree = len(means), ctx.degree
        g_first = empty(*first.shape)
        g_rest = None
        grads = (flat(g_first), flat(g_first))
        if rest is not None:
            g_rest = empty(*rest.shape)
            grads = (flat(g_first), flat(g_rest))
        g_means = empty(n if degree else 0, 3)
        sums = np.zeros((num_chunks(n), len(centres), 3 * LANES), np.float32)
        with KERNEL_LOCK:
            shade_backward(
                flat(means), centres.detach().contiguous().numpy(), flat(colors), flat(g_colors),
                _layout(first, rest), grads, degree, n,
                flat(g_means), sums,
            )  # fmt: skip
        whole = sums.sum(axis=0, dtype=np.float64).reshape(-1, 3, LANES).sum(axis=-1)
        g_centres = torch.from_numpy(whole).float() if degree else None
        return g_means if degree else None, g_centres, None, g_first, g_rest, None


Coefficients = Float[Tensor, "N _ 3"] | Float[Tensor, "C N _ 3"]


def _check(
    first: Tensor,
    rest: Tensor | None,
    means: Tensor,
    viewmats: Tensor,
    visible: Tensor,
    degree: int,
) -> None:
    n, cameras = len(means), len(viewmats)
    check_shapes(means=(means, (n, 3)), visible=(visible, (cameras, n)))
    check_shapes(viewmats=(viewmats, (cameras, 4, 4)))
    lead = (n,) if first.ndim == 3 else (cameras, n)
    pieces = {"first": first} | ({} if rest is None else {"rest": rest})
    check_shapes(**{name: (piece, (*lead, None, 3)) for name, piece in pieces.items()})
    count = sum(piece.shape[-2] for piece in pieces.values())
    if (
        not 0 <= degree <= 3
        or count < (degree + 1) ** 2
        or (rest is not None and first.shape[-2] != 1)
    ):
        raise ValueError(f"{count} coefficients for degree {degree}")


def sh_colors(
    coeffs: Coefficients | tuple[Coefficients, Coefficients],
    means: Float[Tensor, "N 3"],
    viewmats: Float[Tensor, "C 4 4"],
    visible: Bool[Tensor, "C N"],
    degree: int,
) -> Float[Tensor, "C N 3"]:
    """Colours ``max(SH(direction) + 0.5, 0)`` on the CPU; as ``reference.sh_colors``, float32 only.

    ``coeffs`` may be a pair, the constant function's [.., 1, 3] and the others' [.., K - 1, 3],
    which saves joining them. Only where ``visible`` are colours computed and gradients non-zero.
    The same inputs give the same bits, whatever the number of threads.
    """
    first, rest = coeffs if isinstance(coeffs, tuple) else (coeffs, None)
    n = len(means)
    _check(first, rest, means, viewmats, visible, degree)
    if n < LANES:
        means = torch.nn.functional.pad(means, (0, 0, 0, LANES - n))
        visible = torch.nn.functional.pad(visible, (0, LANES - n))
        padding = (0, 0, 0, 0, 0, LANES - n)
        first = torch.nn.functional.pad(first, padding)
        rest = None if rest is None else torch.nn.functional.pad(rest, padding)
    colors = _Shade.apply(means, camera_centres(viewmats), visible, first, rest, degree)
    return colors[:, :n]
