"""glTF 2.0 models as triangles that move: node animation, skinning and morph targets.

Read are .gltf and .glb with their buffers and pictures; triangles with POSITION, NORMAL,
TEXCOORD_0, JOINTS_0 and WEIGHTS_0, base colours and their textures. Cubic-spline samplers, vertex
colours and compressed meshes are refused rather than drawn wrongly.
"""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_TRIANGLES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Triangles of one material."""

    node: int
    name: str
    positions: np.ndarray
    """[vertices, 3] at rest."""
    normals: np.ndarray | None
    uv: np.ndarray
    """[vertices, 2], v down."""
    faces: np.ndarray
    """[triangles, 3]."""
    morphs: np.ndarray
    """[targets, vertices, 3] offsets of positions."""
    joints: np.ndarray | None
    weights: np.ndarray | None
    skin: int | None
    color: np.ndarray
    """[3], 0..1 as in pictures (sRGB)."""
    texture: np.ndarray | None
    """[height, width, 3] uint8."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Channel:
    node: int
    path: str
    times: np.ndarray
    values: np.ndarray
    step: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model whose triangles can be asked for at any time of a clip."""

    nodes: Sequence[Mapping[str, Any]]
    parents: Sequence[int]
    parts: Sequence[Part]
    skins: Sequence[tuple[Sequence[int], np.ndarray]]
    """Of each, the nodes that are its joints and their inverse bind matrices."""
    clips: Mapping[str, Sequence[_Channel]]
    default_weights: Mapping[int, np.ndarray] = field(default_factory=dict)

    def duration(self, clip: str) -> float:
        """Seconds."""
        return max(float(channel.times[-1]) for channel in self.channels(clip))

    def channels(self, clip: str) -> Sequence[_Channel]:
        """What a clip moves. Raises :class:`SystemExit` for one that there is not."""
        if clip not in self.clips:
            raise SystemExit(f"there is no clip {clip!r}: {', '.join(self.clips)}")
        return self.clips[clip]

    def at(self, clip: str | None, time: float) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Positions and normals [vertices, 3] of every part, in the model's coordinates."""
        moved, weights = dict[tuple[int, str], np.ndarray](), dict(self.default_weights)
        for channel in () if clip is None else self.channels(clip):
            value = _sampled(channel, time)
            if channel.path == "weights":
                weights[channel.node] = value
            else:
                moved[channel.node, channel.path] = value
        world = self._world(moved)
        return [self._posed(part, world, weights) for part in self.parts]

    def _world(self, moved: Mapping[tuple[int, str], np.ndarray]) -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}

        def world(index: int) -> np.ndarray:
            if index not in found:
                local = _local(self.nodes[index], index, moved)
                parent = self.parents[index]
                found[index] = local if parent < 0 else world(parent) @ local
            return found[index]

        return [world(i) for i in range(len(self.nodes))]

    def _posed(
        self, part: Part, world: Sequence[np.ndarray], weights: Mapping[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        points = part.positions
        if len(part.morphs) and part.node in weights:
            points = points + np.tensordot(weights[part.node], part.morphs, axes=1)
        matrices = np.broadcast_to(world[part.node], (len(points), 4, 4))
        if part.skin is not None:
            joints, inverse = self.skins[part.skin]
            pose = np.stack([world[j] for j in joints]) @ inverse
            matrices = np.einsum("vk,vkij->vij", part.weights, pose[part.joints])
        linear, offset = matrices[:, :3, :3], matrices[:, :3, 3]
        placed = np.einsum("vij,vj->vi", linear, points) + offset
        if part.normals is None:
            return placed, None
        # right for turns and even scales, which is what bones do
        normals = np.einsum("vij,vj->vi", linear, part.normals)
        return placed, normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def load_model(path: Path, *, leave_out: Sequence[str] = ()) -> Model:
    """The model in a .gltf or .glb, without the nodes named ``leave_out``."""
    file = _File(path)
    nodes = file.json.get("nodes", [])
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            parents[child] = index
    unknown = set(leave_out) - {node.get("name") for node in nodes}
    if unknown:
        raise SystemExit(f"{path}: there is no node {sorted(unknown)[0]!r} to leave out")
    parts, defaults = [], {}
    for index, node in enumerate(nodes):
        if "mesh" not in node or node.get("name") in leave_out:
            continue
        mesh = file.json["meshes"][node["mesh"]]
        stated = node.get("weights", mesh.get("weights"))
        if stated:
            defaults[index] = np.asarray(stated, dtype=np.float64)
        parts += [_part(file, index, node, primitive) for primitive in mesh["primitives"]]
    skins = [
        (skin["joints"], file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2))
        for skin in file.json.get("skins", [])
    ]
    clips = {a.get("name", str(i)): _channels(file, a, nodes)
             for i, a in enumerate(file.json.get("animations", []))}  # fmt: skip
    return Model(
        nodes=nodes,
        parents=parents,
        parts=parts,
        skins=skins,
        clips=clips,
        default_weights=defaults,
    )


def _part(file: _File, index: int, node: Mapping[str, Any], primitive: Mapping[str, Any]) -> Part:
    attributes = primitive["attributes"]
    if primitive.get("mode", _TRIANGLES) != _TRIANGLES or "COLOR_0" in attributes:
        raise SystemExit(f"{file.path}: only triangles without vertex colours can be drawn")
    positions = file.array(attributes["POSITION"])
    count = len(positions)
    found = {name: file.array(i) for name, i in attributes.items()}
    indices = file.array(primitive["indices"]) if "indices" in primitive else np.arange(count)
    targets = primitive.get("targets", [])
    offsets = [file.array(t["POSITION"]) if "POSITION" in t else 0 * positions for t in targets]
    skinned = "skin" in node and "JOINTS_0" in found
    weights = found["WEIGHTS_0"] if skinned else None
    if weights is not None:
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-12)
    color, texture = file.material(primitive.get("material"))
    return Part(
        node=index,
        name=str(node.get("name", index)),
        positions=positions,
        normals=found.get("NORMAL"),
        uv=found.get("TEXCOORD_0", np.zeros((count, 2))),
        faces=indices.reshape(-1, 3).astype(np.int64),
        morphs=np.stack(offsets) if offsets else np.zeros((0, count, 3)),
        joints=found["JOINTS_0"].astype(np.int64) if skinned else None,
        weights=weights,
        skin=node["skin"] if skinned else None,
        color=color,
        texture=texture,
    )


