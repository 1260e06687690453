"""The Numba kernels of ``projection``: eight Gaussians at a time, forward and back.

With A = J W R S the 2 x 3 matrix whose A A^T is the footprint (``reference`` has the sources), the
backward pass goes conic -> A A^T -> A -> scales and R -> quaternion, and J W -> position and
camera. It recomputes the forward values rather than keeping them.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

from scene4d.rendering.splats.interleave import (
    either,
    load2,
    load3,
    load4,
    log,
    store2,
    store3,
    store4,
    to_int,
)
from scene4d.rendering.splats.reference import (
    ALPHA_MIN,
    MAX_EXTENT,
    MAX_QUAT_NORM,
    MAX_RADIUS,
)
from scene4d.rendering.splats.simd import (
    LANES,
    absolute,
    ceil,
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
    select,
    splat,
    sqrt,
    store,
)

CHUNK = 512
"""Gaussians that one thread takes at a time; a multiple of the eight lanes."""
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_MAX_FLOAT = 3.0e38
POSE = 12
"""Gradient sums per camera and chunk: the 3 x 4 upper part of the viewmat, row by row."""

# One camera is 24 float32: viewmat rows 0-2, then intrinsics and limits of the Jacobian's slopes.
CAMERA = 24
FX, FY, CX, CY, U_MIN, U_MAX, V_MIN, V_MAX = range(12, 20)
# Settings as float32.
WIDTH, HEIGHT, NEAR, FAR, CLIP, EPS2D = range(6)


@njit(**_OPTIONS)
@no_type_check
def num_chunks(n):
    """Chunks of n Gaussians; the last takes the rest, so that no block crosses into another."""
    return max(1, n // CHUNK)


@njit(**_OPTIONS)
@no_type_check
def _dot(a, b):
    return fma(a[2], b[2], fma(a[1], b[1], a[0] * b[0]))


@njit(**_OPTIONS)
@no_type_check
def _row(camera, k):
    """Row k of the world-to-camera rotation, in all lanes."""
    return splat(camera[4 * k]), splat(camera[4 * k + 1]), splat(camera[4 * k + 2])


@njit(**_OPTIONS)
@no_type_check
def _clamp(x, low, high):
    return minimum(maximum(x, splat(low)), splat(high))


@njit(**_OPTIONS)
@no_type_check
def _rotation(q):
    """Unit quaternion, 1 / |q| and the three columns of its rotation."""
    inverse = splat(1.0) / sqrt(fma(q[3], q[3], fma(q[2], q[2], fma(q[1], q[1], q[0] * q[0]))))
    w, x, y, z = q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse
    one, two = splat(1.0), splat(2.0)
    first = (one - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y))
    second = (two * (x * y - w * z), one - two * (x * x + z * z), two * (y * z + w * x))
    third = (two * (x * z + w * y), two * (y * z - w * x), one - two * (x * x + y * y))
    return (w, x, y, z), inverse, first, second, third


@njit(**_OPTIONS)
@no_type_check
def _place(camera, m):
    """Camera-space position as (x / z, y / z, z, 1 / z)."""
    r0, r1, r2 = _row(camera, 0), _row(camera, 1), _row(camera, 2)
    z = _dot(r2, m) + splat(camera[11])
    rz = splat(1.0) / z
    return (_dot(r0, m) + splat(camera[3])) * rz, (_dot(r1, m) + splat(camera[7])) * rz, z, rz


@njit(**_OPTIONS)
@no_type_check
def _image_row(camera, axis, slope, scale):
    """A row of J W: ``scale (R_axis - slope R_2)``, and the bracket alone."""
    r, r2 = _row(camera, axis), _row(camera, 2)
    bracket = (
        fma(neg(slope), r2[0], r[0]),
        fma(neg(slope), r2[1], r[1]),
        fma(neg(slope), r2[2], r[2]),
    )
    return (scale * bracket[0], scale * bracket[1], scale * bracket[2]), bracket


@njit(**_OPTIONS)
@no_type_check
def _footprint(a0, a1, eps):
    """(xx, xy, yy) of A A^T, and its determinant before and after the low-pass."""
    xx, xy, yy = _dot(a0, a0), _dot(a0, a1), _dot(a1, a1)
    m = _cross(a0, a1)
    det = _dot(m, m)
    return xx, xy, yy, det, fma(eps, xx + yy + eps, det)


@njit(**_OPTIONS)
@no_type_check
def _half_extents(opacity, xx, yy, eps):
    """Whole pixels in x and y that enclose alpha >= 1/255."""
    ratio = maximum(opacity * splat(1.0 / ALPHA_MIN), splat(1.0))
    reach = minimum(sqrt(splat(2.0) * log(ratio)), splat(MAX_EXTENT))
    return ceil(reach * sqrt(xx + eps)), ceil(reach * sqrt(yy + eps))


@njit(**_OPTIONS)
@no_type_check
def _is_drawn(mean2d, z, radius, opacity, finite, settings):
    """Lanes that are inside all the planes and large and opaque enough; NaN is outside."""
    rx, ry = radius
    keep = greater_equal(z, splat(settings[NEAR])) & less_equal(z, splat(settings[FAR]))
    keep = keep & greater(z, splat(0.0)) & greater_equal(opacity, splat(ALPHA_MIN))
    clip = splat(settings[CLIP])
    keep = keep & either(greater(rx, clip), greater(ry, clip))
    keep = keep & greater(rx, splat(0.0)) & greater(ry, splat(0.0))
    keep = keep & less_equal(rx, splat(MAX_RADIUS)) & less_equal(ry, splat(MAX_RADIUS))
    zero, width, height = splat(0.0), splat(settings[WIDTH]), splat(settings[HEIGHT])
    keep = keep & greater(mean2d[0] + rx, zero) & greater(width, mean2d[0] - rx)
    keep = keep & greater(mean2d[1] + ry, zero) & greater(height, mean2d[1] - ry)
    return keep & less_equal(absolute(finite), splat(_MAX_FLOAT))


@njit(**_OPTIONS)
@no_type_check
def _forward_block(camera, settings, antialiased, mean, quat, scale, opacity, at, outputs):
    """Eight Gaussians from output row ``at`` on, one camera."""
    means2d, depths, conics, radii, compensations = outputs
    zero, eps = splat(0.0), splat(settings[EPS2D])
    u, v, z, rz = _place(camera, mean)
    near = greater_equal(z, splat(settings[NEAR])) & greater(z, zero)
    if mask_bits(near & less_equal(z, splat(settings[FAR]))) == 0:
        store2(means2d, at, zero, zero)
        store3(conics, at, zero, zero, zero)
        store2(radii, at, int_splat(0), int_splat(0))
        store(depths, at, zero)
        if antialiased:
            store(compensations, at, zero)
        return
    _, per_norm, c0, c1, c2 = _rotation(quat)
    fx, fy = splat(camera[FX]), splat(camera[FY])
    slope_x = _clamp(u, camera[U_MIN], camera[U_MAX])
    slope_y = _clamp(v, camera[V_MIN], camera[V_MAX])
    j0, _ = _image_row(camera, 0, slope_x, fx * rz)
    j1, _ = _image_row(camera, 1, slope_y, fy * rz)
    a0 = (_dot(j0, c0) * scale[0], _dot(j0, c1) * scale[1], _dot(j0, c2) * scale[2])
    a1 = (_dot(j1, c0) * scale[0], _dot(j1, c1) * scale[1], _dot(j1, c2) * scale[2])
    xx, xy, yy, det, blurred = _footprint(a0, a1, eps)
    inverse = splat(1.0) / blurred
    compensation = sqrt(det * inverse)
    if antialiased:
        opacity = opacity * compensation
    rx, ry = _half_extents(opacity, xx, yy, eps)
    x = fma(fx, u, splat(camera[CX]))
    y = fma(fy, v, splat(camera[CY]))
    # One sum tells whether anything on the way was infinite or not a number.
    finite = absolute(inverse) + absolute(blurred) + absolute(xx) + absolute(yy) + absolute(x)
    finite = finite + absolute(y) + absolute(xy)
    keep = _is_drawn((x, y), z, (rx, ry), opacity, finite, settings)
    keep = keep & less_equal(per_norm, splat(MAX_QUAT_NORM))
    keep = keep & greater_equal(per_norm, splat(1.0 / MAX_QUAT_NORM))
    store2(means2d, at, select(keep, x, zero), select(keep, y, zero))
    store(depths, at, select(keep, z, zero))
    store3(
        conics,
        at,
        select(keep, (yy + eps) * inverse, zero),
        select(keep, neg(xy) * inverse, zero),
        select(keep, (xx + eps) * inverse, zero),
    )
    store2(radii, at, to_int(select(keep, rx, zero)), to_int(select(keep, ry, zero)))
    if antialiased:
        store(compensations, at, select(keep, compensation, zero))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def project_forward(means, quats, scales, opacities, n, cameras, settings, antialiased, outputs):
    """All Gaussians and cameras; arrays are flat, ``n`` at least 8."""
    count = cameras.shape[0]
    chunks = num_chunks(n)
    for chunk in prange(chunks):
        end = n if chunk == chunks - 1 else (chunk + 1) * CHUNK
        for begin in range(chunk * CHUNK, end, LANES):
            # The last block starts early enough to be whole; it repeats what is there.
            row = min(begin, n - LANES)
            mean, quat, scale = load3(means, row), load4(quats, row), load3(scales, row)
            opacity = load(opacities, row)
            for c in range(count):
                _forward_block(
                    cameras[c], settings, antialiased, mean, quat, scale, opacity, c * n + row,
                    outputs,
                )  # fmt: skip


@njit(**_OPTIONS)
@no_type_check
def _covariance_gradient(footprint, eps, g_conic):
    """From the conic's gradient to (xx, xy, yy, det), taken as four independent numbers.

    The textbook form, minus conic G conic, cancels for needles: it was 18% off in float32 where
    the footprint was a thousand times longer than wide. With the determinant kept as the sum of
    squares that it is, the error stays at 1e-3.
    """
    xx, xy, yy, _, blurred = footprint
    inverse = splat(1.0) / blurred
    ga, gb, gc = g_conic[0] * inverse, g_conic[1] * inverse, g_conic[2] * inverse
    g_det = neg(ga * (yy + eps) - gb * xy + gc * (xx + eps)) * inverse
    return fma(eps, g_det, gc), neg(gb), fma(eps, g_det, ga), g_det


@njit(**_OPTIONS)
@no_type_check
def _compensation_gradient(footprint, eps, g, covariance):
    """Add the gradient of sqrt(det / blurred)."""
    xx, _, yy, det, blurred = footprint
    g_xx, g_xy, g_yy, g_det = covariance
    inverse = splat(1.0) / blurred
    factor = splat(0.5) * g * sqrt(det * inverse) * eps * inverse
    g_det = fma(factor, (xx + yy + eps) / det, g_det)
    return g_xx - factor, g_xy, g_yy - factor, g_det


@njit(**_OPTIONS)
@no_type_check
def _quat_gradient(unit, inverse, g0, g1, g2):
    """Through rotation columns g0, g1, g2 to the unnormalised quaternion."""
    w, x, y, z = unit
    two = splat(2.0)
    gw = x * (g1[2] - g2[1]) + y * (g2[0] - g0[2]) + z * (g0[1] - g1[0])
    gx = w * (g1[2] - g2[1]) + y * (g1[0] + g0[1]) + z * (g2[0] + g0[2])
    gx = gx - two * x * (g1[1] + g2[2])
    gy = w * (g2[0] - g0[2]) + x * (g1[0] + g0[1]) + z * (g2[1] + g1[2])
    gy = gy - two * y * (g0[0] + g2[2])
    gz = w * (g0[1] - g1[0]) + x * (g2[0] + g0[2]) + y * (g2[1] + g1[2])
    gz = gz - two * z * (g0[0] + g1[1])
    along = fma(w, gw, fma(x, gx, fma(y, gy, z * gz)))
    twice = two * inverse
    return (
        twice * (gw - w * along),
        twice * (gx - x * along),
        twice * (gy - y * along),
        twice * (gz - z * along),
    )


@njit(**_OPTIONS)
@no_type_check
def _add_pose(pose, keep, scaled, slopes, g_position, mean):
    """Add eight Gaussians' gradients of the viewmat's rows, lane by lane.

    The rotation enters twice: through the position R m + t, and through the rows of J W, whose
    gradients times their scales are ``scaled``.
    """
    zero = splat(0.0)
    s0, s1 = scaled
    for k in range(3):
        third = neg(fma(slopes[0], s0[k], slopes[1] * s1[k]))
        through = (s0[k], s1[k], third)
        for axis in range(3):
            at = LANES * (4 * axis + k)
            share = fma(g_position[axis], mean[k], through[axis])
            store(pose, at, load(pose, at) + select(keep, share, zero))
    for axis in range(3):
        at = LANES * (4 * axis + 3)
        store(pose, at, load(pose, at) + select(keep, g_position[axis], zero))


@njit(**_OPTIONS)
@no_type_check
def _rows_gradient(covariance, a0, a1):
    """From (xx, xy, yy, det) to the two rows of A."""
    g_xx, g_xy, g_yy, g_det = covariance
    m = _cross(a0, a1)
    twice = g_det + g_det
    c0, c1 = _cross(a1, m), _cross(m, a0)
    row0 = _combined(a0, g_xx + g_xx, a1, g_xy)
    row1 = _combined(a1, g_yy + g_yy, a0, g_xy)
    return _plus(row0, c0, twice), _plus(row1, c1, twice)


@njit(**_OPTIONS)
@no_type_check
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(**_OPTIONS)
@no_type_check
def _plus(a, b, k):
    """``a + k b``."""
    return fma(k, b[0], a[0]), fma(k, b[1], a[1]), fma(k, b[2], a[2])


@njit(**_OPTIONS)
@no_type_check
def _times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@njit(**_OPTIONS)
@no_type_check
def _scaled(a, k):
    return a[0] * k, a[1] * k, a[2] * k


@njit(**_OPTIONS)
@no_type_check
def _combined(a, x, b, y):
    """``a x + b y`` for vectors a, b and scalars x, y."""
    return fma(a[0], x, b[0] * y), fma(a[1], x, b[1] * y), fma(a[2], x, b[2] * y)


@njit(**_OPTIONS)
@no_type_check
def _slope_gradient(camera, axis, g_row, scale, bracket, slope, low, high):
    """Gradients of a row's scale and of its slope, which is constant where it is clamped."""
    g_scale = _dot(g_row, bracket)
    g_slope = neg(scale) * _dot(g_row, _row(camera, 2))
    inside = greater_equal(slope, splat(low)) & less_equal(slope, splat(high))
    return g_scale, select(inside, g_slope, splat(0.0))


