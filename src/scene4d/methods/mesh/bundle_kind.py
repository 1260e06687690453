"""The bundle kind ``mesh``: triangles with a texture. ``mobile_export/SPEC.md``, section 10."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scene4d.bundle.arrays import CodedArray
from scene4d.bundle.coding import Coded, PointSet, decode_scene, encode_scene
from scene4d.bundle.container import Bundle
from scene4d.bundle.kinds import BundleKind
from scene4d.bundle.positions import MAX_BITS
from scene4d.bundle.splats import quantise_points
from scene4d.errors import DataError, UsageError
from scene4d.formats.textured_mesh import MeshData
from scene4d.image_files import open_picture

if TYPE_CHECKING:
    from scene4d.methods.mesh.textured_mesh import TexturedMesh

KIND = "mesh"
TEXTURE_MEMBER = "texture.webp"
_POSITION_BITS, _UV_BITS = 14, 13
_WEBP_QUALITY = 85
_MOST_CODE = 1 << 23


class MeshKind(BundleKind):
    """Vertices as points, their places in the texture, and triangles; the texture is a picture."""

    name = KIND

    def decode(self, bundle: Bundle, *, stages: int | None = None) -> MeshData:
        """Triangles and texture; whatever ``stages``, as a mesh has one."""
        entry, decoded = bundle.manifest[KIND], decode_scene(bundle)
        places = decoded.points
        assert places is not None, "faults() asks for positions"
        corners = decoded.arrays["corners"].codes.astype(np.int64)
        vertex = np.cumsum(corners[:, 0])
        triangles = decoded.arrays["triangles"].codes.astype(np.int64)
        first = np.cumsum(triangles[:, 0])
        wedges = np.stack([first, first + triangles[:, 1], first + triangles[:, 2]], axis=1)
        for what, index, count in (
            ("corners", vertex, len(places)), ("triangles", wedges, len(corners)),
        ):  # fmt: skip
            if index.size and not (index.min() >= 0 and index.max() < count):
                raise DataError(f"its {what} name rows beyond the {count}", where=bundle.path)
        scale = (1 << entry["uv_bits"]) - 1
        if corners.size and not (corners[:, 1:].min() >= 0 and corners[:, 1:].max() <= scale):
            raise DataError("a corner lies outside the texture", where=bundle.path)
        return MeshData(
            vertices=places.astype(np.float64),
            triangles=vertex[wedges],
            uv=corners[:, 1:] / scale,
            uv_triangles=wedges,
            texture=_texture(bundle),
        )

    def describe(self, manifest: Mapping[str, Any]) -> str:
        """Triangles and texels."""
        texture = manifest[KIND]["texture"]
        count = _items(manifest, "triangles")
        return (
            f"a mesh of {count:,} triangles, a texture of {texture['width']} x {texture['height']}"
        )

    def faults(self, manifest: Mapping[str, Any]) -> list[str]:
        """Arrays of another form than a mesh has."""
        if not isinstance(manifest.get(KIND), dict):
            return [f"the manifest has no entry {KIND!r}"]
        arrays = {array["name"]: array for array in manifest["arrays"]}
        wrong = []
        if manifest["count"] or manifest["sh_degree"]:
            wrong.append("a mesh has no splats, so its count and sh_degree are 0")
        if "positions" not in manifest or len(manifest["stages"]) != 1:
            wrong.append("a mesh has positions, in one stage")
        if set(arrays) != {"corners", "triangles"}:
            return [*wrong, "a mesh has the arrays corners and triangles, and no others"]
        for name, array in arrays.items():
            altered = {"quantiser", "basis", "mean"} & set(array)
            if array["components"] != 3 or "items" not in array or altered:
                wrong.append(f"array {name!r} is to have items of 3 codes that are their values")
        if arrays["triangles"].get("items") == 0:
            wrong.append("a mesh without triangles")
        member = manifest[KIND]["texture"]["member"]
        if member not in {entry["name"] for entry in manifest["members"]}:
            wrong.append(f"there is no member {member!r}, which is the texture")
        return wrong

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """Counts, and the texture."""
        texture = bundle.manifest[KIND]["texture"]
        return {
            "triangles": _items(bundle.manifest, "triangles"),
            "vertices": sum(stage["points"] for stage in bundle.manifest["stages"]),
            "texture": f"{texture['width']} x {texture['height']}",
        }

    def takes(self, representation: Any) -> bool:
        """Whether it is a mesh with a texture."""
        return representation.mesh() is not None

    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """Places in 14 bits of the longest side, ``factor`` times coarser, as is the picture."""
        return encode_mesh(representation.mesh(), factor=factor)

    def open(self, bundle: Bundle) -> TexturedMesh:
        """The mesh at the bits that it was stored with."""
        return self.of_mesh(self.decode(bundle))

    def of_mesh(self, mesh: MeshData) -> TexturedMesh:
        """The mesh as it is."""
        from scene4d.methods.mesh.textured_mesh import TexturedMesh

        return TexturedMesh(mesh)

    def content_box(self, representation: Any) -> tuple[np.ndarray, np.ndarray]:
        """That of its vertices."""
        vertices = representation.mesh().vertices
        return vertices.min(axis=0), vertices.max(axis=0)

    def stored_line(self, representation: Any) -> str:
        """Triangles and texels."""
        mesh = representation.mesh()
        rows, columns = mesh.texture.shape[:2]
        return f"a mesh of {len(mesh.triangles):,} triangles with a texture of {columns} x {rows}"


def encode_mesh(mesh: MeshData, *, factor: float = 1.0) -> Coded:
    """Members and the manifest's part. Raises :class:`UsageError` for a mesh without triangles."""
    if not len(mesh.triangles):
        raise UsageError("a mesh without triangles cannot be a bundle")
    points, rank = _points(mesh.vertices, factor)
    scale = (1 << _UV_BITS) - 1
    uv = np.rint(np.clip(mesh.uv, 0, 1) * scale).astype(np.int64)
    pairs = np.concatenate(
        [rank[mesh.triangles.reshape(-1, 1)], uv[mesh.uv_triangles.ravel()]], axis=1
    )
    corners, wedges = np.unique(pairs, axis=0, return_inverse=True)
    triangles = _turned(wedges.reshape(-1, 3))
    codes = {
        "corners": np.concatenate([np.diff(corners[:, :1], axis=0, prepend=0), corners[:, 1:]], 1),
        "triangles": np.concatenate(
            [np.diff(triangles[:, :1], axis=0, prepend=0), triangles[:, 1:] - triangles[:, :1]], 1
        ),
    }
    if max(np.abs(c).max() for c in codes.values()) >= _MOST_CODE:
        raise UsageError("a mesh of so many corners cannot be a bundle", fix="simplify it")
    arrays = [
        CodedArray(name=name, codes=found.astype(np.int32), stage=0, stream=name)
        for name, found in codes.items()
    ]
    coded = encode_scene(points, arrays)
    rows, columns = mesh.texture.shape[:2]
    entry = {
        "uv_bits": _UV_BITS,
        "texture": {"member": TEXTURE_MEMBER, "width": columns, "height": rows},
    }
    members = {**coded.members, TEXTURE_MEMBER: _webp(mesh.texture, factor)}
    manifest = {"count": 0, "sh_degree": 0, KIND: entry, **coded.manifest}
    return replace(coded, members=members, manifest=manifest)