def _channels(
    file: _File, animation: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> list[_Channel]:
    channels = []
    for entry in animation["channels"]:
        target, sampler = entry["target"], animation["samplers"][entry["sampler"]]
        how = sampler.get("interpolation", "LINEAR")
        if how not in ("LINEAR", "STEP"):
            raise SystemExit(f"{file.path}: {how} animation is not read")
        times = file.array(sampler["input"]).reshape(-1)
        values = file.array(sampler["output"]).reshape(len(times), -1)
        channels.append(
            _Channel(
                node=target["node"],
                path=target["path"],
                times=times,
                values=values,
                step=how == "STEP",
            )
        )
    return channels


def _sampled(channel: _Channel, time: float) -> np.ndarray:
    times, values = channel.times, channel.values
    after = int(np.searchsorted(times, time, side="right"))
    if after == 0 or after == len(times):
        return values[0 if after == 0 else -1]
    before, after_value = values[after - 1], values[after]
    if channel.step:
        return before
    share = (time - times[after - 1]) / (times[after] - times[after - 1])
    if channel.path != "rotation":
        return before + share * (after_value - before)
    return _slerp(before, after_value, float(share))


def _slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    cosine = float(a @ b)
    if cosine < 0:
        a, cosine = -a, -cosine
    if cosine > 1 - 1e-9:
        mixed = a + share * (b - a)
        return mixed / np.linalg.norm(mixed)
    angle = np.arccos(cosine)
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def _local(
    node: Mapping[str, Any], index: int, moved: Mapping[tuple[int, str], np.ndarray]
) -> np.ndarray:
    if "matrix" in node:
        return np.asarray(node["matrix"], dtype=np.float64).reshape(4, 4).T
    result = np.eye(4)
    x, y, z, w = moved.get((index, "rotation"), node.get("rotation", (0, 0, 0, 1)))
    scale = np.asarray(moved.get((index, "scale"), node.get("scale", (1, 1, 1))))
    result[:3, :3] = rotation_matrix(w, x, y, z) * scale
    result[:3, 3] = moved.get((index, "translation"), node.get("translation", (0, 0, 0)))
    return result


def rotation_matrix(w: float, x: float, y: float, z: float) -> np.ndarray:
    """[3, 3] of a quaternion."""
    w, x, y, z = np.asarray([w, x, y, z]) / np.sqrt(w * w + x * x + y * y + z * z)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


class _File:
    """A .gltf or .glb: its JSON, and arrays and pictures by index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self._binary = b""
        if data[:4] == b"glTF":
            length = struct.unpack_from("<I", data, 12)[0]
            self.json = json.loads(data[20 : 20 + length])
            if len(data) > 28 + length:
                self._binary = data[28 + length :]
        else:
            self.json = json.loads(data)
        needed = set(self.json.get("extensionsRequired", []))
        if needed:
            raise SystemExit(f"{path}: needs {', '.join(sorted(needed))}, which is not read")
        self._buffers = [self._bytes(b.get("uri")) for b in self.json.get("buffers", [])]

    def _bytes(self, uri: str | None) -> bytes:
        if uri is None:
            return self._binary
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return (self.path.parent / uri).read_bytes()

    def _view(self, index: int) -> tuple[bytes, int]:
        view = self.json["bufferViews"][index]
        start = view.get("byteOffset", 0)
        buffer = self._buffers[view["buffer"]]
        return buffer[start : start + view["byteLength"]], view.get("byteStride", 0)

    def array(self, index: int) -> np.ndarray:
        """[count, width] of an accessor, integers that are normalised as floats."""
        entry = self.json["accessors"][index]
        kind, width = np.dtype(_COMPONENTS[entry["componentType"]]), _WIDTHS[entry["type"]]
        result = np.zeros((entry["count"], width), dtype=kind)
        if "bufferView" in entry:
            result = self._plain(entry["bufferView"], entry, kind, width, entry["count"])
        if "sparse" in entry:
            sparse = entry["sparse"]
            where, values = sparse["indices"], sparse["values"]
            at = np.dtype(_COMPONENTS[where["componentType"]])
            places = self._plain(where["bufferView"], where, at, 1, sparse["count"])[:, 0]
            result = result.copy()
            result[places] = self._plain(values["bufferView"], values, kind, width, sparse["count"])
        if entry.get("normalized"):
            result = np.maximum(result / np.iinfo(kind).max, -1.0)
        return result.astype(np.float64) if result.dtype.kind == "f" else result

    def _plain(
        self, view: int, entry: Mapping[str, Any], kind: np.dtype, width: int, count: int
    ) -> np.ndarray:
        data, stride = self._view(view)
        row = kind.itemsize * width
        start, stride = entry.get("byteOffset", 0), stride or row
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8, offset=start), (count, row), (stride, 1)
        )
        return np.ascontiguousarray(rows).view(kind)

    def material(self, index: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Base colour as in pictures (sRGB), and its texture."""
        if index is None:
            return np.ones(3), None
        surface = self.json["materials"][index].get("pbrMetallicRoughness", {})
        linear = np.asarray(surface.get("baseColorFactor", (1, 1, 1, 1)))[:3]
        color = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        if "baseColorTexture" not in surface:
            return color, None
        source = self.json["textures"][surface["baseColorTexture"]["index"]]["source"]
        image = self.json["images"][source]
        data = self._view(image["bufferView"])[0] if "bufferView" in image else (
            self._bytes(image["uri"])
        )  # fmt: skip
        return color, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
