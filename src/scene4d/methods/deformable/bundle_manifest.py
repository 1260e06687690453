"""What the manifest of a bundle of kind ``splats4d`` may say; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scene4d.bundle.limits import DISTANCES, carried_bytes
from scene4d.errors import DataError
from scene4d.formats.moving_splats import FEWEST_KNOTS, NODES_PER_SPLAT

KIND = "splats4d"
MAX_NODES = 4096
MAX_STAGES = 64


def entry_faults(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What of the entry ``splats4d`` cannot be, beyond what the schema says."""
    if KIND not in manifest or "positions" not in manifest:
        yield f"a bundle of this kind needs the entries {KIND!r} and 'positions'"
        return
    entry, stages = manifest[KIND], manifest["stages"]
    chunks, nodes = entry["chunks"], entry["nodes"]
    if 0 < nodes < NODES_PER_SPLAT:
        yield f"splats4d.nodes must be 0 or {NODES_PER_SPLAT} and more, got {nodes}"
    if bool(chunks) != bool(nodes):
        yield f"splats4d has {nodes} nodes and {len(chunks)} chunks"
    first = len(stages) - len(chunks)
    at = 0
    for number, chunk in enumerate(chunks):
        where = f"splats4d.chunks[{number}]"
        if first < 1 or chunk["stage"] != first + number:
            yield f"{where} must be stage {first + number}, behind the points, got {chunk['stage']}"
        elif stages[chunk["stage"]]["points"]:
            yield f"{where} is stage {chunk['stage']}, which has points"
        if chunk["segment"] != at:
            yield f"{where} must begin with segment {at}, got {chunk['segment']}"
        at = chunk["segment"] + chunk["segments"]
    if chunks and at * entry["interval"] < entry["duration"]:
        yield (
            f"splats4d.chunks last {at * entry['interval']:g} s, the motion {entry['duration']:g} s"
        )


def check_arrays(manifest: Mapping[str, Any]) -> None:
    """Refuses arrays of the motion that are missing or of another size, before they take memory.

    Raises :class:`DataError`.
    """
    wanted = _wanted(manifest)
    found = {entry["name"]: entry for entry in manifest["arrays"]}
    for name, (components, items, stage) in wanted.items():
        array = found.get(name)
        if array is None:
            raise DataError(f"array {name!r} is missing")
        told = (array["components"], array.get("items"), array.get("stage"))
        if told != (components, items, stage):
            raise DataError(
                f"array {name!r} has {_shape(*told)}; it should have"
                f" {_shape(components, items, stage)}"
            )
        if {"basis", "mean"} & set(array) or ("quantiser" in array) != (name == "window"):
            raise DataError(f"array {name!r} has another quantiser than it should, basis or mean")
    more = [n for n in found if n.startswith("motion_") and n not in wanted]
    if more:
        raise DataError(f"array {more[0]!r} is of no chunk")
    points = sum(stage["points"] for stage in manifest["stages"])
    DISTANCES.check(points * manifest[KIND]["nodes"], carried_bytes(manifest))


def _wanted(manifest: Mapping[str, Any]) -> dict[str, tuple[int, int | None, int | None]]:
    """Components, items and stage of the arrays that a kind ``splats`` has not."""
    entry = manifest[KIND]
    nodes = entry["nodes"]
    wanted: dict[str, tuple[int, int | None, int | None]] = {"moving": (1, None, None)}
    if nodes:
        wanted |= {"node_rest": (3, nodes, 0), "nodes": (4, None, None),
                   "weights": (3, None, None)}  # fmt: skip
        if entry["windows"]:
            wanted["window"] = (4, None, None)
    for number, chunk in enumerate(entry["chunks"]):
        knots = chunk["segments"] + FEWEST_KNOTS - 1
        wanted[f"motion_{number}"] = (6, nodes * knots, chunk["stage"])
    return wanted


def _shape(components: int, items: int | None, stage: int | None) -> str:
    each = "an item for each point" if items is None else f"{items} items in stage {stage}"
    return f"{components} components and {each}"


def motion_rate(manifest: Mapping[str, Any]) -> tuple[int, float]:
    """Bytes of all chunks of time, and how many of them a second of the motion takes."""
    entry = manifest[KIND]
    stages = {chunk["stage"] for chunk in entry["chunks"]}
    size = sum(
        stream["length"]
        for number, stage in enumerate(manifest["stages"])
        for stream in stage["streams"]
        if number in stages
    )
    return size, size / entry["duration"] if entry["duration"] > 0 else 0.0
