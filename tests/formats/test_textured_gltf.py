"""Textured meshes read from glTF: what our own exporter wrote, and files of strangers."""

import base64
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from formats.splat_files import glb_with
from PIL import Image

from scene4d.errors import DataError
from scene4d.exporters.textured_glb import glb
from scene4d.formats.textured_gltf import read_textured_mesh
from scene4d.formats.textured_mesh import MeshData

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32)
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
UV = np.array([[0.1, 0.2], [0.9, 0.2], [0.3, 0.8], [0.5, 0.5]], dtype=np.float32)


def tetrahedron() -> MeshData:
    texture = np.random.default_rng(0).integers(0, 256, (16, 8, 3)).astype(np.float32) / 255
    return MeshData(
        vertices=CORNERS.astype(np.float64),
        triangles=TRIANGLES,
        uv=UV.astype(np.float64),
        uv_triangles=TRIANGLES,
        texture=texture,
    )


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def written(folder: Path, change=lambda document: None, **materials) -> Path:
    """A .gltf with a .bin and pictures beside it."""
    indices = TRIANGLES.astype("<u2").tobytes()
    data = CORNERS.tobytes() + UV.tobytes() + indices
    (folder / "data 1.bin").write_bytes(data)
    (folder / "a.png").write_bytes(png(np.full((4, 4, 3), 200, np.uint8)))
    spans = [(0, 48), (48, 32), (80, 24)]
    document = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0, "scale": [2, 2, 2], "translation": [1, 0, 0]}],
        "scenes": [{"nodes": [0]}],
        "meshes": [{"primitives": [
            {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}
        ]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, **materials}}],
        "textures": [{"source": 0}],
        "images": [{"uri": "a.png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 12, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": length} for start, length in spans
        ],
        "buffers": [{"uri": "data%201.bin", "byteLength": len(data)}],
    }  # fmt: skip
    change(document)
    (folder / "thing.gltf").write_text(json.dumps(document))
    return folder / "thing.gltf"


@pytest.mark.parametrize("profile", ["ar", "web"])
def test_what_our_exporter_writes_is_read_back(tmp_path: Path, profile) -> None:
    given = tetrahedron()
    (tmp_path / "a.glb").write_bytes(glb(given, np.zeros(3), profile=profile, unlit=False))
    found = read_textured_mesh(tmp_path / "a.glb")
    turned = np.diag([-1.0, -1.0, 1.0])  # glTF's y is up
    corners = given.vertices[given.triangles] @ turned
    expected = np.concatenate([corners, given.uv[given.triangles]], axis=2)
    read = [found.vertices[found.triangles], found.uv[found.uv_triangles]]
    # Compressed, triangles come in any order and turned.
    turns = np.stack([np.roll(np.concatenate(read, axis=2), i, axis=1) for i in range(3)])
    off = np.abs(expected[:, None, None] - turns).max(axis=(3, 4)).min(axis=(1, 2))
    # Half a step of 14 bits of the longest side, 3.
    assert (off < (1.5 / 16383 + 1e-6 if profile == "web" else 1e-6)).all()
    assert found.texture.shape == given.texture.shape
    assert len(found.vertices) == len(given.vertices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "INDICES"}, "'INDICES'"),
        ({"filter": "OCTAHEDRAL"}, "'OCTAHEDRAL'"),
        ({"buffer": 1}, "outside its binary part"),
        ({"byteLength": 20}, "cut off"),
        ({"byteLength": 10**7}, "cut off"),
        ({"byteOffset": -4}, "byteOffset"),
        ({"count": 3 * 10**8}, "cut off"),
        ({"count": 5}, "damaged|5 corners|another length"),
        ({"byteStride": 6}, "6 bytes"),
        ({"byteStride": "x"}, "byteStride"),
    ],
)
@pytest.mark.parametrize("view", [0, 1, 2])
def test_compressed_views_that_lie_are_refused(tmp_path: Path, view, change, message) -> None:
    def broken(document: dict) -> None:
        document["bufferViews"][view]["extensions"]["EXT_meshopt_compression"].update(change)

    data = glb(tetrahedron(), np.zeros(3), profile="web")
    (tmp_path / "a.glb").write_bytes(glb_with(data, broken))
    with pytest.raises(DataError, match=message):
        read_textured_mesh(tmp_path / "a.glb")


