"""Bundles of kind ``splats4d``: Gaussians of which some move, their motion in chunks of time.

``mobile_export/SPEC.md``, section 9. What stands still and what moves has the arrays of kind
``splats``; the moving ones follow nodes, whose splines are members of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, dequantise
from scene4d.bundle.coding import Coded, Decoded, decode_scene, encode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.quantise import rounded
from scene4d.bundle.splats import (
    LaidOut,
    SplatQuantisation,
    check_count,
    coarser_steps,
    error_of,
    laid_out,
    splats_from,
    uniform_array,
)
from scene4d.errors import DataError, UsageError
from scene4d.formats.moving_splats import (
    FEWEST_KNOTS,
    NODES_PER_SPLAT,
    MovingSplats,
)
from scene4d.formats.packing import taken
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.deformable.bundle_manifest import (
    KIND,
    MAX_NODES,
    MAX_STAGES,
    check_arrays,
    motion_rate,
)
from scene4d.methods.deformable.bundle_motion import (
    WEIGHT_UNITS,
    Knots,
    chunk_codes,
    codes_of_chunk,
    filled,
    joined_chunks,
    merged,
    nodes_of,
    ranks_of,
)
from scene4d.methods.deformable.bundle_seen import (
    coarse_weights,
    coarse_windows,
    held,
    opacities,
    shown_knots,
)

REST_LIMIT = 1 << 22
"""Places of nodes on the grid of positions lie within this."""
OUTSIDE = 10.0
"""An edge of opacity so many widths away changes it by less than 1/10000."""
_ROUNDS = 5
_STILL = -1
"""The codes of what stands still, which no reader looks at: the same ones cost nothing."""


@dataclass(frozen=True, kw_only=True)
class MotionQuantisation:
    """Steps of the motion, and how its time is cut."""

    splats: SplatQuantisation = field(default_factory=SplatQuantisation)
    shift_step: float = 1.25
    """Of the nodes' shifts, in steps of the positions. A Gaussian's place is a mean of some twelve
    codes (3 knots of 4 nodes), so that their errors are about half of what its own step costs."""
    rotation_step: float = 0.01
    """Radians, at most; less where a node's Gaussians lie so far from it that it is more than a
    step of the shifts there."""
    weight_error: float = 1.25
    """How far from its place coarser weights may take a Gaussian, in steps of the shifts over its
    opacity: half as opaque, it may be off twice as far."""
    window_step: float = 1 / 8
    """Of the edges of opacity and their widths, in intervals between knots."""
    window_error: float = 1 / 32
    """How far off alpha may be where these are multiples of 2, 4 or 8 steps; two of its levels."""
    chunk_s: float = 2.0
    """About how long a chunk lasts, seconds."""
    most_per_second: float = 60_000.0
    """Bytes of the chunks; where they are more, the steps of the motion get coarser."""

    def coarser(self, factor: float) -> MotionQuantisation:
        """All steps and errors but those of canonical positions ``factor`` times larger."""
        return replace(
            self,
            splats=coarser_steps(self.splats, factor),
            shift_step=self.shift_step * factor,
            window_error=self.window_error * factor,
        )


def encode_splats4d(moving: MovingSplats, settings: MotionQuantisation | None = None) -> Coded:
    """The members and the manifest's part of ``moving``."""
    settings = settings or MotionQuantisation()
    coded = _encoded(moving, settings)
    for _ in range(_ROUNDS):
        size, rate = motion_rate(coded.manifest)
        if rate <= settings.most_per_second:
            break
        codes = 6 * sum(
            entry["items"]
            for entry in coded.manifest["arrays"]
            if entry["name"].startswith("motion_")
        )
        # a bit less of each code is a step twice as large
        less = 8 * size / codes * (1 - settings.most_per_second / rate)
        settings = replace(settings, shift_step=settings.shift_step * 2 ** (less + 0.2))
        coded = _encoded(moving, settings)
    return coded


