"""Whether a scene without cameras shows what was around those who captured it, a room or a square,
and where in it to stand first. ``viewers/web/src/decode/inside.ts`` finds the same for files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_CELLS = 10
"""Cells along each side of the ground plan; eyes are tried at their corners."""
_HEIGHTS = (0.35, 0.45, 0.55)
"""Heights at which eyes are tried, as shares of the scene's."""
_CLUMPS = 24
"""Along each side: places within a cell count as one, at their mean."""
_RINGS = 64
_FEWEST = 200
_DOZEN = 12 / 4096
"""Shares of all places: what a ball without air holds, what may float before an eye, what a cell of
the ground plan needs to hold something, and a sector to be closed."""
_FLOATING = 3 / 4096
_HELD = 2 / 4096
_CLOSING = 2 / 1000
_TAIL = 0.01
_FLOOR_HEIGHT = 0.12
_LEAST_FLOOR = 0.5
_WHOLE_FLOOR = 0.6
_LEAST_CLEARANCE = 0.26
_CLEARANCE = 0.5
_SECTORS = 24
_LEAST_CLOSED = 0.66
_SOFT = 0.1
_PREFER = 16
_STEEP = math.sqrt(3)
_DIRECTIONS = 12
_WIDE = 0.64
_HIGH = 0.5


@dataclass(frozen=True)
class _Plan:
    """Places in the axes of the ground plan and of the height, around the box' middle."""

    rows: np.ndarray
    origin: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    size: np.ndarray


