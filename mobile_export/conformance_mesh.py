"""Conformance bundles of kind mesh: triangles with a texture, and what must be refused of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conformance_lies import Lies, array, on_array, rename_array, setter
from conformance_scenes import numbers, scene_of
from PIL import Image

from scene4d.bundle.arrays import CodedArray
from scene4d.bundle.coding import Coded, PointSet, decode_scene, encode_scene
from scene4d.bundle.container import Bundle, open_bundle
from scene4d.bundle.scene_info import png
from scene4d.bundle.splats import bundle_writer
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.bundle_kind import KIND, MeshKind, encode_mesh

Codes = dict[str, np.ndarray]


def meshes() -> dict[str, Coded]:
    """The least mesh, and one with seams whose vertices have several places in the texture."""
    corner = MeshData(
        vertices=np.eye(3),
        triangles=np.array([[0, 1, 2]]),
        uv=np.array([[0.0, 0.0], [1.0, 0.0], [0.25, 1.0]]),
        uv_triangles=np.array([[0, 1, 2]]),
        texture=np.full((1, 1, 3), 1.0),
    )
    hills = landscape(7, 5)
    return {
        "mesh_least": with_picture(encode_mesh(corner), png(texels(1, 1, 61)), "texture.png"),
        # An odd number of texels along each side.
        "mesh_seams": with_picture(encode_mesh(hills), lossless(texels(13, 9, 62)), "texture.webp"),
    }  # fmt: skip


def landscape(columns: int, rows: int) -> MeshData:
    """A grid of hills, of which each half lies elsewhere in the texture; its columns are odd."""
    across, down = np.meshgrid(np.arange(columns), np.arange(rows))
    heights = numbers(rows, columns, 60)
    vertices = np.stack([across / 4, down / 4, heights], axis=-1).reshape(-1, 3)
    quads = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    triangles = quads + np.array([[0, columns, 1, 1, columns, columns + 1]])
    triangles = triangles.reshape(-1, 3).astype(np.int64)
    left = (triangles % columns).max(axis=1) <= columns // 2
    flat = np.stack([across / (2 * columns), down / rows], axis=-1).reshape(-1, 2)
    return MeshData(
        vertices=vertices,
        triangles=triangles,
        uv=np.concatenate([flat, 1 - flat]),
        uv_triangles=triangles + np.where(left, 0, len(flat))[:, None],
        texture=np.zeros((1, 1, 3)),
    )


def texels(width: int, height: int, seed: int) -> np.ndarray:
    """[height, width, 3] uint8."""
    found = np.floor(256 * numbers(height, 3 * width, seed))
    return found.reshape(height, width, 3).astype(np.uint8)


def lossless(picture: np.ndarray) -> bytes:
    """A WebP of exactly these texels."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True)
    return file.getvalue()


def with_picture(coded: Coded, picture: bytes, member: str) -> Coded:
    """With another texture, in a member of another name."""
    members = {name: data for name, data in coded.members.items() if name != "texture.webp"}
    with Image.open(io.BytesIO(picture)) as image:
        texture = {"member": member, "width": image.width, "height": image.height}
    entry = {**coded.manifest[KIND], "texture": texture}
    manifest = {**coded.manifest, KIND: entry}
    return replace(coded, members={**members, member: picture}, manifest=manifest)


def expected_mesh(bundle: Bundle) -> dict[str, list[float]]:
    """Places and places in the texture of the corners of every triangle, and the texels."""
    mesh = MeshKind().decode(bundle)
    texture = np.rint(255 * mesh.texture).astype(int)
    return {
        "places": [float(str(np.float32(v))) for v in mesh.vertices[mesh.triangles].ravel()],
        "uv": [round(v, 9) for v in mesh.uv[mesh.uv_triangles].ravel().tolist()],
        "texels": texture.ravel().tolist(),
    }


