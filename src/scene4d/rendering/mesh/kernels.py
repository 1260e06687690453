"""The kernels of ``fragments``, ``interpolation`` and ``silhouettes``.

Triangles are drawn by edge functions in homogeneous coordinates (Olano and Greer, "Triangle scan
conversion using 2D homogeneous coordinates", 1997): a triangle that crosses the camera's plane
needs no clipping, and two triangles that share an edge never both miss a pixel, because their edge
functions are each other's negative, bit by bit. Geometry is float64 throughout.

Where it counts, indices are unsigned: of signed ones Numba asks each time whether they are counted
from the end.

``corners`` [V, 3] float64 are ``K`` times camera coordinates: (x z, y z, z) for a vertex that is
seen at pixel (x, y) at depth z.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

BANDS = 8
"""Bands of rows that threads take; a constant, so that sums do not depend on the machine."""
_SLACK = 1e-6
_CENTRE = 0.5 + _SLACK
"""Boxes are as much larger, in pixels, as rounding may place a corner elsewhere."""
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
@no_type_check
def edge_functions(corners, i, j, k):
    """Coefficients (x, y, 1) of the edge functions of the corners, and the determinant.

    Inside, all three have the determinant's sign; they are in the ratio of the perspective-correct
    weights. (Numbers, not rows: a row of an array costs Numba two atomic counts.)
    """
    ax, ay, az = corners[i, 0], corners[i, 1], corners[i, 2]
    bx, by, bz = corners[j, 0], corners[j, 1], corners[j, 2]
    cx, cy, cz = corners[k, 0], corners[k, 1], corners[k, 2]
    a0, a1, a2 = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    b0, b1, b2 = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    c0, c1, c2 = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return a0, a1, a2, b0, b1, b2, c0, c1, c2, ax * a0 + ay * a1 + az * a2


@njit(inline="always", **_OPTIONS)
@no_type_check
def _box(corners, places, triangles, t, near, width, height):
    """First and last column, first and last row (each last one excluded) that it may cover.

    ``places`` [V, 2]: where vertices are on the screen.
    """
    left, right, top, bottom, before = np.inf, -np.inf, np.inf, -np.inf, 0
    for i in range(3):
        v = triangles[t, i]
        if not corners[v, 2] >= near:
            before += 1
            continue
        x, y = places[v, 0], places[v, 1]
        left, right = min(left, x), max(right, x)
        top, bottom = min(top, y), max(bottom, y)
    if before == 3:
        return 0, 0, 0, 0
    if before:  # where it is cut by the near plane
        for i in range(3):
            v, w = triangles[t, i], triangles[t, (i + 1) % 3]
            p, q = corners[v, 2], corners[w, 2]
            if (p >= near) == (q >= near):
                continue
            f = (near - p) / (q - p)
            x = (corners[v, 0] + f * (corners[w, 0] - corners[v, 0])) / near
            y = (corners[v, 1] + f * (corners[w, 1] - corners[v, 1])) / near
            left, right = min(left, x), max(right, x)
            top, bottom = min(top, y), max(bottom, y)
    if not (right >= 0 and bottom >= 0 and left <= width and top <= height):  # or not a number
        return 0, 0, 0, 0
    return (
        int(np.ceil(max(left - _CENTRE, 0.0))),
        int(np.floor(min(right - _CENTRE + 2 * _SLACK, width - 1.0))) + 1,
        int(np.ceil(max(top - _CENTRE, 0.0))),
        int(np.floor(min(bottom - _CENTRE + 2 * _SLACK, height - 1.0))) + 1,
    )


@njit(parallel=True, **_OPTIONS)
@no_type_check
def draw(corners, triangles, near, faces, weights, depths):
    """The nearest triangle of each pixel centre; of two at one depth that with the lower number.

    ``faces`` [H, W] int32 -1 and ``depths`` [H, W] 0 are written where something is seen,
    ``weights`` [H, W, 3] everywhere.
    """
    height, width = faces.shape
    boxes = np.empty((len(triangles), 4), np.int32)
    places = np.empty((len(corners), 2))
    for v in range(len(corners)):
        places[v, 0] = corners[v, 0] / corners[v, 2]
        places[v, 1] = corners[v, 1] / corners[v, 2]
    for band in prange(BANDS):
        first, last = len(triangles) * band // BANDS, len(triangles) * (band + 1) // BANDS
        for t in range(first, last):
            left, right, top, bottom = _box(corners, places, triangles, t, near, width, height)
            boxes[t, 0], boxes[t, 1], boxes[t, 2], boxes[t, 3] = left, right, top, bottom
    for band in prange(BANDS):
        above, below = height * band // BANDS, height * (band + 1) // BANDS
        for t in range(len(triangles)):
            top, bottom = max(boxes[t, 2], above), min(boxes[t, 3], below)
            left, right = boxes[t, 0], boxes[t, 1]
            if top >= bottom or left >= right:
                continue
            a0, a1, a2, b0, b1, b2, c0, c1, c2, det = edge_functions(
                corners, triangles[t, 0], triangles[t, 1], triangles[t, 2]
            )
            if not abs(det) > 0.0:
                continue
            sign = 1.0 if det > 0 else -1.0
            ax, bx, cx = sign * a0, sign * b0, sign * c0
            det = abs(det)
            for line in range(top, bottom):
                row, y = np.uintp(line), line + 0.5
                a_row = sign * (a1 * y + a2)
                b_row = sign * (b1 * y + b2)
                c_row = sign * (c1 * y + c2)
                for place in range(left, right):
                    column, x = np.uintp(place), place + 0.5
                    a, b, c = ax * x + a_row, bx * x + b_row, cx * x + c_row
                    if min(a, min(b, c)) < 0:  # one branch that is guessed wrong, not three
                        continue
                    total = a + b + c
                    if not total > 0:
                        continue
                    z = det / total
                    seen = depths[row, column]
                    if not z >= near or (faces[row, column] >= 0 and z >= seen):
                        continue
                    faces[row, column] = t
                    depths[row, column] = z
        _weigh(corners, triangles, faces, weights, above, below)


@njit(**_OPTIONS)
@no_type_check
def _weigh(corners, triangles, faces, weights, above, below):
    """Writes the weights of a band's pixels, once all triangles are drawn: most pixels are hit more
    than once, and rows of the picture are written one after the other."""
    last = -1
    for row in range(above, below):
        y = row + 0.5
        for column in range(faces.shape[1]):
            t = faces[row, column]
            a, b, c, share = 0.0, 0.0, 0.0, 0.0
            if t >= 0:
                if t != last:  # a row crosses few triangles
                    a0, a1, a2, b0, b1, b2, c0, c1, c2, _ = edge_functions(
                        corners, triangles[t, 0], triangles[t, 1], triangles[t, 2]
                    )
                    last = t
                x = column + 0.5
                a = a0 * x + (a1 * y + a2)
                b = b0 * x + (b1 * y + b2)
                c = c0 * x + (c1 * y + c2)
                share = 1.0 / (a + b + c)
            weights[row, column, 0] = a * share
            weights[row, column, 1] = b * share
            weights[row, column, 2] = c * share


@njit(**_OPTIONS)
@no_type_check
def draw_backward(corners, triangles, faces, weights, depths, g_weights, g_depths, grads):
    """Adds the gradient of weights and depths to ``grads`` [V, 3] of the corners.

    With l the solution of [a b c] l = (x, y, 1): weights are l / sum(l), depth is 1 / sum(l).
    """
    height, width = faces.shape
    last = -1
    for row in range(height):
        for column in range(width):
            t = faces[row, column]
            if t < 0:
                continue
            z = float(depths[row, column])
            gz = float(g_depths[row, column])
            g0 = float(g_weights[row, column, 0])
            g1 = float(g_weights[row, column, 1])
            g2 = float(g_weights[row, column, 2])
            if gz == 0.0 and g0 == 0.0 and g1 == 0.0 and g2 == 0.0:
                continue
            mean = g0 * weights[row, column, 0] + g1 * weights[row, column, 1]
            mean += g2 * weights[row, column, 2]
            if t != last:  # a row crosses few triangles
                a0, a1, a2, b0, b1, b2, c0, c1, c2, det = edge_functions(
                    corners, triangles[t, 0], triangles[t, 1], triangles[t, 2]
                )
                last = t
            ga = (z * (g0 - mean) - gz * z * z) / det
            gb = (z * (g1 - mean) - gz * z * z) / det
            gc = (z * (g2 - mean) - gz * z * z) / det
            q0 = ga * a0 + gb * b0 + gc * c0
            q1 = ga * a1 + gb * b1 + gc * c1
            q2 = ga * a2 + gb * b2 + gc * c2
            for i in range(3):
                share, v = weights[row, column, i] / z, triangles[t, i]
                grads[v, 0] -= share * q0
                grads[v, 1] -= share * q1
                grads[v, 2] -= share * q2


@njit(parallel=True, **_OPTIONS)
@no_type_check
def interpolate(values, triangles, faces, weights, out):
    """``out`` [H, W, C]: the weighted mean of ``values`` [V, C] at the corners; 0 beside."""
    height, width = faces.shape
    for band in prange(BANDS):
        for line in range(height * band // BANDS, height * (band + 1) // BANDS):
            row = np.uintp(line)
            for column in range(np.uintp(width)):
                t = faces[row, column]
                for k in range(np.uintp(values.shape[1])):
                    total = 0.0
                    if t >= 0:
                        for i in range(3):
                            total += weights[row, column, i] * values[np.uintp(triangles[t, i]), k]
                    out[row, column, k] = total


@njit(**_OPTIONS)
@no_type_check
def interpolate_backward(values, triangles, faces, weights, g_out, g_weights, grads):
    """Writes ``g_weights`` and adds to ``grads`` [V, C]."""
    height, width = faces.shape
    for row in range(np.uintp(height)):
        for column in range(np.uintp(width)):
            t = faces[row, column]
            for i in range(3):
                total = 0.0
                if t >= 0:
                    v = np.uintp(triangles[t, i])
                    for k in range(np.uintp(values.shape[1])):
                        total += g_out[row, column, k] * values[v, k]
                        grads[v, k] += g_out[row, column, k] * weights[row, column, i]
                g_weights[row, column, i] = total


@njit(inline="always", **_OPTIONS)
@no_type_check
def _side(corners, a, b, c):
    """On which side of the seen line a-b the triangle (a, b, c) lies, wherever c is."""
    px, py, pz = corners[a, 0], corners[a, 1], corners[a, 2]
    qx, qy, qz = corners[b, 0], corners[b, 1], corners[b, 2]
    return (
        (py * qz - pz * qy) * corners[c, 0]
        + (pz * qx - px * qz) * corners[c, 1]
        + (px * qy - py * qx) * corners[c, 2]
    )


@njit(inline="always", **_OPTIONS)
@no_type_check
def _outline_side(corners, a, b, others, first, last):
    """+1 or -1: where all triangles of the edge lie; 0: on both sides, so it is no outline."""
    found = 0
    for k in range(first, last):
        side = _side(corners, a, b, others[k])
        sign = 1 if side > 0 else (-1 if side < 0 else 0)
        if sign == 0 or (found != 0 and sign != found):
            return 0
        found = sign
    return found


@njit(inline="always", **_OPTIONS)
@no_type_check
def _crossing(axis, p, q, line):
    """Where the edge from ``p`` to ``q`` (x, y, 1/z) crosses the middle of row (axis 0) or column
    (axis 1) ``line``: share of the way, place along it, depth."""
    middle = line + 0.5
    f = (middle - p[1 - axis]) / (q[1 - axis] - p[1 - axis])
    return f, p[axis] + f * (q[axis] - p[axis]), 1.0 / (p[2] + f * (q[2] - p[2]))


@njit(inline="always", **_OPTIONS)
@no_type_check
def _sign(axis, faces, depths, line, i, depth, toward):
    """How a crossing between pixels i and i + 1 of a row or column counts: 0 not at all; + where
    the edge's triangles lie toward the nearer pixel. ``toward`` +1: toward i + 1."""
    if axis == 0:
        here, there = faces[line, i], faces[line, i + 1]
        z_here, z_there = depths[line, i], depths[line, i + 1]
    else:
        here, there = faces[i, line], faces[i + 1, line]
        z_here, z_there = depths[i, line], depths[i + 1, line]
    if here == there:
        return 0
    z_here = np.inf if here < 0 else z_here
    z_there = np.inf if there < 0 else z_there
    if depth > max(z_here, z_there):
        return 0
    nearer = 1 if z_there < z_here else -1
    return 1 if nearer == toward else -1


