"""How a scene stands that nobody photographed: its box, which way is up, and a first view.

The web player finds the same for splat files (``viewers/web/src/decode/stand.ts``), so that a
bundle of a file starts as the file does.
"""

from __future__ import annotations

import math

import numpy as np

from scene4d.bundle.inside_view import gathers_along, has_floor

PLACES = 32768
"""Splats that are looked at, spread over all: so many that quantisation moves no share of them by
more than some thousandths, whichever they are."""
_FAINT = 5.5 / 255
"""Opacity under which a splat says nothing; formats of 8 bits agree on who is over it."""
_LEAST_SEEN = 0.1
_IMPORTANCES = (-40, 24)
FILE_UP = np.array([0.0, -1.0, 0.0])
"""Where nothing says otherwise: in splat files, as in COLMAP, y points down."""
MARGIN = 0.075
"""Share of the picture that stays empty at each side that the box is nearest to."""
DOWNWARDS = 0.35
"""Slope of the first view."""
_BINS_PER_SPREAD = 4
_EMPTY_BINS = 2
_EMPTY_SHARE = 0.001
_TAIL = 0.003
_TRIALS = 300
_JUDGES = 800
_THICKNESS = 0.012
_ONE_SIDED = 0.93
_LEAST_GROUND = 0.2
_LEAST_WIDTH = 0.95
_UNUSUAL = 0.5
_CELLS = 10
_MIRRORED = 0.15
_LEAST_PLACES = 1000
_HEAVIER = 0.1
_LEAST_GATHERED = 0.2
_DIRECTIONS = 12
_IN_THE_WAY = 0.005
_FRONT = 0.25
_MIDDLE = 0.3
_OVER = 0.25
_WALLED = 0.02


