"""Motion of any scene that has splats at each time, as polynomials: what files of others store."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from scene4d.errors import UsageError
from scene4d.formats import packing
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.timed_splats import TimedSplats, joined
from scene4d.training.opened import OpenedScene

SPAN_S = 2.0
"""What is looked at at once, and the longest window of what moves straight."""
_MOST_SPANS = 64
_FINEST = 6
"""A span is halved so many times at most."""
_SAMPLES = 4
"""Steps between moments that are looked at in each of the shortest windows."""
_CUBIC_SAMPLES = 128
"""Steps between moments that a cubic is fitted to."""
_UNSEEN = 1 / 512
"""Opacities below it say nothing in eight bits."""
_OPACITY = 0.05
"""Largest error of an opacity that is taken as constant."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Splats at some moments; of those that stand still, at the first."""

    times_s: np.ndarray
    """[T] rising."""
    cloud: SplatCloud
    """At the first moment."""
    rows: np.ndarray
    """[M] which of its splats change at all."""
    means: np.ndarray
    """[T, M, 3]"""
    quats: np.ndarray
    """[T, M, 4] of length 1, each on the side of the one before."""
    opacities: np.ndarray
    """[T, M] 0..1"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """Polynomials, and how far off they are."""

    splats: TimedSplats
    errors: np.ndarray
    """[N] largest distance of a mean from where it should be, of splats that move, scene units."""
    angles: np.ndarray
    """[N] largest angle between a rotation and what it should be, degrees."""


def sampled(source: OpenedScene, times_s: np.ndarray) -> Motion:
    """The splats at ``times_s``, in scene coordinates. Raises :class:`UsageError` where there are
    none, or not the same at all times."""
    source.scene_cloud()
    first: SplatCloud | None = None
    changes: list[tuple[np.ndarray, tuple[np.ndarray, ...]]] = []
    for time in times_s:
        cloud = source.representation.splats(float(time))
        assert cloud is not None
        first = cloud if first is None else first
        if len(cloud) != len(first):
            raise UsageError(
                "has splats of other numbers at other times, which no motion leads to",
                where=source.path,
                fix="scene4d export RUN ply-sequence writes them",
            )
        rows, values = _changes(first, cloud)
        changes.append((rows, values))
    assert first is not None
    rows = np.unique(np.concatenate([each for each, _ in changes]))
    place = np.full(len(first), -1)
    place[rows] = np.arange(len(rows))
    arrays = [
        np.repeat(getattr(first, name)[None, rows], len(times_s), axis=0)
        for name in ("means", "quats", "logit_opacities")
    ]
    for at, (some, values) in enumerate(changes):
        for array, value in zip(arrays, values, strict=True):
            array[at, place[some]] = value
    means, quats, logits = arrays
    return Motion(
        times_s=times_s, cloud=first, rows=rows, means=means, quats=_continuous(quats),
        opacities=packing.opacity_of(logits),
    )  # fmt: skip


def _changes(first: SplatCloud, cloud: SplatCloud) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Which splats are not as at first, and their means, quaternions and logits of opacity."""
    changed = (first.means != cloud.means).any(axis=1) | (first.quats != cloud.quats).any(axis=1)
    rows = (changed | (first.logit_opacities != cloud.logit_opacities)).nonzero()[0]
    return rows, (cloud.means[rows], cloud.quats[rows], cloud.logit_opacities[rows])