def inside_view(
    places: np.ndarray, low: np.ndarray, high: np.ndarray, up: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """An eye [3] and a level direction [3] in a scene that closes around places with air and a
    floor under them: from where most of ``places`` [N, 3] is in the picture.

    ``low``, ``high``: corners of the content's box; ``up``: a unit vector. None for things that are
    seen from outside.
    """
    plan = _plan_of(places, low, high, up)
    if plan is None or _floor_share(plan) < _WHOLE_FLOOR:
        return None
    clumps, weights = _clumps_of(plan)
    steps = np.arange(1, _CELLS) / _CELLS
    grid = np.stack(np.meshgrid(_HEIGHTS, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    eyes = plan.low + plan.size * grid[:, [1, 2, 0]]
    shortest = float(plan.size.min())
    needed, enough = max(_LEAST_CLEARANCE * shortest, _chance(plan)), _CLEARANCE * shortest
    room = _clearance(clumps, weights, eyes, max(needed, enough))
    fitness = np.minimum(room / needed, _closed_shares(clumps, weights, eyes) / _LEAST_CLOSED)
    if not fitness.max() >= 1:
        return None
    # Eyes that only just fit, or only just do not, count less and less: none decides by a hair.
    ease = np.minimum(1, room / enough) * np.clip((fitness - 1 + _SOFT) / _SOFT, 0, 1)
    angles = 2 * math.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Of places and directions that are alike always the same one is taken.
    place = grid[:, 1:] @ [0.02, 0.01] - 0.05 * np.abs(grid[:, 0] - 0.45)
    liked = 1 + 0.1 * directions @ _usual(plan, up) + place[:, None]
    counts = np.zeros_like(liked)
    for eye in np.flatnonzero(ease):
        counts[eye] = _seen_from(clumps - eyes[eye], weights, directions, 0.1 * shortest)
    scores = ease[:, None] * counts * liked
    if not scores.max() > 0:
        return None
    best, direction = divmod(int(scores.argmax()), _DIRECTIONS)
    position = _at_mean_height(eyes, scores[:, direction], best)
    ahead = np.append(directions[direction], 0.0) @ plan.axes
    return plan.origin + position @ plan.axes, ahead


def _at_mean_height(eyes: np.ndarray, scores: np.ndarray, best: int) -> np.ndarray:
    """The best eye [3] of all [C, 3]: heights over one place are alike, and theirs is the mean, by
    how good [C] each is."""
    places = (_CELLS - 1) ** 2
    over = slice(best % places, None, places)
    goodness = (scores[over] / scores[best]) ** _PREFER
    return np.append(eyes[best, :2], goodness @ eyes[over, 2] / goodness.sum())


def gathers_along(places: np.ndarray, low: np.ndarray, high: np.ndarray, up: np.ndarray) -> float:
    """How far things gather at the lower end along ``up``, of those that lie away from the box'
    sides: -1 to 1, where what stands on a floor is at 1; 0 without a floor."""
    plan = _plan_of(places, low, high, up)
    if plan is None or _floor_share(plan) < _LEAST_FLOOR:
        return 0.0
    shares = (plan.rows - plan.low) / plan.size
    heights = shares[((shares >= 0.08) & (shares <= 0.92)).all(axis=1), 2]
    below, above = int((heights < 0.4).sum()), int((heights > 0.6).sum())
    return (below - above) / max(1, below + above)


def has_floor(places: np.ndarray, low: np.ndarray, high: np.ndarray, up: np.ndarray) -> bool:
    """Whether there is a floor below most of the content along ``up``."""
    plan = _plan_of(places, low, high, up)
    return plan is not None and _floor_share(plan) >= _WHOLE_FLOOR


def _plan_of(places: np.ndarray, low: np.ndarray, high: np.ndarray, up: np.ndarray) -> _Plan | None:
    rows = places[((places >= low) & (places <= high)).all(axis=1)]
    if len(rows) < _FEWEST:
        return None
    helper = np.array([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    first = helper - up * (helper @ up)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(up, first), up])
    origin = (low + high) / 2
    rows = (rows - origin) @ axes.T
    ordered = np.sort(rows, axis=0)
    ends = [ordered[math.floor(share * (len(rows) - 1))] for share in (_TAIL, 1 - _TAIL)]
    size = ends[1] - ends[0]
    if not size.min() > 0:
        return None
    return _Plan(rows=rows, origin=origin, axes=axes, low=ends[0], size=size)


def _usual(plan: _Plan, up: np.ndarray) -> np.ndarray:
    """The direction [2] in the ground plan in which scenes are looked at by default."""
    usual = plan.axes[:2] @ ([0.6, 0.8, 0.0] if abs(up[2]) > 0.5 else [0.6, 0.0, 0.8])
    return usual / np.linalg.norm(usual)


def _chance(plan: _Plan) -> float:
    """The radius of a ball in which a box full of as many places would hold a dozen of 4096."""
    return float((_DOZEN * plan.size.prod() / (4 / 3 * math.pi)) ** (1 / 3))


def _clumps_of(plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Means [M, 3] of the places in each cell of a grid, and which share [M] of all it holds."""
    shares = (plan.rows - plan.low) / plan.size
    cells = np.clip(np.floor(_CLUMPS * shares), 0, _CLUMPS - 1) @ [1, _CLUMPS, _CLUMPS**2]
    _, members, counts = np.unique(cells, return_inverse=True, return_counts=True)
    sums = [np.bincount(members, weights=column) for column in plan.rows.T]
    return np.stack(sums, axis=1) / counts[:, None], counts / len(plan.rows)


def _clearance(
    clumps: np.ndarray, weights: np.ndarray, eyes: np.ndarray, most: float
) -> np.ndarray:
    """How far from each eye places begin [C], but for some that may float; at most ``most``."""
    found = []
    for eye in eyes:
        rings = _RINGS / most * np.linalg.norm(clumps - eye, axis=1)
        inner = rings < _RINGS
        held = np.bincount(rings[inner].astype(int), weights=weights[inner], minlength=_RINGS)
        within = np.concatenate([[0], np.cumsum(held)])
        ring = int(np.searchsorted(within, _FLOATING, side="right")) - 1
        part = (_FLOATING - within[ring]) / held[ring] if ring < _RINGS else 0
        found.append(most * (ring + part) / _RINGS)
    return np.array(found)


def _floor_share(plan: _Plan) -> float:
    """Of the cells of the ground plan that hold something, the share that has a floor."""
    shares = (plan.rows - plan.low) / plan.size
    cells = np.clip((_CELLS * shares[:, :2]).astype(int), 0, _CELLS - 1) @ [1, _CELLS]
    need = _HELD * len(cells)
    held, floored = (
        np.minimum(1, np.bincount(c, minlength=_CELLS**2) / need).sum()
        for c in (cells, cells[shares[:, 2] < _FLOOR_HEIGHT])
    )
    return float(floored / held)


def _closed_shares(clumps: np.ndarray, weights: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """The share [C] of the sectors around each eye that hold something at its height or over it."""
    found = []
    for eye in eyes:
        x, y, z = (clumps - eye).T
        over = (z >= 0) & (z <= _STEEP * np.hypot(x, y))
        turns = (np.arctan2(y[over], x[over]) / (2 * math.pi) + 1) % 1
        sectors = np.minimum((_SECTORS * turns).astype(int), _SECTORS - 1)
        held = np.bincount(sectors, weights=weights[over], minlength=_SECTORS)
        found.append(np.minimum(1, held / _CLOSING).mean())
    return np.array(found)


def _seen_from(
    offsets: np.ndarray, weights: np.ndarray, directions: np.ndarray, near: float
) -> np.ndarray:
    """The share of the places at ``offsets`` [N, 3] from an eye that is in its picture, by level
    direction [D]."""
    x, y, z = offsets.T
    shares = []
    for c, s in directions:
        ahead = c * x + s * y
        seen = (ahead >= near) & (np.abs(c * y - s * x) <= _WIDE * ahead)
        shares.append(weights[seen & (np.abs(z) <= _HIGH * ahead)].sum())
    return np.array(shares)
