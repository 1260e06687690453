"""Integer points as an octree: occupancy of the nodes breadth first, then what lies in the leaves.

The octree's idea and the breadth-first occupancy bytes are those of G-PCC (ISO/IEC 23090-9); the
context, which siblings of a node are occupied, with the node mirrored so that its parent's centre
is at its corner 7, is ours: on trained splats it was the best of five, and needs only 8 tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from scene4d.bundle.entropy import ChannelModel, TableBuilder, _best_low_bits, _cost
from scene4d.bundle.rans import RansDecoder, RansEncoder
from scene4d.bundle.tables import PRECISION
from scene4d.errors import DataError

MAX_BITS = 21
CONTEXTS = 8
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True, kw_only=True)
class PositionModel:
    """How the points of all stages are coded."""

    bits: int
    """Bits per axis."""
    tables: int
    """First of the 8 occupancy tables."""
    leaf: ChannelModel
    """Points per leaf."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionPlan:
    """One stage's points in coding order, and the symbols that describe them."""

    codes: np.ndarray
    """[n] uint64 Morton codes, sorted."""
    bits: int
    depth: int
    levels: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Occupancy symbols and contexts, level by level."""
    leaf_counts: np.ndarray


def morton(points: np.ndarray) -> np.ndarray:
    """[n] uint64: bit i of x, y, z of ``points`` [n, 3] at bit 3i, 3i + 1, 3i + 2."""
    return _interleave(np.ascontiguousarray(points, dtype=np.uint32))


def plan_positions(codes: np.ndarray, bits: int) -> PositionPlan:
    """The octree of sorted Morton ``codes`` [n >= 1], of the depth that gives the fewest bits."""
    levels: list[tuple[np.ndarray, np.ndarray]] = []
    counts = np.zeros((CONTEXTS, 255), dtype=np.int64)
    # Depth 0: one leaf with all points.
    best_depth, best_cost = 0, 3.0 * bits * len(codes)
    best_leaves = np.array([len(codes)])
    parents, child = np.array([255], dtype=np.uint8), np.zeros(1, dtype=np.uint8)
    for depth in range(1, bits + 1):
        nodes = codes >> np.uint64(3 * (bits - depth))
        first = np.flatnonzero(np.concatenate([[True], nodes[1:] != nodes[:-1]]))
        nodes = nodes[first]
        symbols, contexts, parents, child = _level(nodes, parents, child)
        levels.append((symbols, contexts))
        flat = contexts.astype(np.int64) * 255 + symbols
        counts += np.bincount(flat, minlength=CONTEXTS * 255).reshape(CONTEXTS, 255)
        leaves = np.diff(np.append(first, len(codes)))
        cost = _cost(counts, 1) + 3.0 * (bits - depth) * len(codes)
        cost += _cost(np.bincount(leaves - 1 >> _best_low_bits(leaves - 1))[None], 1)
        if cost < best_cost:
            best_depth, best_cost, best_leaves = depth, cost, leaves
    return PositionPlan(
        codes=codes, bits=bits, depth=best_depth, levels=tuple(levels[:best_depth]),
        leaf_counts=best_leaves,
    )  # fmt: skip


def fit_positions(plans: list[PositionPlan], bits: int, builder: TableBuilder) -> PositionModel:
    """Tables for the points of all stages."""
    counts = np.zeros((CONTEXTS, 255), dtype=np.int64)
    for plan in plans:
        for symbols, contexts in plan.levels:
            flat = contexts.astype(np.int64) * 255 + symbols
            counts += np.bincount(flat, minlength=CONTEXTS * 255).reshape(CONTEXTS, 255)
    counts[counts.sum(axis=1) == 0, 0] = 1
    leaves = np.concatenate([plan.leaf_counts for plan in plans] + [np.ones(1, dtype=np.int64)]) - 1
    low_bits = _best_low_bits(leaves)
    leaf = ChannelModel(
        low=1, low_bits=low_bits, table=builder.add(np.bincount(leaves >> low_bits))
    )
    return PositionModel(bits=bits, tables=builder.add(counts), leaf=leaf)


def encode_positions(encoder: RansEncoder, plan: PositionPlan, model: PositionModel) -> None:
    """Adds the passes of one stage: levels, leaf counts, then low bits of x, y, z."""
    for symbols, contexts in plan.levels:
        encoder.symbols(symbols, model.tables, contexts)
    leaves = plan.leaf_counts - 1
    encoder.symbols(leaves >> model.leaf.low_bits, model.leaf.table)
    if model.leaf.low_bits:
        encoder.bits(leaves & ((1 << model.leaf.low_bits) - 1), model.leaf.low_bits)
    rest = plan.bits - plan.depth
    low = _deinterleave(plan.codes) & np.uint32((1 << rest) - 1)
    for axis in range(3):
        for shift, width in _chunks(rest):
            encoder.bits((low[:, axis] >> shift) & ((1 << width) - 1), width)


def decode_positions(
    decoder: RansDecoder, model: PositionModel, count: int, depth: int
) -> np.ndarray:
    """[count, 3] uint32 points in coding order."""
    nodes = np.zeros(1, dtype=np.uint64)
    contexts = np.full(1, CONTEXTS - 1, dtype=np.uint8)
    for _ in range(depth):
        symbols = decoder.symbols(len(nodes), model.tables, contexts)
        if len(symbols) and symbols.max() > 254:
            raise DataError("an octree node has an occupancy above 255")
        total = int(_POPCOUNT[symbols + 1].sum(dtype=np.int64))
        if total > count:
            raise DataError(f"the octree has more than the {count} nodes that its points can fill")
        nodes, contexts = _expand(nodes, symbols, _REFLECT, total)
    leaves = decoder.symbols(len(nodes), model.leaf.table).astype(np.int64)
    if model.leaf.low_bits:
        leaves = (leaves << model.leaf.low_bits) | decoder.bits(len(nodes), model.leaf.low_bits)
    leaves += 1
    if int(leaves.sum()) != count:
        raise DataError(f"the octree holds {int(leaves.sum())} points, the manifest says {count}")
    rest = model.bits - depth
    points = np.repeat(_deinterleave(nodes) << np.uint32(rest), leaves, axis=0)
    for axis in range(3):
        for shift, width in _chunks(rest):
            points[:, axis] |= decoder.bits(count, width).astype(np.uint32) << np.uint32(shift)
    return points


def _chunks(rest: int) -> list[tuple[int, int]]:
    """(shift, width) of the passes that carry ``rest`` low bits, high ones first."""
    if rest > PRECISION:
        return [(PRECISION, rest - PRECISION), (0, PRECISION)]
    return [(0, rest)] if rest else []


def _level(
    nodes: np.ndarray, parents: np.ndarray, child: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Symbols and contexts of the level whose children are ``nodes``.

    ``parents``: occupancy of the parent of each node of the level, ``child``: the node's place in
    it. Returns these two for the next level as well.
    """
    above = nodes >> np.uint64(3)
    starts = np.flatnonzero(np.concatenate([[True], above[1:] != above[:-1]]))
    place = (nodes & np.uint64(7)).astype(np.uint8)
    occupancy = np.bitwise_or.reduceat(np.left_shift(np.uint8(1), place), starts)
    contexts = sum(((parents >> (child ^ (1 << a))) & 1) << a for a in range(3))
    symbols = _REFLECT[child, occupancy] - np.uint8(1)
    sizes = np.diff(np.append(starts, len(nodes)))
    return symbols, np.asarray(contexts, dtype=np.uint8), np.repeat(occupancy, sizes), place