@njit(**_OPTIONS)
@no_type_check
def _position_gradient(camera, place, g_mean2d, g_depth, g_slopes, g_scales):
    """Gradient of the camera-space position (x, y, z)."""
    u, v, _, rz = place
    fx, fy = splat(camera[FX]), splat(camera[FY])
    g_u = fma(fx, g_mean2d[0], g_slopes[0])
    g_v = fma(fy, g_mean2d[1], g_slopes[1])
    along = g_scales[0] * fx * rz + g_scales[1] * fy * rz + g_u * u + g_v * v
    return g_u * rz, g_v * rz, fma(neg(along), rz, g_depth)


@njit(**_OPTIONS)
@no_type_check
def _backward_block(camera, eps, mean, quat, scale, g_mean2d, g_depth, g_conic, g_comp, pose):
    """Gradients of eight Gaussians' mean, quat and scale from one camera; ``pose`` is added to.

    ``g_comp`` is None outside the antialiased mode; ``pose`` is (sums, lanes that count).
    """
    place = _place(camera, mean)
    u, v, _, rz = place
    unit, inverse, c0, c1, c2 = _rotation(quat)
    fx, fy = splat(camera[FX]) * rz, splat(camera[FY]) * rz
    slope_x = _clamp(u, camera[U_MIN], camera[U_MAX])
    slope_y = _clamp(v, camera[V_MIN], camera[V_MAX])
    j0, bracket0 = _image_row(camera, 0, slope_x, fx)
    j1, bracket1 = _image_row(camera, 1, slope_y, fy)
    b0 = (_dot(j0, c0), _dot(j0, c1), _dot(j0, c2))
    b1 = (_dot(j1, c0), _dot(j1, c1), _dot(j1, c2))
    a0, a1 = _times(b0, scale), _times(b1, scale)
    footprint = _footprint(a0, a1, eps)
    covariance = _covariance_gradient(footprint, eps, g_conic)
    if g_comp is not None:
        covariance = _compensation_gradient(footprint, eps, g_comp, covariance)
    g0, g1 = _rows_gradient(covariance, a0, a1)
    s0, s1 = _times(g0, b0), _times(g1, b1)
    g_scale = (s0[0] + s1[0], s0[1] + s1[1], s0[2] + s1[2])
    g0, g1 = _times(g0, scale), _times(g1, scale)
    columns = (
        _combined(j0, g0[0], j1, g1[0]),
        _combined(j0, g0[1], j1, g1[1]),
        _combined(j0, g0[2], j1, g1[2]),
    )
    g_quat = _quat_gradient(unit, inverse, columns[0], columns[1], columns[2])
    gj0 = _through(c0, c1, c2, g0)
    gj1 = _through(c0, c1, c2, g1)
    g_fx, g_u = _slope_gradient(camera, 0, gj0, fx, bracket0, u, camera[U_MIN], camera[U_MAX])
    g_fy, g_v = _slope_gradient(camera, 1, gj1, fy, bracket1, v, camera[V_MIN], camera[V_MAX])
    g_position = _position_gradient(camera, place, g_mean2d, g_depth, (g_u, g_v), (g_fx, g_fy))
    _add_pose(
        pose[0], pose[1], (_scaled(gj0, fx), _scaled(gj1, fy)), (slope_x, slope_y), g_position, mean
    )
    return _through(_row(camera, 0), _row(camera, 1), _row(camera, 2), g_position), g_quat, g_scale


