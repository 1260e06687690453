"""Which slabs each ray is in, and where it meets their planes, on the CPU.

The same numbers as :class:`scene4d.methods.lightslab.slabs.Slabs` gives in torch, which
is the reference, and the path for gradients and other devices. Torch needs a dozen passes over
all pairs of rays and slabs; here a ray looks only at slabs that may count.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numba
import numpy as np
from numba import njit, prange

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp"},
}
_COUNTED = 3
"""Slabs of a ray: slabs.MAX_SLABS."""


def routed(
    rays: tuple[np.ndarray, np.ndarray],
    frames: tuple[np.ndarray, np.ndarray],
    planes: tuple[np.ndarray, np.ndarray, np.ndarray],
    settings: tuple[float, ...],
) -> tuple[np.ndarray, ...]:
    """Pairs of a ray and a slab: ray, slab, weight, coordinates, inside, start, climb.

    ``rays``: origins and directions [n, 3]. ``frames``: rotations [s, 3, 3] and viewpoints [s, 3].
    ``planes``: disparities [s, p], low and high [s, p, 2]. ``settings``: the overlap and slabs'
    MIN_COSINE, FADE, ASKEW, LEAST_COST and LEAST_INSIDE.
    """
    count, (slabs, depths) = len(rays[0]), planes[0].shape
    expected = [(count, 3)] * 2 + [(slabs, 3, 3), (slabs, 3), (slabs, depths)]
    expected += [(slabs, depths, 2)] * 2
    if [a.shape for a in (*rays, *frames, *planes)] != expected:
        raise ValueError(f"shapes {[a.shape for a in (*rays, *frames, *planes)]}, not {expected}")
    numbers = np.array(settings, dtype=np.float32)
    slab_of = np.empty((count, _COUNTED), dtype=np.int64)
    weight_of = np.zeros((count, _COUNTED), dtype=np.float32)
    _choose(*rays, *frames, *planes, numbers, numba.get_num_threads(), slab_of, weight_of)
    ray, place = np.nonzero(weight_of > 0)
    slab, weight = slab_of[ray, place], weight_of[ray, place]
    coordinates = np.empty((len(ray), 2 * planes[0].shape[1]), dtype=np.float32)
    found = np.empty((3, len(ray)), dtype=np.float32)
    _meet(*rays, *frames, *planes, numbers, ray, slab, coordinates, found)
    return ray, slab, weight, coordinates, *found


@njit(inline="always", **_OPTIONS)
@no_type_check
def _turned(v0, v1, v2, rotation):
    return (
        rotation[0, 0] * v0 + rotation[0, 1] * v1 + rotation[0, 2] * v2,
        rotation[1, 0] * v0 + rotation[1, 1] * v1 + rotation[1, 2] * v2,
        rotation[2, 0] * v0 + rotation[2, 1] * v1 + rotation[2, 2] * v2,
    )


@njit(inline="always", **_OPTIONS)
@no_type_check
def _local(origin, direction, rotation, viewpoint, min_cosine):
    """Origin's right, down and depth, tangents, climb, and whether the ray is parallel."""
    ox, oy, oz = _turned(
        origin[0] - viewpoint[0], origin[1] - viewpoint[1], origin[2] - viewpoint[2], rotation
    )
    dx, dy, dz = _turned(direction[0], direction[1], direction[2], rotation)
    length = np.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    if not dz > min_cosine * length:
        return ox, oy, oz, np.float32(0.0), np.float32(0.0), np.float32(1.0), True
    return ox, oy, oz, dx / dz, dy / dz, dz, False