@njit(**_OPTIONS)
@no_type_check
def outline_edges(corners, edges, starts, others, near, width, height):
    """Numbers of the edges that are outlines and may be seen, and +1 or -1 of each: the side of
    its triangles."""
    chosen, sides = np.empty(len(edges), np.int64), np.empty(len(edges), np.int64)
    count = 0
    for edge in range(len(edges)):
        a, b = edges[edge, 0], edges[edge, 1]
        za, zb = corners[a, 2], corners[b, 2]
        if not (za >= near and zb >= near):
            continue
        if max(corners[a, 0], corners[b, 0]) < 0 or max(corners[a, 1], corners[b, 1]) < 0:
            continue
        if corners[a, 0] > width * za and corners[b, 0] > width * zb:
            continue
        if corners[a, 1] > height * za and corners[b, 1] > height * zb:
            continue
        side = _outline_side(corners, a, b, others, starts[edge], starts[edge + 1])
        if side != 0:
            chosen[count], sides[count] = edge, side
            count += 1
    return chosen[:count], sides[:count]


@njit(**_OPTIONS)
@no_type_check
def outlines(corners, edges, chosen, sides, faces, depths, across, down, g_across, g_down, grads):
    """Adds each outline's crossings to ``across`` [H, W - 1] and ``down`` [H - 1, W], the shares
    of the pixels' boundaries that they cover; or, with ``grads`` [V, 3], adds to that the
    gradient whose derivatives by these shares are ``g_across`` and ``g_down``.

    ``chosen`` and ``sides`` as :func:`outline_edges` finds them. An edge counts by n_x^2 along rows
    and by n_y^2 along columns, n its normal: nothing depends on which of the two is chosen, and
    zigzags of small triangles cancel.
    """
    height, width = faces.shape
    back = len(grads) > 0
    p, q = np.empty(3), np.empty(3)
    for number in range(len(chosen)):
        side = sides[number]
        a, b = edges[chosen[number], 0], edges[chosen[number], 1]
        za, zb = corners[a, 2], corners[b, 2]
        p[0], p[1], p[2] = corners[a, 0] / za, corners[a, 1] / za, 1.0 / za
        q[0], q[1], q[2] = corners[b, 0] / zb, corners[b, 1] / zb, 1.0 / zb
        dx, dy = q[0] - p[0], q[1] - p[1]
        length2 = dx * dx + dy * dy
        for axis in range(2):
            along, run = (dy, dx) if axis == 0 else (dx, dy)
            if not abs(along) > 1e-9:
                continue
            weight = along * along / length2
            slope = run / along
            # The side is that of (dx, dy) turned by a quarter: toward larger x where dy < 0.
            toward = side * (-1 if along > 0 else 1) * (1 if axis == 0 else -1)
            low, high = min(p[1 - axis], q[1 - axis]), max(p[1 - axis], q[1 - axis])
            lines, cells = (height, width) if axis == 0 else (width, height)
            first = max(0, int(np.ceil(max(low, 0.0) - 0.5)))
            last = min(lines, int(np.ceil(min(high, float(lines)) - 0.5)))
            for line in range(first, last):
                f, at, depth = _crossing(axis, p, q, line)
                if not (at >= 0.5 and at < cells - 0.5):
                    continue
                i = int(np.floor(at - 0.5))
                sign = _sign(axis, faces, depths, line, i, depth, toward)
                if sign == 0:
                    continue
                if not back:
                    if axis == 0:
                        across[line, i] += sign * weight * (i + 1 - at)
                    else:
                        down[i, line] += sign * weight * (i + 1 - at)
                    continue
                g = g_across[line, i] if axis == 0 else g_down[i, line]
                g_at = -sign * weight * g
                if g_at == 0.0:
                    continue
                for which in range(2):
                    v, share = (a, (1.0 - f) * g_at) if which == 0 else (b, f * g_at)
                    end = p if which == 0 else q
                    gx, gy = (share, -share * slope) if axis == 0 else (-share * slope, share)
                    grads[v, 0] += gx * end[2]
                    grads[v, 1] += gy * end[2]
                    grads[v, 2] -= (gx * end[0] + gy * end[1]) * end[2]


