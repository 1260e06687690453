"""The bundle kind ``mesh``: what is stored comes back, and what is not sound is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.mesh.meshes import camera_on_circle, globe
from scipy.spatial import cKDTree

from scene4d.bundle.arrays import CodedArray
from scene4d.bundle.checks import bundle_faults
from scene4d.bundle.coding import encode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.kinds import decoded
from scene4d.bundle.splats import bundle_writer, quantise_points
from scene4d.cli.main import main
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.exporters.bundle import export, scene_info
from scene4d.exporters.options import BundleOptions
from scene4d.methods.mesh.bundle_kind import MeshKind, encode_mesh
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras


@pytest.fixture(scope="module")
def scene() -> OpenedScene:
    cameras = [camera_on_circle(angle) for angle in (2.0, 3.0, 4.0)]
    home = torch.eye(4, dtype=torch.float64)
    home[0, 3] = 7.0
    return OpenedScene(
        path=Path("run"),
        representation=TexturedMesh(globe(12, rows=64)),
        cameras=SceneCameras(train=cameras, source_from_scene=home),
    )


@pytest.fixture(scope="module")
def stored(scene, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "globe.s4d"
    assert "a mesh of" in export(scene, path)
    return path


def test_a_mesh_comes_back(scene, stored) -> None:
    again = open_scene(stored)
    assert isinstance(again.representation, TexturedMesh)
    torch.testing.assert_close(again.source_from_scene, scene.source_from_scene)
    with torch.no_grad():
        ours, theirs = (s.representation.render(scene.cameras.train[1]).rgb for s in (again, scene))
    # WebP of quality 85, places in 2^-14 of the globe
    assert float((ours - theirs).abs().mean()) < 0.006
    mesh, found = scene.representation.mesh(), again.representation.mesh()

    step = np.ptp(mesh.vertices, axis=0).max() / 2**14
    for places in (lambda m: m.vertices[m.triangles], lambda m: m.uv[m.uv_triangles]):
        middles = [places(m).mean(axis=1) for m in (mesh, found)]
        assert len(middles[0]) == len(middles[1])
        assert cKDTree(middles[1]).query(middles[0])[0].max() < step
    areas = [
        np.cross(*(d.vertices[d.triangles[:, i]] - d.vertices[d.triangles[:, 0]] for i in (1, 2)))
        for d in (mesh, found)
    ]
    outwards = [
        (a * d.vertices[d.triangles].mean(axis=1)).sum()
        for a, d in zip(areas, (mesh, found), strict=True)
    ]
    assert outwards[1] == pytest.approx(outwards[0], rel=1e-3)  # none is turned over


def test_the_verbs_know_it(stored, capsys, tmp_path) -> None:
    assert main(["validate", str(stored)]) == 0
    assert main(["info", str(stored), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["bundle_kind"] == "mesh"
    assert main(["export", str(stored), "glb", "--output-path", str(tmp_path / "a.glb")]) == 0
    assert (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"


def test_a_smaller_one_is_coarser(scene, tmp_path) -> None:
    whole = len(encode_mesh(scene.representation.mesh()).members["texture.webp"])
    small = encode_mesh(scene.representation.mesh(), factor=4.0)
    assert len(small.members["texture.webp"]) < whole
    with pytest.raises(UsageError, match="cannot be made"):
        export(scene, tmp_path / "a.s4d", BundleOptions(target_mb=0.0005))


def bundle(scene, path: Path, **changed) -> Path:
    """That of the scene with other members or arrays."""
    coded = encode_mesh(scene.representation.mesh())
    if "arrays" in changed:
        mesh = scene.representation.mesh()
        points = quantise_points(mesh.vertices, 14, np.zeros(len(mesh.vertices), dtype=np.int64))
        other = encode_scene(points, changed["arrays"])
        members = {**other.members, "texture.webp": coded.members["texture.webp"]}
        coded = replace(coded, members=members, manifest={**coded.manifest, **other.manifest})
    entry = {**coded.manifest["mesh"], **changed.get("entry", {})}
    manifest = {**coded.manifest, "mesh": entry}
    members = {**coded.members, **changed.get("members", {})}
    coded = replace(coded, manifest=manifest, members=members)
    bundle_writer("mesh", coded, scene_info(scene, MeshKind())).write(path)
    return path


def array(name: str, rows: list[list[int]]) -> CodedArray:
    return CodedArray(name=name, codes=np.array(rows, dtype=np.int32), stage=0, stream=name)


CORNERS = [[0, 0, 0], [1, 9, 0], [1, 9, 9]]
UNSOUND = {
    "a row beyond": {"arrays": [array("corners", CORNERS), array("triangles", [[0, 1, 3]])]},
    "a row before": {"arrays": [array("corners", CORNERS), array("triangles", [[1, -2, 1]])]},
    "a vertex beyond": {
        "arrays": [array("corners", [[0, 0, 0], [99999, 9, 0]]), array("triangles", [[0, 1, 1]])]
    },
    "a place outside": {
        "arrays": [array("corners", [[0, 0, 9999], *CORNERS[1:]]), array("triangles", [[0, 1, 2]])]
    },
    "other arrays": {"arrays": [array("corners", CORNERS)]},
    "a size that is not the picture's": {
        "entry": {"texture": {"member": "texture.webp", "width": 63, "height": 64}}
    },
    "a huge picture": {
        "entry": {"texture": {"member": "texture.webp", "width": 63000, "height": 64}}
    },
    "no picture": {"members": {"texture.webp": b"RIFF"}},
    "no member": {"entry": {"texture": {"member": "other.webp", "width": 128, "height": 64}}},
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_not_sound_is_refused(name, scene, tmp_path) -> None:
    path = bundle(scene, tmp_path / "a.s4d", **UNSOUND[name])
    with pytest.raises(DataError):
        decoded(open_bundle(path))
    assert bundle_faults(path)
    with pytest.raises(Scene4dError):
        open_scene(path)
