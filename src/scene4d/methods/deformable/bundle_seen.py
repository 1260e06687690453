"""How coarsely a motion may be stored before one sees it: by how opaque Gaussians are, and by when
they are there. Needs no torch."""

from __future__ import annotations

import numpy as np

from scene4d.formats.moving_splats import FEWEST_KNOTS, MovingSplats, quat_rotate
from scene4d.methods.deformable.bundle_motion import WEIGHT_UNITS, weight_codes

UNITS = (1, 5, 17, 51, 85, 255)
"""Of which weights may be multiples, in 255ths; the last: one node has all."""
MULTIPLES = (1, 2, 4, 8)
"""Steps of which the edges of opacity may be multiples."""
_SHOWS = 0.05
"""A node shows nothing while the opacities of all that follows it sum to less."""
_KNOTS = 8
"""Knots at which what is always there is looked at."""
_AROUND_EDGES = (-2.0, -1.0, 0.0, 1.0, 2.0)
_IN_SEGMENT = (0.0, 0.5, 1.0)
_BLOCK = 1 << 16


def opacities(moving: MovingSplats, own: np.ndarray) -> np.ndarray:
    """[n] alpha of the Gaussians ``own``, without their windows."""
    logits = moving.cloud.logit_opacities[own].astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def coarse_weights(
    moving: MovingSplats,
    own: np.ndarray,
    poses: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """[n, 4] codes of the ``weights`` with which the Gaussians ``own`` follow the nodes ``indices``
    [n, 4] of ``poses`` [nodes, knots, 7].

    Each Gaussian's are multiples of the largest of :data:`UNITS` at which it is off by no more than
    ``tolerance`` over its opacity while it is there, or else of the smallest.
    """
    codes = weight_codes(weights, UNITS[0])
    when, opacity = _knots_of(moving, own), opacities(moving, own)
    for start in range(0, len(own), _BLOCK):
        rows = slice(start, start + _BLOCK)
        follows = poses[np.maximum(indices[rows], 0)[:, :, None], when[rows, None]]
        means = moving.cloud.means[own[rows]].astype(np.float64)
        places = quat_rotate(follows[..., :4], means[:, None, None]) + follows[..., 4:]
        share = weights[rows] / weights[rows].sum(axis=1, keepdims=True)
        apart = places - (share[..., None, None] * places).sum(axis=1, keepdims=True)
        for unit in UNITS[1:]:
            tried = weight_codes(weights[rows], unit)
            off = (tried[..., None, None] / WEIGHT_UNITS * apart).sum(axis=1)
            seen = opacity[rows] * np.sqrt((off**2).sum(axis=2).mean(axis=1))
            codes[rows] = np.where((seen <= tolerance)[:, None], tried, codes[rows])
    return codes


def _knots_of(moving: MovingSplats, own: np.ndarray) -> np.ndarray:
    """[n, k] knots at about the times when each of the Gaussians ``own`` is there."""
    last = moving.knots.shape[1] - 1
    if moving.opacity_windows is None:
        every = np.linspace(0, last, min(last + 1, _KNOTS)).round().astype(np.int64)
        return np.broadcast_to(every, (len(own), len(every)))
    ends = (moving.start_s, moving.start_s + moving.duration_s)
    rise, fall = np.clip(moving.opacity_windows[own, :2].astype(np.float64), *ends).T
    times = np.stack([rise, 0.5 * (rise + fall), fall], axis=1)
    knots = 1 + np.rint((times - moving.start_s) / moving.knot_interval_s)
    return np.clip(knots, 0, last).astype(np.int64)


def coarse_windows(
    windows: np.ndarray, opacity: np.ndarray, step: float, tolerance: float
) -> np.ndarray:
    """``windows`` [n, 4] in multiples of ``step`` s, the largest ones of :data:`MULTIPLES` at which
    alpha is off by no more than ``tolerance`` around the edges."""
    coarse = _rounded(windows, step)
    for multiple in MULTIPLES[1:]:
        tried = _rounded(windows, multiple * step)
        off = opacity * _apart(windows, tried)
        coarse = np.where((off <= tolerance)[:, None], tried, coarse)
    return coarse


def _rounded(windows: np.ndarray, step: float) -> np.ndarray:
    steps = np.rint(windows / step)
    steps[:, 2:] = np.maximum(steps[:, 2:], 1)
    return step * steps


def _apart(windows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n] by how much two windows [n, 4] differ in opacity, at most."""
    most = np.zeros(len(windows))
    for edge in (0, 1):
        for widths in _AROUND_EDGES:
            times = windows[:, edge] + widths * windows[:, 2 + edge]
            most = np.maximum(most, np.abs(_there(windows, times) - _there(others, times)))
    return most


def _there(windows: np.ndarray, times: np.ndarray | float) -> np.ndarray:
    """[n] the share of opacity that windows [n, 4] leave."""
    rise, fall, rise_width, fall_width = windows.T
    late, early = np.clip((rise - times) / rise_width, -50, 50), (times - fall) / fall_width
    return 1 / ((1 + np.exp(late)) * (1 + np.exp(np.clip(early, -50, 50))))


def shown_knots(
    moving: MovingSplats, own: np.ndarray, indices: np.ndarray, codes: np.ndarray, nodes: int
) -> np.ndarray:
    """[nodes, knots] whether anything that is seen depends on a knot, of the Gaussians ``own`` with
    the weights ``codes`` [n, 4] of the nodes ``indices`` [n, 4]."""
    knots = moving.knots.shape[1]
    shown = np.ones((nodes, knots), dtype=bool)
    if moving.opacity_windows is None:
        return shown
    windows, opacity = moving.opacity_windows[own].astype(np.float64), opacities(moving, own)
    segments = np.zeros((nodes, knots - FEWEST_KNOTS + 1), dtype=bool)
    for segment in range(segments.shape[1]):
        times = moving.start_s + moving.knot_interval_s * (segment + np.array(_IN_SEGMENT))
        there = np.max([_there(windows, float(time)) for time in times], axis=0)
        share = (opacity * there)[:, None] * (codes > 0)
        sums = np.bincount(np.maximum(indices, 0).ravel(), weights=share.ravel(), minlength=nodes)
        segments[:, segment] = sums >= _SHOWS
    shown[:] = False
    for knot in range(FEWEST_KNOTS):
        shown[:, knot : knot + segments.shape[1]] |= segments
    return shown


def held(codes: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """``codes`` [nodes, knots, 6] in which a knot that is not ``shown`` [nodes, knots] repeats the
    last one before it that is, or the first one that is."""
    at = np.where(shown, np.arange(shown.shape[1]), -1)
    at = np.maximum.accumulate(at, axis=1)
    at = np.where(at < 0, shown.argmax(axis=1)[:, None], at)
    return np.take_along_axis(codes, at[..., None], axis=1)