@njit(inline="always", **_OPTIONS)
@no_type_check
def _inside(ox, oy, oz, tx, ty, disparities, low, high, fade):
    """1 within the ranges of all planes, falling to 0 beyond."""
    most = np.float32(0.0)
    for k in range(len(disparities)):
        s = disparities[k]
        left = np.float32(1.0) - s * oz
        x = (s * ox + left * tx - low[k, 0]) / (high[k, 0] - low[k, 0])
        y = (s * oy + left * ty - low[k, 1]) / (high[k, 1] - low[k, 1])
        x, y = (
            abs(np.float32(2.0) * x - np.float32(1.0)),
            abs(np.float32(2.0) * y - np.float32(1.0)),
        )
        most = max(most, max(x, y))
    share = np.float32(1.0) - (most - np.float32(1.0)) / fade
    return min(np.float32(1.0), max(np.float32(0.0), share))


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _choose(
    origins, directions, rotations, viewpoints, disparities, low, high, numbers, groups,
    slab_of, weight_of,
):  # fmt: skip
    slabs, rays = len(rotations), len(origins)
    overlap, min_cosine, fade, askew, least_cost, least_inside = numbers
    for q in prange(groups):
        cost = np.empty(slabs, dtype=np.float32)
        way = np.empty((slabs, 5), dtype=np.float32)
        lost = np.empty(slabs, dtype=np.bool_)  # parallel, and divided by how far it is inside
        for n in range(rays * q // groups, rays * (q + 1) // groups):
            first = 0
            for s in range(slabs):
                ox, oy, oz, tx, ty, _, parallel = _local(
                    origins[n], directions[n], rotations[s], viewpoints[s], min_cosine
                )
                miss = np.sqrt((ox - oz * tx) ** 2 + (oy - oz * ty) ** 2)
                c = miss * (disparities[s, -1] - disparities[s, 0]) + least_cost
                c += askew * np.sqrt(tx * tx + ty * ty)
                way[s, 0], way[s, 1], way[s, 2], way[s, 3], way[s, 4] = ox, oy, oz, tx, ty
                cost[s], lost[s] = c / least_inside if parallel else c, parallel
                if cost[s] < cost[first]:
                    first = s
            w, f = way[first], first
            inside = _inside(w[0], w[1], w[2], w[3], w[4], disparities[f], low[f], high[f], fade)
            bound = cost[f] / (np.float32(1.0) if lost[f] else max(inside, least_inside)) + overlap
            least = bound
            for s in range(slabs):
                if cost[s] <= bound and not lost[s]:
                    w = way[s]
                    inside = _inside(
                        w[0], w[1], w[2], w[3], w[4], disparities[s], low[s], high[s], fade
                    )
                    cost[s] /= max(inside, least_inside)
                least = min(least, cost[s])
            _weigh(cost, least, overlap, slab_of[n], weight_of[n])


@njit(inline="always", **_OPTIONS)
@no_type_check
def _weigh(cost, least, overlap, slab_of, weight_of):
    """slabs.slab_weights of one ray; slabs in rising order."""
    t0 = t1 = t2 = t3 = np.float32(0.0)  # the four largest, falling
    s0 = s1 = s2 = -1
    for s in range(len(cost)):
        t = np.float32(1.0) - (cost[s] - least) / overlap
        if not t > np.float32(0.0):
            continue
        t = min(t, np.float32(1.0))
        t = t * t * (np.float32(3.0) - np.float32(2.0) * t)
        if t > t0:
            t0, t1, t2, t3, s0, s1, s2 = t, t0, t1, t2, s, s0, s1
        elif t > t1:
            t1, t2, t3, s1, s2 = t, t1, t2, s, s1
        elif t > t2:
            t2, t3, s2 = t, t2, s
        elif t > t3:
            t3 = t
    t0, t1, t2 = t0 - t3, t1 - t3, t2 - t3
    total = t0 + t1 + t2
    if total <= np.float32(1e-6):
        slab_of[0], slab_of[1], slab_of[2] = max(s0, 0), 0, 0
        weight_of[0], weight_of[1], weight_of[2] = 1.0, 0.0, 0.0
        return
    weight_of[0], weight_of[1], weight_of[2] = t0 / total, t1 / total, t2 / total
    slab_of[0], slab_of[1], slab_of[2] = s0, max(s1, 0), max(s2, 0)
    for a, b in ((0, 1), (1, 2), (0, 1)):
        if weight_of[b] > 0 and slab_of[b] < slab_of[a]:
            slab_of[a], slab_of[b] = slab_of[b], slab_of[a]
            weight_of[a], weight_of[b] = weight_of[b], weight_of[a]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _meet(
    origins, directions, rotations, viewpoints, disparities, low, high, numbers, ray, slab,
    coordinates, found,
):  # fmt: skip
    for i in prange(len(ray)):
        n, s = ray[i], slab[i]
        ox, oy, oz, tx, ty, climb, parallel = _local(
            origins[n], directions[n], rotations[s], viewpoints[s], numbers[1]
        )
        for k in range(disparities.shape[1]):
            d = disparities[s, k]
            left = np.float32(1.0) - d * oz
            wide, tall = high[s, k, 0] - low[s, k, 0], high[s, k, 1] - low[s, k, 1]
            x = (d * ox + left * tx - low[s, k, 0]) / wide
            y = (d * oy + left * ty - low[s, k, 1]) / tall
            coordinates[i, 2 * k] = np.float32(2.0) * x - np.float32(1.0)
            coordinates[i, 2 * k + 1] = np.float32(2.0) * y - np.float32(1.0)
        inside = _inside(ox, oy, oz, tx, ty, disparities[s], low[s], high[s], numbers[2])
        found[0, i] = np.float32(0.0) if parallel else inside
        found[1, i], found[2, i] = oz, climb