def broken_mesh() -> Lies:
    """Manifests of kind mesh that lie; of mesh_seams."""
    plain = {"type": "uniform", "step": [1.0] * 3, "offset": [0.0] * 3}

    def of_points(manifest: dict[str, Any]) -> None:
        for name in ("items", "stage"):
            del array(manifest, "corners")[name]

    return {
        "mesh_no_entry": (lambda m: m.pop(KIND) and None, "the entry mesh is missing",
                          "no entry 'mesh'"),
        "mesh_count": (setter("count", 5), "five splats", "a mesh has no splats"),
        "mesh_degree": (setter("sh_degree", 1), "harmonics", "a mesh has no splats"),
        "mesh_no_positions": (lambda m: m.pop("positions") and None, "no positions",
                              "a mesh has positions"),
        "mesh_far_positions": (setter("positions", "step", 1e300), "vertices beyond float32",
                               "beyond float32"),
        "mesh_renamed": (rename_array("corners", "cornets"), "no array corners",
                         "arrays corners and triangles"),
        "mesh_of_points": (of_points, "an item for each point", "items of 3 codes"),
        "mesh_quantiser": (on_array("corners", quantiser=plain), "a quantiser of rows",
                           "items of 3 codes"),
        "mesh_huge_items": (on_array("triangles", items=1 << 28),
                            "268 million triangles in a small file", "are believed"),
        "mesh_uv_bits": (setter(KIND, "uv_bits", 17), "places of 17 bits", "out of range"),
        "mesh_coarse_uv": (setter(KIND, "uv_bits", 3), "places of 13 bits where 3 are told",
                           "outside the texture"),
        "mesh_texture_huge": (setter(KIND, "texture", "width", 63000), "63,000 texels in a row",
                              "out of range"),
        "mesh_texture_none": (setter(KIND, "texture", "height", 0), "no row of texels",
                              "out of range"),
        "mesh_texture_absent": (setter(KIND, "texture", "member", "nothing.png"),
                                "the texture is no member", "no member 'nothing.png'"),
        "mesh_texture_wider": (setter(KIND, "texture", "width", 14), "a column more than there is",
                               "13 x 9, not 14 x 9"),
    }  # fmt: skip


def broken_mesh_codes(path: Path) -> dict[str, tuple[bytes, str, str]]:
    """Bundles of sound manifests with codes that cannot be."""

    def last(name: str, component: int, add: int) -> Callable[[Codes], None]:
        def change(codes: Codes) -> None:
            codes[name][-1, component] += add

        return change

    def none(codes: Codes) -> None:
        codes["triangles"] = codes["triangles"][:0]

    lies: dict[str, tuple[Callable[[Codes], None], str, str]] = {
        "mesh_vertex_beyond": (last("corners", 0, 99), "a corner of a vertex that is not there",
                               "corners name rows beyond"),
        "mesh_vertex_before": (lambda c: c["corners"][0].put(0, -1), "a corner of vertex -1",
                               "corners name rows beyond"),
        "mesh_u_beyond": (lambda c: c["corners"][3].put(1, 1 << 13), "a place right of the texture",
                          "outside the texture"),
        "mesh_v_below": (lambda c: c["corners"][3].put(2, -1), "a place above the texture",
                         "outside the texture"),
        "mesh_row_beyond": (last("triangles", 1, 1 << 20), "a triangle of a corner too many",
                            "triangles name rows beyond"),
        "mesh_row_before": (last("triangles", 2, -(1 << 20)), "a triangle of a corner below 0",
                            "triangles name rows beyond"),
        "mesh_empty": (none, "no triangle", "a mesh without triangles"),
    }  # fmt: skip
    found = {
        name: (_with_codes(path, change), reason, error)
        for name, (change, reason, error) in lies.items()
    }
    found["mesh_two_stages"] = (
        _with_codes(path, lambda codes: None, stages=2), "vertices in two stages", "in one stage"
    )  # fmt: skip
    return found


def broken_textures() -> dict[str, tuple[bytes, str, str]]:
    """What stands in the place of the texture of mesh_seams."""
    return {
        "mesh_no_picture": (b"RIFF" + bytes(60), "a texture that is no picture",
                            "cannot be read as an image"),
        "mesh_other_picture": (lossless(texels(12, 9, 63)), "a picture of another size",
                               "12 x 9, not 13 x 9"),
    }  # fmt: skip


def _with_codes(path: Path, change: Callable[[Codes], None], stages: int = 1) -> bytes:
    """The bundle with codes that ``change`` alters."""
    bundle = open_bundle(path)
    decoded, entry = decode_scene(bundle), bundle.manifest["positions"]
    assert decoded.grid is not None
    codes = {name: each.codes.copy() for name, each in decoded.arrays.items()}
    change(codes)
    points = PointSet(
        points=decoded.grid, bits=entry["bits"], origin=tuple(entry["origin"]), step=entry["step"],
        stages=np.arange(len(decoded.grid), dtype=np.int64) % stages,
    )  # fmt: skip
    arrays = [CodedArray(name=name, codes=of, stage=0, stream=name) for name, of in codes.items()]
    coded = encode_scene(points, arrays)
    texture = bundle.manifest[KIND]["texture"]["member"]
    kept = {name: bundle.manifest[name] for name in ("count", "sh_degree", KIND)}
    coded = replace(
        coded,
        members={**coded.members, texture: bundle.read(texture)},
        manifest={**kept, **coded.manifest},
    )
    return bundle_writer(KIND, coded, scene_of(bundle)).to_bytes()
