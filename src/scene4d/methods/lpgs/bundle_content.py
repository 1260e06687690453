"""Bundles of kind ``lpgs``: parents, masks of their children, and a small network that predicts.

Decoding needs numpy alone: codes become attributes, the network adds its corrections and the
children, and plain Gaussians come out. SPEC.md, section 7. Source of the method: LPGS, arXiv
2406.19434.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, dequantise, uniform
from scene4d.bundle.coding import Coded, Decoded, PointSet, decode_scene, encode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.limits import PRODUCTS, carried_bytes
from scene4d.bundle.quantise import rounded
from scene4d.bundle.splats import SplatQuantisation, error_of, stages_of
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud

KIND = "lpgs"
PRIMES = (1, 2654435761, 805459861)
WEIGHT_LEVELS = 1023
"""Levels of a weight between its layer's smallest and largest."""
MAX_FEATURES = 256
"""Features of all levels of the grid together."""
MAX_REACH = 1e15
"""Places further away, in radii, are refused."""
_CHUNK_VALUES = 1 << 22
"""Numbers of one layer that are in memory at a time."""
_HINTS = {
    "log_scales": ("opacity.0",),
    "rotation": ("log_scales.0", "log_scales.1", "log_scales.2", "opacity.0"),
    "dc": ("opacity.0", "log_scales.0"),
    "sh": ("opacity.0", "log_scales.0"),
}
ATTRIBUTES = ("opacity", "log_scales", "rotation", "dc", "sh")


@dataclass(frozen=True, kw_only=True, eq=False)
class LpgsParts:
    """A parent/child scene as integers and steps, before coding."""

    structure: Mapping[str, Any]
    """``num_children``, ``sh_degree``, ``hidden``, ``attention``, ``contraction``, ``centre``,
    ``radius``, ``position_bits``, and ``grid``: None, or its ``resolutions``, ``rows`` and
    ``features``."""
    points: np.ndarray
    """[P, 3] parents in the contracted cube, 0 .. 2^position_bits - 1."""
    codes: Mapping[str, np.ndarray]
    """Of :data:`ATTRIBUTES`: [P, channels] int32."""
    steps: Mapping[str, np.ndarray]
    """Of the same, and of ``grid``: [channels]."""
    children: np.ndarray
    """[P] bit k is set where child k lives."""
    importance: np.ndarray
    """[P] large comes first."""
    table: np.ndarray | None = None
    """[rows, features] int32 codes of the grid."""
    weights: Mapping[str, np.ndarray] | None = None
    """Of the network's layers, as float32."""
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What rounding changed (:func:`error_of`): of ``positions``, attributes and ``grid``."""


def encode_lpgs(parts: LpgsParts, settings: SplatQuantisation | None = None) -> Coded:
    """Members, and the manifest's part, of a parent/child scene."""
    structure = parts.structure
    bits = int(structure["position_bits"])
    origin, step = grid_of(bits)
    points = PointSet(
        points=parts.points,
        bits=bits,
        origin=(origin,) * 3,
        step=step,
        stages=stages_of(parts.importance, settings or SplatQuantisation()),
        error=parts.errors.get("positions"),
    )
    order = points.order()
    arrays = [] if parts.weights is None else [_weights(n, w) for n, w in parts.weights.items()]
    if parts.table is not None:
        fixed = {"stage": 0, "stream": "fixed", "error": parts.errors.get("grid")}
        arrays.append(_coded("grid", parts.table, parts.steps["grid"], **fixed))
    for name in ATTRIBUTES:
        codes = parts.codes[name]
        if codes.shape[1]:
            arrays.append(
                _coded(
                    name,
                    codes[order],
                    parts.steps[name],
                    hints=_HINTS.get(name, ()),
                    error=parts.errors.get(name),
                    stream="sh" if name == "sh" else "points",
                )
            )
    num_children = int(structure["num_children"])
    if num_children:
        mask = parts.children[order].astype(np.int32)[:, None]
        arrays.append(CodedArray(name="children", codes=mask))
    coded = encode_scene(points, arrays)
    born = sum(int((parts.children >> k & 1).sum()) for k in range(num_children))
    manifest = {
        "count": len(parts.points) + born,
        "sh_degree": int(structure["sh_degree"]),
        "lpgs": dict(structure),
        **coded.manifest,
    }
    checked_structure(manifest)
    return replace(coded, manifest=manifest)


