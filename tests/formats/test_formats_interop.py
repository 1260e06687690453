"""Files of ours in independent programs, and theirs in ours: gsply, gaussforge, splat-transform.

splat-transform is a Node program: SPLAT_TRANSFORM names its bin/cli.mjs
(npm install @playcanvas/splat-transform); its tests are skipped without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from formats.splat_files import angles, order_in_file, random_cloud
from optional_packages import import_or_skip

from scene4d.formats import packing
from scene4d.formats import registry as formats
from scene4d.formats.ply import read_ply, write_ply
from scene4d.formats.splat_cloud import SplatCloud

STEP = {"compressed-ply": 8 / 1023, "splat": 1e-6, "spz": 2**-12, "sog": 2.5e-4, "glb": 1e-6}
"""A step of positions for random_cloud, whose extent is 8; SOG's 16 bits over ln(1 + |x|)."""
TURN = {"compressed-ply": 0.006, "splat": 0.04, "spz": 0.006, "sog": 0.025, "glb": 1e-5}
"""Radians: a whole step of each format's rotations."""
LOG_SCALE = {"compressed-ply": 8 / 1023, "splat": 1e-5, "spz": 1 / 16, "sog": 8 / 128, "glb": 1e-5}
COLOUR = {"compressed-ply": 0.014, "splat": 0.014, "spz": 0.027, "sog": 3.4 / 128, "glb": 1e-6}


def assert_alike(found: SplatCloud, cloud: SplatCloud, name: str) -> None:
    """Equal up to one whole step of the format: another program may cut where ours rounds. Splats
    are matched by their position, as programs sort."""
    from scipy.spatial import cKDTree

    assert len(found) == len(cloud)
    distance, index = cKDTree(found.means).query(cloud.means)
    assert len(set(index)) == len(cloud)
    found = packing.taken(found, index)
    assert distance.max() <= STEP[name] * np.sqrt(3)
    assert angles(found.quats, cloud.quats).max() <= TURN[name]
    assert np.abs(found.log_scales - cloud.log_scales).max() <= LOG_SCALE[name]
    opacities = packing.opacity_of(found.logit_opacities), packing.opacity_of(cloud.logit_opacities)
    assert np.abs(opacities[0] - opacities[1]).max() <= 1.001 / 255
    assert np.abs(found.sh[:, 0] - cloud.sh[:, 0]).max() <= COLOUR[name]
    if name in ("compressed-ply", "spz", "glb"):
        limits = {"compressed-ply": 8 / 256, "spz": 17 / 128, "glb": 2e-6}
        assert np.abs(found.sh[:, 1:] - cloud.sh[:, 1:]).max() <= limits[name]
    elif name == "sog":  # 1,024 palette entries of 45 even numbers can be no closer than this
        error = np.sqrt(((found.sh[:, 1:] - cloud.sh[:, 1:]) ** 2).mean())
        assert error <= 1.05 * cloud.sh[:, 1:].std()


@pytest.fixture
def cloud() -> SplatCloud:
    return random_cloud(600)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# splat-transform