@njit(**_OPTIONS)
@no_type_check
def _through(c0, c1, c2, g):
    """``g[0] c0 + g[1] c1 + g[2] c2``."""
    return (
        fma(c2[0], g[2], fma(c1[0], g[1], c0[0] * g[0])),
        fma(c2[1], g[2], fma(c1[1], g[1], c0[1] * g[0])),
        fma(c2[2], g[2], fma(c1[2], g[1], c0[2] * g[0])),
    )


@njit(**_OPTIONS)
@no_type_check
def _masked(keep, a):
    zero = splat(0.0)
    return select(keep, a[0], zero), select(keep, a[1], zero), select(keep, a[2], zero)


@njit(**_OPTIONS)
@no_type_check
def _added(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(**_OPTIONS)
@no_type_check
def _load_unless_none(array, at):
    """A function of its own: only by the type of an argument does Numba drop the other branch."""
    if array is None:
        return None
    return load(array, at)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def project_backward(inputs, n, cameras, settings, radii, grads, results, poses):
    """Gradients of means, quats and scales into ``results``, of the poses per chunk into ``poses``.

    ``grads`` are of means2d, depths, conics and compensations (None outside antialiased mode).
    """
    means, quats, scales = inputs
    g_means2d, g_depths, g_conics, g_compensations = grads
    count = cameras.shape[0]
    chunks = num_chunks(n)
    for chunk in prange(chunks):
        eps, zero = splat(settings[EPS2D]), splat(0.0)
        end = n if chunk == chunks - 1 else (chunk + 1) * CHUNK
        for begin in range(chunk * CHUNK, end, LANES):
            row = min(begin, n - LANES)
            fresh = greater_equal(lane_column(LANES), splat(np.float32(begin - row)))
            mean, quat, scale = load3(means, row), load4(quats, row), load3(scales, row)
            g_mean, g_scale = (zero, zero, zero), (zero, zero, zero)
            g_xyz, g_w = (zero, zero, zero), zero
            for c in range(count):
                at = c * n + row
                keep = int_greater(load2(radii, at)[0], int_splat(0))
                if mask_bits(keep) == 0:
                    continue
                g_comp = _load_unless_none(g_compensations, at)
                m, q, s = _backward_block(
                    cameras[c], eps, mean, quat, scale, load2(g_means2d, at), load(g_depths, at),
                    load3(g_conics, at), g_comp, (poses[chunk, c], keep & fresh),
                )  # fmt: skip
                g_mean = _added(g_mean, _masked(keep, m))
                g_scale = _added(g_scale, _masked(keep, s))
                g_xyz = _added(g_xyz, _masked(keep, (q[1], q[2], q[3])))
                g_w = g_w + select(keep, q[0], zero)
            store3(results[0], row, g_mean[0], g_mean[1], g_mean[2])
            store4(results[1], row, g_w, g_xyz[0], g_xyz[1], g_xyz[2])
            store3(results[2], row, g_scale[0], g_scale[1], g_scale[2])
