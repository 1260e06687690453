"""In which coordinates exported files are: exact where the format can, told where it cannot."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.bundle.splats import out_of_reach, wanted_step
from scene4d.cli import main as command
from scene4d.exporters.crop import auto_cropped
from scene4d.exporters.mesh_files import write_mesh
from scene4d.formats.glb import read_glb
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.placing import read_sidecar, sidecar
from scene4d.formats.registry import FORMATS, read_splats, write_splats
from scene4d.formats.splat_cloud import SplatCloud, held, is_far, local_frame
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.open_scene import scene_of_cloud
from scene4d.training.opened import OpenedScene, SceneCameras

UTM = np.array([448_262.3, 5_412_331.7, 151.2])


def cloud_at(offset: np.ndarray, *, count: int = 300, size: float = 2.0) -> SplatCloud:
    random = np.random.default_rng(0)
    log_scales = np.full((count, 3), np.log(0.01 * size), np.float32)
    means = random.uniform(-size / 2, size / 2, (count, 3)) + offset
    return SplatCloud(
        means=held(means, log_scales),
        quats=np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        log_scales=log_scales,
        logit_opacities=np.full(count, 2.0, np.float32),
        sh=random.normal(0, 0.3, (count, 1, 3)).astype(np.float32),
    )


def test_double_positions_are_used_where_they_are_needed_alone(tmp_path: Path) -> None:
    near, far = cloud_at(np.zeros(3)), cloud_at(UTM)
    assert near.means.dtype == np.float32 and far.means.dtype == np.float64
    for cloud, kind in ((near, b"property float x"), (far, b"property double x")):
        write_splats(tmp_path / "a.ply", cloud)
        assert kind in (tmp_path / "a.ply").read_bytes()[:300]
        found = read_splats(tmp_path / "a.ply")
        np.testing.assert_array_equal(found.means, cloud.means)  # not a bit is lost
        assert found.means.dtype == cloud.means.dtype


@pytest.mark.parametrize("form", [f.name for f in FORMATS if not f.keeps_far])
def test_a_format_that_cannot_hold_it_gets_a_local_frame(form, tmp_path, caplog) -> None:
    suffix = "compressed.ply" if form == "compressed-ply" else form
    cloud, path = cloud_at(UTM), tmp_path / f"a.{suffix}"
    with caplog.at_level(logging.WARNING):
        write_splats(path, cloud)
    assert "local frame" in caplog.text and sidecar(path).name in caplog.text
    offset = read_sidecar(path)[:3, 3]
    assert np.abs(offset - UTM).max() <= 1  # rounded to units of the scene's size
    found = read_splats(path)  # with the sidecar: the input's coordinates again
    assert np.abs(np.sort(found.means, 0) - np.sort(cloud.means, 0)).max() < 2e-3
    for axis in range(3):  # the issue saw 4 different values of y
        assert len(np.unique(found.means[:, axis])) > 250
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        write_splats(path, cloud, frame="source")
    assert "rounds positions by up to" in caplog.text
    assert not sidecar(path).exists()  # that of the earlier file is gone


def test_a_damaged_sidecar_is_one_error(tmp_path, capsys) -> None:
    path = tmp_path / "a.spz"
    write_splats(path, cloud_at(UTM))
    sidecar(path).write_text(json.dumps({"source_from_file": [[1, 2], [3, 4]]}))
    assert command.main(["convert", str(path), str(tmp_path / "b.ply")]) == 1
    err = capsys.readouterr().err
    assert "a.spz.frame.json" in err and "source_from_file" in err and "Traceback" not in err


def test_local_on_request_and_back(tmp_path) -> None:
    source, local, again = (tmp_path / n for n in ("a.ply", "b.ply", "c.ply"))
    write_splats(source, cloud_at(UTM))
    assert command.main(["convert", str(source), str(local), "--frame", "local"]) == 0
    assert b"property float x" in local.read_bytes()[:300]
    assert command.main(["convert", str(local), str(again)]) == 0
    # float32 around the origin, 1 unit away: steps of 6e-8
    np.testing.assert_allclose(
        read_splats(again).means, read_splats(source).means, rtol=0, atol=1e-6
    )


def test_a_bundle_of_a_far_file_is_drawn_around_the_origin(tmp_path) -> None:
    cloud = cloud_at(UTM)
    source = scene_of_cloud(tmp_path / "a.ply", cloud)
    assert np.abs(source.scene_cloud().means).max() < 3
    np.testing.assert_allclose(source.cloud().means, cloud.means, rtol=0, atol=1e-6)
    write_splats(tmp_path / "a.s4d", cloud)
    found = read_splats(tmp_path / "a.s4d")
    assert np.abs(np.sort(found.means, 0) - np.sort(cloud.means, 0)).max() < 5e-3


@pytest.mark.parametrize("offset", [np.zeros(3), UTM])
def test_splats_and_meshes_lie_in_each_other_in_gltf(offset, tmp_path) -> None:
    import trimesh

    cloud = cloud_at(offset)
    write_splats(tmp_path / "splats.glb", cloud)
    np.testing.assert_allclose(read_glb(tmp_path / "splats.glb").means, cloud.means, atol=1e-6)
    text = (tmp_path / "splats.glb").read_bytes()[20:].decode("latin-1")
    node = json.JSONDecoder().raw_decode(text)[0]["nodes"][0]
    assert node["rotation"] == [0.0, 0.0, 1.0, 0.0]  # half a turn about z
    corner = cloud.means[:3].astype(np.float64)
    centre = np.rint(offset)
    write_mesh(
        tmp_path / "mesh.glb", corner - centre, np.full((3, 3), 0.5), np.array([[0, 1, 2]]), centre
    )
    mesh = trimesh.load(tmp_path / "mesh.glb", process=False, force="mesh")
    np.testing.assert_allclose(
        np.asarray(mesh.vertices), corner @ GLTF_FROM_SOURCE[:3, :3].T, rtol=0, atol=1e-6
    )


def test_auto_crop_leaves_far_splats_that_no_picture_shows() -> None:
    from scene4d.cameras.around import circle_around

    near = cloud_at(np.zeros(3))
    cameras = circle_around(torch.from_numpy(near.means), count=6, size=48)
    stray = replace(
        near,
        means=np.concatenate([near.means[:285], np.full((15, 3), 2000.0, np.float32)]),
        logit_opacities=np.concatenate([near.logit_opacities[:285], np.full(15, -4, np.float32)]),
    )
    source = OpenedScene(
        path=Path("run"),
        representation=GaussianSplats.of(stray),
        cameras=SceneCameras(train=cameras),
    )
    kept = auto_cropped(source).cloud()
    assert len(kept) >= 280 and np.abs(kept.means).max() < 10
    with torch.no_grad():
        for camera in cameras[:2]:
            before, after = (GaussianSplats.of(c).render(camera).rgb for c in (stray, kept))
            # a thousandth of the weights, all of them at most white
            assert float((before - after).abs().mean()) < 2e-3


@pytest.mark.parametrize("log_size", [-3e38, -1000.0, 1000.0, 3e38])
def test_sizes_beyond_floating_point_are_numbers(log_size) -> None:
    """A damaged bundle of what moves said such sizes."""
    means = np.arange(15.0).reshape(5, 3)
    sizes = np.full((5, 3), log_size, np.float32)
    cloud = SplatCloud(
        means=means.astype(np.float32), quats=np.ones((5, 4), np.float32), log_scales=sizes,
        logit_opacities=np.zeros(5, np.float32), sh=np.zeros((5, 1, 3), np.float32),
    )  # fmt: skip
    with np.errstate(all="raise", under="ignore"):
        assert not is_far(means, sizes)
        assert np.isfinite(local_frame(cloud)).all()
        assert not out_of_reach(cloud).any() and wanted_step(cloud) > 0