def grid_of(position_bits: int) -> tuple[float, float]:
    """Origin and step of the cells' centres in the unit cube."""
    return 2.0 ** -(position_bits + 1), 2.0**-position_bits


def _coded(name: str, codes: np.ndarray, steps: np.ndarray, **options: Any) -> CodedArray:
    stored = [rounded(float(step)) for step in steps]
    return CodedArray(
        name=name,
        codes=np.ascontiguousarray(codes, dtype=np.int32),
        quantiser=uniform(stored, len(stored)),
        **options,
    )


def array_name(parameter: str) -> str:
    """The array that holds a layer's ``weight`` or ``bias``."""
    return "net_" + parameter.replace(".", "_")


def _weights(name: str, values: np.ndarray) -> CodedArray:
    """One layer's weights or biases as one column."""
    column = values.reshape(-1, 1).astype(np.float64)
    step = rounded(float(2 * np.abs(column).max() / WEIGHT_LEVELS) or 1.0)
    codes = np.rint(column / step).astype(np.int32)
    return CodedArray(
        name=array_name(name), codes=codes, quantiser=uniform(step, 1), stage=0, stream="fixed",
        error=error_of(step * codes - column),
    )  # fmt: skip


def decode_splats(bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
    """The Gaussians of an opened bundle in bundle coordinates: parents, then children."""
    manifest = bundle.manifest
    if manifest["kind"] != KIND:
        raise DataError(f"is of kind {manifest['kind']!r}, not lpgs", where=bundle.path)
    try:
        structure = checked_structure(manifest)
        decoded = decode_scene(bundle, stages=stages)
        whole = len(decoded.stage_points) == len(manifest["stages"])
        with np.errstate(all="ignore"):
            cloud = splats_from(decoded, structure, count=manifest["count"] if whole else None)
        return replace(cloud, antialiased=manifest["antialiased"])
    except DataError as error:
        raise DataError(error.what, where=bundle.path, fix=error.fix) from error


def checked_structure(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest's ``lpgs`` entry, checked against the rest.

    Types and ranges of single entries are the schema's matter.
    """
    structure = manifest.get("lpgs")
    if structure is None:
        raise DataError("the manifest has no entry 'lpgs'")
    if structure["sh_degree"] != manifest["sh_degree"]:
        raise DataError("lpgs.sh_degree is not the manifest's sh_degree")
    if "positions" in manifest and structure["position_bits"] != manifest["positions"]["bits"]:
        raise DataError("lpgs.position_bits are not the bits of the positions")
    grid = structure["grid"]
    if grid is not None:
        if len(grid["rows"]) != len(grid["resolutions"]):
            raise DataError("lpgs.grid needs as many rows as resolutions")
        if len(grid["rows"]) * grid["features"] > MAX_FEATURES:
            raise DataError(f"lpgs.grid has more than {MAX_FEATURES} features")
    shapes = layer_shapes(structure)
    if shapes and structure["hidden"] < 1:
        raise DataError("lpgs.hidden is 0, but there is a network")
    points = sum(stage["points"] for stage in manifest["stages"])
    children = max(0, manifest["count"] - points)
    PRODUCTS.check(products(structure, points, children), carried_bytes(manifest))
    return structure


def layer_shapes(structure: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the network's layers by name; empty without a network."""
    grid, children, hidden = structure["grid"], structure["num_children"], structure["hidden"]
    if grid is None and not children:
        return {}
    inputs = 10 + (len(grid["rows"]) * grid["features"] if grid else 0)
    outputs = 10 + 3 * ((structure["sh_degree"] + 1) ** 2 - 1)
    shapes = {"token": (hidden, inputs), "inner": (hidden, hidden),
              "parent_head": (outputs, hidden)}  # fmt: skip
    if children:
        shapes |= {"child_head": (outputs, hidden), "place": (3 * children, hidden)}
        if structure["attention"]:
            shapes["attend"] = (3 * hidden, hidden)
    return shapes


def products(structure: Mapping[str, Any], parents: int, children: int) -> int:
    """Multiplications of the layers for so many parents and living children."""
    sizes = {name: o * i for name, (o, i) in layer_shapes(structure).items()}
    own = sum(size for name, size in sizes.items() if name != "child_head")
    born = sum(size for name, size in sizes.items() if name not in ("parent_head", "place"))
    return parents * own + children * born


def splats_from(
    decoded: Decoded, structure: Mapping[str, Any], *, count: int | None = None
) -> SplatCloud:
    """Plain Gaussians from the decoded parents; ``count`` of them, unless None.

    Raises :class:`DataError` where sizes disagree.
    """
    if decoded.points is None:
        raise DataError("a bundle of parents has no positions")
    base = _parents(decoded, int(structure["sh_degree"]))
    alive = _living(decoded, int(structure["num_children"]))
    found = len(alive) + int(alive.sum())
    if count is not None and found != count:
        raise DataError(f"says it has {count} Gaussians, but has {found}")
    means = uncontracted(decoded.points, structure)
    if not layer_shapes(structure):
        return _cloud(means, base)
    network = _Network(structure, decoded)
    rows = network.rows_at_a_time
    chunks = [slice(i, i + rows) for i in range(0, max(len(means), 1), rows)]
    parts = [network.family(means[c], {k: v[c] for k, v in base.items()}, alive[c]) for c in chunks]
    merged = []
    for who in (0, 1):  # parents of all chunks, then children
        merged += [part[who] for part in parts]
    return _cloud(
        np.concatenate([m for m, _ in merged]),
        {k: np.concatenate([a[k] for _, a in merged]) for k in base},
    )


def _parents(decoded: Decoded, degree: int) -> dict[str, np.ndarray]:
    """The parents' own attributes, [P, channels] each."""
    assert decoded.points is not None
    count = len(decoded.points)
    widths = {"opacity": 1, "log_scales": 3, "rotation": 3, "dc": 3,
              "sh": 3 * ((degree + 1) ** 2 - 1)}  # fmt: skip
    base = {}
    for name in ATTRIBUTES:
        empty = np.zeros((count, 0), dtype=np.float32)
        shape = count, widths[name]
        base[name] = dequantise(name, decoded.arrays, shape=shape) if widths[name] else empty
    return base


def _living(decoded: Decoded, num_children: int) -> np.ndarray:
    """[P, K] whether each parent's child k lives."""
    assert decoded.points is not None
    count = len(decoded.points)
    if not num_children:
        return np.zeros((count, 0), dtype=bool)
    masks = dequantise("children", decoded.arrays, shape=(count, 1))
    if len(masks) and not (masks.min() >= 0 and masks.max() < 1 << num_children):
        raise DataError(f"array 'children' has bits beyond its {num_children} children")
    return (masks.astype(np.int64) >> np.arange(num_children) & 1).astype(bool)


def _cloud(means: np.ndarray, attributes: Mapping[str, np.ndarray]) -> SplatCloud:
    count = len(means)
    colours = np.concatenate([attributes["dc"], attributes["sh"]], axis=1)
    quats = np.concatenate([np.ones((count, 1)), attributes["rotation"]], axis=1)  # float64
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    cloud = SplatCloud(
        means=means.astype(np.float32),
        quats=quats.astype(np.float32),
        log_scales=attributes["log_scales"],
        logit_opacities=attributes["opacity"][:, 0],
        sh=colours.reshape(count, (colours.shape[1]) // 3, 3),
    )
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh"):
        if not np.isfinite(getattr(cloud, name)).all():
            raise DataError(f"{name} of a Gaussian is not a finite number")
    return cloud


def uncontracted(cube: np.ndarray, structure: Mapping[str, Any]) -> np.ndarray:
    """Points of the contracted unit cube in bundle coordinates (Mip-NeRF 360, eq. 10, inverted)."""
    local = (cube - np.float32(0.5)) * np.float32(4)
    norm = np.maximum(np.linalg.norm(local, axis=1, keepdims=True), np.float32(1))
    if len(norm) and norm.max() >= 2:
        raise DataError("a position lies outside the contracted space")
    local = local / (norm * (2 - norm))
    return (local * np.float32(structure["radius"]) + centre_of(structure)).astype(np.float32)


def centre_of(structure: Mapping[str, Any]) -> np.ndarray:
    """[3] float32 centre of the contraction."""
    return np.asarray(structure["centre"], dtype=np.float32)


def contracted(points: np.ndarray, structure: Mapping[str, Any]) -> np.ndarray:
    """The inverse of :func:`uncontracted`."""
    local = (points - centre_of(structure)) / np.float32(structure["radius"])
    if not structure["contraction"]:
        return local / 2 + np.float32(0.5)
    norm = np.maximum(np.linalg.norm(local, axis=1, keepdims=True), np.float32(1))
    return (2 - 1 / norm) * (local / norm) / 4 + np.float32(0.5)


class _Network:
    """The family network in numpy, float32 throughout."""

    def __init__(self, structure: Mapping[str, Any], decoded: Decoded) -> None:
        self.structure = structure
        self.grid = structure["grid"]
        if self.grid:
            shape = sum(self.grid["rows"]), self.grid["features"]
            self.table = dequantise("grid", decoded.arrays, shape=shape)
        shapes = layer_shapes(structure)
        self.layers = {name: self._layer(name, shape, decoded) for name, shape in shapes.items()}
        widest = max(map(max, shapes.values()))
        members = 1 + int(structure["num_children"])
        self.rows_at_a_time = max(256, _CHUNK_VALUES // (members * widest))

    def _layer(
        self, name: str, shape: tuple[int, int], decoded: Decoded
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = {"weight": shape[0] * shape[1], "bias": shape[0]}
        for part, rows in parts.items():
            array = decoded.arrays.get(array_name(f"{name}.{part}"))
            if array is not None and len(array.codes) != rows:
                raise DataError(f"layer {name!r} does not have {shape[0]} x {shape[1]} weights")
        weight, bias = (
            dequantise(array_name(f"{name}.{part}"), decoded.arrays, shape=(rows, 1))
            for part, rows in parts.items()
        )
        return weight.reshape(shape), bias.reshape(-1)

    def _apply(self, name: str, values: np.ndarray) -> np.ndarray:
        weight, bias = self.layers[name]
        return values @ weight.T + bias

    def family(
        self, means: np.ndarray, base: Mapping[str, np.ndarray], alive: np.ndarray
    ) -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(means, attributes) of the parents, and of their living children."""
        tokens = self._tokens(means, base)
        parent, child = np.nonzero(alive)
        taken = {name: value[parent] for name, value in base.items()}
        if not len(parent):
            born = means[:0], self._corrected(taken, tokens[:0], "child_head" if alive.shape[1]
                                              else "parent_head")  # fmt: skip
            return (
                means,
                self._corrected(base, self._attended(tokens, alive), "parent_head"),
            ), born
        offsets = self._offsets(tokens, alive)[parent, child]
        places = means[parent] + turned(offsets, taken)
        everyone = self._attended(np.concatenate([tokens, self._tokens(places, taken)]), alive)
        parents = self._corrected(base, everyone[: len(means)], "parent_head")
        kids = self._corrected(taken, everyone[len(means) :], "child_head")
        return (means, parents), (places, kids)

    def _offsets(self, tokens: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """[P, K, 3] where children are, of the parents that have any."""
        offsets = np.zeros((*alive.shape, 3), dtype=np.float32)
        having = alive.any(axis=1)
        offsets[having] = self._apply("place", tokens[having]).reshape(-1, alive.shape[1], 3)
        return offsets

    def _tokens(self, points: np.ndarray, base: Mapping[str, np.ndarray]) -> np.ndarray:
        sizes = base["log_scales"] - np.float32(np.log(self.structure["radius"])) + np.float32(4)
        inputs = [sizes, base["rotation"], np.float32(0.3) * base["opacity"], base["dc"]]
        if self.grid:
            reach = np.abs(points - centre_of(self.structure)).max(initial=0.0)
            if not reach <= MAX_REACH * self.structure["radius"]:
                raise DataError("a child lies too far away")
            inputs.append(look_up(contracted(points, self.structure), self.table, self.grid))
        return np.maximum(self._apply("token", np.concatenate(inputs, axis=1)), 0)

    def _attended(self, tokens: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """The tokens of parents, then of living children by parent, after attention in families."""
        if "attend" not in self.layers:
            return tokens
        query, key, value = np.split(self._apply("attend", tokens), 3, axis=1)
        born, result = alive.sum(axis=1), tokens.copy()
        first = len(alive) + np.cumsum(born) - born
        for size in np.unique(born):  # families of one size together: none has a place for the dead
            head = np.flatnonzero(born == size)
            rows = np.concatenate([head[:, None], first[head][:, None] + np.arange(size)], axis=1)
            scores = query[rows] @ key[rows].swapaxes(1, 2) / np.sqrt(np.float32(tokens.shape[1]))
            weights = np.exp(scores - scores.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            result[rows] += weights @ value[rows]
        return result

    def _corrected(
        self, base: Mapping[str, np.ndarray], tokens: np.ndarray, head: str
    ) -> dict[str, np.ndarray]:
        output = self._apply(head, np.maximum(self._apply("inner", tokens), 0))
        order = ("log_scales", "rotation", "opacity", "dc", "sh")
        ends = np.cumsum([base[name].shape[1] for name in order])[:-1]
        parts = np.split(output, ends, axis=1)
        return {name: base[name] + part for name, part in zip(order, parts, strict=True)}


def turned(offsets: np.ndarray, base: Mapping[str, np.ndarray]) -> np.ndarray:
    """Offsets in standard deviations along a Gaussian's axes, in bundle coordinates."""
    local = offsets * np.exp(base["log_scales"])
    v = base["rotation"]
    cross = np.cross(v, local)
    twice = 2 / (1 + (v * v).sum(axis=1, keepdims=True))
    return local + twice * (cross + np.cross(v, cross))


def look_up(points: np.ndarray, table: np.ndarray, grid: Mapping[str, Any]) -> np.ndarray:
    """[n, levels * features] trilinear features at points of the unit cube (Instant NGP)."""
    features, start = [], 0
    inside = np.clip(points, 0, 1).astype(np.float32)
    for resolution, rows in zip(grid["resolutions"], grid["rows"], strict=True):
        scaled = inside * np.float32(resolution)
        low = np.minimum(scaled.astype(np.int64), resolution - 1)
        fraction = scaled - low.astype(np.float32)
        total = np.zeros((len(points), table.shape[1]), dtype=np.float32)
        for corner in range(8):
            bits = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
            near = np.where(bits, fraction, 1 - fraction).prod(axis=1)
            index = _row(low + bits, resolution, rows)
            total += near[:, None] * table[start + index]
        features.append(total)
        start += rows
    return np.concatenate(features, axis=1)


def _row(vertex: np.ndarray, resolution: int, rows: int) -> np.ndarray:
    if rows == (resolution + 1) ** 3:
        side = resolution + 1
        return (vertex[:, 0] * side + vertex[:, 1]) * side + vertex[:, 2]
    hashed = np.zeros(len(vertex), dtype=np.int64)
    for axis, prime in enumerate(PRIMES):
        hashed ^= vertex[:, axis] * prime & 0xFFFFFFFF
    return hashed % rows
