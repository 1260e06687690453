"""The container: a ZIP that other tools open, members where the manifest says."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optional_packages import import_or_skip

from scene4d.bundle.container import BundleWriter, open_bundle
from scene4d.bundle.manifest import faults, schema
from scene4d.bundle.scene_info import default_info, info_entries, info_from, png
from scene4d.bundle.splat_file import read_s4d
from scene4d.bundle.splats import write_splats_bundle
from scene4d.cli.validate import main as validate
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud

GOOD = Path(__file__).resolve().parents[2] / "mobile_export" / "conformance" / "good"


def test_python_s_zip_module_reads_and_tests_every_member():
    bundle = open_bundle(GOOD / "sh3_two_stages.s4d")
    data = bundle.path.read_bytes()
    with zipfile.ZipFile(bundle.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *bundle.names()]
        manifest, *others = archive.infolist()
        assert manifest.compress_type == zipfile.ZIP_DEFLATED
        assert {info.compress_type for info in others} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("manifest.json")) == bundle.manifest
        for entry in bundle.manifest["members"]:
            content = archive.read(entry["name"])
            start = entry["offset"]
            assert start % 16 == 0 and data[start : start + entry["length"]] == content
            assert bundle.read(entry["name"]) == content


def test_an_unzipped_bundle_is_the_same_bundle(tmp_path):
    path = GOOD / "sh2_plain.s4d"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    a, b = read_s4d(path), read_s4d(tmp_path)
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    (tmp_path / "tables.bin").write_bytes(b"other")
    with pytest.raises(DataError, match=r"tables\.bin.*5 bytes"):
        open_bundle(tmp_path)
    (tmp_path / "tables.bin").unlink()
    with pytest.raises(DataError, match="missing"):
        open_bundle(tmp_path)
    (tmp_path / "tables.bin").symlink_to("/etc/passwd")
    with pytest.raises(DataError):
        open_bundle(tmp_path).read("tables.bin")
    with pytest.raises(DataError, match="manifest"):
        open_bundle(tmp_path / "..")
    with pytest.raises(DataError, match="no such"):
        open_bundle(tmp_path / "nothing")


def test_images_are_png_files_that_others_read():
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)
    bundle = open_bundle(GOOD / "sh2_plain.s4d")
    assert Image.open(io.BytesIO(bundle.read(bundle.manifest["poster"]))).size == (16, 9)


def test_the_description_of_the_scene_comes_back():
    bundle = open_bundle(GOOD / "sh2_plain.s4d")
    images = {name: bundle.read(name) for name in bundle.names() if name.endswith(".png")}
    info = info_from(bundle.manifest, images)
    entries, members = info_entries(info)
    assert {name: bundle.manifest[name] for name in entries} == entries
    assert members == images and info.cameras[1].time == 1.5


def test_the_default_poster_shows_the_splats():
    from PIL import Image

    count = 2000
    rng = np.random.default_rng(0)
    sh = np.zeros((count, 1, 3), dtype=np.float32)
    sh[:, 0, 0] = 1.7  # red
    cloud = SplatCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        log_scales=np.full((count, 3), -3, dtype=np.float32),
        logit_opacities=np.full(count, 4, dtype=np.float32),
        sh=sh,
    )
    pixels = np.asarray(Image.open(io.BytesIO(default_info(cloud).poster)))
    lit = pixels.any(axis=2)
    assert lit.sum() > 500 and (pixels[lit, 0] > pixels[lit, 1]).all()
    rows, columns = np.nonzero(lit)
    # The ball is about in the middle: its box is, whose lower front edge the view from above needs
    # room for.
    assert abs(rows.mean() - 72) < 25 and abs(columns.mean() - 128) < 15


def test_the_schema_is_valid_and_agrees_with_a_full_validator():
    """The small validator of scene4d and the jsonschema package, on good and broken manifests."""
    jsonschema = import_or_skip("jsonschema", reason="comes with nbformat, as viser's friend")
    jsonschema.Draft202012Validator.check_schema(schema())
    full = jsonschema.Draft202012Validator(schema())
    manifest = open_bundle(GOOD / "sh3_two_stages.s4d").manifest
    assert full.is_valid(manifest) and not list(faults(manifest, schema()))
    changes = [
        ("count", -1), ("count", 1.5), ("sh_degree", 4), ("poster", "../x"), ("transform", [[1.0]]),
        ("antialiased", 1), ("stages", []), ("stages", [{"member": "a", "points": 1}]),
        ("arrays", [{"name": "a"}]), ("arrays", [{**manifest["arrays"][0], "quantiser": {}}]),
        ("members", [{**manifest["members"][0], "sha256": "xyz"}]), ("kind", "other"),
        ("positions", {**manifest["positions"], "step": 0}), ("limits", None),
    ]  # fmt: skip
    for name, value in changes:
        changed = {**manifest, name: value}
        assert not full.is_valid(changed), (name, value)
        assert list(faults(changed, schema())), (name, value)


def test_members_of_odd_names_are_not_written():
    writer = BundleWriter({})
    writer.add("a/b.bin", b"")
    for name in ("../a", "/a", "a/b.bin", "manifest.json", "a b", ".a", "a//b", ""):
        with pytest.raises(ValueError, match="name"):
            writer.add(name, b"")


def test_validate_prints_every_fault(tmp_path, capsys):
    validate([str(GOOD / "one_splat.s4d")])
    assert "a sound bundle of kind splats" in capsys.readouterr().out
    bundle = open_bundle(GOOD / "sh2_plain.s4d")
    manifest = {k: v for k, v in bundle.manifest.items() if k != "members"}
    manifest["transform"] = (-np.eye(4)).tolist()
    manifest["limits"] = {**manifest["limits"], "content": manifest["limits"]["content"][::-1]}
    manifest["references"] = [{**manifest["references"][0], "camera": 9}]
    writer = BundleWriter(manifest)
    for name in bundle.names():
        writer.add(name, bundle.read(name) if not name.startswith("poster") else b"GIF89a")
    writer.write(tmp_path / "a.s4d")
    with pytest.raises(DataError, match="4 faults"):
        validate([str(tmp_path / "a.s4d")])
    told = capsys.readouterr().out
    assert told.count("\n") == 4
    for part in ("transform", "corners exchanged", "references[0]", "neither PNG"):
        assert part in told


def test_images_that_are_none_are_refused(tmp_path):
    cloud = read_s4d(GOOD / "one_splat.s4d")
    info = replace(default_info(cloud), poster=b"GIF89a")
    with pytest.raises(DataError, match="neither PNG, JPEG nor WebP"):
        write_splats_bundle(tmp_path / "a.s4d", cloud, None, info)
    assert not list(tmp_path.iterdir())


def test_the_manifest_is_readable_by_any_json_reader():
    bundle = open_bundle(GOOD / "base.s4d")
    with zipfile.ZipFile(bundle.path) as archive:
        assert json.loads(archive.read("manifest.json")) == bundle.manifest
