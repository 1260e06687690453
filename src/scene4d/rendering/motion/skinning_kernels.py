"""The Numba kernels of ``skinning``: blended dual quaternions, forward and back.

Per Gaussian, with nodes' dual quaternions (r_j, d_j), signs s_j and weights w_j: b_r = sum s_j w_j
r_j, b_d likewise, q = b_r / |b_r|, e = b_d / |b_r|, t = 2 vec(e q*), x' = q x q* + t, g' = q g. The
backward pass computes these again rather than keeping them. Flat arrays and scalars throughout: a
slice of an array costs Numba as much as a Gaussian.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    # lets LLVM fuse multiply-adds; NaN and infinity keep their meaning
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
CHUNKS = 8
"""Parts of the Gaussians that are worked on at once; sums over nodes are made per part and then in
order, so that results do not depend on the number of threads."""


@njit(**_OPTIONS)
@no_type_check
def _product(a, b):
    """Hamilton product of two quaternions given as tuples."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


@njit(**_OPTIONS)
@no_type_check
def _conjugate(q):
    return q[0], -q[1], -q[2], -q[3]


@njit(**_OPTIONS)
@no_type_check
def _four(array, at):
    return array[at], array[at + 1], array[at + 2], array[at + 3]


@njit(**_OPTIONS)
@no_type_check
def _store(array, at, value):
    array[at], array[at + 1], array[at + 2], array[at + 3] = value


@njit(**_OPTIONS)
@no_type_check
def _cross(a, b):
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


