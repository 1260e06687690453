"""Volume rendering of several media together along rays, and its gradient, for the CPU.

The samples of all rays stand one after the other: ``firsts[r]`` to ``firsts[r + 1]`` are ray r's,
from near to far. ``volume.py`` states the mathematics. Kernels take float32 or float64.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

from numba import njit, prange

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp"},
}
_SERIES = 0.02
"""Optical depths below this: differences of exponentials would cancel, so series take over; their
first term left out is below 1e-9."""


@njit(**_OPTIONS)
@no_type_check
def _opacity(x):
    """1 - exp(-x), that over x, and the derivative of the latter."""
    if x < _SERIES:
        share = 1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5)))
        slope = -1 / 2 + x / 3 * (1 - 3 * x / 8 * (1 - 4 * x / 15 * (1 - 5 * x / 24)))
        return x * share, share, slope
    through = math.exp(-x)
    return 1 - through, (1 - through) / x, (x * through - (1 - through)) / (x * x)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def forward(density, colour, middles, widths, firsts, out, weights):
    """``density`` [n, media], ``colour`` [n, media, 3]; ``out`` [rays, 5] gets colour, alpha
    and the weighted sum of distances, ``weights`` [n] what each sample makes up of its pixel."""
    media = density.shape[1]
    for r in prange(firsts.shape[0] - 1):
        through = density.dtype.type(1)
        red = green = blue = alpha = distance = density.dtype.type(0)
        for n in range(firsts[r], firsts[r + 1]):
            total = density[n, 0]
            for m in range(1, media):
                total += density[n, m]
            x = total * widths[n]
            opaque, share, _ = _opacity(x)
            each = through * share * widths[n]
            for m in range(media):
                part = each * density[n, m]
                red += part * colour[n, m, 0]
                green += part * colour[n, m, 1]
                blue += part * colour[n, m, 2]
            weight = through * opaque
            weights[n] = weight
            alpha += weight
            distance += weight * middles[n]
            through -= weight
        out[r, 0], out[r, 1], out[r, 2], out[r, 3], out[r, 4] = red, green, blue, alpha, distance


@njit(parallel=True, **_OPTIONS)
@no_type_check
def backward(density, colour, middles, widths, firsts, grad, d_weights, d_density, d_colour):
    """Gradients of :func:`forward`'s results, ``grad`` [rays, 5] and ``d_weights`` [n], in
    densities and colours."""
    media = density.shape[1]
    for r in prange(firsts.shape[0] - 1):
        red, green, blue, g_alpha, g_distance = (
            grad[r, 0], grad[r, 1], grad[r, 2], grad[r, 3], grad[r, 4]
        )  # fmt: skip
        through = density.dtype.type(1)
        for n in range(firsts[r], firsts[r + 1]):
            d_density[n, 0] = through  # kept here until the way back
            total = density[n, 0]
            for m in range(1, media):
                total += density[n, m]
            through -= through * _opacity(total * widths[n])[0]
        behind = density.dtype.type(0)
        for back in range(firsts[r + 1] - firsts[r]):
            n = firsts[r + 1] - 1 - back
            through, width = d_density[n, 0], widths[n]
            total = scored = density.dtype.type(0)
            for m in range(media):
                score = red * colour[n, m, 0] + green * colour[n, m, 1] + blue * colour[n, m, 2]
                total += density[n, m]
                scored += density[n, m] * score
            x = total * width
            opaque, share, slope = _opacity(x)
            each = g_alpha + g_distance * middles[n] + d_weights[n]
            # Through the weight, through the colour's share of it, and by hiding what is behind.
            common = (
                through * (each * width * (1 - opaque) + scored * slope * width * width)
                - width * behind
            )
            for m in range(media):
                score = red * colour[n, m, 0] + green * colour[n, m, 1] + blue * colour[n, m, 2]
                part = through * share * width
                d_density[n, m] = common + part * score
                d_colour[n, m, 0] = part * density[n, m] * red
                d_colour[n, m, 1] = part * density[n, m] * green
                d_colour[n, m, 2] = part * density[n, m] * blue
            behind += through * (share * width * scored + opaque * each)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def distortion(weights, middles, widths, firsts, out, d_weights):
    """Each ray's distortion, and its gradient in the weights (linear time, by running sums)."""
    for r in prange(firsts.shape[0] - 1):
        first, last = firsts[r], firsts[r + 1]
        mass = moment = total = weights.dtype.type(0)
        for n in range(first, last):
            apart = middles[n] * mass - moment  # weighted distances to the samples before
            total += 2 * weights[n] * apart + weights[n] * weights[n] * widths[n] / 3
            d_weights[n] = 2 * apart + 2 * weights[n] * widths[n] / 3
            mass += weights[n]
            moment += weights[n] * middles[n]
        after_mass = after_moment = weights.dtype.type(0)
        for back in range(last - first):
            n = last - 1 - back
            d_weights[n] += 2 * (after_moment - middles[n] * after_mass)
            after_mass += weights[n]
            after_moment += weights[n] * middles[n]
        out[r] = total
