"""Damaged and hostile splat files: refused in words, without memory for what they promise."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import benchmark
from formats.splat_files import glb_with, random_cloud

from scene4d.errors import DataError
from scene4d.formats import registry as formats

fuzzing = benchmark("fuzz_formats")
NAMES = [f.name for f in formats.FORMATS if f.name != "s4d"]
"""The bundle has tests of its own."""


@pytest.mark.parametrize("name", list(fuzzing.INSIDE))
def test_no_damage_gives_anything_but_a_cloud_or_our_error(name: str) -> None:
    """A few hundred files; benchmarks/fuzz_formats.py reads thousands."""
    tally = fuzzing.fuzz(name, 200, seed=1)
    assert [what for _, what in tally.bad] == []
    assert tally.outcomes["ok"] > 10 and tally.outcomes["refused"] > 10


@pytest.mark.parametrize("task", ["info", "convert", "points"])
@pytest.mark.parametrize("name", ["ply", "spz-gzip"])
def test_no_damage_gives_info_convert_or_points_a_traceback(name: str, task: str) -> None:
    if task == "points" and name != "ply":
        pytest.skip("points are PLYs")
    tally = fuzzing.fuzz(name, 100, seed=2, task=task)
    assert [what for _, what in tally.bad] == []
    assert tally.outcomes["refused"] > 10


def good(name: str, tmp_path: Path, count: int = 50, degree: int = 1) -> tuple[Path, bytes]:
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    formats.write_splats(path, random_cloud(count, degree))
    return path, path.read_bytes()


def refused(path: Path, data: bytes, message: str) -> None:
    """Reading ``data`` raises our error, names the file and takes little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            formats._function(formats.format_named(form_of(path)).read)(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 50e6 + 20 * len(data)


def form_of(path: Path) -> str:
    form = formats.format_by_suffix(path)
    assert form is not None
    return form.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_told(tmp_path: Path, name: str, share: float) -> None:
    path, data = good(name, tmp_path)
    refused(
        path, data[: int(len(data) * share) | 1], r"cut off|header|damaged|does not fit|32|bytes"
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_and_something_else_are_told(tmp_path: Path, name: str) -> None:
    path, _ = good(name, tmp_path)
    refused(path, b"", r"not a|damaged")
    refused(path, b"<!DOCTYPE html><title>404</title>", r"not a|damaged")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    form = formats.format_named(name)
    with pytest.raises(DataError, match="file not found|cannot be read"):
        formats._function(form.read)(tmp_path / f"a{form.suffixes[0]}")


# SPZ


def test_spz_that_promises_billions_is_refused(tmp_path: Path) -> None:
    path, data = good("spz", tmp_path)
    refused(path, data[:8] + struct.pack("<I", 2**32 - 1) + data[12:], "cannot be true")
    old = fuzzing.legacy_spz(random_cloud(50), 3)
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 2**32 - 1, 3, 12, 0, 0)
    refused(path, fuzzing.gzip.compress(head + bytes(100)), "cannot be true")
    refused(path, old[:-30], "damaged|cut off")


def test_a_zstd_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    import zstandard

    path, data = good("spz", tmp_path, degree=0)
    bomb = zstandard.ZstdCompressor().compress(bytes(2**28))
    for claimed in (50 * 9, 2**28):
        table = [struct.pack("<QQ", len(bomb), claimed)]
        table += [struct.pack("<QQ", len(bomb), 50 * n) for n in (1, 3, 3, 4)]
        refused(path, data[:32] + b"".join(table) + bomb * 5, "lies about its size|are needed")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(4, 5, "version 5"), (12, 9, "degree 9"), (13, 60, "60 fractional bits"), (15, 3, "table")],
)
def test_an_spz_header_of_another_kind_is_told(tmp_path, offset, value, message) -> None:
    path, data = good("spz", tmp_path)
    changed = bytearray(data)
    changed[offset] = value
    refused(path, bytes(changed), message)


def test_harmonics_of_degree_four_are_dropped_with_a_warning(tmp_path: Path) -> None:
    from scene4d.formats import spz

    cloud = random_cloud(20)
    parts = spz._packed(cloud, 12, (8, 8))
    known = np.frombuffer(parts[5], np.uint8).reshape(20, 15, 3)
    parts[5] = np.concatenate([known, np.full((20, 9, 3), 200, np.uint8)], 1).tobytes()
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 20, 4, 12, 0, 0)
    path = tmp_path / "a.spz"
    path.write_bytes(fuzzing.gzip.compress(head + b"".join(parts)))
    with pytest.warns(UserWarning, match="degree 4"):
        found = spz.read_spz(path)
    assert np.abs(found.sh[:, 1:] - cloud.sh[:, 1:]).max() <= 0.5 / 128 + 1e-6


# SOG