@njit(**_OPTIONS)
@no_type_check
def _dot3(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**_OPTIONS)
@no_type_check
def _dot4(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


@njit(**_OPTIONS)
@no_type_check
def _plus(a, factor, b):
    """``a + factor b`` of quaternions."""
    return a[0] + factor * b[0], a[1] + factor * b[1], a[2] + factor * b[2], a[3] + factor * b[3]


@njit(**_OPTIONS)
@no_type_check
def _shares(nodes, indices, weights, i):
    """Where the four nodes' numbers begin, and their weights, each with the sign that turns its
    quaternion to the side of the heaviest's; without branches, which nothing could foretell."""
    k = 4 * i
    a0, a1, a2, a3 = (
        8 * np.int64(indices[k]), 8 * np.int64(indices[k + 1]),
        8 * np.int64(indices[k + 2]), 8 * np.int64(indices[k + 3]),
    )  # fmt: skip
    w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
    left, right = (a1 if w1 > w0 else a0), (a3 if w3 > w2 else a2)
    base = _four(nodes, right if max(w2, w3) > max(w0, w1) else left)
    one = nodes.dtype.type(1.0)
    s0 = np.copysign(one, _dot4(_four(nodes, a0), base))
    s1 = np.copysign(one, _dot4(_four(nodes, a1), base))
    s2 = np.copysign(one, _dot4(_four(nodes, a2), base))
    s3 = np.copysign(one, _dot4(_four(nodes, a3), base))
    return (a0, a1, a2, a3), (s0 * w0, s1 * w1, s2 * w2, s3 * w3), (s0, s1, s2, s3)


@njit(**_OPTIONS)
@no_type_check
def _mixed(nodes, at, shares, offset):
    """The sum of the four nodes' quaternions at ``offset``."""
    a, b = _four(nodes, at[0] + offset), _four(nodes, at[1] + offset)
    c, d = _four(nodes, at[2] + offset), _four(nodes, at[3] + offset)
    return (
        (shares[0] * a[0] + shares[1] * b[0]) + (shares[2] * c[0] + shares[3] * d[0]),
        (shares[0] * a[1] + shares[1] * b[1]) + (shares[2] * c[1] + shares[3] * d[1]),
        (shares[0] * a[2] + shares[1] * b[2]) + (shares[2] * c[2] + shares[3] * d[2]),
        (shares[0] * a[3] + shares[1] * b[3]) + (shares[2] * c[3] + shares[3] * d[3]),
    )


@njit(**_OPTIONS)
@no_type_check
def _times(factor, a):
    return factor * a[0], factor * a[1], factor * a[2], factor * a[3]


@njit(**_OPTIONS)
@no_type_check
def _blend(nodes, at, shares):
    """The unit quaternion, the dual part over the same length, and one over that length."""
    real, dual = _mixed(nodes, at, shares, 0), _mixed(nodes, at, shares, 4)
    inverse = nodes.dtype.type(1.0) / np.sqrt(_dot4(real, real))
    return _times(inverse, real), _times(inverse, dual), inverse


@njit(parallel=True, **_OPTIONS)
@no_type_check
def skin_forward(means, quats, nodes, indices, weights, new_means, new_quats):
    """Fills the moved means [n * 3] and quaternions [n * 4]; ``nodes`` [m * 8] dual quaternions."""
    n = means.shape[0] // 3
    size = (n + CHUNKS - 1) // CHUNKS
    two = nodes.dtype.type(2.0)
    for chunk in prange(CHUNKS):
        for i in range(chunk * size, min(n, (chunk + 1) * size)):
            at, shares, _ = _shares(nodes, indices, weights, i)
            q, e, _ = _blend(nodes, at, shares)
            v, w = (q[1], q[2], q[3]), q[0]
            x = (means[3 * i], means[3 * i + 1], means[3 * i + 2])
            once = _cross(v, x)
            twice = _cross(v, once)
            across = _cross(v, (e[1], e[2], e[3]))
            new_means[3 * i] = x[0] + two * (
                w * (once[0] + e[1]) + twice[0] - e[0] * v[0] + across[0]
            )
            new_means[3 * i + 1] = x[1] + two * (
                w * (once[1] + e[2]) + twice[1] - e[0] * v[1] + across[1]
            )
            new_means[3 * i + 2] = x[2] + two * (
                w * (once[2] + e[3]) + twice[2] - e[0] * v[2] + across[2]
            )
            _store(new_quats, 4 * i, _product(q, _four(quats, 4 * i)))


@njit(**_OPTIONS)
@no_type_check
def _by_blend(q, e, x, gx, by_turn):
    """Gradients by q and e, from those by the mean (``gx``) and by the quaternion's turn."""
    w, v, f = q[0], (q[1], q[2], q[3]), (e[1], e[2], e[3])
    two = q[0] * 0 + 2
    xg, vg, fg, gf = _cross(x, gx), _dot3(v, gx), _dot3(f, gx), _cross(gx, v)
    vx, xx = _dot3(v, x), _dot3(x, gx)
    fx = _cross(f, gx)
    by_e = (
        -two * vg,
        two * (w * gx[0] + gf[0]),
        two * (w * gx[1] + gf[1]),
        two * (w * gx[2] + gf[2]),
    )
    by_w = two * (_dot3(_cross(v, x), gx) + fg)
    by_q = (
        by_w + by_turn[0],
        two * (w * xg[0] + vx * gx[0] + vg * x[0] - two * xx * v[0] - e[0] * gx[0] + fx[0])
        + by_turn[1],
        two * (w * xg[1] + vx * gx[1] + vg * x[1] - two * xx * v[1] - e[0] * gx[1] + fx[1])
        + by_turn[2],
        two * (w * xg[2] + vx * gx[2] + vg * x[2] - two * xx * v[2] - e[0] * gx[2] + fx[2])
        + by_turn[3],
    )
    return by_q, by_e


@njit(**_OPTIONS)
@no_type_check
def _give(sums, nodes, at, share, by_real, by_dual):
    """Adds one node's part of the gradient to ``sums``; the gradient by its signed weight."""
    real, dual = _four(nodes, at), _four(nodes, at + 4)
    sums[at] += share * by_real[0]
    sums[at + 1] += share * by_real[1]
    sums[at + 2] += share * by_real[2]
    sums[at + 3] += share * by_real[3]
    sums[at + 4] += share * by_dual[0]
    sums[at + 5] += share * by_dual[1]
    sums[at + 6] += share * by_dual[2]
    sums[at + 7] += share * by_dual[3]
    return _dot4(real, by_real) + _dot4(dual, by_dual)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def skin_backward(gaussians, nodes, indices, weights, grads, results, node_sums):
    """Gradients by means, quats and weights into ``results``; by the nodes' dual quaternions into
    ``node_sums`` [CHUNKS, m * 8], which must be zero."""
    means, quats = gaussians
    g_means, g_quats = grads
    by_means, by_quats, by_weights = results
    n = means.shape[0] // 3
    size = (n + CHUNKS - 1) // CHUNKS
    two = nodes.dtype.type(2.0)
    for chunk in prange(CHUNKS):
        sums = node_sums[chunk]
        for i in range(chunk * size, min(n, (chunk + 1) * size)):
            at, shares, signs = _shares(nodes, indices, weights, i)
            q, e, inverse = _blend(nodes, at, shares)
            x = (means[3 * i], means[3 * i + 1], means[3 * i + 2])
            gx = (g_means[3 * i], g_means[3 * i + 1], g_means[3 * i + 2])
            gq = _four(g_quats, 4 * i)
            back = (-q[1], -q[2], -q[3])
            once = _cross(back, gx)
            twice = _cross(back, once)
            by_means[3 * i] = gx[0] + two * (q[0] * once[0] + twice[0])
            by_means[3 * i + 1] = gx[1] + two * (q[0] * once[1] + twice[1])
            by_means[3 * i + 2] = gx[2] + two * (q[0] * once[2] + twice[2])
            _store(by_quats, 4 * i, _product(_conjugate(q), gq))
            by_turn = _product(gq, _conjugate(_four(quats, 4 * i)))
            by_q, by_e = _by_blend(q, e, x, gx, by_turn)
            along = _dot4(q, by_q) + _dot4(e, by_e)
            by_real = _times(inverse, _plus(by_q, -along, q))
            by_dual = _times(inverse, by_e)
            k = 4 * i
            by_weights[k] = signs[0] * _give(sums, nodes, at[0], shares[0], by_real, by_dual)
            by_weights[k + 1] = signs[1] * _give(sums, nodes, at[1], shares[1], by_real, by_dual)
            by_weights[k + 2] = signs[2] * _give(sums, nodes, at[2], shares[2], by_real, by_dual)
            by_weights[k + 3] = signs[3] * _give(sums, nodes, at[3], shares[3], by_real, by_dual)