@njit(inline="always", **_OPTIONS)
@no_type_check
def _across(shares, place, axis, margin):
    """Of a boundary: its share, the pixels before and after it, and the one of these that gets
    something, in the picture without its margin."""
    row, column = place // shares.shape[1], place % shares.shape[1]
    share = min(max(shares[row, column], -0.5), 0.5)
    r, c = (row, column + 1) if axis == 0 else (row + 1, column)
    y, x = (row, column) if share > 0 else (r, c)
    return share, row, column, r, c, y - margin, x - margin


@njit(**_OPTIONS)
@no_type_check
def blend(image, shares, places, axis, margin, out):
    """Moves ``shares`` of boundaries of ``image`` [H, W, C], along rows (axis 0) or columns, from
    pixel to pixel of ``out``, which begins as ``image`` without ``margin`` pixels on each side.

    ``places``: the boundaries whose share is not 0, counted row by row.
    """
    for place in places:
        share, row, column, r, c, y, x = _across(shares, place, axis, margin)
        if 0 <= y < out.shape[0] and 0 <= x < out.shape[1]:
            for k in range(image.shape[2]):
                out[y, x, k] += share * (image[r, c, k] - image[row, column, k])


@njit(**_OPTIONS)
@no_type_check
def blend_backward(image, shares, places, axis, margin, g_out, g_image, g_shares):
    """Adds to ``g_image``, which begins as ``g_out`` with zeros around, and to the derivatives by
    the shares.

    The slope goes through the clamp: an edge that moves is seen, also where many small ones count.
    """
    for place in places:
        share, row, column, r, c, y, x = _across(shares, place, axis, margin)
        if 0 <= y < g_out.shape[0] and 0 <= x < g_out.shape[1]:
            total = 0.0
            for k in range(image.shape[2]):
                g = g_out[y, x, k]
                total += g * (image[r, c, k] - image[row, column, k])
                g_image[r, c, k] += share * g
                g_image[row, column, k] -= share * g
            g_shares[row, column] += total
