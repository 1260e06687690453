"""glTF 2.0 as files hold it: a document whose every reference is checked before it is followed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.formats import packing
from scene4d.formats.meshopt import EXTENSION as MESHOPT
from scene4d.formats.meshopt import decode_attributes
from scene4d.formats.meshopt_triangles import decode_triangles

JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
"""Component types as NumPy names them."""
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
FLOAT = 5126
GLTF_FROM_SOURCE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""glTF has y up; captures and splat files are taken as right-down-front, as in COLMAP. The same for
splats and for meshes, so that they lie in each other; its own inverse."""
LONGEST_JSON = 1 << 26
_DEEPEST_NODE = 64


def glb_chunks(data: bytes, path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary part of a GLB. Raises :class:`DataError`."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise DataError("is not a GLB file: it does not begin with 'glTF'", where=path)
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise DataError(f"is glTF version {version}; version 2 can be read", where=path)
    if length > len(data):
        raise packing.cut_off(path, length, len(data))
    size, kind = struct.unpack_from("<II", data, 12)
    if kind != JSON_CHUNK or 20 + size > len(data) or size > LONGEST_JSON:
        raise DataError("its JSON part does not fit into the file", where=path)
    document = parsed(data[20 : 20 + size], path)
    start = 20 + size
    if start + 8 > len(data):
        raise DataError(
            "has no binary part", where=path, fix="files with buffers beside them are not read"
        )
    size, kind = struct.unpack_from("<II", data, start)
    if kind != BINARY_CHUNK or start + 8 + size > len(data):
        raise packing.cut_off(path, size, len(data) - start - 8, "its binary part")
    return document, data[start + 8 : start + 8 + size]


def parsed(text: bytes, path: Path) -> dict[str, Any]:
    """The document of a JSON part. Raises :class:`DataError`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its JSON part cannot be read ({error})", where=path) from error
    if not isinstance(document, dict):
        raise DataError("its JSON part is not an object", where=path)
    return document


class GltfReader:
    """A document and its one buffer. Every method raises :class:`DataError` for what is wrong."""

    def __init__(
        self, document: dict[str, Any], binary: bytes, path: Path, *, beside: bool = False
    ) -> None:
        """``beside``: the buffer is a file beside the document, and not part of it."""
        self.document, self.binary, self.path = document, binary, path
        self.beside = beside
        self._unpacked: dict[object, memoryview] = {}

    def wrong(self, what: str) -> DataError:
        """The error that says so."""
        return DataError(what, where=self.path)

    def strings(self, name: str) -> list[str]:
        """A list of names in the document; empty where there is none."""
        found = self.document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
            raise self.wrong(f"its {name} is not a list of names")
        return found

    def at(self, name: str, index: object) -> dict[str, Any]:
        """``document[name][index]``, an object."""
        items = self.document.get(name)
        if (
            not isinstance(items, list)
            or not isinstance(index, int)
            or isinstance(index, bool)
            or not 0 <= index < len(items)
            or not isinstance(items[index], dict)
        ):
            raise self.wrong(f"refers to {name}[{index!r}], which it does not have")
        return items[index]

    def integer(self, entry: Mapping[str, Any], key: str, default: int | None = None) -> int:
        """A whole number of at least 0."""
        value = entry.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(f"has no whole number {key!r} where one belongs")
        return value

    def numbers(self, entry: Mapping[str, Any], key: str, default: list[float]) -> np.ndarray:
        """As many numbers as ``default`` has, float64."""
        value = entry.get(key, default)
        if (
            not isinstance(value, list)
            or len(value) != len(default)
            or not all(isinstance(x, (int, float)) and abs(x) < 1e18 for x in value)
        ):
            raise self.wrong(f"has an entry whose {key!r} is not {len(default)} numbers")
        return np.array(value, dtype=np.float64)

    def list_of(self, value: object) -> list[Any]:
        """A list."""
        if not isinstance(value, list):
            raise self.wrong("has no list where one belongs")
        return value

    def primitives(self) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Node-to-scene matrix [4, 4] and primitive, of all in the default scene."""
        if "scenes" in self.document:
            scene = self.at("scenes", self.document.get("scene", 0))
            roots = scene.get("nodes", [])
        else:
            roots = list(range(len(self.document.get("nodes") or [])))[:1]
        pending = [(root, np.eye(4), 0) for root in self.list_of(roots)]
        visited: set[int] = set()
        while pending:
            index, above, depth = pending.pop()
            node = self.at("nodes", index)
            if not isinstance(index, int) or index in visited or depth > _DEEPEST_NODE:
                raise self.wrong("its nodes form a circle or are nested too deeply")
            visited.add(index)
            matrix = above @ self.matrix(node)
            children = self.list_of(node.get("children", []))
            pending += [(child, matrix, depth + 1) for child in children]
            if "mesh" in node:
                for primitive in self.list_of(self.at("meshes", node["mesh"]).get("primitives")):
                    if not isinstance(primitive, dict) or not isinstance(
                        primitive.get("attributes"), dict
                    ):
                        raise self.wrong("has a primitive without attributes")
                    yield matrix, primitive

    def matrix(self, node: Mapping[str, Any]) -> np.ndarray:
        """Node to parent, [4, 4]."""
        if "matrix" in node:
            return self.numbers(node, "matrix", [0.0] * 16).reshape(4, 4).T
        matrix = np.eye(4)
        x, y, z, w = self.numbers(node, "rotation", [0.0, 0.0, 0.0, 1.0])
        length = x * x + y * y + z * z + w * w
        if not 0.9 < length < 1.1:
            raise self.wrong("has a node whose rotation is not a unit quaternion")
        s = 2 / length
        rotation = np.array(
            [
                [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
                [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
                [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
            ]
        )
        matrix[:3, :3] = rotation * self.numbers(node, "scale", [1.0, 1.0, 1.0])
        matrix[:3, 3] = self.numbers(node, "translation", [0.0, 0.0, 0.0])
        return matrix

    def view(self, index: object) -> bytes:
        """The bytes of a buffer view, decompressed where it is compressed."""
        return bytes(self._content(index))

    def _content(self, index: object) -> memoryview:
        """:meth:`view` without a copy: many attributes may lie in one."""
        entry = self.at("bufferViews", index)
        packed = self._extensions(entry)
        if packed is None:
            return self._span(entry, "a buffer view")
        if index not in self._unpacked:
            self._unpacked[index] = memoryview(self._unpack(entry, packed))
        return self._unpacked[index]

    def accessor(self, index: object, width: int, what: str) -> np.ndarray:
        """[count, width] of an accessor, as it is stored; ``what`` names it in errors."""
        entry = self.at("accessors", index)
        if "sparse" in entry or "bufferView" not in entry:
            raise self.wrong(f"{what} is sparse or empty, which is not read")
        kind, form = self.integer(entry, "componentType"), entry.get("type")
        if kind not in KINDS or WIDTHS.get(str(form)) != width:
            raise self.wrong(f"{what} is of type {form!r}, {kind!r}")
        dtype = np.dtype((KINDS[kind], (width,)))
        count = self.integer(entry, "count")
        content = self._content(entry["bufferView"])
        stride = self.integer(self.at("bufferViews", entry["bufferView"]), "byteStride", 0)
        stride = stride or dtype.itemsize
        inside = self.integer(entry, "byteOffset", 0)
        needed = inside + (stride * (count - 1) + dtype.itemsize if count else 0)
        if stride < dtype.itemsize or needed > len(content):
            raise packing.cut_off(self.path, needed, len(content), what)
        return np.ndarray(
            (count, width), KINDS[kind], content, inside, (stride, dtype.base.itemsize)
        )

    def real(self, index: object, width: int, what: str) -> np.ndarray:
        """:meth:`accessor` as float32, normalised integers as what they stand for."""
        stored = self.accessor(index, width, what)
        values = stored.astype(np.float32)
        entry = self.at("accessors", index)
        if entry.get("normalized") and entry["componentType"] != FLOAT:
            values = np.maximum(values / np.iinfo(stored.dtype).max, -1.0)
        return values

    def _span(self, entry: Mapping[str, Any], what: str) -> memoryview:
        """What a buffer view, or where a compressed one is stored, points to."""
        if entry.get("buffer") != 0 or ("uri" in self.at("buffers", 0)) != self.beside:
            raise self.wrong("keeps data outside its binary part; this is not read")
        start, length = self.integer(entry, "byteOffset", 0), self.integer(entry, "byteLength")
        if start + length > len(self.binary):
            raise packing.cut_off(self.path, start + length, len(self.binary), what)
        return memoryview(self.binary)[start : start + length]

    def _extensions(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """How a buffer view is compressed; None: it is not."""
        found = entry.get("extensions") or {}
        packed = found.get(MESHOPT) if isinstance(found, dict) and set(found) == {MESHOPT} else None
        if found and not isinstance(packed, dict):
            raise self.wrong("has a buffer view with an extension that is not read")
        return packed

    def _unpack(self, entry: Mapping[str, Any], packed: Mapping[str, Any]) -> bytes:
        mode, kept = packed.get("mode"), packed.get("filter", "NONE")
        if mode not in ("ATTRIBUTES", "TRIANGLES") or kept != "NONE":
            raise self.wrong(f"is compressed as {mode!r} with filter {kept!r}, which is not read")
        count, stride = self.integer(packed, "count"), self.integer(packed, "byteStride")
        data = bytes(self._span(packed, "a compressed buffer view"))
        try:
            if mode == "ATTRIBUTES":
                content = decode_attributes(data, count, stride).tobytes()
            elif stride in (2, 4) and count % 3 == 0:
                corners = decode_triangles(data, count // 3)
                if corners.max(initial=0) >= 1 << (8 * stride):
                    raise DataError("a compressed triangle is of a vertex that it cannot have")
                content = corners.astype(f"<u{stride}").tobytes()
            else:
                raise DataError(f"compressed triangles have {count} corners of {stride} bytes")
        except DataError as error:
            raise self.wrong(error.what) from error
        if self.integer(entry, "byteLength") != len(content):
            raise self.wrong("a compressed buffer view is of another length than it says")
        return content
