"""A network's map of depth brought to the scale of points whose depth is known.

Such networks say depth, or disparity, up to a factor and a shift (Ranftl et al., "Towards robust
monocular depth estimation", TPAMI 2022): ``z ~ a m + b``, or ``1/z ~ a m + b``. Divided by its left
side, either is linear in a and b with residuals that are relative errors. These are fitted by the
least median of squares (Rousseeuw, 1984), so up to half of the points may be wrong, and from there
by least squares with Cauchy's weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scene4d.data.process.depth_files import Depth
from scene4d.data.process.depth_model import DepthOutput

_TRIALS = 400
_MOST = 1000
"""Points that are fitted to: more say no more of two numbers."""
_DEVIATION = 1.4826
"""Of a normal distribution, over its median absolute value."""
_EXACT = 1e-9
"""Least deviation: that of rounding."""
_ROUNDS = 30
_PARTS = 5
"""In which points are held out, one after another."""
_BEYOND = 2.0
"""Times as near as the nearest points, and as far as the farthest: beyond, nothing was fitted."""
_ENDS = (0.02, 0.98)
"""Quantiles of the points' depths that count as nearest and farthest."""

Values = Float[np.ndarray, " points"]


@dataclass(frozen=True, kw_only=True)
class DepthFit:
    """Depth by a network's values m: a m + b of its depth, 1 / (a m + b) of its disparity."""

    scale: float
    shift: float
    output: DepthOutput
    nearest: float
    farthest: float
    """Of the depths that the fit is good for, in the points' unit."""

    def __call__(self, said: Depth) -> Depth:
        """Depths, 0 where the fit says nothing."""
        depth = _depths(said, self.scale, self.shift, self.output)
        within = (depth >= self.nearest) & (depth <= self.farthest)
        return np.where(within, depth, 0).astype(np.float32)


def fitted_depth(said: Values, depth: Values, output: DepthOutput) -> DepthFit | None:
    """The fit of a network's values ``said`` to the depths of points; None where no increasing one
    suits any two of them."""
    found = _fitted(said, depth, output)
    if found is None:
        return None
    low, high = np.quantile(depth, _ENDS)
    return DepthFit(
        scale=found[0], shift=found[1], output=output,
        nearest=float(low) / _BEYOND, farthest=float(high) * _BEYOND,
    )  # fmt: skip


def held_out_errors(said: Values, depth: Values, output: DepthOutput) -> tuple[float, float]:
    """Median relative error of depth at points that the fit was not made of, each once; and that of
    one depth for all, their median."""
    part = np.random.default_rng(0).permutation(len(said)) % _PARTS
    off, flat = np.full(len(said), np.inf), np.full(len(said), np.inf)
    for k in range(_PARTS):
        out = part == k
        if out.all() or not out.any():
            continue
        flat[out] = np.abs(np.median(depth[~out]) / depth[out] - 1)
        found = _fitted(said[~out], depth[~out], output)
        if found is not None:
            off[out] = np.abs(_depths(said[out], *found, output) / depth[out] - 1)
    return float(np.median(off)), float(np.median(flat))


def _depths(said: np.ndarray, scale: float, shift: float, output: DepthOutput) -> np.ndarray:
    """0 where it would not be positive."""
    linear = scale * said.astype(np.float64) + shift
    if output == "depth":
        return np.maximum(linear, 0)
    return np.where(linear > 0, 1 / np.where(linear > 0, linear, 1), 0)


def _fitted(said: Values, depth: Values, output: DepthOutput) -> tuple[float, float] | None:
    rng = np.random.default_rng(0)
    if len(said) > _MOST:
        some = rng.permutation(len(said))[:_MOST]
        said, depth = said[some], depth[some]
    known = depth if output == "depth" else 1 / depth
    rows = np.stack([said, np.ones_like(said)], axis=-1) / known[:, None]  # rows @ (a, b) ~ 1
    pairs = rng.integers(0, len(said), (_TRIALS, 2))
    apart = said[pairs[:, 0]] - said[pairs[:, 1]]
    pairs, apart = pairs[apart != 0], apart[apart != 0]
    scale = (known[pairs[:, 0]] - known[pairs[:, 1]]) / apart
    tried = np.stack([scale, known[pairs[:, 0]] - scale * said[pairs[:, 0]]], axis=-1)
    tried = tried[scale > 0]
    if not len(tried):
        return None
    best = tried[np.median(np.abs(tried @ rows.T - 1), axis=1).argmin()]
    for _ in range(_ROUNDS):
        off = rows @ best - 1
        deviation = max(_DEVIATION * float(np.median(np.abs(off))), _EXACT)
        weight = 1 / np.hypot(1, off / deviation)  # the root of Cauchy's
        again = np.linalg.lstsq(rows * weight[:, None], weight, rcond=None)[0]
        if again[0] <= 0:
            break
        best = again
    return float(best[0]), float(best[1])