def test_files_beside_it_and_nodes_are_followed(tmp_path: Path) -> None:
    found = read_textured_mesh(written(tmp_path))
    np.testing.assert_allclose(
        found.vertices[found.triangles], 2 * CORNERS[TRIANGLES] + [1, 0, 0], atol=1e-6
    )
    np.testing.assert_allclose(found.texture, 200 / 255, atol=1e-6)


def test_a_mirrored_node_turns_triangles_the_right_way_round(tmp_path: Path) -> None:
    def mirror(document) -> None:
        document["nodes"][0]["scale"] = [-1, 1, 1]

    found = read_textured_mesh(written(tmp_path, mirror))
    a, b, c = found.vertices[found.triangles].transpose(1, 0, 2)
    volume = (np.cross(a, b) * c).sum() / 6
    assert volume == pytest.approx(1.0)  # 1 * 2 * 3 / 6, and not its negative


def test_two_materials_lie_one_below_the_other(tmp_path: Path) -> None:
    def second(document) -> None:
        part = document["meshes"][0]["primitives"][0]
        document["meshes"][0]["primitives"].append({**part, "material": 1})
        document["materials"].append(
            {"pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.0, 0.0, 1.0]}}
        )

    found = read_textured_mesh(written(tmp_path, second))
    rows = found.uv[found.uv_triangles][:, :, 1] * len(found.texture)
    first, other = rows[:4], rows[4:]
    assert first.max() <= 4 <= other.min()
    assert found.texture[:4, 0].tolist() == pytest.approx(np.full((4, 3), 200 / 255))
    assert found.texture[4:, 0].tolist() == pytest.approx(np.tile([1.0, 0, 0], (8, 1)))


def test_places_beyond_the_picture_repeat_it(tmp_path: Path) -> None:
    moved = UV + np.array([3, -2])

    def further(document) -> None:
        data = CORNERS.tobytes() + moved.astype(np.float32).tobytes()
        (tmp_path / "data 1.bin").write_bytes(data + TRIANGLES.astype("<u2").tobytes())

    found = read_textured_mesh(written(tmp_path, further))
    np.testing.assert_allclose(found.uv[found.uv_triangles], UV[TRIANGLES], atol=1e-6)


@pytest.mark.parametrize(
    ("uri", "told"),
    [("../a.png", "no file beside it"), ("/etc/passwd", "no file beside it"),
     ("http://x/a.png", "no file beside it"), ("gone.png", "gone.png"), (7, "no file beside it")],
)  # fmt: skip
def test_pictures_elsewhere_are_refused(tmp_path: Path, uri, told) -> None:
    def elsewhere(document) -> None:
        document["images"][0]["uri"] = uri

    with pytest.raises(DataError, match=told):
        read_textured_mesh(written(tmp_path, elsewhere))


def broken(path: tuple, value):
    def change(document) -> None:
        *inner, last = path
        for key in inner:
            document = document[key]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (broken(("accessors", 2, "count"), 99), "cut|end"),
        (broken(("accessors", 2, "componentType"), 5126), "end|cut"),
        (broken(("accessors", 0, "type"), "VEC2"), "POSITION"),
        (broken(("meshes", 0, "primitives", 0, "mode"), 1), "no triangles"),
        (broken(("meshes", 0, "primitives", 0, "attributes"), 3), "attributes"),
        (broken(("extensionsRequired",), ["KHR_draco_mesh_compression"]), "draco"),
        (broken(("nodes", 0, "children"), [0]), "circle"),
        (broken(("buffers",), []), "buffer"),
        (broken(("materials", 0, "pbrMetallicRoughness"), 5), "material"),
        (broken(("textures",), []), "textures"),
        (broken(("meshes", 0, "primitives", 0, "material"), {}), "materials"),
    ],
)
def test_what_is_broken_is_told(tmp_path: Path, change, told) -> None:
    with pytest.raises(DataError, match=f"(?i){told}"):
        read_textured_mesh(written(tmp_path, change))


def test_triangles_of_vertices_that_are_not_there(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = bytearray((tmp_path / "data 1.bin").read_bytes())
    struct.pack_into("<H", data, 80, 4)
    (tmp_path / "data 1.bin").write_bytes(data)
    with pytest.raises(DataError, match="vertices that it does not have"):
        read_textured_mesh(path)


def test_a_text_is_no_gltf(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_text(base64.b64encode(b"nothing").decode())
    with pytest.raises(DataError, match="JSON"):
        read_textured_mesh(tmp_path / "a.glb")