def _continuous(quats: np.ndarray) -> np.ndarray:
    """[T, M, 4] of length 1, signs so that each is near the one before."""
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True).clip(1e-30)
    sides = np.where((quats[1:] * quats[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    quats[1:] *= np.cumprod(sides, axis=0)[..., None]
    return quats


def _still(cloud: SplatCloud, degree: int, window_s: tuple[float, float]) -> TimedSplats:
    """``cloud`` standing still."""
    count = len(cloud)
    return TimedSplats(
        cloud=cloud,
        motion=np.zeros((count, degree, 3)),
        turns=np.zeros((count, 4)),
        centres_s=np.full(count, 0.5 * (window_s[0] + window_s[1])),
        fades_s=np.full(count, np.inf),
        windows_s=np.tile(np.array(window_s, dtype=np.float64), (count, 1)),
    )


def cubics(source: OpenedScene) -> tuple[Fitted, int]:
    """One cubic of positions and one straight line of rotations for each splat, in least squares
    weighted by how much it is seen, opacities as a bell; and how many splats move. Those that stand
    still come first. Errors count where a splat is seen at all."""
    assert source.representation.times is not None
    motion = sampled(source, np.linspace(*source.representation.times, _CUBIC_SAMPLES + 1))
    times, window = motion.times_s, (float(motion.times_s[0]), float(motion.times_s[-1]))
    heights, centres, fades = _bells(motion.opacities, times)
    lasts = np.minimum(fades, times[-1] - times[0])
    off = (times[:, None] - centres) / lasts
    seen = motion.opacities * (motion.opacities >= _UNSEEN)
    seen[:, ~seen.any(axis=0)] = 1.0
    path, errors = _weighted(motion.means, off, seen, 3)
    turn, _ = _weighted(motion.quats, off, seen, 1)
    angles = _angles(turn[0] + off[..., None] * turn[1], motion.quats)
    cloud = replace(
        packing.taken(motion.cloud, motion.rows),
        means=path[0].astype(motion.cloud.means.dtype),
        quats=turn[0].astype(np.float32),
        logit_opacities=packing.logit_of(heights),
    )
    powers = lasts[:, None, None] ** np.arange(1, 4)[:, None]
    timed = replace(
        _still(cloud, 3, window),
        motion=path[1:].swapaxes(0, 1) / powers, turns=turn[1] / lasts[:, None],
        centres_s=centres, fades_s=fades,
    )  # fmt: skip
    never = np.setdiff1d(np.arange(len(motion.cloud)), motion.rows)
    fixed = _still(packing.taken(motion.cloud, never), 3, window)
    found = Fitted(
        splats=joined([fixed, timed]), errors=errors, angles=(angles * (seen > 0)).max(axis=0)
    )
    return found, len(motion.rows)


def straight(source: OpenedScene, *, tolerance: float) -> tuple[Fitted, int]:
    """All splats in pieces that move straight and do not turn, each in a window of time, and how
    many splats move. Those that stand still are one piece each, and come first.

    A window is halved until a mean is off, and an end of its splat turned away, by less than
    ``tolerance`` standard deviations (the splat's largest), or ``FINEST`` times; what is unseen is
    left out.
    """
    times = source.representation.times
    assert times is not None
    start, end = times
    spans = int(np.clip(np.ceil((end - start) / SPAN_S - 1e-6), 1, _MOST_SPANS))
    edges = np.linspace(start, end, spans + 1)
    last = end + 1e-6 * (end - start)  # windows end before their ends: the last moment is seen
    pieces, whole = [], []
    for first, second in itertools.pairwise(edges):
        motion = sampled(source, np.linspace(first, second, (_SAMPLES << _FINEST) + 1))
        window = (float(first), float(last if second == edges[-1] else second))
        pieces += _halved(motion, window[1], tolerance)
        whole.append((motion.cloud, motion.rows, window))
    moving = np.unique(np.concatenate([rows for _, rows, _ in whole]))
    never = np.setdiff1d(np.arange(len(whole[0][0])), moving)
    parts = [_still(packing.taken(whole[0][0], never), 1, (start, last))]
    for cloud, rows, window in whole:  # what moves, but not now
        parts.append(_still(packing.taken(cloud, np.setdiff1d(moving, rows)), 1, window))
    splats = joined([*parts, *(piece.splats for piece in pieces)])
    errors, angles = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("errors", "angles")
    )
    return Fitted(splats=splats, errors=errors, angles=angles), len(moving)


def _halved(motion: Motion, end_s: float, tolerance: float) -> list[Fitted]:
    """The pieces of what changes."""
    sizes = np.exp(packing.taken(motion.cloud, motion.rows).log_scales.astype(np.float64))
    waiting = [np.arange(len(motion.rows))]
    pieces: list[Fitted] = []
    for level in range(_FINEST + 1):
        if level:
            waiting = [rows for some in waiting for rows in (some, some)]
        width = (len(motion.times_s) - 1) >> level
        for number, rows in enumerate(waiting):
            span = slice(number * width, (number + 1) * width + 1)
            piece, good = _straight(motion, rows, span, sizes[rows], tolerance)
            if number == len(waiting) - 1:
                piece.splats.windows_s[:, 1] = end_s
            done = good | (level == _FINEST)
            seen = motion.opacities[span, rows].max(axis=0) >= _UNSEEN
            pieces.append(_taken(piece, done & seen))
            waiting[number] = rows[~done]
    return pieces


def _straight(
    motion: Motion,
    rows: np.ndarray,
    span: slice,
    sizes: np.ndarray,
    tolerance: float,
) -> tuple[Fitted, np.ndarray]:
    """Straight lines of some splats in a span of moments, and which are good enough."""
    times = motion.times_s[span]
    middle = 0.5 * (times[0] + times[-1])
    means, path, errors = _polynomials(motion.means[span, rows], times - middle, 1)
    quats = motion.quats[span, rows].mean(axis=0)
    angles = _angles(quats[None], motion.quats[span, rows]).max(axis=0)
    opacities = motion.opacities[span, rows]
    even = opacities.mean(axis=0)
    largest = sizes.max(axis=1)
    turned = np.radians(angles) * (largest - sizes.min(axis=1))
    good = np.maximum(errors, turned) <= tolerance * largest
    good &= np.abs(opacities - even).max(axis=0) <= _OPACITY
    cloud = replace(
        packing.taken(motion.cloud, motion.rows[rows]),
        means=means.astype(motion.cloud.means.dtype),
        quats=quats.astype(np.float32),
        logit_opacities=packing.logit_of(even),
    )
    window = (float(times[0]), float(times[-1]))
    timed = replace(_still(cloud, 1, window), motion=path.swapaxes(0, 1))
    return Fitted(splats=timed, errors=errors, angles=angles), good


def _taken(piece: Fitted, which: np.ndarray) -> Fitted:
    splats = piece.splats
    names = ("motion", "turns", "centres_s", "fades_s", "windows_s")
    some = replace(
        splats,
        cloud=packing.taken(splats.cloud, which),
        **{name: getattr(splats, name)[which] for name in names},
    )
    return Fitted(splats=some, errors=piece.errors[which], angles=piece.angles[which])


def _polynomials(
    values: np.ndarray, off: np.ndarray, degree: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of ``values`` [T, M, C] at times ``off`` [T]: the constants [M, C], the factors of the powers
    [degree, M, C], and the largest distances [M]; in least squares."""
    scale = float(np.abs(off).max()) or 1.0
    basis = (off / scale)[:, None] ** np.arange(degree + 1)
    count, channels = values.shape[1:]
    flat = values.reshape(len(off), -1)
    found = np.linalg.pinv(basis) @ flat
    errors = (basis @ found - flat).reshape(values.shape)
    factors = found.reshape(degree + 1, count, channels)
    factors = factors / scale ** np.arange(degree + 1)[:, None, None]
    return factors[0], factors[1:], np.linalg.norm(errors, axis=-1).max(axis=0, initial=0.0)


def _weighted(
    values: np.ndarray, off: np.ndarray, weights: np.ndarray, degree: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of ``values`` [T, M, C] at times ``off`` [T, M], whose ``weights`` [T, M] are 0 or more: the
    factors of the powers [degree + 1, M, C], and the largest distances [M] where a weight is not 0;
    in least squares."""
    basis = off[..., None] ** np.arange(degree + 1)
    weighted = basis * weights[..., None]
    normal = np.einsum("tmi,tmj->mij", weighted, basis)
    # A splat that is seen at fewer moments than there are powers has its own lowest ones.
    normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(degree + 1)
    found = np.linalg.solve(normal, np.einsum("tmi,tmc->mic", weighted, values))
    errors = np.linalg.norm(np.einsum("tmi,mic->tmc", basis, found) - values, axis=-1)
    return found.swapaxes(0, 1), (errors * (weights > 0)).max(axis=0, initial=0.0)


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between rotations [..., 4]; the second of length 1."""
    first = first / np.linalg.norm(first, axis=-1, keepdims=True).clip(1e-30)
    chord = np.minimum(
        np.linalg.norm(first - second, axis=-1), np.linalg.norm(first + second, axis=-1)
    )
    return np.degrees(4 * np.arcsin(np.minimum(chord / 2, 1.0)))


def _bells(opacities: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of opacities [T, M]: heights 0..1, centres and widths s of h exp(-((t - c) / s)^2) that are
    nearest in least squares, of some that are tried; widths are infinite where nothing fades."""
    count = opacities.shape[1]
    span = float(times[-1] - times[0])
    heights, centres = opacities.mean(axis=0), np.full(count, 0.5 * float(times[0] + times[-1]))
    fades = np.full(count, np.inf)
    best = ((opacities - heights) ** 2).sum(axis=0)
    fading = (np.ptp(opacities, axis=0) > _UNSEEN).nonzero()[0]
    some = opacities[:, fading]
    for centre in np.linspace(times[0], times[-1], 33):
        for width in span * 2.0 ** np.arange(-6.0, 2.1, 0.5):
            bell = np.exp(-(((times - centre) / width) ** 2))
            height = np.clip(bell @ some / (bell @ bell), 0.0, 1.0)
            off = ((some - height * bell[:, None]) ** 2).sum(axis=0)
            better = off < best[fading]
            rows = fading[better]
            best[rows], heights[rows] = off[better], height[better]
            centres[rows], fades[rows] = centre, width
    return heights, centres, fades
