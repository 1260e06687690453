"""Reading a textured mesh from glTF 2.0, ``.glb`` or ``.gltf`` with its files beside it.

What a mesh of ours holds is read: triangles, base colours, one set of texture places. Materials
become one picture, one below the other; factors of base colours are multiplied in; places beyond a
picture repeat it, as glTF has it by default. Normals, skins, animations, light and transparency
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from scene4d.errors import DataError
from scene4d.files import open_regular
from scene4d.formats import packing
from scene4d.formats.gltf import LONGEST_JSON, GltfReader, glb_chunks, parsed
from scene4d.formats.meshopt import EXTENSION as MESHOPT
from scene4d.formats.textured_mesh import MeshData
from scene4d.image_files import open_picture, plain_colours

_TRIANGLES = 4
_SPLATS = b"KHR_gaussian_splatting"
_KNOWN = {"KHR_mesh_quantization", "KHR_materials_unlit", "EXT_texture_webp", MESHOPT}
_MOST_TEXELS = 1 << 26
"""Of all pictures together."""
_PLAIN = 8
"""Texels along a side of a material without a picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """A primitive, placed."""

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    material: int | None


def holds_mesh(path: Path) -> bool:
    """Whether a file is a GLB without splats, which are GLB's other content here."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        head = file.read(20)
        if len(head) < 20 or head[:4] != b"glTF":
            return False
        return _SPLATS not in file.read(min(int.from_bytes(head[12:16], "little"), LONGEST_JSON))


def read_textured_mesh(path: Path) -> MeshData:
    """The triangles of the default scene, in glTF's axes (y up, metres).

    Raises :class:`DataError` for what is no glTF, is compressed, points outside of its folder, has
    no triangles or places that are not finite.
    """
    path = Path(path)
    data = packing.read_bytes(path)
    if data[:4] == b"glTF":
        reader = GltfReader(*glb_chunks(data, path), path)
    else:
        document = parsed(data, path)
        reader = GltfReader(document, _buffer(document, path), path, beside=True)
    required = set(reader.strings("extensionsRequired")) - _KNOWN
    if required:
        raise DataError(
            f"needs the glTF extensions {', '.join(sorted(required))}, which are not read",
            where=path, fix="save it without compression",
        )  # fmt: skip
    parts = [_part(reader, matrix, primitive) for matrix, primitive in reader.primitives()]
    parts = [part for part in parts if len(part.triangles)]
    if not parts:
        raise DataError("holds no triangles", where=path)
    return _joined(reader, parts)


def _buffer(document: Mapping[str, Any], path: Path) -> bytes:
    buffers = document.get("buffers")
    if not isinstance(buffers, list) or len(buffers) != 1 or not isinstance(buffers[0], dict):
        raise DataError("has not one buffer; this is not read", where=path, fix="save it as .glb")
    return packing.read_bytes(_beside(path, buffers[0].get("uri")))


def _beside(path: Path, uri: object) -> Path:
    """A file in the same folder or below it that a document names."""
    name = unquote(uri) if isinstance(uri, str) else ""
    parts = name.split("/")
    if not name or re.search(r"[:\\\0]", name) or name.startswith("/") or ".." in parts:
        raise DataError(
            f"refers to {name[:80]!r}, which is no file beside it", where=path,
            fix="save it as .glb",
        )  # fmt: skip
    return path.parent / name


def _part(reader: GltfReader, matrix: np.ndarray, primitive: Mapping[str, Any]) -> _Part:
    attributes = primitive["attributes"]
    if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
        empty = np.zeros((0, 3))
        return _Part(vertices=empty, triangles=empty.astype(np.int64), uv=empty[:, :2],
                     material=None)  # fmt: skip
    places = reader.real(attributes.get("POSITION"), 3, "POSITION").astype(np.float64)
    vertices = places @ matrix[:3, :3].T + matrix[:3, 3]
    if not np.isfinite(vertices).all():
        raise reader.wrong("has a vertex that is nowhere")
    if "indices" in primitive:
        corners = reader.accessor(primitive["indices"], 1, "its indices")[:, 0].astype(np.int64)
    else:
        corners = np.arange(len(vertices))
    corners = corners[: len(corners) // 3 * 3]
    if corners.size and not (corners.min() >= 0 and corners.max() < len(vertices)):
        raise reader.wrong("has triangles of vertices that it does not have")
    triangles = corners.reshape(-1, 3)
    if np.linalg.det(matrix[:3, :3]) < 0:
        triangles = triangles[:, ::-1]
    uv = np.zeros((len(vertices), 2))
    if "TEXCOORD_0" in attributes:
        uv = reader.real(attributes["TEXCOORD_0"], 2, "TEXCOORD_0").astype(np.float64)
    if len(uv) != len(vertices) or not np.isfinite(uv).all():
        raise reader.wrong("its places in the texture are not those of its vertices")
    material = primitive.get("material")
    if material is not None:
        reader.at("materials", material)
    return _Part(vertices=vertices, triangles=triangles, uv=uv, material=primitive.get("material"))


def _joined(reader: GltfReader, parts: list[_Part]) -> MeshData:
    """One mesh, whose pictures lie one below the other, each on a border of its own colours."""
    materials = list(dict.fromkeys(part.material for part in parts))
    pictures = [_picture(reader, material) for material in materials]
    columns = max(picture.shape[1] for picture in pictures)
    pictures = [_of_width(picture, columns) for picture in pictures]
    if sum(picture.shape[0] for picture in pictures) * columns > _MOST_TEXELS:
        raise reader.wrong(f"its textures have more than {_MOST_TEXELS:,} texels")
    texture = np.concatenate(pictures)
    first = np.cumsum([0, *(len(picture) for picture in pictures)])
    uv, triangles, counted = [], [], 0
    for part in parts:
        number = materials.index(part.material)
        corners = part.uv[part.triangles]  # [T, 3, 2], moved by whole pictures to lie in one
        moved = corners - np.floor(corners.min(axis=1, keepdims=True) + 1e-6)
        moved = moved.clip(0, 1).reshape(-1, 2)
        moved[:, 1] = (first[number] + moved[:, 1] * len(pictures[number])) / len(texture)
        uv.append(moved)
        triangles.append(part.triangles + counted)
        counted += len(part.vertices)
    # A place is one vertex, wherever it lies in the texture: seams are no edges of the surface.
    vertices, places = np.unique(
        np.concatenate([part.vertices for part in parts]), axis=0, return_inverse=True
    )
    joined = places.reshape(-1)[np.concatenate(triangles)]
    shared, corner = np.unique(np.concatenate(uv), axis=0, return_inverse=True)
    return MeshData(
        vertices=vertices,
        triangles=joined,
        uv=shared,
        uv_triangles=corner.reshape(-1, 3),
        texture=texture,
    )


def _picture(reader: GltfReader, material: object) -> np.ndarray:
    """[rows, columns, 3], 0..1: base colours of a material, by glTF white where there is none."""
    if material is None:
        return np.ones((_PLAIN, _PLAIN, 3), dtype=np.float32)
    found = reader.at("materials", material).get("pbrMetallicRoughness", {})
    if not isinstance(found, dict):
        raise reader.wrong("has a material that is none")
    factor = reader.numbers(found, "baseColorFactor", [1.0] * 4)[:3].clip(0, 1)
    colour = np.where(factor <= 0.0031308, 12.92 * factor, 1.055 * factor ** (1 / 2.4) - 0.055)
    if "baseColorTexture" not in found:
        return np.broadcast_to(colour, (_PLAIN, _PLAIN, 3)).astype(np.float32)
    named = found["baseColorTexture"]
    texture = reader.at("textures", named.get("index") if isinstance(named, dict) else None)
    webp = texture.get("extensions", {})
    webp = webp.get("EXT_texture_webp", {}) if isinstance(webp, dict) else {}
    source = webp.get("source") if isinstance(webp, dict) else None
    image = reader.at("images", texture.get("source") if source is None else source)
    inside: Path | bytes
    inside = (
        reader.view(image["bufferView"])
        if "bufferView" in image
        else _beside(reader.path, image.get("uri"))
    )
    with open_picture(inside, where=reader.path, max_pixels=_MOST_TEXELS) as opened:
        pixels = np.asarray(plain_colours(opened).convert("RGB"), dtype=np.float32) / 255
    return pixels * colour.astype(np.float32)


def _of_width(picture: np.ndarray, columns: int) -> np.ndarray:
    if picture.shape[1] == columns:
        return picture
    codes = Image.fromarray(np.rint(255 * picture.clip(0, 1)).astype(np.uint8))
    resized = codes.resize((columns, len(picture)), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32) / 255
