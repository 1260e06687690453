"""The kernels of FlexiCubes: ``flexicubes.py`` and ``cubes.py`` state the mathematics.

They take float32 or float64 and reckon in float64. On one thread: neighbouring cubes add to the
gradient of the same corner.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

from scene4d.cubes import EDGES

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_EDGE_CORNER = np.array([corner for corner, _ in EDGES])
_EDGE_AXIS = np.array([axis for _, axis in EDGES])
_EDGE_AT = np.array(
    [[EDGES.index((c, a)) if (c, a) in EDGES else -1 for a in range(3)] for c in range(8)]
)
"""[8, 3] the edge that starts from a corner along an axis."""


@njit(**_OPTIONS)
@no_type_check
def quads(places, cases, vertices, row, found):
    """Writes the vertices around each crossed edge that has four cubes; returns how many.

    ``places`` [N, 3] of the surface's cubes, ``cases`` [N] their signs, ``vertices`` [N, 12] of
    their edges, ``row`` [nx, ny, nz] where a cube is in these; ``found`` [3 N, 4].
    """
    number = 0
    for n in range(len(places)):
        x, y, z = places[n, 0], places[n, 1], places[n, 2]
        inside = cases[n] & 1
        for a in range(3):
            if vertices[n, _EDGE_AT[0, a]] < 0:
                continue
            b, c = (a + 1) % 3, (a + 2) % 3
            if places[n, b] == 0 or places[n, c] == 0:
                continue
            for k in range(4):  # counter-clockwise about the axis: ++, -+, --, +-
                back_b, back_c = int(k == 1 or k == 2), int(k >= 2)
                other = row[
                    x - back_b * (b == 0) - back_c * (c == 0),
                    y - back_b * (b == 1) - back_c * (c == 1),
                    z - back_b * (b == 2) - back_c * (c == 2),
                ]
                edge = _EDGE_AT[back_b << b | back_c << c, a]
                found[number, k if inside else 3 - k] = vertices[other, edge]
            number += 1
    return number


@njit(**_OPTIONS)
@no_type_check
def crossings(vertices, count):
    """``firsts`` [V + 1] and ``edges``: the crossed edges of each vertex, from ``vertices``
    [N, 12] of each edge of the cubes; those of a cube follow each other."""
    firsts = np.zeros(count + 1, np.int64)
    for n in range(len(vertices)):
        for e in range(12):
            if vertices[n, e] >= 0:
                firsts[vertices[n, e] + 1] += 1
    for v in range(count):
        firsts[v + 1] += firsts[v]
    place, edges = firsts[:-1].copy(), np.empty(firsts[-1], np.int64)
    for n in range(len(vertices)):
        for e in range(12):
            v = vertices[n, e]
            if v >= 0:
                edges[place[v]] = e
                place[v] += 1
    return firsts, edges


@njit(inline="always", **_OPTIONS)
@no_type_check
def _ends(places, sdf, offsets, alpha, lower, size, n, e):
    """Of edge e of cube n: distances times weights, and places of its two ends."""
    i, j = _EDGE_CORNER[e], _EDGE_CORNER[e] | 1 << _EDGE_AXIS[e]
    x, y, z = places[n, 0] + (i & 1), places[n, 1] + (i >> 1 & 1), places[n, 2] + (i >> 2)
    u, v, w = places[n, 0] + (j & 1), places[n, 1] + (j >> 1 & 1), places[n, 2] + (j >> 2)
    p, q = float(alpha[n, i]) * sdf[x, y, z], float(alpha[n, j]) * sdf[u, v, w]
    ax, ay, az, bx, by, bz = float(x), float(y), float(z), float(u), float(v), float(w)
    if offsets.shape[0]:
        ax, ay, az = ax + offsets[x, y, z, 0], ay + offsets[x, y, z, 1], az + offsets[x, y, z, 2]
        bx, by, bz = bx + offsets[u, v, w, 0], by + offsets[u, v, w, 1], bz + offsets[u, v, w, 2]
    return (
        p, q,
        lower[0] + size[0] * ax, lower[1] + size[1] * ay, lower[2] + size[2] * az,
        lower[0] + size[0] * bx, lower[1] + size[1] * by, lower[2] + size[2] * bz,
    )  # fmt: skip


@njit(inline="always", **_OPTIONS)
@no_type_check
def _vertex(places, firsts, edges, cubes, sdf, offsets, alpha, beta, lower, size, v, at):
    """Vertex v: its place, the sum of its weights, the mean distance from its crossings. ``at``
    [12, 4] gets these, and their distances."""
    n, total = cubes[v], 0.0
    x = y = z = 0.0
    for k in range(firsts[v + 1] - firsts[v]):
        e = edges[firsts[v] + k]
        p, q, ax, ay, az, bx, by, bz = _ends(places, sdf, offsets, alpha, lower, size, n, e)
        share, weight = p / (p - q), float(beta[n, e])
        ux, uy, uz = ax + share * (bx - ax), ay + share * (by - ay), az + share * (bz - az)
        at[k, 0], at[k, 1], at[k, 2] = ux, uy, uz
        total += weight
        x, y, z = x + weight * ux, y + weight * uy, z + weight * uz
    x, y, z = x / total, y / total, z / total
    mean = 0.0
    for k in range(firsts[v + 1] - firsts[v]):
        at[k, 3] = math.sqrt((x - at[k, 0]) ** 2 + (y - at[k, 1]) ** 2 + (z - at[k, 2]) ** 2)
        mean += at[k, 3]
    return x, y, z, total, mean / (firsts[v + 1] - firsts[v])


@njit(**_OPTIONS)
@no_type_check
def dual_vertices(
    places, firsts, edges, cubes, sdf, offsets, alpha, beta, lower, size, out, deviations
):  # fmt: skip
    """``out`` [V, 3] gets the vertices, ``deviations`` [V] how uneven their crossings lie.

    Vertex v of cube ``cubes[v]`` has crossings on its ``edges`` from ``firsts[v]`` on.
    """
    at = np.empty((12, 4))
    for v in range(len(cubes)):
        x, y, z, _, mean = _vertex(
            places, firsts, edges, cubes, sdf, offsets, alpha, beta, lower, size, v, at
        )
        out[v, 0], out[v, 1], out[v, 2] = x, y, z
        apart, count = 0.0, firsts[v + 1] - firsts[v]
        for k in range(count):
            apart += abs(at[k, 3] - mean)
        deviations[v] = apart / count


@njit(**_OPTIONS)
@no_type_check
def dual_vertices_backward(
    places, firsts, edges, cubes, sdf, offsets, alpha, beta, lower, size, g_out, g_deviations,
    g_sdf, g_offsets, g_alpha, g_beta,
):  # fmt: skip
    """Adds the gradients of :func:`dual_vertices` to the last four."""
    at, pulls = np.empty((12, 4)), np.empty(12)
    for v in range(len(cubes)):
        x, y, z, total, mean = _vertex(
            places, firsts, edges, cubes, sdf, offsets, alpha, beta, lower, size, v, at
        )
        n, count = cubes[v], firsts[v + 1] - firsts[v]
        leaning = 0.0
        for k in range(count):
            leaning += np.sign(at[k, 3] - mean) / count
        gx, gy, gz = float(g_out[v, 0]), float(g_out[v, 1]), float(g_out[v, 2])
        for k in range(count):
            pull = float(g_deviations[v]) / count * (np.sign(at[k, 3] - mean) - leaning)
            pulls[k] = pull / at[k, 3] if at[k, 3] > 0 else 0.0
            gx += pulls[k] * (x - at[k, 0])
            gy += pulls[k] * (y - at[k, 1])
            gz += pulls[k] * (z - at[k, 2])
        for k in range(count):
            e = edges[firsts[v] + k]
            dx, dy, dz = at[k, 0] - x, at[k, 1] - y, at[k, 2] - z
            g_beta[n, e] += (gx * dx + gy * dy + gz * dz) / total
            part, pull = beta[n, e] / total, pulls[k]
            ux, uy, uz = part * gx + pull * dx, part * gy + pull * dy, part * gz + pull * dz
            p, q, ax, ay, az, bx, by, bz = _ends(places, sdf, offsets, alpha, lower, size, n, e)
            share = p / (p - q)
            g_share = (ux * (bx - ax) + uy * (by - ay) + uz * (bz - az)) / (p - q)
            for end in range(2):
                part = share if end else 1 - share
                c = _EDGE_CORNER[e] | end << _EDGE_AXIS[e]
                i = places[n, 0] + (c & 1)
                j = places[n, 1] + (c >> 1 & 1)
                h = places[n, 2] + (c >> 2)
                g_alpha[n, c] += g_share * part * sdf[i, j, h]
                g_sdf[i, j, h] += g_share * part * alpha[n, c]
                if offsets.shape[0]:
                    g_offsets[i, j, h, 0] += part * size[0] * ux
                    g_offsets[i, j, h, 1] += part * size[1] * uy
                    g_offsets[i, j, h, 2] += part * size[2] * uz


@njit(**_OPTIONS)
@no_type_check
def centres(places, gamma, quads, out):
    """``out`` [Q, 3]: the middles of the diagonals, weighed by the products of gamma at their ends;
    ``gamma`` [V] of each vertex."""
    for n in range(len(quads)):
        a, b, c, d = quads[n, 0], quads[n, 1], quads[n, 2], quads[n, 3]
        first, second = float(gamma[a]) * gamma[c], float(gamma[b]) * gamma[d]
        share = 0.5 * first / (first + second)
        for axis in range(3):
            out[n, axis] = share * (places[a, axis] + places[c, axis]) + (0.5 - share) * (
                places[b, axis] + places[d, axis]
            )


@njit(**_OPTIONS)
@no_type_check
def centres_backward(places, gamma, quads, g_out, g_places, g_gamma):
    """Adds the gradients of :func:`centres` to the last two."""
    for n in range(len(quads)):
        a, b, c, d = quads[n, 0], quads[n, 1], quads[n, 2], quads[n, 3]
        first, second = float(gamma[a]) * gamma[c], float(gamma[b]) * gamma[d]
        share = 0.5 * first / (first + second)
        g_share = 0.0
        for axis in range(3):
            g = float(g_out[n, axis])
            g_places[a, axis] += share * g
            g_places[c, axis] += share * g
            g_places[b, axis] += (0.5 - share) * g
            g_places[d, axis] += (0.5 - share) * g
            g_share += g * (
                float(places[a, axis]) + places[c, axis] - places[b, axis] - places[d, axis]
            )
        slope = 0.5 * g_share / (first + second) ** 2
        g_gamma[a] += slope * second * gamma[c]
        g_gamma[c] += slope * second * gamma[a]
        g_gamma[b] -= slope * first * gamma[d]
        g_gamma[d] -= slope * first * gamma[b]
