"""Textured meshes as binary glTF 2.0, for AR viewers or for the web."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.meshopt import EXTENSION as MESHOPT
from scene4d.formats.meshopt import encode_attributes
from scene4d.formats.meshopt_triangles import encode_triangles, ordered
from scene4d.formats.textured_mesh import MeshData

Profile = Literal["ar", "web"]
JPEG_QUALITY, WEBP_QUALITY = 90, 85
_FLOAT, _USHORT, _UINT, _BYTE = 5126, 5123, 5125, 5120
_STEPS, _NORMAL_STEPS = 65535, 127
_POSITION_STEPS = (1 << 14) - 1
"""As in bundles: more are noise in the low byte, which compresses no further."""
_VERTICES, _INDICES = 34962, 34963
"""glTF's names of what a buffer is for."""


def picture_bytes(mesh: MeshData, kind: Literal["JPEG", "WEBP", "PNG"]) -> bytes:
    """The texture as a file of this kind."""
    codes = np.rint(255 * np.clip(mesh.texture, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    quality = {"JPEG": {"quality": JPEG_QUALITY, "subsampling": 0}, "PNG": {},
               "WEBP": {"quality": WEBP_QUALITY, "method": 6}}[kind]  # fmt: skip
    Image.fromarray(codes).save(file, kind, **quality)
    return file.getvalue()


@dataclass(kw_only=True)
class _Buffer:
    """The binary chunk as it grows, with the views of it."""

    compressed: bool = False
    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    unpacked: int = 0
    """Bytes of what is compressed, which a second buffer stands for that no file holds."""

    def view(self, content: bytes, **more: Any) -> int:
        self.data += bytes(-len(self.data) % 4)
        self.views.append(
            {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content), **more}
        )
        self.data += content
        return len(self.views) - 1

    def _packed_view(self, content: bytes, mode: str, count: int, stride: int, **more: Any) -> int:
        index = self.view(content)
        stored = {**self.views[index], "byteStride": stride, "count": count, "mode": mode}
        self.views[index] = {
            "buffer": 1, "byteOffset": self.unpacked, "byteLength": count * stride, **more,
            "extensions": {MESHOPT: stored},
        }  # fmt: skip
        self.unpacked += -(-count * stride // 4) * 4
        return index

    def accessor(self, values: np.ndarray, component: int, **more: Any) -> int:
        """Of vertices; rows are padded to multiples of 4 bytes, as glTF asks."""
        row, count = values.dtype.itemsize * values.shape[1], len(values)
        stride = -(-row // 4) * 4
        padded = np.zeros((count, stride), np.uint8)
        padded[:, :row] = np.ascontiguousarray(values).view(np.uint8).reshape(count, row)
        how = {"byteStride": stride, "target": _VERTICES}
        if self.compressed:
            content = encode_attributes(padded)
            view = self._packed_view(content, "ATTRIBUTES", count, stride, **how)
        else:
            view = self.view(padded.tobytes(), **how)
        kind = {2: "VEC2", 3: "VEC3"}[values.shape[1]]
        self.accessors.append(
            {"bufferView": view, "componentType": component, "count": count, "type": kind} | more
        )
        return len(self.accessors) - 1

    def indices(self, triangles: np.ndarray, count: int) -> int:
        """Of the vertices of triangles, as short as their number allows."""
        kind, component = (np.uint16, _USHORT) if count < _STEPS else (np.uint32, _UINT)
        size = triangles.size
        if self.compressed:
            content, stride = encode_triangles(triangles), np.dtype(kind).itemsize
            view = self._packed_view(content, "TRIANGLES", size, stride, target=_INDICES)
        else:
            view = self.view(triangles.astype(kind).tobytes(), target=_INDICES)
        self.accessors.append(
            {"bufferView": view, "componentType": component, "count": size, "type": "SCALAR"}
        )
        return len(self.accessors) - 1

    def described(self) -> list[dict[str, Any]]:
        """The document's buffers."""
        buffers: list[dict[str, Any]] = [{"byteLength": len(self.data)}]
        if self.unpacked:
            nowhere = {MESHOPT: {"fallback": True}}
            buffers.append({"byteLength": self.unpacked, "extensions": nowhere})
        return buffers


def glb(
    mesh: MeshData,
    moved: np.ndarray,
    *,
    profile: Profile = "ar",
    unlit: bool = True,
    turn: np.ndarray = GLTF_FROM_SOURCE,
) -> bytes:
    """The file. ``moved`` [3]: the node moves the vertices by that, before the ``turn`` [4, 4] to
    y up.

    ``ar``: float32 and JPEG, no extension that a viewer must know. ``web``: places in whole steps
    (KHR_mesh_quantization), compressed (EXT_meshopt_compression), and WebP (EXT_texture_webp), for
    which triangles come in another order. ``unlit``: the photographs' light is in the texture, so
    none is to be added (KHR_materials_unlit, which other viewers may pass over).
    """
    vertices, uv, triangles = mesh.one_index()
    web = profile == "web"
    buffer = _Buffer(compressed=web)
    if web:
        triangles, rows = ordered(triangles, len(vertices))
        vertices, uv = vertices[rows], uv[rows]
    node = turn.copy()
    node[:3, 3] += turn[:3, :3] @ moved
    used = ["KHR_materials_unlit"] if unlit else []
    required: list[str] = []
    if web:
        attributes, node = _quantised(buffer, vertices, uv, node)
        required += ["KHR_mesh_quantization", "EXT_texture_webp", MESHOPT]
    else:
        attributes = _floats(buffer, vertices, uv)
    if not unlit:
        attributes["NORMAL"] = _directions(buffer, _normals(vertices, triangles))
    indices = buffer.indices(triangles, len(vertices))
    kind: Literal["JPEG", "WEBP"] = "WEBP" if web else "JPEG"
    image = buffer.view(picture_bytes(mesh, kind))
    texture: dict[str, Any] = {"sampler": 0, "source": 0}
    if kind == "WEBP":
        texture = {"sampler": 0, "extensions": {"EXT_texture_webp": {"source": 0}}}
    material: dict[str, Any] = {
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0
        },
        "doubleSided": True,
    }  # fmt: skip
    if unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "scene4d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": node.T.ravel().tolist()}],
        "meshes": [{"primitives": [
            {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
        ]}],
        "materials": [material],
        "textures": [texture],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": image, "mimeType": f"image/{kind.lower()}"}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
        "buffers": buffer.described(),
    }  # fmt: skip
    if used or required:
        document["extensionsUsed"] = [*used, *required]
    if required:
        document["extensionsRequired"] = required
    return _packed(document, bytes(buffer.data))


