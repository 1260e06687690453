"""Textured meshes in files: what other programs read is what is drawn."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.mesh.meshes import camera_on_circle, globe
from optional_packages import import_or_skip

from scene4d.bundle.container import open_bundle
from scene4d.cameras.camera import Camera
from scene4d.cli import export as verb
from scene4d.errors import UsageError
from scene4d.exporters.bundle import export as export_bundle
from scene4d.exporters.options import GlbOptions
from scene4d.exporters.standing import standing
from scene4d.exporters.textured_mesh import (
    export_glb,
    export_mesh,
    export_obj,
    export_ply,
    export_usdz,
)
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras

trimesh = import_or_skip("trimesh")

HOME = np.array([[0.0, -3, 0, 10], [3, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
UTM = np.eye(4)
UTM[:3, 3] = (448_262.3, 5_412_331.7, 151.2)


@pytest.fixture(scope="module")
def mesh() -> MeshData:
    data = globe(12, rows=64)
    codes = np.rint(255 * data.texture) / 255  # as pictures hold it
    return replace(data, texture=codes.astype(np.float32))


def scene(mesh: MeshData, home: np.ndarray | None = None) -> OpenedScene:
    cameras = SceneCameras(source_from_scene=torch.from_numpy(np.eye(4) if home is None else home))
    return OpenedScene(path=Path("run"), representation=TexturedMesh(mesh), cameras=cameras)


def read_back(path: Path) -> MeshData:
    """By trimesh, whose v is up, in the frame of the file."""
    loaded = trimesh.load(path, process=False)
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    material = loaded.visual.material
    image = material.baseColorTexture if hasattr(material, "baseColorTexture") else material.image
    triangles = np.asarray(loaded.faces, dtype=np.int64)
    uv = np.asarray(loaded.visual.uv, dtype=np.float64) * [1, -1] + [0, 1]
    # A vertex for each of its places in the texture: outlines are of the surface as one.
    vertices, welded = np.unique(np.asarray(loaded.vertices), axis=0, return_inverse=True)
    return MeshData(
        vertices=vertices.astype(np.float64),
        triangles=welded.reshape(-1)[triangles],
        # trimesh takes normalised numbers as they are, and turns them over in 16 bits
        uv=np.mod(uv, 65536) / 65535 if np.abs(uv).max() > 2 else uv,
        uv_triangles=triangles,
        texture=np.asarray(image.convert("RGB"), dtype=np.float32) / 255,
    )


def drawn(mesh: MeshData) -> np.ndarray:
    with torch.no_grad():
        return TexturedMesh(mesh).render(camera_on_circle(2.2, size=96)).rgb.numpy()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("a.glb", GlbOptions()),
        ("a.glb", GlbOptions(unlit=False)),
        ("a.obj", None),
    ],
)
def test_another_reader_sees_the_same_picture(name, more, mesh, tmp_path) -> None:
    export = export_glb if name == "a.glb" else export_obj
    described = export(scene(mesh), tmp_path / name, more)
    assert f"{len(mesh.triangles):,} triangles" in described
    found = read_back(tmp_path / name)
    if name == "a.glb":
        found = found.transformed(GLTF_FROM_SOURCE)  # half a turn: its own inverse
    # JPEG: steps of some codes
    assert np.abs(drawn(found) - drawn(mesh)).mean() < 0.004
    assert np.abs(drawn(found) - drawn(mesh)).max() < 0.1


def test_a_mesh_for_the_web_is_a_scene_again(mesh, tmp_path) -> None:
    """Compressed, in the place where it was, and smaller."""
    web, ar = tmp_path / "web.glb", tmp_path / "ar.glb"
    export_glb(scene(mesh, HOME), web, GlbOptions(profile="web"))
    export_glb(scene(mesh, HOME), ar)
    assert web.stat().st_size < 0.5 * ar.stat().st_size
    opened = open_scene(web)
    found = opened.representation.mesh()
    back = np.linalg.inv(HOME) @ opened.source_from_scene.numpy()
    found = found.transformed(back)
    assert len(found.vertices) == len(mesh.vertices)
    # WebP: steps of some codes; outlines move by half a step of 14 bits
    assert np.abs(drawn(found) - drawn(mesh)).mean() < 0.006
    assert np.abs(drawn(found) - drawn(mesh)).max() < 0.1
    told = export_bundle(opened, tmp_path / "a.s4d")
    assert f"{len(mesh.triangles):,} triangles" in told
    # It closes around its middle, and is looked at from outside all the same.
    manifest = open_bundle(tmp_path / "a.s4d").manifest
    eye = np.array(manifest["cameras"][0]["c2w"])[:3, 3]
    low, high = manifest["limits"]["content"]
    assert ((eye < low) | (eye > high)).any()


def corners(data: MeshData) -> np.ndarray:
    """[T, 3, 3] of all triangles, whose order files keep."""
    return data.vertices[data.triangles]


def test_files_are_in_the_inputs_frame(mesh, tmp_path) -> None:
    expected = corners(mesh.transformed(HOME))
    for name, export in (("a.obj", export_obj), ("a.glb", export_glb), ("b.glb", export_mesh)):
        export(scene(mesh, HOME), tmp_path / name)
        found = read_back(tmp_path / name)
        if name.endswith("glb"):
            found = found.transformed(GLTF_FROM_SOURCE)
        np.testing.assert_allclose(corners(found), expected, atol=1e-5)  # float32 of 20 units


def test_a_mesh_far_away_keeps_its_shape(mesh, tmp_path) -> None:
    export_glb(scene(mesh, UTM), tmp_path / "a.glb")
    found = read_back(tmp_path / "a.glb").transformed(GLTF_FROM_SOURCE)
    np.testing.assert_allclose(corners(found), corners(mesh.transformed(UTM)), atol=1e-6)
    export_ply(scene(mesh, UTM), tmp_path / "a.ply")
    content = (tmp_path / "a.ply").read_bytes()
    assert b"property double x" in content


def test_ply_has_texture_coordinates_at_corners(mesh, tmp_path) -> None:
    export_ply(scene(mesh), tmp_path / "a.ply")
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert b"comment TextureFile a.jpg" in header and (tmp_path / "a.jpg").is_file()
    vertices = np.frombuffer(body, "<f4", 3 * len(mesh.vertices)).reshape(-1, 3)
    np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-6)
    faces = np.frombuffer(
        body, np.dtype([("n", "u1"), ("c", "<i4", 3), ("m", "u1"), ("uv", "<f4", (3, 2))]),
        offset=vertices.nbytes,
    )  # fmt: skip
    np.testing.assert_array_equal(faces["c"], mesh.triangles)
    up = mesh.uv[mesh.uv_triangles] * [1, -1] + [0, 1]
    np.testing.assert_allclose(faces["uv"], up, atol=1e-6)


def test_usdz_members_are_stored_and_aligned(mesh, tmp_path) -> None:
    path = tmp_path / "a.usdz"
    export_usdz(scene(mesh, HOME), path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as package:
        members = package.infolist()
        assert [m.filename for m in members] == ["scene.usda", "texture.jpg"]
        for member in members:
            assert member.compress_type == zipfile.ZIP_STORED
            name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
            assert (member.header_offset + 30 + name + extra) % 64 == 0
        text = package.read("scene.usda").decode()
    assert 'upAxis = "Y"' in text and text.count("faceVertexIndices") == 1


def test_usdz_passes_pixars_validators(mesh, tmp_path) -> None:
    import_or_skip("pxr", reason="usd-core checks USDZ files")
    from pxr import Usd, UsdGeom, UsdValidation

    path = tmp_path / "a.usdz"
    export_usdz(scene(mesh, HOME), path)
    stage = Usd.Stage.Open(str(path))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [e.GetMessage() for e in errors] == []
    surface = UsdGeom.Mesh(stage.GetPrimAtPath("/Scene/Surface"))
    points = np.asarray(surface.GetPointsAttr().Get())
    to_world = np.asarray(UsdGeom.Xformable(surface).ComputeLocalToWorldTransform(0)).T
    found = points @ to_world[:3, :3].T + to_world[:3, 3]
    expected = mesh.transformed(standing(scene(mesh, HOME), home_of(mesh)) @ HOME).vertices
    np.testing.assert_allclose(found, expected, atol=1e-5)


def home_of(mesh):
    return mesh.transformed(HOME).vertices


def held(mesh, up, tilt):
    """The mesh, photographed all around by cameras that are held ``up`` and look down by
    ``tilt`` radians."""
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    side = np.cross(up, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side)
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        level = np.cos(angle) * side + np.sin(angle) * np.cross(up, side)
        forward = np.cos(tilt) * level - np.sin(tilt) * up
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        c2w = np.eye(4)
        c2w[:3, :3] = np.stack([right, np.cross(right, forward), -forward], axis=1)
        cameras.append(Camera(c2w=torch.tensor(c2w).float(), K=torch.eye(3), width=9, height=9))
    opened = scene(mesh)
    return replace(opened, cameras=replace(opened.cameras, train=cameras))


@pytest.mark.parametrize("up", [(0, -1, 0), (0, 0, 1), (1, 0, 0), (0.1, 0.2, 2), (1, -2, 1.5)])
def test_a_thing_stands_as_it_was_photographed(up, mesh, tmp_path) -> None:
    source = held(mesh, up, 0.4)
    way = standing(source, mesh.vertices)
    np.testing.assert_allclose(way[:3, :3] @ way[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(way[:3, :3]) == pytest.approx(1)
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    leans = way[:3, :3] @ up
    # an axis of the capture that is within 30 degrees is up itself
    axis = float(abs(up).max())
    assert leans[1] == pytest.approx(axis if axis > 3**0.5 / 2 else 1, abs=1e-6)
    placed = mesh.vertices @ way[:3, :3].T + way[:3, 3]
    low, high = np.quantile(placed, [0.005, 0.995], axis=0)
    np.testing.assert_allclose([low[1], low[0] + high[0], low[2] + high[2]], 0, atol=1e-9)
    # the file's node says the same
    export_glb(source, tmp_path / "a.glb", GlbOptions(stands=True))
    found = read_back(tmp_path / "a.glb").vertices
    np.testing.assert_allclose(found.min(axis=0), placed.min(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.max(axis=0), placed.max(axis=0), atol=1e-5)


VALIDATOR = """
import {createRequire} from 'module'; import fs from 'fs';
const found = createRequire(process.argv[2] + '/')('gltf-validator');
const report = await found.validateBytes(new Uint8Array(fs.readFileSync(process.argv[3])));
console.log(JSON.stringify(report.issues));
"""


@pytest.mark.parametrize("options", [GlbOptions(), GlbOptions(profile="web", unlit=False)])
def test_glb_passes_khronos_validator(options, mesh, tmp_path) -> None:
    """``GLTF_VALIDATOR`` names a folder where ``npm install gltf-validator`` was run."""
    folder = os.environ.get("GLTF_VALIDATOR")
    if not folder or not shutil.which("node"):
        pytest.skip("GLTF_VALIDATOR names no folder with npm's gltf-validator")
    export_glb(scene(mesh, HOME), tmp_path / "a.glb", options)
    (tmp_path / "v.mjs").write_text(VALIDATOR)
    told = subprocess.run(
        ["node", tmp_path / "v.mjs", Path(folder).resolve(), tmp_path / "a.glb"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    issues = json.loads(told.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def one_splat() -> OpenedScene:
    floats = {"means": (1, 3), "quats": (1, 4), "log_scales": (1, 3), "logit_opacities": (1,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in floats.items()}
    cloud = SplatCloud(**arrays, sh=np.ones((1, 1, 3), np.float32))
    return OpenedScene(path=Path("a.ply"), representation=GaussianSplats.of(cloud))


def test_splats_are_still_written_under_the_same_names(tmp_path) -> None:
    export_ply(one_splat(), tmp_path / "a.ply")
    assert b"rot_0" in (tmp_path / "a.ply").read_bytes()
    export_glb(one_splat(), tmp_path / "a.glb")
    assert b"KHR_gaussian_splatting" in (tmp_path / "a.glb").read_bytes()


def test_wrong_use_is_told(mesh, tmp_path) -> None:
    with pytest.raises(UsageError, match="scene4d train mesh"):
        export_usdz(one_splat(), tmp_path / "a.usdz")
    with pytest.raises(UsageError, match=r"SOMETHING\.obj"):
        export_obj(scene(mesh), tmp_path / "a.ply")
    with pytest.raises(UsageError, match="stl"):
        export_mesh(scene(mesh), tmp_path / "a.stl")
    assert list(tmp_path.iterdir()) == []


def test_every_format_of_meshes_is_a_verb() -> None:
    assert {"glb", "obj", "ply", "usdz", "mesh"} <= set(verb.FORMATS)