def _encoded(moving: MovingSplats, settings: MotionQuantisation) -> Coded:
    """As :func:`encode_splats4d`, however many bytes a second that takes."""
    laid = laid_out(moving.cloud, settings.splats)
    rows = np.flatnonzero(laid.order < moving.num_moving)
    arrays = [*laid.arrays]
    place = next(i for i, array in enumerate(arrays) if array.stage is None)
    moves = np.zeros((len(laid.order), 1), dtype=np.int32)
    moves[rows] = 1
    arrays.insert(place, CodedArray(name="moving", codes=moves))
    entry: dict[str, Any] = {
        "start": float(moving.start_s), "duration": float(moving.duration_s),
        "interval": float(moving.knot_interval_s), "nodes": 0, "rotation_step": 1.0,
        "shift_step": 1.0, "windows": False, "chunks": [],
    }  # fmt: skip
    if len(rows):
        more, told = _motion(moving, settings, laid, rows)
        arrays += more
        entry |= told
    coded = encode_scene(laid.points, arrays)
    _name_chunks(coded, len(entry["chunks"]))
    return replace(coded, manifest={**laid.manifest, KIND: entry, **coded.manifest})


def _motion(
    moving: MovingSplats, settings: MotionQuantisation, laid: LaidOut, rows: np.ndarray
) -> tuple[list[CodedArray], dict[str, Any]]:
    """The arrays of what moves, and what the manifest's entry says of them; ``rows``: where the
    moving Gaussians are in coding order."""
    points = laid.places[rows].astype(np.int64)
    own = laid.order[rows]
    indices, weights = merged(moving.node_indices[own], moving.node_weights[own])
    used, poses = _used_nodes(moving, indices)
    indices = np.where(indices < 0, -1, np.searchsorted(used, indices))
    rests = _rests(points, indices, weights, len(poses))
    steps = laid.points.step
    knots = Knots(
        origin=np.array(laid.points.origin),
        step=steps,
        grid_rests=rests,
        rotation_step=rounded(_rotation_step(settings, points, rests, indices, weights)),
        shift_step=rounded(settings.shift_step * steps),
    )
    knots = knots.within_reach(poses)
    tolerance = settings.weight_error * knots.shift_step
    parts = coarse_weights(moving, own, poses, indices, weights, tolerance)
    followed = _followed(parts, points, rests, indices)
    arrays = [
        CodedArray(name="node_rest", codes=rests.astype(np.int32), stage=0, stream="nodes"),
        *(_of_points(name, codes, rows, len(laid.order)) for name, codes in followed.items()),
    ]
    if moving.opacity_windows is not None:
        arrays.append(_window_array(moving, settings, laid.order, rows))
    codes = knots.codes(poses)
    error = error_of(knots.places(knots.poses(codes)) - knots.places(poses))
    codes = held(codes, shown_knots(moving, own, indices, parts, len(poses)))
    chunks = []
    first = int(laid.points.stages.max()) + 1
    for number, (segment, segments) in enumerate(_cut(moving, settings, first)):
        chunks.append({"stage": first + number, "segment": segment, "segments": segments})
        arrays.append(
            CodedArray(
                name=f"motion_{number}", codes=chunk_codes(codes, segment, segments),
                stage=first + number, stream="motion", error=error,
            )
        )  # fmt: skip
    entry = {
        "nodes": len(poses), "rotation_step": knots.rotation_step,
        "shift_step": knots.shift_step, "windows": moving.opacity_windows is not None,
        "chunks": chunks,
        "duration": min(
            float(moving.duration_s),
            float(moving.knot_interval_s) * sum(chunk["segments"] for chunk in chunks),
        ),
    }  # fmt: skip
    return arrays, entry