def sog_with(path: Path, data: bytes, change, **members: bytes) -> bytes:
    """The archive with its meta.json changed, and members replaced."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(content["meta.json"])
    change(meta)
    content["meta.json"] = json.dumps(meta).encode()
    content.update({name.replace("_webp", ".webp"): value for name, value in members.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(count=10**9), "cannot be true"),
        (lambda m: m.update(count=-1), "no count"),
        (lambda m: m.update(version=1), "version 1"),
        (lambda m: m["quats"].update(files=["../../etc/passwd"]), "outside its own folder"),
        (lambda m: m["quats"].update(files=["/etc/passwd"]), "outside its own folder"),
        (lambda m: m["quats"].update(files=["gone.webp"]), "missing"),
        (lambda m: m["scales"].update(codebook=[1e400] * 256), "numbers scales.codebook"),
        (lambda m: m["scales"].update(codebook=[0.0] * 3), "beyond the codebook"),
        (lambda m: m["means"].update(maxs=[1e9] * 3), "out of all bounds"),
        (lambda m: m["shN"].update(bands=4), "4 bands"),
        (lambda m: m["shN"].update(count=10**6), "palette of 1000000"),
        (lambda m: m["shN"].update(count=1), "beyond the palette"),
        (lambda m: m["shN"].update(files=["sh0.webp", "sh0.webp"]), "pixels large"),
        (lambda m: m.pop("quats"), "no object 'quats'"),
        (lambda m: m.update(count=5000), "pixels large"),
    ],
)
def test_a_sog_that_lies_is_refused(tmp_path: Path, change, message: str) -> None:
    path, data = good("sog", tmp_path)
    refused(path, sog_with(path, data, change), message)


def test_a_sog_picture_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    path, data = good("sog", tmp_path)
    buffer = io.BytesIO()
    Image.new("RGBA", (8000, 8000)).save(buffer, "WEBP", lossless=True)
    refused(path, sog_with(path, data, lambda m: None, quats_webp=buffer.getvalue()), "8000 x 8000")
    refused(path, sog_with(path, data, lambda m: None, quats_webp=bytes(2**28)), "would grow")


def test_a_sog_folder_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "meta.json"
    formats.write_splats(path, random_cloud(50, 0))
    (tmp_path / "in" / "quats.webp").rename(tmp_path / "quats.webp")
    meta = json.loads(path.read_text())
    meta["quats"]["files"] = ["../quats.webp"]
    path.write_text(json.dumps(meta))
    with pytest.raises(DataError, match="outside its own folder"):
        formats.read_splats(path)


def test_rotations_saved_again_with_loss_are_told(tmp_path: Path) -> None:
    from PIL import Image

    path, data = good("sog", tmp_path)
    buffer = io.BytesIO()
    Image.new("RGBA", (12, 8), (1, 2, 3, 200)).save(buffer, "WEBP", lossless=True)
    refused(path, sog_with(path, data, lambda m: None, quats_webp=buffer.getvalue()), "tag")


# GLB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["accessors"][0].update(count=10**9), "cut off"),
        (lambda d: d["accessors"][0].update(count=49), "different lengths"),
        (lambda d: d["bufferViews"][0].update(byteOffset=10**12), "cut off"),
        (lambda d: d["bufferViews"][0].update(byteStride=1), "cut off"),
        (lambda d: d["accessors"][0].update(bufferView=99), "bufferViews"),
        (lambda d: d["accessors"][0].update(sparse={}), "sparse"),
        (lambda d: d["accessors"][1].update(type="VEC3"), "VEC3"),
        (lambda d: d["nodes"][0].update(children=[0]), "circle"),
        (lambda d: d["nodes"][0].update(scale=[1, 2, 1]), "similarity"),
        (lambda d: d["nodes"][0].update(rotation=[9, 9, 9, 9]), "unit quaternion"),
        (lambda d: d["buffers"][0].update(uri="/etc/passwd"), "outside its binary part"),
        (lambda d: d.update(extensionsRequired=["EXT_meshopt_compression"]), "meshopt"),
        (lambda d: d["meshes"][0]["primitives"][0].update(mode=4), "POINTS"),
        (lambda d: d["meshes"][0]["primitives"][0].pop("extensions"), "no mesh"),
        (
            lambda d: d["meshes"][0]["primitives"][0]["extensions"].update(
                KHR_gaussian_splatting={"kernel": "box"}
            ),
            "kernel 'box'",
        ),
        (
            lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop(
                "KHR_gaussian_splatting:SH_DEGREE_1_COEF_1"
            ),
            "no attribute",
        ),
        (lambda d: d.update(scenes=[{"nodes": [0] * 50}]), "circle"),
    ],
)
def test_a_glb_that_lies_is_refused(tmp_path: Path, change, message: str) -> None:
    path, data = good("glb", tmp_path)
    refused(path, glb_with(data, change), message)


def test_one_mesh_shown_a_thousand_times_is_bounded(tmp_path: Path) -> None:
    path, data = good("glb", tmp_path, 5000, 0)

    def change(document) -> None:
        document["nodes"] = [{"mesh": 0}] * 1000
        document["scenes"] = [{"nodes": list(range(1000))}]

    refused(path, glb_with(data, change), "cannot be true")


# Values


@pytest.mark.parametrize(("at", "message"), [(0, "position"), (12, "size|not finite")])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, at: int, message: str, value) -> None:
    path, data = good("splat", tmp_path)
    data = data[: 32 * 7 + at] + struct.pack("<f", value) + data[32 * 7 + at + 4 :]
    refused(path, data, message)


def test_a_rotation_of_length_zero_is_refused(tmp_path: Path) -> None:
    path, data = good("splat", tmp_path)
    data = data[: 32 * 7 + 28] + bytes([128] * 4) + data[32 * 8 :]
    refused(path, data, "splat 7 has a rotation quaternion of length 0")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"f_rest_8\n", b"f_rest_9\n", "sh"),
        (b"element sh 50", b"element sh 49", "uchar per coefficient"),
        (b"element chunk 1", b"element chunk 0", "chunks|uint|cut off|needs"),
        (b"uint packed_scale", b"float packed_scale", "type uint"),
        (b"float min_scale_x", b"float min_scale_w", "no property"),
        (b"element vertex 50", b"element vertex 90000000000", "cut off"),
    ],
)
def test_a_compressed_ply_that_lies_is_refused(tmp_path, old, new, message) -> None:
    path, data = good("compressed-ply", tmp_path)
    assert old in data
    refused(path, data.replace(old, new), message)