@pytest.fixture(scope="session")
def splat_transform():
    script = os.environ.get("SPLAT_TRANSFORM")
    if not script or shutil.which("node") is None:
        pytest.skip("SPLAT_TRANSFORM does not name splat-transform's bin/cli.mjs, or no Node")

    def run(source: Path, target: Path) -> Path:
        command = ["node", script, "-q", "-w", "-g", "cpu", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return target

    return run


@pytest.mark.parametrize("name", ["compressed-ply", "splat", "spz", "sog"])
def test_splat_transform_reads_ours(splat_transform, folder, cloud, name: str) -> None:
    path = folder / f"ours{formats.format_named(name).suffixes[0]}"
    formats.write_splats(path, cloud)
    theirs = read_ply(splat_transform(path, folder / "theirs.ply"))
    assert_alike(theirs, cloud, name)
    # and both programs read the same numbers out of the same file
    ours = formats.read_splats(path)
    np.testing.assert_allclose(theirs.means, ours.means, atol=1e-5)
    np.testing.assert_allclose(theirs.log_scales, ours.log_scales, atol=1e-5)
    np.testing.assert_allclose(theirs.sh, ours.sh, atol=1e-5)
    assert angles(theirs.quats, ours.quats).max() <= (
        0.02 if name == "splat" else 2e-3
    )  # .splat: b / 127.5 - 1 there


@pytest.mark.parametrize("name", ["compressed-ply", "spz", "sog", "glb"])
def test_we_read_splat_transforms(splat_transform, folder, cloud, name: str) -> None:
    write_ply(folder / "ours.ply", cloud)
    suffix = formats.format_named(name).suffixes[0]
    path = splat_transform(folder / "ours.ply", folder / f"theirs{suffix}")
    assert_alike(formats.read_splats(path), cloud, name)


# gaussforge


GAUSSFORGE = {"compressed-ply": "compressed.ply", "spz": "spz", "sog": "sog"}


def in_rub(cloud: SplatCloud) -> SplatCloud:
    """The scene in SPZ's own axes, which gaussforge hands through in both directions."""
    turned = cloud.transformed(np.diag([1.0, -1.0, -1.0, 1.0]))
    # the same ellipsoids, their own axes named as SPZ names them: F R F, not F R
    quats = cloud.quats * np.float32([1, 1, -1, -1])
    return replace(turned, quats=quats)


def gaussforge_cloud(found) -> SplatCloud:
    assert "error" not in found, found
    data, count = found["data"], found["data"]["numPoints"]

    def floats(name: str, *shape: int) -> np.ndarray:
        return np.frombuffer(data[name], np.float32).reshape(count, *shape).copy()

    return SplatCloud(
        means=floats("positions", 3),
        quats=floats("rotations", 4),
        log_scales=floats("scales", 3),
        logit_opacities=np.clip(floats("alphas"), -20, 20),
        sh=np.concatenate([floats("colors", 1, 3), floats("sh", -1, 3)], axis=1),
    )


@pytest.mark.parametrize("name", list(GAUSSFORGE))
def test_gaussforge_reads_ours(folder, cloud, name: str) -> None:
    gaussforge = import_or_skip("gaussforge")
    path = folder / f"ours{formats.format_named(name).suffixes[0]}"
    formats.write_splats(path, cloud)
    found = gaussforge.GaussForge().read(path.read_bytes(), GAUSSFORGE[name])
    expected = in_rub(cloud) if name == "spz" else cloud
    assert_alike(gaussforge_cloud(found), expected, name)


@pytest.mark.parametrize("name", list(GAUSSFORGE))
def test_we_read_gaussforges(folder, cloud, name: str) -> None:
    gaussforge = import_or_skip("gaussforge")
    # its writer of SOG takes rotations of length 1 for granted
    cloud = replace(cloud, quats=packing.unit_quats(cloud.quats).astype(np.float32))
    write_ply(folder / "ours.ply", cloud)
    data = (folder / "ours.ply").read_bytes()
    written = gaussforge.GaussForge().convert(data, "ply", GAUSSFORGE[name])
    assert "error" not in written, written
    path = folder / f"theirs{formats.format_named(name).suffixes[0]}"
    path.write_bytes(written["data"])
    expected = in_rub(cloud) if name == "spz" else cloud
    found = formats.read_splats(path)
    if name == "compressed-ply":
        # 0.6.0 writes the harmonics coefficient by coefficient, and reads them channel by channel,
        # as PlayCanvas' programs and ours do
        found = replace(found, sh=found.sh.copy())
        swapped = found.sh[:, 1:].transpose(0, 2, 1).reshape(len(found), 15, 3)
        found.sh[:, 1:] = swapped
    assert_alike(found, expected, name)


# gsply


def gsply_cloud(data) -> SplatCloud:
    count = len(data.means)
    return SplatCloud(
        means=np.array(data.means, np.float32),
        quats=np.array(data.quats, np.float32),
        log_scales=np.array(data.scales, np.float32),
        logit_opacities=np.clip(np.array(data.opacities, np.float32).reshape(-1), -20, 20),
        sh=np.concatenate(
            [
                np.array(data.sh0, np.float32).reshape(count, 1, 3),
                np.array(data.shN, np.float32).reshape(count, -1, 3),
            ],
            axis=1,
        ),
    )


def test_gsply_reads_our_compressed_ply(folder, cloud) -> None:
    gsply = import_or_skip("gsply")
    formats.write_splats(folder / "a.compressed.ply", cloud)
    found = gsply_cloud(gsply.plyread(str(folder / "a.compressed.ply")))
    assert_alike(found, cloud, "compressed-ply")


def test_we_read_gsplys_compressed_ply(folder, cloud) -> None:
    gsply = import_or_skip("gsply")
    write_ply(folder / "a.ply", cloud)
    gsply.plywrite(
        str(folder / "b.compressed.ply"), gsply.plyread(str(folder / "a.ply")), compressed=True
    )
    path = next(p for p in folder.iterdir() if p.name.startswith("b"))
    assert formats.format_of(path).name == "compressed-ply"
    assert_alike(formats.read_splats(path), cloud, "compressed-ply")


# A reader of glTF that knows nothing of splats


def test_trimesh_shows_our_glb_as_coloured_points(folder, cloud) -> None:
    trimesh = import_or_skip("trimesh")
    formats.write_splats(folder / "a.glb", cloud)
    points = trimesh.load(folder / "a.glb").to_geometry()
    # the node turns the scene by 180 degrees about z, so that what was up stays up in glTF's axes
    np.testing.assert_allclose(points.vertices, cloud.means * [-1, -1, 1], atol=1e-5)
    colours = 255 * (0.5 + packing.SH_C0 * cloud.sh[:, 0])
    assert np.abs(points.colors[:, :3] - colours).max() <= 0.51


def test_the_order_of_splats_is_known(folder, cloud) -> None:
    """What order_in_file says of each writer, on which other tests rely."""
    for form in formats.FORMATS:
        if form.name == "s4d":
            continue
        path = folder / f"a{form.suffixes[0]}"
        formats.write_splats(path, cloud)
        found = formats.read_splats(path)
        expected = cloud.means[order_in_file(form.name, cloud)]
        assert np.abs(found.means - expected).max() <= STEP.get(form.name, 0)
