"""Points and arrays to the members of a bundle and back, in progressive stages.

This is what every kind shares: a kind's module makes :class:`CodedArray` and a point set, and gets
members and the manifest's ``positions``, ``arrays``, ``tables`` and ``stages``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, array_entry, array_from_entry, models_of
from scene4d.bundle.columns import THREADS
from scene4d.bundle.container import Bundle
from scene4d.bundle.entropy import (
    ChannelModel,
    Context,
    RunningSum,
    TableBuilder,
    decode_channels,
    encode_channels,
    fit_channel,
)
from scene4d.bundle.limits import check_limits
from scene4d.bundle.positions import (
    CONTEXTS,
    PositionModel,
    PositionPlan,
    decode_positions,
    encode_positions,
    fit_positions,
    morton,
    plan_positions,
)
from scene4d.bundle.rans import RansDecoder, RansEncoder
from scene4d.bundle.tables import MAX_TABLES, Tables
from scene4d.errors import DataError

TABLES_MEMBER = "tables.bin"
MAX_ROWS = 256
"""Tables of one channel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PointSet:
    """Integer points in a cube, and the stage of each."""

    points: np.ndarray
    """[n, 3] integers in 0 .. 2^bits - 1."""
    bits: int
    origin: tuple[float, float, float]
    step: float
    """position = origin + step * point, in float64, rounded to float32."""
    stages: np.ndarray
    """[n] stage of each point, 0, 1, ... without gaps."""
    error: Mapping[str, float] | None = None

    def order(self) -> np.ndarray:
        """The permutation into coding order: by stage, then Morton code."""
        return np.lexsort((morton(self.points), self.stages))


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """Members in file order and the manifest's part that describes them."""

    members: dict[str, bytes]
    manifest: dict[str, Any]
    bits: dict[str, float]
    """About how many bits each array (and ``positions``, ``tables``) takes."""

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(map(len, self.members.values()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What the members hold: points and codes, in coding order."""

    points: np.ndarray | None
    """[n, 3] float32 positions."""
    grid: np.ndarray | None
    """[n, 3] uint32: the positions in steps of their grid."""
    arrays: dict[str, CodedArray]
    stage_points: tuple[int, ...]


def encode_scene(point_set: PointSet | None, arrays: Sequence[CodedArray]) -> Coded:
    """Codes ``arrays`` (per-point ones in the order of ``point_set.order()``, already sorted)."""
    builder = TableBuilder()
    sizes, plans = _plans(point_set)
    sizes += [0] * (max((a.stage or 0 for a in arrays), default=0) + 1 - len(sizes))
    model = None if point_set is None else fit_positions(plans, point_set.bits, builder)
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    fitted, bits = _fit_arrays(arrays, builder, starts)
    tables = builder.build()
    members = {TABLES_MEMBER: tables.to_bytes()}
    stages = []
    ends = np.cumsum([0, *sizes])
    for number in range(len(sizes)):
        streams: list[tuple[dict[str, Any], bytes]] = []
        if model is not None and sizes[number]:
            encoder = RansEncoder(tables)
            encode_positions(encoder, plans[number], model)
            streams.append(({"positions": True, "depth": plans[number].depth}, encoder.finish()))
        items = slice(int(ends[number]), int(ends[number + 1]))
        streams += _encode_streams(fitted, number, items, tables)
        stages.append(_stage(number, sizes[number], streams, members))
    bits["tables"] = 8.0 * len(members[TABLES_MEMBER])
    bits["positions"] = 8.0 * sum(
        s["length"] for stage in stages for s in stage["streams"] if "positions" in s
    )
    manifest: dict[str, Any] = {"tables": TABLES_MEMBER}
    if point_set is not None and model is not None:
        manifest["positions"] = _positions_entry(point_set, model)
    manifest |= {"arrays": [array_entry(a) for a in fitted], "stages": stages}
    return Coded(members=members, manifest=manifest, bits=bits)


def _plans(point_set: PointSet | None) -> tuple[list[int], list[PositionPlan]]:
    if point_set is None or not len(point_set.points):
        return [0], []
    order = point_set.order()
    codes = morton(point_set.points)[order]
    sizes = np.bincount(point_set.stages)
    if (sizes == 0).any():
        raise ValueError("stages must be numbered without gaps")
    parts = np.split(codes, np.cumsum(sizes)[:-1])
    return [int(s) for s in sizes], [plan_positions(part, point_set.bits) for part in parts]


def _fit_arrays(
    arrays: Sequence[CodedArray], builder: TableBuilder, starts: Sequence[int]
) -> tuple[list[CodedArray], dict[str, float]]:
    known: dict[str, np.ndarray] = {}
    fitted, sizes = [], {}
    left = sum(array.codes.shape[1] for array in arrays)
    for array in arrays:
        columns = array.columns()
        known |= columns
        models, total, running = [], 0.0, RunningSum()
        for i in range(len(columns)):
            candidates = _candidates(array, i) if len(array.codes) else []
            name = f"{array.name}.{i}"
            model, cost = fit_channel(
                name, known, candidates, builder,
                starts if array.stage is None else (0,), running,
                most=max(1, (MAX_TABLES - len(builder)) // left),  # a file has no more
            )  # fmt: skip
            left -= 1
            models.append(model)
            total += cost
        fitted.append(replace(array, models=tuple(models)))
        sizes[array.name] = total
    return fitted, sizes


def _candidates(array: CodedArray, component: int) -> list[Context]:
    """Contexts worth a try: the two components before, all of them by size, and the hints."""
    earlier = [f"{array.name}.{i}" for i in range(component if array.own_contexts else 0)]
    groups: list[tuple[list[str], bool]] = [([name], False) for name in earlier[-2:]]
    if earlier:
        groups.append((earlier, True))
    groups += [([name], False) for name in array.hints]
    return [
        Context(channels=tuple(names), weights=(1,) * len(names), magnitude=magnitude)
        for names, magnitude in groups
    ]


def _encode_streams(
    arrays: Sequence[CodedArray], stage: int, items: slice, tables: Tables
) -> list[tuple[dict[str, Any], bytes]]:
    """The streams of one stage, in the order in which their first arrays come."""
    here = [
        a for a in arrays if (a.stage == stage if a.stage is not None else items.stop > items.start)
    ]
    columns: dict[str, np.ndarray] = {}
    for array in here:
        part = slice(None) if array.stage is not None else items
        columns |= {name: codes[part] for name, codes in array.columns().items()}
    result = []
    for stream in dict.fromkeys(_stream_key(a) for a in here):
        members = [a for a in here if _stream_key(a) == stream]
        encoder = RansEncoder(tables)
        for array in members:
            models = dict(zip(array.channels(), array.models, strict=True))
            encode_channels(encoder, array.channels(), models, columns)
        result.append(({"arrays": [a.name for a in members]}, encoder.finish()))
    return result


def _stream_key(array: CodedArray) -> tuple[bool, str]:
    return array.stage is None, array.stream


def _stage(
    number: int,
    points: int,
    streams: list[tuple[dict[str, Any], bytes]],
    members: dict[str, bytes],
) -> dict[str, Any]:
    """Puts the streams of a stage into one member; returns the stage's entry."""
    name = f"stage{number}.bin"
    entries, at = [], 0
    for entry, data in streams:
        entries.append({"offset": at, "length": len(data), **entry})
        at += len(data)
    members[name] = b"".join(data for _, data in streams)
    return {"member": name, "points": points, "streams": entries}


def _positions_entry(point_set: PointSet, model: PositionModel) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bits": point_set.bits,
        "origin": list(point_set.origin),
        "step": point_set.step,
        "tables": model.tables,
        "leaf_table": model.leaf.table,
        "leaf_low_bits": model.leaf.low_bits,
    }
    return entry if point_set.error is None else {**entry, "error": dict(point_set.error)}


def decode_scene(bundle: Bundle, *, stages: int | Sequence[int] | None = None) -> Decoded:
    """Decodes the first ``stages`` stages, those of these numbers, or all (None).

    Raises :class:`DataError`.
    """
    manifest = bundle.manifest
    every = range(len(manifest["stages"]))
    numbers = stages if isinstance(stages, Sequence) else every[:stages]
    wanted = {number: manifest["stages"][number] for number in numbers}
    entries = {entry["name"]: entry for entry in manifest["arrays"]}
    check_declared(bundle)
    tables = Tables.from_bytes(bundle.read(manifest["tables"]))
    for entry in manifest["arrays"]:
        for model in models_of(entry).values():
            _check_tables(model, entry["name"], len(tables))
    points = [stage["points"] for stage in wanted.values()]
    codes = {
        name: np.empty((entry["components"], entry.get("items", sum(points))), dtype=np.int32)
        for name, entry in entries.items()
        if "stage" not in entry or entry["stage"] in wanted
    }
    places = np.cumsum([0, *points])
    jobs: list[Future[Any]] = []
    located: list[Future[np.ndarray]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for at, (number, stage) in enumerate(wanted.items()):
                part = slice(int(places[at]), int(places[at + 1]))
                into = {
                    name: codes[name] if "items" in entries[name] else codes[name][:, part]
                    for name in _arrays_of_stage(bundle, number, stage, entries)
                }
                _start_stage(pool, bundle, stage, into, entries, tables, jobs, located)
            for job in jobs:
                job.result()
            parts = [job.result() for job in located]
        except DataError as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise DataError(error.what, where=bundle.path, fix=error.fix) from error
    arrays = {name: array_from_entry(entries[name], found.T) for name, found in codes.items()}
    grid = None
    if "positions" in manifest:
        grid = np.concatenate([np.zeros((0, 3), dtype=np.uint32), *parts])
    return Decoded(
        points=None if grid is None else _positions(manifest["positions"], grid, bundle.path),
        grid=grid,
        arrays=arrays,
        stage_points=tuple(points),
    )


def check_declared(bundle: Bundle) -> None:
    """Refuses what cannot be or is beyond the bounds of :mod:`scene4d.bundle.limits`."""
    manifest = bundle.manifest
    for entry in manifest["arrays"]:
        if ("items" in entry) != ("stage" in entry) or entry.get("stage", 0) >= len(
            manifest["stages"]
        ):
            raise DataError(
                f"array {entry['name']!r} needs both items and a stage that exists, or neither",
                where=bundle.path,
            )
    names = [entry["name"] for entry in manifest["arrays"]]
    if len(set(names)) != len(names):
        raise DataError("an array is listed twice", where=bundle.path)
    try:
        check_limits(manifest)
    except DataError as error:
        raise DataError(error.what, where=bundle.path) from error


def _arrays_of_stage(
    bundle: Bundle,
    number: int,
    stage: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Names of the arrays that the stage codes. Each that belongs to it must come once."""
    expected = {
        name
        for name, entry in entries.items()
        if (entry["stage"] == number if "stage" in entry else stage["points"] > 0)
    }
    streams = stage["streams"]
    coded = [name for stream in streams for name in stream.get("arrays", ())]
    if sorted(coded) != sorted(expected):
        raise DataError(
            f"stage {number} codes the arrays {', '.join(coded) or 'none'}; it should code"
            f" {', '.join(sorted(expected)) or 'none'}"
        )
    for stream in streams:
        if ("positions" in stream) == ("arrays" in stream) or (
            "positions" in stream and "depth" not in stream
        ):
            raise DataError(f"stage {number} has a stream of neither positions nor arrays, or both")
    has_points = "positions" in bundle.manifest and stage["points"] > 0
    if sum("positions" in stream for stream in streams) != has_points:
        raise DataError(f"stage {number} does not code its positions once")
    return coded


def _start_stage(
    pool: ThreadPoolExecutor,
    bundle: Bundle,
    stage: Mapping[str, Any],
    into: Mapping[str, np.ndarray],
    entries: Mapping[str, Mapping[str, Any]],
    tables: Tables,
    jobs: list[Future[Any]],
    located: list[Future[np.ndarray]],
) -> None:
    """Starts the decoding of one stage's streams; codes go ``into`` [components, items] arrays."""
    data = bundle.read(stage["member"])
    earlier: dict[str, tuple[Future[Any], np.ndarray]] = {}
    for stream in stage["streams"]:
        part = data[stream["offset"] : stream["offset"] + stream["length"]]
        if "positions" in stream:
            entry = bundle.manifest["positions"]
            located.append(
                pool.submit(_decode_points, part, entry, tables, stage["points"], stream)
            )
            continue
        own = {name: into[name] for name in stream["arrays"]}
        job = pool.submit(_decode_stream, part, own, entries, tables, dict(earlier))
        jobs.append(job)
        earlier |= {name: (job, codes) for name, codes in own.items()}


def _decode_points(
    data: bytes, entry: Mapping[str, Any], tables: Tables, count: int, stream: Mapping[str, Any]
) -> np.ndarray:
    if entry["tables"] + CONTEXTS > len(tables) or entry["leaf_table"] >= len(tables):
        raise DataError("positions use frequency tables that do not exist")
    if stream["depth"] > entry["bits"]:
        raise DataError("an octree is deeper than the positions have bits")
    leaf = ChannelModel(low=1, low_bits=entry["leaf_low_bits"], table=entry["leaf_table"])
    model = PositionModel(bits=entry["bits"], tables=entry["tables"], leaf=leaf)
    decoder = RansDecoder(data, tables)
    points = decode_positions(decoder, model, count, stream["depth"])
    decoder.finish()
    return points


def _decode_stream(
    data: bytes,
    into: Mapping[str, np.ndarray],
    entries: Mapping[str, Mapping[str, Any]],
    tables: Tables,
    earlier: Mapping[str, tuple[Future[Any], np.ndarray]],
) -> None:
    """Decodes the arrays of one stream; waits for the streams that its contexts need."""
    decoder = RansDecoder(data, tables)
    known: dict[str, np.ndarray] = {}
    for name, codes in into.items():
        models = models_of(entries[name])
        own = dict(zip(models, codes, strict=True))
        _check_contexts(name, models, known, earlier, codes.shape[1])
        decode_channels(decoder, models, known, own)
        known |= own
    decoder.finish()


def _check_contexts(
    array: str,
    models: Mapping[str, ChannelModel],
    known: dict[str, np.ndarray],
    earlier: Mapping[str, tuple[Future[Any], np.ndarray]],
    count: int,
) -> None:
    """Contexts name channels decoded before, with as many items; fetches those of other streams."""
    before: set[str] = set()
    for name, model in models.items():
        for channel in model.context.channels if model.context else ():
            if channel in before:
                continue
            source, _, component = channel.rpartition(".")
            if channel not in known and source in earlier:
                job, codes = earlier[source]
                job.result()
                if int(component) < len(codes):
                    known[channel] = codes[int(component)]
            if channel not in known or len(known[channel]) != count:
                raise DataError(
                    f"array {array!r} takes its context from {channel!r}, which is not decoded"
                    " before it or has another length"
                )
        before.add(name)


def _check_tables(model: ChannelModel, name: str, number: int) -> None:
    if model.num_tables > MAX_ROWS:
        raise DataError(f"array {name!r} has {model.num_tables} tables for one channel")
    if model.table + model.num_tables > number:
        raise DataError(f"array {name!r} uses frequency tables that do not exist")


def _positions(entry: Mapping[str, Any], grid: np.ndarray, where: object) -> np.ndarray:
    result = np.empty(grid.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        for axis in range(3):
            result[:, axis] = entry["origin"][axis] + entry["step"] * grid[:, axis].astype(float)
    if not np.isfinite(result).all():
        raise DataError("positions lie beyond float32", where=where)
    return result