def _reflections() -> np.ndarray:
    """[8, 256] uint8: bit b of an occupancy goes to bit b xor c; its own inverse."""
    table = np.zeros((8, 256), dtype=np.uint8)
    occupancy = np.arange(256)
    for c in range(8):
        for b in range(8):
            table[c] |= (((occupancy >> b) & 1) << (b ^ c)).astype(np.uint8)
    return table


_REFLECT = _reflections()
_POPCOUNT = np.array([bin(i).count("1") for i in range(256)], dtype=np.uint8)


@njit(**_OPTIONS)
@no_type_check
def _expand(nodes, symbols, reflect, total):  # pragma: no cover
    """Children of all nodes in order, and their contexts."""
    children = np.empty(total, dtype=np.uint64)
    contexts = np.empty(total, dtype=np.uint8)
    at = 0
    for i in range(len(nodes)):
        occupancy = reflect[nodes[i] & np.uint64(7), symbols[i] + 1]
        for c in range(8):
            if (occupancy >> c) & 1:
                children[at] = (nodes[i] << np.uint64(3)) | np.uint64(c)
                contexts[at] = (
                    ((occupancy >> (c ^ 1)) & 1)
                    | (((occupancy >> (c ^ 2)) & 1) << 1)
                    | (((occupancy >> (c ^ 4)) & 1) << 2)
                )
                at += 1
    return children, contexts


@njit(**_OPTIONS)
@no_type_check
def _interleave(points):  # pragma: no cover
    result = np.empty(len(points), dtype=np.uint64)
    for i in range(len(points)):
        code = np.uint64(0)
        for axis in range(3):
            v = np.uint64(points[i, axis]) & np.uint64(0x1FFFFF)
            v = (v | v << np.uint64(32)) & np.uint64(0x1F00000000FFFF)
            v = (v | v << np.uint64(16)) & np.uint64(0x1F0000FF0000FF)
            v = (v | v << np.uint64(8)) & np.uint64(0x100F00F00F00F00F)
            v = (v | v << np.uint64(4)) & np.uint64(0x10C30C30C30C30C3)
            v = (v | v << np.uint64(2)) & np.uint64(0x1249249249249249)
            code |= v << np.uint64(axis)
        result[i] = code
    return result


@njit(**_OPTIONS)
@no_type_check
def _deinterleave(codes):  # pragma: no cover
    result = np.empty((len(codes), 3), dtype=np.uint32)
    for i in range(len(codes)):
        for axis in range(3):
            v = (codes[i] >> np.uint64(axis)) & np.uint64(0x1249249249249249)
            v = (v | v >> np.uint64(2)) & np.uint64(0x10C30C30C30C30C3)
            v = (v | v >> np.uint64(4)) & np.uint64(0x100F00F00F00F00F)
            v = (v | v >> np.uint64(8)) & np.uint64(0x1F0000FF0000FF)
            v = (v | v >> np.uint64(16)) & np.uint64(0x1F00000000FFFF)
            v = (v | v >> np.uint64(32)) & np.uint64(0x1FFFFF)
            result[i, axis] = np.uint32(v)
    return result