def _floats(buffer: _Buffer, vertices: np.ndarray, uv: np.ndarray) -> dict[str, int]:
    places = vertices.astype(np.float32)
    ends = {"min": places.min(0).tolist(), "max": places.max(0).tolist()}
    return {
        "POSITION": buffer.accessor(places, _FLOAT, **ends),
        "TEXCOORD_0": buffer.accessor(uv.astype(np.float32), _FLOAT),
    }


def _quantised(
    buffer: _Buffer, vertices: np.ndarray, uv: np.ndarray, node: np.ndarray
) -> tuple[dict[str, int], np.ndarray]:
    """Places in steps of the longest side's 16383rd part, and the node that undoes it."""
    low, side = vertices.min(axis=0), max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    codes = np.rint((vertices - low) * (_POSITION_STEPS / side)).astype(np.uint16)
    ends = {"min": codes.min(0).tolist(), "max": codes.max(0).tolist()}
    back = np.eye(4)
    back[:3, :3] *= side / _POSITION_STEPS
    back[:3, 3] = low
    places = np.rint(np.clip(uv, 0, 1) * _STEPS).astype(np.uint16)
    attributes = {
        "POSITION": buffer.accessor(codes, _USHORT, **ends),
        "TEXCOORD_0": buffer.accessor(places, _USHORT, normalized=True),
    }
    return attributes, node @ back


def _directions(buffer: _Buffer, normals: np.ndarray) -> int:
    """Normals, in a byte each where the rest is in whole steps, too."""
    if not buffer.compressed:
        return buffer.accessor(normals, _FLOAT)
    codes = np.rint(_NORMAL_STEPS * normals).astype(np.int8)
    return buffer.accessor(codes, _BYTE, normalized=True)


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Of vertices, by the areas of their triangles; the seams of a texture are no edges."""
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    place = place.reshape(-1)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    outwards = np.cross(b - a, c - a)
    sums = np.zeros((place.max(initial=-1) + 1, 3))
    for i in range(3):
        np.add.at(sums, place[triangles[:, i]], outwards)
    normals = sums[place]
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    upright = np.broadcast_to([0.0, 0.0, 1.0], normals.shape)
    return np.where(length > 1e-30, normals / np.maximum(length, 1e-30), upright).astype(np.float32)


def _packed(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
