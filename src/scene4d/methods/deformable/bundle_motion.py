"""Splines of nodes as integer codes, and which nodes a Gaussian follows; needs no torch.

A pose is coded as a rotation vector and the shift of the node's place at rest, so that an error of
the rotation moves what is near the node little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scene4d.bundle.quantise import rounded
from scene4d.errors import DataError
from scene4d.formats.moving_splats import FEWEST_KNOTS, NODES_PER_SPLAT, quat_rotate

WEIGHT_UNITS = 255
"""Weights are stored in parts of so many."""
MAX_SUM = 1 << 30
"""Codes of knots, summed up, stay within this; and rotation vectors within :data:`MAX_TURN`."""
MAX_TURN = 1000.0
_FURTHEST = 1e30
MAX_CODE = 1 << 21
"""A writer's codes stay within this: differences of two then fit into a channel's 2^24 values."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Knots:
    """What the codes of knots are worth, and around which places the nodes turn."""

    origin: np.ndarray
    """[3] float64, of the positions' grid."""
    step: float
    """Of the positions' grid."""
    grid_rests: np.ndarray
    """[nodes, 3] integers: the nodes at rest, on that grid."""
    rotation_step: float
    """Radians."""
    shift_step: float

    @property
    def rests(self) -> np.ndarray:
        """[nodes, 3] float64 places of the nodes at rest."""
        return self.origin + self.step * self.grid_rests.astype(np.float64)

    def codes(self, poses: np.ndarray) -> np.ndarray:
        """[nodes, knots, 6] int64 codes of ``poses`` [nodes, knots, 7] float64."""
        turns, shifts = self.ways(poses)
        both = [np.rint(turns / self.rotation_step), np.rint(shifts / self.shift_step)]
        return np.concatenate(both, axis=-1).astype(np.int64)

    def ways(self, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotation vectors and shifts [nodes, knots, 3] of ``poses`` [nodes, knots, 7]."""
        return rotation_vectors(poses[..., :4]), self.places(poses) - self.rests[:, None]

    def within_reach(self, poses: np.ndarray) -> Knots:
        """With steps so coarse that codes of ``poses`` fit into a channel, wherever nodes go."""
        turns, shifts = (float(np.abs(way).max(initial=0.0)) for way in self.ways(poses))
        return replace(
            self,
            rotation_step=max(self.rotation_step, rounded(turns / MAX_CODE)),
            shift_step=max(self.shift_step, rounded(shifts / MAX_CODE)),
        )

    def places(self, poses: np.ndarray) -> np.ndarray:
        """[nodes, knots, 3] where ``poses`` [nodes, knots, 7] take the nodes."""
        return quat_rotate(poses[..., :4], self.rests[:, None]) + poses[..., 4:]

    def poses(self, codes: np.ndarray) -> np.ndarray:
        """[nodes, knots, 7] float64 poses of ``codes`` [nodes, knots, 6].

        Raises :class:`DataError` for rotations and shifts beyond all measure.
        """
        turns = codes[..., :3] * self.rotation_step
        shifts = codes[..., 3:] * self.shift_step
        if (
            np.abs(codes).max(initial=0) > MAX_SUM
            or np.linalg.norm(turns, axis=-1).max(initial=0.0) > MAX_TURN
            or np.abs(shifts).max(initial=0.0) > _FURTHEST
            or np.abs(self.rests).max(initial=0.0) > _FURTHEST
        ):
            raise DataError("a node turns or goes beyond all measure")
        quats, rests = quats_of_vectors(turns), self.rests[:, None]
        return np.concatenate([quats, rests + shifts - quat_rotate(quats, rests)], axis=-1)


def rotation_vectors(quats: np.ndarray) -> np.ndarray:
    """[nodes, knots, 3] rotation vectors of unit quaternions [nodes, knots, 4], each with so many
    full turns that it lies nearest to the one before."""
    flipped = np.where(quats[..., :1] < 0, -quats, quats)
    sine = np.linalg.norm(flipped[..., 1:], axis=-1, keepdims=True)
    angles = 2.0 * np.arctan2(sine, flipped[..., :1])
    axes = flipped[..., 1:] / np.where(sine > 0, sine, 1.0)
    vectors = np.empty_like(axes)
    before = np.zeros_like(axes[:, 0])
    for knot in range(quats.shape[1]):
        axis, angle = axes[:, knot], angles[:, knot]
        along = (before * axis).sum(axis=-1, keepdims=True)
        full = 2.0 * np.pi * np.rint((along - angle) / (2.0 * np.pi))
        before = vectors[:, knot] = (angle + full) * axis
    return vectors


def quats_of_vectors(vectors: np.ndarray) -> np.ndarray:
    """[..., 4] unit quaternions of rotation vectors [..., 3]."""
    angles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    small = angles < 1e-6
    share = np.where(small, 0.5, np.sin(0.5 * angles) / np.where(small, 1.0, angles))
    return np.concatenate([np.cos(0.5 * angles), share * vectors], axis=-1)


def chunk_codes(codes: np.ndarray, segment: int, segments: int) -> np.ndarray:
    """[(segments + 3) nodes, 6] int32: the knots of some segments, the first as it is, the others
    as differences, knot by knot."""
    part = codes[:, segment : segment + segments + FEWEST_KNOTS - 1]
    coded = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
    return np.ascontiguousarray(coded.swapaxes(0, 1).reshape(-1, 6)).astype(np.int32)


def codes_of_chunk(coded: np.ndarray, nodes: int) -> np.ndarray:
    """[nodes, knots, 6] int64: the inverse of :func:`chunk_codes`."""
    return coded.astype(np.int64).reshape(-1, nodes, 6).swapaxes(0, 1).cumsum(axis=1)


def joined_chunks(chunks: list[np.ndarray]) -> np.ndarray:
    """[nodes, knots, 6] codes of chunks that follow each other, each [nodes, its knots, 6].

    Raises :class:`DataError` where they differ in the knots that both have.
    """
    joined = chunks[0]
    shared = FEWEST_KNOTS - 1
    for number, chunk in enumerate(chunks[1:], start=1):
        if not np.array_equal(joined[:, -shared:], chunk[:, :shared]):
            raise DataError(f"chunks {number - 1} and {number} differ in the knots that both have")
        joined = np.concatenate([joined, chunk[:, shared:]], axis=1)
    return joined


def ranks_of(points: np.ndarray, rests: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """[n, 4] int64 ranks of the nodes ``indices`` [n, 4] by their distance from ``points`` [n, 3],
    all on the grid of positions."""
    ranks = np.empty(indices.shape, dtype=np.int64)
    for rows in _rows(len(points), len(rests)):
        keys = _keys(points[rows], rests)
        own = np.take_along_axis(keys, indices[rows].astype(np.int64), axis=1)
        for column in range(NODES_PER_SPLAT):
            ranks[rows, column] = (keys < own[:, column : column + 1]).sum(axis=1)
    return ranks


def nodes_of(points: np.ndarray, rests: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """[n, 4] uint16 nodes of ``ranks`` [n, 4]; the inverse of :func:`ranks_of`."""
    nodes = np.empty(ranks.shape, dtype=np.uint16)
    last = int(ranks.max(initial=0))
    for rows in _rows(len(points), len(rests)):
        keys = _keys(points[rows], rests)
        if last + 1 < len(rests):
            keys = np.partition(keys, last, axis=1)[:, : last + 1]
        keys.sort(axis=1)
        nodes[rows] = np.take_along_axis(keys, ranks[rows], axis=1) % len(rests)
    return nodes


def _rows(points: int, nodes: int) -> list[slice]:
    size = max(1, _BLOCK // max(1, nodes))
    return [slice(start, start + size) for start in range(0, points, size)]


def _keys(points: np.ndarray, rests: np.ndarray) -> np.ndarray:
    """[n, nodes] int64 that are in the order of squared distances, then of the nodes' numbers.

    Distances on an axis are below 2^23, so that keys of 4096 nodes are below 2^60.
    """
    squares = np.zeros((len(points), len(rests)), dtype=np.int64)
    for axis in range(3):
        apart = points[:, axis, None].astype(np.int64) - rests[None, :, axis]
        squares += apart * apart
    squares *= len(rests)
    squares += np.arange(len(rests))
    return squares


def weight_codes(weights: np.ndarray, unit: int) -> np.ndarray:
    """[n, 4] multiples of ``unit`` that sum to 255 and are nearest to ``weights`` [n, 4]."""
    parts = weights.astype(np.float64) / weights.sum(axis=1, keepdims=True, dtype=np.float64)
    parts *= WEIGHT_UNITS // unit
    whole = np.floor(parts).astype(np.int64)
    missing = WEIGHT_UNITS // unit - whole.sum(axis=1)
    order = np.argsort(-(parts - whole), axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    return (whole + (place < missing[:, None])) * unit


def merged(indices: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(indices, weights)`` in which a node that comes twice has all its weight at its first
    place, -1 and 0 at the others."""
    indices, weights = indices.astype(np.int64), weights.astype(np.float64)
    for later in range(1, NODES_PER_SPLAT):
        for first in range(later):
            same = indices[:, first] == indices[:, later]
            weights[same, first] += weights[same, later]
            weights[same, later] = 0.0
            indices[same, later] = -1
    return indices, weights


def filled(ranks: np.ndarray, free: np.ndarray) -> np.ndarray:
    """``ranks`` [n, 4] with the lowest that are left over where ``free`` [n, 4]."""
    ranks = np.where(free, -1, ranks)
    for column in range(NODES_PER_SPLAT):
        for rank in reversed(range(NODES_PER_SPLAT)):
            unused = free[:, column] & ~(np.delete(ranks, column, axis=1) == rank).any(axis=1)
            ranks[unused, column] = rank
    return ranks