def _used_nodes(moving: MovingSplats, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the nodes that some Gaussian follows, and their poses [nodes, knots, 7] float64;
    of fewer than four the last one comes again."""
    used = np.unique(indices[indices >= 0])
    if len(used) > MAX_NODES:
        raise UsageError(
            f"a bundle has at most {MAX_NODES} nodes, this scene's Gaussians follow {len(used)}",
            fix="train it with fewer (--num-nodes)",
        )
    poses = moving.knots[used].astype(np.float64)
    poses[..., :4] /= np.linalg.norm(poses[..., :4], axis=-1, keepdims=True)
    while len(poses) < NODES_PER_SPLAT:
        poses = np.concatenate([poses, poses[-1:]])
    return used, poses


def _rests(points: np.ndarray, indices: np.ndarray, weights: np.ndarray, nodes: int) -> np.ndarray:
    """[nodes, 3] int64 places on the grid: the means of the Gaussians that follow each node."""
    rests = np.zeros((nodes, 3), dtype=np.int64)
    flat, share = indices.ravel(), weights.ravel() + 1e-9
    share = np.where(flat < 0, 0.0, share)
    flat = np.maximum(flat, 0)
    total = np.bincount(flat, weights=share, minlength=nodes)
    for axis in range(3):
        each = np.repeat(points[:, axis], NODES_PER_SPLAT) * share
        sums = np.bincount(flat, weights=each, minlength=nodes)
        rests[:, axis] = np.rint(sums / np.where(total > 0, total, 1.0))
    return np.clip(rests, -REST_LIMIT, REST_LIMIT)


def _rotation_step(
    settings: MotionQuantisation,
    points: np.ndarray,
    rests: np.ndarray,
    indices: np.ndarray,
    weights: np.ndarray,
) -> float:
    """Radians by which what follows a node moves no more than a step of the shifts, usually."""
    nodes = np.maximum(indices, 0)
    apart = np.zeros(indices.shape)
    for axis in range(3):
        apart += (points[:, axis, None] - rests[nodes, axis]).astype(np.float64) ** 2
    reach = math.sqrt(float((weights * apart).sum()) / max(1e-9, float(weights.sum())))
    return min(settings.rotation_step * settings.shift_step, settings.shift_step / max(reach, 1.0))


def _followed(
    codes: np.ndarray, points: np.ndarray, rests: np.ndarray, indices: np.ndarray
) -> dict[str, np.ndarray]:
    """The arrays ``nodes`` and ``weights`` of the moving Gaussians, the nearest node first."""
    ranks = ranks_of(points, rests, np.maximum(indices, 0))
    ranks = filled(ranks, (codes == 0) | (indices < 0))
    order = np.argsort(ranks, axis=1, kind="stable")
    codes = np.take_along_axis(codes, order, axis=1)
    return {"nodes": np.take_along_axis(ranks, order, axis=1), "weights": codes[:, :3]}


def _of_points(name: str, codes: np.ndarray, rows: np.ndarray, count: int) -> CodedArray:
    """An array of all points from the ``codes`` of those that move."""
    spread = np.full((count, codes.shape[1]), _STILL, dtype=np.int32)
    spread[rows] = codes
    return CodedArray(name=name, codes=spread, hints=("moving.0",))


def _window_array(
    moving: MovingSplats, settings: MotionQuantisation, order: np.ndarray, rows: np.ndarray
) -> CodedArray:
    """The array ``window`` of the Gaussians ``order``, which move at ``rows``."""
    assert moving.opacity_windows is not None
    own = order[rows]
    step = rounded(settings.window_step * moving.knot_interval_s)
    exact, outside = _seen_windows(moving, moving.opacity_windows[own].astype(np.float64), step)
    windows = coarse_windows(exact, opacities(moving, own), step, settings.window_error)
    windows = np.where(np.tile(outside, 2), exact, windows)
    array = uniform_array("window", windows, step)
    spread = np.empty((len(order), 4), dtype=np.int32)
    spread[:] = array.codes.min(axis=0) - 1  # what stands still: no code that another one has
    spread[rows] = array.codes
    return replace(array, codes=spread, hints=("moving.0",))


def _seen_windows(
    moving: MovingSplats, windows: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """[n, 4] with edges of which nothing is seen from the first moment to the last all the same,
    just outside, and whether each [n, 2] is one."""
    windows[:, 2:] = np.clip(windows[:, 2:], step, 1e6 * step)
    ends = (moving.start_s, moving.start_s + moving.duration_s)
    early = windows[:, :2] < ends[0] - OUTSIDE * windows[:, 2:]
    late = windows[:, :2] > ends[1] + OUTSIDE * windows[:, 2:]
    windows[:, 2:][early | late] = step
    windows[:, :2][early] = ends[0] - OUTSIDE * step
    windows[:, :2][late] = ends[1] + OUTSIDE * step
    return windows, early | late


def _cut(moving: MovingSplats, settings: MotionQuantisation, stages: int) -> list[tuple[int, int]]:
    """``(segment, segments)`` of each chunk, of lengths that hardly differ."""
    knots = moving.knots.shape[1]
    needed = max(1, math.ceil(moving.duration_s / moving.knot_interval_s * (1 - 1e-9)))
    segments = min(needed, knots - FEWEST_KNOTS + 1)
    long = max(1, round(settings.chunk_s / moving.knot_interval_s))
    number = min(MAX_STAGES - stages, max(1, math.ceil(segments / long)))
    edges = [segments * i // number for i in range(number + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _name_chunks(coded: Coded, chunks: int) -> None:
    """Members of chunks are named after their time and not after their stage."""
    for number, stage in enumerate(coded.manifest["stages"][-chunks:] if chunks else ()):
        data = coded.members.pop(stage["member"])
        stage["member"] = f"motion{number}.bin"
        coded.members[stage["member"]] = data


@dataclass(frozen=True, kw_only=True, eq=False)
class InOrder:
    """What a bundle holds, and the order in which it has that."""

    moving: MovingSplats
    order: np.ndarray
    """[n] place in coding order of each Gaussian, of which the moving ones come first."""

    def at(self, time_s: float) -> SplatCloud:
        """All Gaussians as they are at ``time_s``, in coding order."""
        back = np.empty_like(self.order)
        back[self.order] = np.arange(len(back))
        return taken(self.moving.at(time_s), back)


def decode_moving(bundle: Bundle, *, stages: int | None = None) -> InOrder:
    """What a bundle holds; of its first ``stages``.

    Without any chunk of time nothing moves; with some, all stands still behind them. Raises
    :class:`DataError` where it is not sound.
    """
    manifest = bundle.manifest
    if manifest["kind"] != KIND:
        raise DataError(f"is of kind {manifest['kind']!r}, not {KIND}", where=bundle.path)
    check_count(bundle)
    try:
        check_arrays(manifest)
        return _moving_from(bundle, decode_scene(bundle, stages=stages))
    except DataError as error:
        raise DataError(error.what, where=bundle.path, fix=error.fix) from error


def _moving_from(bundle: Bundle, decoded: Decoded) -> InOrder:
    manifest, entry = bundle.manifest, bundle.manifest[KIND]
    moves = decoded.arrays["moving"].codes[:, 0]
    if not np.isin(moves, (0, 1)).all():
        raise DataError("'moving' has values other than 0 and 1")
    if moves.any() and not entry["nodes"]:
        raise DataError("a Gaussian moves, and there are no nodes that it could follow")
    rows = np.flatnonzero(moves)
    order = np.concatenate([rows, np.flatnonzero(moves == 0)])
    nodes, weights = _read_followed(decoded, rows) if entry["nodes"] else _nothing_followed()
    knots, duration = _read_knots(bundle, decoded)
    cloud = taken(splats_from(decoded, manifest["sh_degree"]), order)
    moving = MovingSplats(
        cloud=replace(cloud, antialiased=manifest["antialiased"]),
        num_moving=len(rows),
        node_indices=nodes,
        node_weights=weights,
        knots=knots,
        start_s=float(entry["start"]),
        knot_interval_s=float(entry["interval"]),
        duration_s=duration,
        opacity_windows=_read_windows(decoded, rows)
        if entry["windows"] and entry["nodes"]
        else None,
    )
    return InOrder(moving=moving, order=order)


def _nothing_followed() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 4), dtype=np.uint16), np.zeros((0, 4), dtype=np.float32)


def _read_followed(decoded: Decoded, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [n, 4] of the moving Gaussians, which are at ``rows`` of coding order."""
    rests = decoded.arrays["node_rest"].codes.astype(np.int64)
    ranks = decoded.arrays["nodes"].codes[rows].astype(np.int64)
    parts = decoded.arrays["weights"].codes[rows].astype(np.int64)
    assert decoded.grid is not None
    if np.abs(rests).max(initial=0) > REST_LIMIT:
        raise DataError("a node lies beyond the grid of its place at rest")
    if len(rows) and not 0 <= ranks.min() <= ranks.max() < len(rests):
        raise DataError(f"a Gaussian follows a node that is none of the {len(rests)}")
    ordered = np.sort(ranks, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise DataError("the four nodes of a Gaussian are not different")
    last = WEIGHT_UNITS - parts.sum(axis=1)
    if (parts < 0).any() or (last < 0).any():
        raise DataError(f"weights of nodes are negative or sum to more than {WEIGHT_UNITS}")
    weights = np.concatenate([parts, last[:, None]], axis=1) / WEIGHT_UNITS
    return nodes_of(decoded.grid[rows], rests, ranks), weights.astype(np.float32)


def _read_windows(decoded: Decoded, rows: np.ndarray) -> np.ndarray:
    """[n, 4] float32 seconds of the moving Gaussians."""
    windows = dequantise("window", decoded.arrays)[rows]
    if not (np.isfinite(windows).all() and (windows[:, 2:] > 0).all()):
        raise DataError("a window of opacity has edges without width, or is not finite")
    return windows


def _read_knots(bundle: Bundle, decoded: Decoded) -> tuple[np.ndarray, float]:
    """[nodes, knots, 7] float32 poses, and how long they last, seconds."""
    entry = bundle.manifest[KIND]
    nodes, duration, interval = entry["nodes"], entry["duration"], entry["interval"]
    chunks = [n for n in range(len(entry["chunks"])) if f"motion_{n}" in decoded.arrays]
    if not chunks:
        knots = FEWEST_KNOTS if nodes else math.ceil(duration / interval) + FEWEST_KNOTS
        still = np.zeros((nodes, knots, 7), dtype=np.float32)
        still[..., 0] = 1.0
        return still, 0.0 if nodes else float(duration)
    coded = [codes_of_chunk(decoded.arrays[f"motion_{n}"].codes, nodes) for n in chunks]
    knots = poses_of(bundle, decoded, joined_chunks(coded)).astype(np.float32)
    return knots, float(min(duration, interval * (knots.shape[1] - FEWEST_KNOTS + 1)))


def poses_of(bundle: Bundle, decoded: Decoded, codes: np.ndarray) -> np.ndarray:
    """[nodes, knots, 7] float64 poses of knots' codes [nodes, knots, 6]."""
    entry, grid = bundle.manifest[KIND], bundle.manifest["positions"]
    knots = Knots(
        origin=np.array(grid["origin"]), step=grid["step"],
        grid_rests=decoded.arrays["node_rest"].codes,
        rotation_step=entry["rotation_step"], shift_step=entry["shift_step"],
    )  # fmt: skip
    return knots.poses(codes)


def decode_chunk(bundle: Bundle, number: int) -> np.ndarray:
    """[nodes, segments + 3, 7] float32 poses of one chunk of time, without the others.

    Raises :class:`DataError` where it is not sound.
    """
    check_arrays(bundle.manifest)
    stage = bundle.manifest[KIND]["chunks"][number]["stage"]
    decoded = decode_scene(bundle, stages=[0, stage])
    codes = codes_of_chunk(decoded.arrays[f"motion_{number}"].codes, bundle.manifest[KIND]["nodes"])
    return poses_of(bundle, decoded, codes).astype(np.float32)
