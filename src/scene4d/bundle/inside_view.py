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
_JUDGES = 1000
_FEWEST = 200
_DOZEN = 12
_FLOATING = 3
_TAIL = 0.01
_FLOOR_HEIGHT = 0.12
_LEAST_FLOOR = 0.5
_WHOLE_FLOOR = 0.6
_LEAST_CLEARANCE = 0.3
_CLEARANCE = 0.5
_SECTORS = 24
_LEAST_CLOSED = 0.75
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
    judges = plan.rows[:: math.ceil(len(plan.rows) / _JUDGES)]
    steps = np.arange(1, _CELLS) / _CELLS
    grid = np.stack(np.meshgrid(_HEIGHTS, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    eyes = plan.low + plan.size * grid[:, [1, 2, 0]]
    shortest = float(plan.size.min())
    room = _clearance(plan.rows, eyes)
    needed = max(_LEAST_CLEARANCE * shortest, _chance(plan))
    eyes, room = eyes[room >= needed], room[room >= needed]
    offsets = judges - eyes[:, None]
    closed = _closed_share(offsets) >= _LEAST_CLOSED
    if not closed.any():
        return None
    angles = 2 * math.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    counts = _seen_from(offsets, directions, 0.1 * shortest)
    ease = np.minimum(1, room / (_CLEARANCE * shortest))
    scores = np.where(closed, ease, 0)[:, None] * counts
    eye, direction = divmod(int(scores.argmax()), _DIRECTIONS)
    ahead = np.append(directions[direction], 0.0) @ plan.axes
    return plan.origin + eyes[eye] @ plan.axes, ahead


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


def _chance(plan: _Plan) -> float:
    """The radius of a ball in which a box full of as many places would hold a dozen."""
    share = _DOZEN / len(plan.rows)
    return float((share * plan.size.prod() / (4 / 3 * math.pi)) ** (1 / 3))


def _clearance(rows: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """How far away from each eye the fourth place is [C]: some may float."""
    far = (rows**2).sum(axis=1) - 2 * eyes @ rows.T + (eyes**2).sum(axis=1)[:, None]
    return np.sqrt(np.maximum(0, np.partition(far, _FLOATING, axis=1)[:, _FLOATING]))


def _floor_share(plan: _Plan) -> float:
    """Of the cells of the ground plan that hold something, the share that has a floor."""
    shares = (plan.rows - plan.low) / plan.size
    cells = np.clip((_CELLS * shares[:, :2]).astype(int), 0, _CELLS - 1) @ [1, _CELLS]
    return len(np.unique(cells[shares[:, 2] < _FLOOR_HEIGHT])) / len(np.unique(cells))


def _closed_share(offsets: np.ndarray) -> np.ndarray:
    """Of the sectors around each eye the share [C] that holds something at its height or over it;
    ``offsets`` [C, N, 3] from the eyes."""
    x, y, z = np.moveaxis(offsets, 2, 0)
    over = (z >= 0) & (z <= _STEEP * np.hypot(x, y))
    sectors = np.minimum(
        (_SECTORS * ((np.arctan2(y, x) / (2 * math.pi) + 1) % 1)).astype(int), _SECTORS - 1
    )
    counts = [((sectors == n) & over).sum(axis=1) for n in range(_SECTORS)]
    return (np.stack(counts) >= 2).mean(axis=0)


def _seen_from(offsets: np.ndarray, directions: np.ndarray, near: float) -> np.ndarray:
    """How many places are in the picture of each eye in each level direction [C, D]."""
    x, y, z = np.moveaxis(offsets, 2, 0)
    counts = []
    for c, s in directions:
        ahead = c * x + s * y
        seen = (ahead >= near) & (np.abs(c * y - s * x) <= _WIDE * ahead)
        counts.append((seen & (np.abs(z) <= _HIGH * ahead)).sum(axis=1))
    return np.stack(counts, axis=1)
