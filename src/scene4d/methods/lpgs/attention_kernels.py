"""Attention within many tiny families, for the CPU; ``family_network.py`` states the mathematics.

Torch's products of the same would write out every query beside every key.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}


@njit(**_OPTIONS)
@no_type_check
def _inner(a, b):
    total = np.float32(0.0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@njit(**_OPTIONS)
@no_type_check
def _add(into, factor, a):
    for i in range(len(a)):
        into[i] += factor * a[i]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def attend(queries, alive, scale, weights, out):
    """``queries`` [p, m, 3 h] hold queries, keys and values; ``weights`` [p, m, m], zeros before,
    get those of the living for each living member, ``out`` [p, m, h], zeros before, what it takes
    from them."""
    families, members, h = out.shape
    for p in prange(families):
        for i in range(members):
            if not alive[p, i]:
                continue
            query, weight, result = queries[p, i, :h], weights[p, i], out[p, i]
            largest = np.float32(-np.inf)
            for j in range(members):
                if alive[p, j]:
                    weight[j] = scale * _inner(query, queries[p, j, h : 2 * h])
                    largest = max(largest, weight[j])
            total = np.float32(0.0)
            for j in range(members):
                if alive[p, j]:
                    weight[j] = math.exp(weight[j] - largest)
                    total += weight[j]
            for j in range(members):
                if alive[p, j]:
                    weight[j] /= total
                    _add(result, weight[j], queries[p, j, 2 * h :])


@njit(parallel=True, **_OPTIONS)
@no_type_check
def attend_backward(queries, alive, scale, weights, grad, d_queries):
    """Gradients of :func:`attend`'s ``out``, ``grad`` [p, m, h], into ``d_queries`` [p, m, 3 h],
    zeros before."""
    families, members, h = grad.shape
    for p in prange(families):
        for i in range(members):
            if not alive[p, i]:
                continue
            g, weight = grad[p, i], weights[p, i]
            mean = np.float32(0.0)
            for j in range(members):
                if alive[p, j]:
                    mean += weight[j] * _inner(g, queries[p, j, 2 * h :])
            for j in range(members):
                if alive[p, j]:
                    score = weight[j] * (_inner(g, queries[p, j, 2 * h :]) - mean) * scale
                    _add(d_queries[p, i, :h], score, queries[p, j, h : 2 * h])
                    _add(d_queries[p, j, h : 2 * h], score, queries[p, i, :h])
                    _add(d_queries[p, j, 2 * h :], weight[j], g)