def places_of(means: np.ndarray, log_opacities: np.ndarray, log_sizes: np.ndarray) -> np.ndarray:
    """About :data:`PLACES` of ``means`` [N, 3], or all: finite ones that are seen, evenly from the
    most visible to the least, as the player takes them.

    ``log_opacities``, ``log_sizes`` [N]: natural logarithms of opacity and of mean deviation.
    """
    importance = (log_opacities + 2 * log_sizes) / math.log(2)
    finite = np.isfinite(means).all(axis=1) & np.isfinite(importance)
    seen = finite & (log_opacities >= math.log(_FAINT))
    if seen.sum() < _LEAST_SEEN * finite.sum():
        seen = finite
    means = means[seen].astype(np.float64)
    lowest, highest = _IMPORTANCES
    shares = (highest - np.clip(importance[seen], lowest, highest)) / (highest - lowest)
    order = np.argsort(np.floor(4096 * shares), kind="stable")
    return means[order[:: max(1, len(order) // PLACES)]]


def content_box(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box of ``places`` [N, 3] without what floats around: along each axis it ends
    where two bins in a row hold next to nothing. A box of size 2 around the origin for none."""
    if not len(places):
        return -np.ones(3), np.ones(3)
    rows = places
    for _ in range(2):
        spreads = np.subtract(*(_quantiles(rows, share) for share in (0.75, 0.25)))
        if not spreads.max() > 0:
            break
        ends = np.array([_ends(np.sort(column), float(spreads.max())) for column in rows.T])
        inside = ((rows >= ends[:, 0]) & (rows <= ends[:, 1])).all(axis=1)
        rows = rows[inside] if inside.any() else rows
    return _quantiles(rows, _TAIL), _quantiles(rows, 1 - _TAIL)


def _quantiles(rows: np.ndarray, share: float) -> np.ndarray:
    return np.sort(rows, axis=0)[min(len(rows) - 1, math.floor(share * len(rows)))]


def _ends(column: np.ndarray, spread: float) -> tuple[float, float]:
    """The least and the largest value before two empty bins in a row, from the middle half on."""
    width = spread / _BINS_PER_SPREAD
    few = max(1.0, _EMPTY_SHARE * len(column))
    found = []
    for share, step in ((0.25, -1), (0.75, 1)):
        start = column[min(len(column) - 1, math.floor(share * len(column)))]
        last = column[-1] if step > 0 else column[0]
        bins = min(10_000, math.ceil(abs(last - start) / width) + 1)
        edges = start + step * width * np.arange(bins + 1)
        counts = np.abs(np.diff(np.searchsorted(column, edges)))
        edge, empty = start, 0
        for count, end in zip(counts, edges[1:], strict=True):
            empty = empty + 1 if count < few else 0
            if empty == _EMPTY_BINS:
                break
            edge = end if empty == 0 else edge
        found.append(float(edge))
    return found[0], found[1]


def find_up(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which way is up [3], a unit vector.

    A ground is a plane near which many of ``places`` [N, 3] lie, spread as far as all, with all
    others on one side. Else things gather on a floor, or the scene stands in the format's own way,
    unless it is mirrored along it.
    """
    size = float(np.linalg.norm(high - low))
    margin = 0.1 * size
    rows = places[((places >= low - margin) & (places <= high + margin)).all(axis=1)]
    if len(rows) < 50:
        return FILE_UP
    ground = _ground(rows, size)
    if ground is None or _usual(ground) < 1:
        gathered = _gathered_up(rows, low, high)
        if gathered is not None:
            return gathered
    if (ground is None or _usual(ground) < 1) and _stands_along_z(rows, low, high):
        return np.array([0.0, 0.0, 1.0])  # a back or a wall is a plane, too
    up = FILE_UP if ground is None else ground
    axis = np.argmax(np.abs(up))
    if abs(up[axis]) > math.cos(math.radians(4)):
        return np.sign(up) * (np.arange(3) == axis)
    return up


def _gathered_up(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The way up of the formats' ones in which a scene has a floor and things gather on it."""
    best, found = _LEAST_GATHERED - _HEAVIER, None
    for up in (FILE_UP, np.array([0.0, 0.0, 1.0]), -FILE_UP):
        gathered = gathers_along(rows, low, high, up)
        if gathered > best + _HEAVIER:
            best, found = gathered, up
    return found


def _usual(ups: np.ndarray) -> np.ndarray:
    """A weight of ways up [..., 3]: others than the format's have to be plainer."""
    return np.where(ups @ FILE_UP > math.cos(math.pi / 4), 1.0, _UNUSUAL)


def _ground(rows: np.ndarray, size: float) -> np.ndarray | None:
    """Up from the plane that most rows lie near, of planes through three of them."""
    judges = rows[:: math.ceil(len(rows) / _JUDGES)]
    state, picked = 1, []
    for _ in range(3 * _TRIALS):
        state = state * 48271 % 2147483647  # Lehmer's generator, as in the player
        picked.append(int(state / 2147483647 * len(rows)))
    corners = rows[picked].reshape(_TRIALS, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    planes = (lengths > 0)[:, 0]  # three in a row make none
    at, normals = corners[planes, 0], normals[planes] / lengths[planes]
    if not len(at):
        return None
    shares, ups = _judge(judges, at, normals, size)
    scores = shares * _usual(ups)
    best = int(scores.argmax())
    if scores[best] <= _LEAST_GROUND / 2:
        return None
    point, normal = _refined(rows, at[best], ups[best], size)
    shares, ups = _judge(rows, point[None], normal[None], size)
    return ups[0] if shares[0] * _usual(ups)[0] >= _LEAST_GROUND else None


def _judge(
    places: np.ndarray, at: np.ndarray, normals: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of each plane through ``at`` [P, 3] the share of places near it [P], 0 for no ground, and the
    side of the others [P, 3]."""
    heights = normals @ places.T - (normals * at).sum(axis=1, keepdims=True)
    near = np.abs(heights) <= _THICKNESS * size
    above = (heights > _THICKNESS * size).sum(axis=1)
    below = (heights < -_THICKNESS * size).sum(axis=1)
    ups = np.where((above >= below)[:, None], normals, -normals)

    def along(weights: np.ndarray) -> np.ndarray:
        """The variance of the chosen places [P, N] within the plane."""
        count = np.maximum(1, weights.sum(axis=1))
        centred = places - places.mean(axis=0)
        mean = weights @ centred / count[:, None]
        total = weights @ (centred**2).sum(axis=1) / count - (mean**2).sum(axis=1)
        mean_height = (weights * heights).sum(axis=1) / count
        across = (weights * heights**2).sum(axis=1) / count - mean_height**2
        return total - across

    wide = along(near.astype(float)) >= _LEAST_WIDTH * along(np.ones_like(heights))
    others = above + below
    one_sided = (others < 0.02 * len(places)) | (np.maximum(above, below) >= _ONE_SIDED * others)
    return np.where(near.any(axis=1) & wide & one_sided, near.mean(axis=1), 0.0), ups


def _refined(
    rows: np.ndarray, at: np.ndarray, up: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """A point of the plane through the rows near a plane, and its normal on the side of ``up``."""
    near = rows[np.abs((rows - at) @ up) <= 1.5 * _THICKNESS * size]
    mean = near.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((near - mean).T))
    normal = vectors[:, 0]
    return mean, normal if normal @ up > 0 else -normal


def _stands_along_z(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the scene is far more alike mirrored along y, the format's way up, than along z."""
    if len(rows) < _LEAST_PLACES:
        return False
    shares = (rows - low) / np.maximum(1e-12, high - low)
    cells = np.clip((_CELLS * shares).astype(int), 0, _CELLS - 1)
    full = np.zeros((_CELLS,) * 3, dtype=bool)
    full[tuple(cells.T)] = True
    alike = [float((full & np.flip(full, axis)).sum() / full.sum()) for axis in range(3)]
    return alike[1] > alike[2] + _MIRRORED


def clear_direction(
    places: np.ndarray, low: np.ndarray, high: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """The direction [3] in which the box is looked at from outside, a little from above: the usual
    one for the axes, or the next one to it in whose way no wall stands and nothing floats."""
    usual = np.array([0.6, 0.8, 0.0] if abs(up[2]) > 0.5 else [0.6, 0.0, 0.8])
    flat = usual - up * (usual @ up)
    flat /= np.linalg.norm(flat)
    turns = [(1 if n % 2 else -1) * math.ceil(n / 2) for n in range(_DIRECTIONS)]
    angles = 2 * math.pi * np.array(turns)[:, None] / _DIRECTIONS  # 0, 30, -30, 60 ... degrees
    level = np.cos(angles) * flat + np.sin(angles) * np.cross(up, flat)
    forwards = level - DOWNWARDS * up
    forwards /= np.linalg.norm(forwards, axis=1, keepdims=True)
    inside = ((places >= low) & (places <= high)).all(axis=1)
    costs = _before(places[~inside], forwards, low, high)
    if has_floor(places, low, high, up):
        walls = _in_front(places[inside], level, up)
        costs = costs + np.maximum(0, walls - walls.min() - _WALLED * len(places))
    return forwards[np.argmax(costs <= costs.min() + _IN_THE_WAY * len(places))]


def _in_front(rows: np.ndarray, level: np.ndarray, up: np.ndarray) -> np.ndarray:
    """How many of ``rows`` [N, 3] stand up in front of the middle, by level direction [D]."""

    def shares(axes: np.ndarray) -> np.ndarray:
        along = rows @ axes.T
        return (along - along.min(axis=0)) / np.maximum(1e-12, np.ptp(along, axis=0))

    tall = shares(up[None]) > _OVER
    middle = np.abs(shares(np.cross(up, level)) - 0.5) < _MIDDLE
    return (tall & middle & (shares(level) < _FRONT)).sum(axis=0)


def _before(
    rows: np.ndarray, forwards: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """How many of ``rows`` [N, 3] lie around the line from an eye to the box, by direction [D]."""
    size = float(np.linalg.norm(high - low))
    offsets = rows - (low + high) / 2
    along = -offsets @ forwards.T
    aside = np.linalg.norm(offsets[:, None] + along[..., None] * forwards, axis=2)
    return ((along > 0) & (along <= 2 * size) & (aside < 0.35 * size)).sum(axis=0)


def fitting_view(
    low: np.ndarray,
    high: np.ndarray,
    *,
    forward: np.ndarray,
    up: np.ndarray,
    slopes: tuple[float, float],
) -> np.ndarray:
    """Camera to world [4, 4] (OpenGL axes) in whose picture the box just fits, in its middle.

    ``slopes``: half the picture's width and height by its focal length.
    """
    axes = _axes_of(forward, up)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, 8).T
    centre = (low + high) / 2
    local = (corners - centre) @ axes
    least = 1.02 * float(-local[:, 2].min())
    distance = max(least, 1e-6)
    for axis, slope in enumerate(slopes):
        a = (1 - 2 * MARGIN) * slope
        span = (local[:, axis] - a * local[:, 2]).max() - (local[:, axis] + a * local[:, 2]).min()
        distance = max(distance, float(span) / (2 * a))
    shift = [_middle(local[:, axis], local[:, 2] + distance) for axis in range(2)]
    position = centre + axes[:, :2] @ np.array(shift) - distance * forward
    return standing_at(position, forward, up)


def standing_at(position: np.ndarray, forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Camera to world [4, 4] (OpenGL axes) at a place, looking along a unit vector, upright."""
    axes = _axes_of(forward, up)
    c2w = np.eye(4)
    c2w[:3] = np.stack([axes[:, 0], axes[:, 1], -forward, position], axis=1)
    return c2w


def _axes_of(forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Right, above and forward as columns [3, 3]."""
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), forward], axis=1)


def _middle(values: np.ndarray, depths: np.ndarray) -> float:
    """The shift that makes the largest and the least slope opposite, by halving."""
    low, high = float(values.min()), float(values.max())
    for _ in range(40):
        shift = (low + high) / 2
        slopes = (values - shift) / np.maximum(1e-9, depths)
        low, high = (shift, high) if slopes.max() + slopes.min() > 0 else (low, shift)
    return (low + high) / 2
