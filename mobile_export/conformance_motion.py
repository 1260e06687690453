"""Conformance bundles of kind splats4d: scenes that move, and what must be refused of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conformance_bombs import padded, same_splats, zeros
from conformance_lies import Lies, array, on_array, rename_array, setter
from conformance_scenes import cloud, numbers, scene_of

from scene4d.bundle.coding import PointSet, decode_scene, encode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.limits import DISTANCES
from scene4d.bundle.splats import SplatQuantisation, bundle_writer
from scene4d.formats.moving_splats import MovingSplats
from scene4d.methods.deformable.bundle_content import MotionQuantisation

KIND = "splats4d"
TIMES = (-1.0, 0.9, 1.6, 2.75, 9.0)
"""Seconds: before the motion, within it, and behind."""


def moving_scenes() -> dict[str, tuple[MovingSplats, MotionQuantisation]]:
    """A scene in which nothing moves, three that move, and one of a single moment."""
    plain = MotionQuantisation(splats=SplatQuantisation(position_bits=12), weight_error=0.2)
    staged = replace(plain.splats, stages=(0.4, 1.0), sh_transform=True)
    return {
        "motion_none": (moving(cloud(20, 0, 41), 0), plain),
        "motion_windows": (
            moving(cloud(44, 0, 42), 20, nodes=6, segments=11, windows=True),
            replace(plain, chunk_s=1.0),
        ),
        "motion_two_stages": (
            moving(cloud(40, 2, 43), 18, nodes=5, segments=4),
            replace(plain, splats=staged, weight_error=0.0),
        ),
        "motion_two_nodes": (moving(cloud(30, 0, 44), 30, nodes=2, segments=6), plain),
        "motion_moment": (
            replace(moving(cloud(25, 1, 45), 9, nodes=4, segments=1), duration_s=0.0), plain
        ),
    }  # fmt: skip


def moving(
    splats: Any, count: int, *, nodes: int = 0, segments: int = 3, windows: bool = False
) -> MovingSplats:
    """Splats of which the first ``count`` follow ``nodes`` that turn by more than half a turn; the
    second node turns the other way round."""
    knots = segments + 3
    u = numbers(max(1, nodes), 8, 50)[:nodes]
    along = (np.arange(knots) - 1.0)[None, :, None]
    axes = (u[:, None, 0:3] - 0.5) * along * np.array([0.9, -0.7])[np.arange(nodes) % 2, None, None]
    quats = np.concatenate([1.5 - 0.25 * along + 0 * axes[..., :1], axes], axis=2)
    quats /= np.sqrt((quats**2).sum(axis=2, keepdims=True))
    shifts = (u[:, None, 3:6] - 0.5) * along * 0.4 + 0.125 * u[:, None, 6:7] * along**2 % 0.5
    v = numbers(max(1, count), 12, 51)[:count]
    first = np.floor(v[:, :1] * max(1, nodes))
    weights = v[:, 4:8] ** 3 + 1e-3
    weights[1::5, 0] = 2.0
    edges = np.concatenate([2 * v[:, 8:9], 1 + 2 * v[:, 9:10], 0.05 + 0.2 * v[:, 10:12]], axis=1)
    edges[::3, 0], edges[::3, 1] = -np.inf, np.inf
    f = np.float32
    return MovingSplats(
        cloud=splats,
        num_moving=count,
        node_indices=((first + np.arange(4)) % max(1, nodes)).astype(np.uint16),
        node_weights=(weights / weights.sum(axis=1, keepdims=True)).astype(f),
        knots=np.concatenate([quats, shifts], axis=2).astype(f),
        start_s=0.5,
        knot_interval_s=0.25,
        duration_s=0.25 * segments,
        opacity_windows=edges.astype(f) if windows else None,
    )


def on_chunk(number: int, **changes: int) -> Callable[[dict[str, Any]], None]:
    """Adds to entries of one chunk."""

    def alter(manifest: dict[str, Any]) -> None:
        chunk = manifest[KIND]["chunks"][number]
        for name, change in changes.items():
            chunk[name] += change

    return alter


def broken_motion() -> Lies:
    """Manifests of kind splats4d that lie; of motion_windows, which has three chunks."""
    return {**_broken_entry(), **_broken_chunks(), **_broken_arrays()}


def _broken_entry() -> Lies:
    """Lies in the entry and the head."""

    def nobody(manifest: dict[str, Any]) -> None:
        manifest[KIND].update(nodes=0, chunks=[])

    return {
        "motion_no_entry": (lambda m: m.pop(KIND) and None, "the entry splats4d is missing",
                            "needs the entries 'splats4d'"),
        "motion_no_interval": (lambda m: m[KIND].pop("interval") and None, "no interval",
                               "splats4d.interval is missing"),
        "motion_no_positions": (lambda m: m.pop("positions") and None, "no positions",
                                "needs the entries"),
        "motion_three_nodes": (setter(KIND, "nodes", 3), "three nodes", "must be 0 or 4"),
        "motion_5000_nodes": (setter(KIND, "nodes", 5000), "5,000 nodes", "nodes is out of range"),
        "motion_one_node_more": (setter(KIND, "nodes", 7), "a node more than the arrays have",
                                 "'node_rest' has 3 components and 6 items"),
        "motion_no_nodes": (nobody, "chunks, arrays and moving splats without nodes",
                            "is of no chunk"),
        "motion_zero_interval": (setter(KIND, "interval", 0), "an interval of 0",
                                 "interval is out of range"),
        "motion_negative_duration": (setter(KIND, "duration", -0.5), "a duration below 0",
                                     "duration is out of range"),
        "motion_zero_step": (setter(KIND, "shift_step", 0), "a step of 0", "must be above 0"),
        "motion_too_long": (setter(KIND, "duration", 2.76), "a motion longer than its chunks",
                            "chunks last 2.75 s"),
        "motion_count": (lambda m: m.update(count=m["count"] + 1), "a Gaussian that is not there",
                         "splats, its stages have"),
    }  # fmt: skip


def _broken_chunks() -> Lies:
    """Chunks that overlap, leave gaps, or are of other stages."""

    def exchanged(manifest: dict[str, Any]) -> None:
        manifest[KIND]["chunks"].reverse()

    def last_forgotten(manifest: dict[str, Any]) -> None:
        manifest[KIND]["chunks"].pop()

    def points_in_chunk(manifest: dict[str, Any]) -> None:
        manifest["stages"][0]["points"] -= 1
        manifest["stages"][-1]["points"] += 1

    def in_front(manifest: dict[str, Any]) -> None:
        manifest["stages"].insert(0, manifest["stages"].pop())

    def longer(manifest: dict[str, Any]) -> None:
        on_chunk(0, segments=1)(manifest)
        on_chunk(1, segment=1, segments=-1)(manifest)

    return {
        "motion_chunk_forgotten": (last_forgotten, "a chunk that is not listed", "must be stage"),
        "motion_overlap": (on_chunk(1, segment=-1), "a chunk that begins before the last one ends",
                           "must begin with segment 3"),
        "motion_gap": (on_chunk(2, segment=1), "a segment of no chunk", "must begin with segment"),
        "motion_back_in_time": (exchanged, "chunks in the wrong order", "must be stage"),
        "motion_late_start": (on_chunk(0, segment=1), "a first chunk that begins late",
                              "must begin with segment 0"),
        "motion_chunk_longer": (longer,
                                "another number of segments than the array has knots",
                                "'motion_0' has 6 components and 36 items"),
        "motion_no_segments": (setter(KIND, "chunks", 1, "segments", 0), "a chunk of no time",
                               "segments is out of range"),
        "motion_chunk_points": (points_in_chunk, "a chunk with a point", "which has points"),
        "motion_chunk_first": (in_front, "a chunk in front of the points", "which has points"),
        "motion_stage_0": (setter(KIND, "chunks", 0, "stage", 0), "a chunk in the first stage",
                           "stage is out of range"),
    }  # fmt: skip


def _broken_arrays() -> Lies:
    """Arrays that are not there, are of other sizes, or hold what is beyond all measure."""
    plain = {"type": "uniform", "step": [1.0] * 6, "offset": [0.0] * 6}

    def of_points(manifest: dict[str, Any]) -> None:
        for name in ("items", "stage"):
            del array(manifest, "motion_0")[name]

    def far(manifest: dict[str, Any]) -> None:
        array(manifest, "motion_0")["low"][5] = -(1 << 30)  # the last: no other's context

    def windowless(manifest: dict[str, Any]) -> None:
        manifest["arrays"].remove(array(manifest, "window"))

    return {
        "motion_other_stage": (on_array("motion_1", stage=3), "a chunk of another stage",
                               "in stage 3; it should have"),
        "motion_of_points": (of_points, "a chunk with an item for each point", "for each point"),
        "motion_array_missing": (rename_array("node_rest", "node_nest"), "no places of nodes",
                                 "'node_rest' is missing"),
        "motion_array_more": (rename_array("node_rest", "motion_9"), "a chunk that is not listed",
                              "is missing|is of no chunk"),
        "motion_quantiser": (on_array("motion_0", quantiser=plain), "a quantiser of a chunk",
                             "another quantiser"),
        "motion_no_window": (windowless, "no array window", "'window' is missing"),
        "motion_huge_rest": (on_array("node_rest", low=[1 << 23] * 3), "a node far beyond the grid",
                             "beyond the grid"),
        "motion_wild_turn": (setter(KIND, "rotation_step", 999.0), "turns of 10,000 radians",
                             "beyond all measure"),
        "motion_far_shift": (far, "sums of codes below -2^30",
                             "beyond all measure|differ in the knots"),
    }  # fmt: skip


def broken_codes(path: Path) -> dict[str, tuple[bytes, str, str]]:
    """Bundles of sound manifests with codes that cannot be."""
    moved = decode_scene(open_bundle(path)).arrays["moving"].codes[:, 0] == 1
    first = int(np.argmax(moved))
    lies: dict[str, tuple[str, int, list[int], str, str]] = {
        "motion_moving_2": ("moving", first, [2], "a Gaussian that moves twice", "other than 0"),
        "motion_moving_below": ("moving", first, [-1], "a Gaussian that moves -1",
                                "other than 0"),
        "motion_rank_beyond": ("nodes", first, [0, 1, 2, 6], "a node that there is not",
                               "none of the 6"),
        "motion_rank_below": ("nodes", first, [0, 1, -1, 2], "a node of rank -1", "none of the 6"),
        "motion_same_node": ("nodes", first, [0, 3, 1, 3], "a node twice", "not different"),
        "motion_heavy": ("weights", first, [100, 100, 56], "weights that sum to 256",
                         "sum to more than 255"),
        "motion_light": ("weights", first, [100, -1, 0], "a weight below 0", "are negative"),
        "motion_sharp_edge": ("window", first, [0, 9, 0, 1], "an edge of width 0",
                              "edges without width"),
        "motion_negative_edge": ("window", first, [0, 9, 3, -4], "an edge of width below 0",
                                 "edges without width"),
        "motion_torn": ("motion_1", 2, [0, 1, 0, 0, 0, 0], "knots that differ in two chunks",
                        "differ in the knots"),
    }  # fmt: skip
    return {
        name: (with_codes(path, array, item, codes), reason, error)
        for name, (array, item, codes, reason, error) in lies.items()
    }


def with_codes(path: Path, name: str, item: int, codes: list[int]) -> bytes:
    """The bundle with other codes of one item of an array; of motion, with these added."""
    bundle = open_bundle(path)
    decoded = decode_scene(bundle)
    arrays = dict(decoded.arrays)
    changed = arrays[name].codes.copy()
    changed[item] = np.array(codes) + (changed[item] if name.startswith("motion") else 0)
    arrays[name] = replace(arrays[name], codes=changed)
    return written_again(path, arrays)


def written_again(path: Path, arrays: dict[str, Any]) -> bytes:
    """The bundle with other arrays; its points are of one stage."""
    bundle = open_bundle(path)
    grid, entry = decode_scene(bundle).grid, bundle.manifest["positions"]
    assert grid is not None
    points = PointSet(
        points=grid, bits=entry["bits"], origin=tuple(entry["origin"]), step=entry["step"],
        stages=np.zeros(len(grid), dtype=np.int64),
    )  # fmt: skip
    coded = encode_scene(points, list(arrays.values()))
    kept = {name: bundle.manifest[name] for name in ("count", "sh_degree", KIND)}
    coded = replace(coded, manifest={**kept, **coded.manifest})
    return bundle_writer(KIND, coded, scene_of(bundle)).to_bytes()


def motion_bombs() -> dict[str, tuple[bytes, str, str]]:
    """Small bundles that would take much time or memory."""
    many = DISTANCES.free // 4096 + 512
    return {
        "bomb_distances": (
            padded(KIND, *still_nodes(many, 4096)),
            f"{many * 4096 // 10**6} million distances of splats to nodes", "distances of points",
        ),
        "bomb_knots": (
            padded(KIND, *still_nodes(1, 64, segments=20_000)),
            "7.7 million codes of knots that are all the same", "codes in",
        ),
    }  # fmt: skip


def still_nodes(count: int, nodes: int, *, segments: int = 1) -> tuple[Any, dict[str, Any]]:
    """Splats that are all one and all follow nodes that stand still."""
    arrays = [
        zeros("moving", count, 1, None), zeros("nodes", count, 4, None),
        zeros("weights", count, 3, None), zeros("node_rest", nodes, 3),
        zeros("motion_0", nodes * (segments + 3), 6, 1),
    ]  # fmt: skip
    arrays[0].codes[:] = 1
    arrays[1].codes[:] = range(4)
    own = [replace(each, quantiser=None) for each in arrays]
    coded, entries = same_splats(count, *own)
    entry = {
        "start": 0, "duration": 1, "interval": 1, "nodes": nodes, "rotation_step": 1,
        "shift_step": 1, "windows": False,
        "chunks": [{"stage": 1, "segment": 0, "segments": segments}],
    }  # fmt: skip
    return coded, {**entries, KIND: entry}