def _points(vertices: np.ndarray, factor: float) -> tuple[PointSet, np.ndarray]:
    """Vertices on a grid, and the place of each in the order of coding."""
    bits = int(np.clip(round(_POSITION_BITS - np.log2(factor)), 4, MAX_BITS))
    points = quantise_points(vertices, bits, np.zeros(len(vertices), dtype=np.int64))
    order = points.order()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return points, rank


def _turned(triangles: np.ndarray) -> np.ndarray:
    """Each from its smallest corner on, sorted; they face where they faced."""
    first = triangles.argmin(axis=1)[:, None]
    turned = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
    return turned[np.lexsort(turned.T[::-1])]


def _webp(texture: np.ndarray, factor: float) -> bytes:
    file = io.BytesIO()
    quality = int(np.clip(round(_WEBP_QUALITY - 15 * np.log2(factor)), 1, 100))
    codes = np.rint(255 * np.clip(texture, 0, 1)).astype(np.uint8)
    Image.fromarray(codes).save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()


def _texture(bundle: Bundle) -> np.ndarray:
    """[rows, columns, 3], of the size that the manifest says."""
    entry = bundle.manifest[KIND]["texture"]
    width, height = entry["width"], entry["height"]
    where = f"{bundle.path}: {entry['member']}"
    content = bundle.read(entry["member"])
    with open_picture(content, where=where, formats=("WEBP", "JPEG", "PNG")) as image:
        if image.size != (width, height):
            raise DataError(
                f"is {image.width} x {image.height}, not {width} x {height}", where=where
            )
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return pixels / 255


def _items(manifest: Mapping[str, Any], name: str) -> int:
    return next(a["items"] for a in manifest["arrays"] if a["name"] == name)
