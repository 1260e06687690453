"""What other trainers' and programs' splat files say, and what is told of what a format loses."""

from __future__ import annotations

import gzip
import logging
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import benchmark
from formats.splat_files import random_cloud

from scene4d.errors import DataError
from scene4d.formats import packing, spz
from scene4d.formats import registry as formats
from scene4d.formats.ply import property_names, read_ply, write_ply
from scene4d.formats.splat_cloud import SplatCloud, sh_basis

NAMES = [f.name for f in formats.FORMATS if f.name != "s4d"]


def write_columns(
    path: Path, columns: dict[str, np.ndarray], *, form: str = "binary_little_endian",
    comments: tuple[str, ...] = (), kind: str = "float",
) -> Path:  # fmt: skip
    """A PLY of these vertex properties, written by the test."""
    count = len(next(iter(columns.values())))
    header = ["ply", f"format {form} 1.0", *(f"comment {c}" for c in comments)]
    header += [f"element vertex {count}", *(f"property {kind} {name}" for name in columns)]
    start = ("\n".join([*header, "end_header"]) + "\n").encode()
    table = np.stack(list(columns.values()), axis=1)
    if form == "ascii":
        lines = [" ".join(f"{v:.9g}" for v in row) for row in table.tolist()]
        path.write_bytes(start + "\n".join(lines).encode() + b"\n")
        return path
    code = {"float": "f4", "double": "f8"}[kind]
    order = "<" if "little" in form else ">"
    path.write_bytes(start + table.astype(order + code).tobytes())
    return path


def columns_of(cloud: SplatCloud) -> dict[str, np.ndarray]:
    """The vertex properties of a cloud, without normals."""
    rest = cloud.sh[:, 1:].transpose(0, 2, 1).reshape(len(cloud), -1)
    zeros = np.zeros((len(cloud), 3), dtype=np.float32)
    table = np.concatenate(
        [cloud.means, zeros, cloud.sh[:, 0], rest, cloud.logit_opacities[:, None],
         cloud.log_scales, cloud.quats], axis=1,
    )  # fmt: skip
    names = property_names(rest.shape[1])
    return {n: table[:, i] for i, n in enumerate(names) if not n.startswith("n")}


def assert_equal(a: SplatCloud, b: SplatCloud) -> None:
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# How a file is drawn


@pytest.mark.parametrize(
    ("comments", "antialiased"),
    [
        ((), False),
        (("Exported from Brush", "SplatRenderMode: mip"), True),
        (("SPLATRENDERMODE:  MIP",), True),
        (("SplatRenderMode: default",), False),
        (("antialiased 1",), True),
        (("antialiased 0",), False),
        (("train_flags antialiasing",), True),
        (("SplatRenderMode: mip", "SplatRenderMode: default"), False),  # the last one counts
        (("antialiased 0", "SplatRenderMode: mip"), True),
    ],
)
def test_comments_say_how_splats_are_drawn(
    tmp_path: Path, comments: tuple[str, ...], antialiased: bool
) -> None:
    path = write_columns(tmp_path / "a.ply", columns_of(random_cloud(5, 0)), comments=comments)
    assert read_ply(path).antialiased == antialiased


@pytest.mark.parametrize("name", ["ply", "compressed-ply"])
def test_a_written_ply_says_antialiasing_as_brush_does(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    for antialiased in (True, False):
        formats.write_splats(path, replace(random_cloud(9, 1), antialiased=antialiased))
        header = path.read_bytes().split(b"end_header")[0]
        assert (b"comment SplatRenderMode: mip\n" in header) == antialiased
        assert formats.read_splats(path).antialiased == antialiased


def test_a_smoothing_filter_is_the_convolution_with_its_gaussian(tmp_path: Path) -> None:
    """Mip-Splatting, equation 9: widths add in squares, and the integral of a Gaussian times its
    opacity is kept, which is what the factor of the determinants says."""
    cloud = random_cloud(40, 1)
    width = np.random.default_rng(1).uniform(0.001, 2, 40)
    path = write_columns(tmp_path / "a.ply", {**columns_of(cloud), "filter_3D": width})
    found = read_ply(path)
    before, after = np.exp(cloud.log_scales.astype(float)), np.exp(found.log_scales.astype(float))
    np.testing.assert_allclose(after**2, before**2 + width[:, None] ** 2, rtol=1e-5)  # float32 logs
    mass = [packing.opacity_of(c.logit_opacities) * s.prod(1) for c, s in
            ((cloud, before), (found, after))]  # fmt: skip
    np.testing.assert_allclose(mass[1], mass[0], rtol=1e-4)  # the same of three, and a logit
    assert found.antialiased  # such files are trained with the 2D filter as well
    said = write_columns(
        tmp_path / "b.ply", {**columns_of(cloud), "filter_3D": width},
        comments=("SplatRenderMode: default",),
    )  # fmt: skip
    assert not read_ply(said).antialiased


# Files of other kinds of trainers


def test_two_sizes_are_flat_splats_and_said_to_be(tmp_path: Path) -> None:
    columns = columns_of(cloud := random_cloud(20, 0))
    del columns["scale_2"]
    path = write_columns(tmp_path / "a.ply", columns)
    with pytest.warns(UserWarning, match="2DGS"):
        found = read_ply(path)
    np.testing.assert_array_equal(found.log_scales[:, :2], cloud.log_scales[:, :2])
    assert (found.log_scales[:, 2] < found.log_scales[:, :2].min(axis=1) - 6).all()
    del columns["rot_3"]  # two sizes alone do not make a file of splats
    with pytest.raises(DataError, match="no property rot_3"):
        read_ply(write_columns(tmp_path / "b.ply", columns))


@pytest.mark.parametrize("degree", [4, 5])
def test_harmonics_above_degree_three_are_dropped_and_said_to_be(
    tmp_path: Path, degree: int
) -> None:
    cloud, each = random_cloud(10, 3), (degree + 1) ** 2 - 1
    columns = {n: v for n, v in columns_of(cloud).items() if not n.startswith("f_rest")}
    for channel in range(3):
        for k in range(each):
            known = cloud.sh[:, k + 1, channel] if k < 15 else np.full(10, 9.0)
            columns[f"f_rest_{channel * each + k}"] = known
    path = write_columns(tmp_path / "a.ply", columns)
    with pytest.warns(UserWarning, match=f"degree {degree}"):
        assert_equal(read_ply(path), cloud)


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("form", ["binary_big_endian", "binary_little_endian", "ascii"])
def test_a_ply_of_any_encoding_is_read(tmp_path: Path, form: str, kind: str) -> None:
    cloud = random_cloud(7, 2)
    path = write_columns(tmp_path / "a.ply", columns_of(cloud), form=form, kind=kind)
    assert_equal(formats.read_splats(path), cloud)


def test_a_text_that_is_cut_off_or_no_numbers_is_told(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "a.ply", columns_of(random_cloud(50, 0)), form="ascii")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 4 // 5])
    with pytest.raises(DataError, match="cut off|cannot be read"):
        read_ply(path)
    path.write_bytes(whole.replace(b"vertex 50", b"vertex 50000000"))
    with pytest.raises(DataError, match="cut off"):
        read_ply(path)
    path.write_bytes(whole[:-40] + b"seven\n")
    with pytest.raises(DataError, match="cannot be read|cut off"):
        read_ply(path)


# Damaged splats


def damaged_file(path: Path, name: str) -> int:
    """A file of 30 splats of which some are not finite, and how many those are."""
    cloud = random_cloud(30, 1)
    formats.write_splats(path, cloud)
    data = bytearray(path.read_bytes())
    nan = struct.pack("<f", np.nan)
    if name in ("splat", "glb"):
        row = struct.pack("<f", cloud.means[4, 0])
        data = bytearray(bytes(data).replace(row, nan))
    elif name == "ply":
        cloud.means[4, 0], cloud.quats[9] = np.nan, 0
        write_columns(path, columns_of(cloud))
        return 2
    path.write_bytes(bytes(data))
    return 1


@pytest.mark.parametrize("name", ["ply", "splat", "glb"])
def test_the_way_out_of_a_damaged_file_is_named_and_works(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The formats that can hold values that are not finite."""
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    count = damaged_file(path, name)
    with pytest.raises(DataError, match="not finite.*\n.*--drop-invalid"):
        formats.read_splats(path)
    with caplog.at_level(logging.WARNING, logger="scene4d"):
        assert len(formats.read_splats(path, drop_invalid=True)) == 30 - count
    assert f"left out {count} of 30 splats" in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_a_size_of_zero_becomes_the_smallest_in_every_format(tmp_path: Path, name: str) -> None:
    cloud = random_cloud(30, 0)
    cloud.log_scales[3] = -np.inf
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    formats.write_splats(path, cloud)
    found = formats.read_splats(path)
    assert len(found) == 30
    # the others are from -8 on, and the coarsest format says -10
    assert (found.log_scales.max(axis=1) < -9.9).sum() == 1
    write_columns(tmp_path / "b.ply", columns_of(cloud))
    assert np.isfinite(read_ply(tmp_path / "b.ply").log_scales).all()


# SPZ: records and axes


ORBIT = struct.pack("<IIfff", 0xADBE0002, 12, -0.5, 0.5, 1.0)
fuzzing = benchmark("fuzz_formats")


def with_records(cloud: SplatCloud, version: int, records: bytes) -> bytes:
    """An SPZ file whose extension records are ``records``, as nianticlabs/spz places them."""
    if version < 4:
        body = bytearray(gzip.decompress(fuzzing.legacy_spz(cloud, version)))
        body[14] |= 2
        return gzip.compress(bytes(body) + records)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        spz.write_spz(Path(folder) / "a.spz", cloud)
        data = (Path(folder) / "a.spz").read_bytes()
    head = bytearray(data[:32])
    head[14] |= 2
    head[16:20] = struct.pack("<I", 32 + len(records))
    return bytes(head) + records + data[32:]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_records_of_other_kinds_are_passed_over(tmp_path: Path, version: int) -> None:
    cloud = random_cloud(64, 1)
    plain, other = tmp_path / "a.spz", tmp_path / "b.spz"
    plain.write_bytes(with_records(cloud, version, b""))
    unknown = struct.pack("<II", 0x12340001, 5) + b"hello"
    other.write_bytes(with_records(cloud, version, ORBIT + unknown))
    assert_equal(formats.read_splats(other), formats.read_splats(plain))
    # the first builds wrote no length; the attributes stand before it all the same
    other.write_bytes(with_records(cloud, version, ORBIT[:4] + ORBIT[8:]))
    assert_equal(formats.read_splats(other), formats.read_splats(plain))


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("number", [1, 3, 6, 8, 9, 12, 16])
def test_a_record_of_axes_turns_the_scene(tmp_path: Path, version: int, number: int) -> None:
    """The stored numbers (x, y, z) are along the axes that the record names; a Gaussian's value at
    a stored point, and its colour along a stored direction, come out at the named place."""
    cloud = random_cloud(16, 3)
    plain, named = tmp_path / "a.spz", tmp_path / "b.spz"
    plain.write_bytes(with_records(cloud, version, b""))
    record = struct.pack("<III", 0xADBE0003, 4, number)
    named.write_bytes(with_records(cloud, version, ORBIT + record))
    usual, found = formats.read_splats(plain), formats.read_splats(named)
    stored = np.diag([1.0, -1.0, -1.0])  # usual numbers -> stored ones: right-up-back
    axes = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1),
            "B": (0, 0, -1)}  # fmt: skip
    system = {1: "LDB", 3: "LUB", 6: "RDF", 8: "RUF", 9: "LBD", 12: "RBU", 16: "RFU"}[number]
    matrix = np.array([axes[letter] for letter in system], dtype=float).T @ stored
    np.testing.assert_allclose(found.means, usual.means @ matrix.T, atol=1e-6)
    for a, b in zip(covariances(found), covariances(usual), strict=True):
        np.testing.assert_allclose(a, matrix @ b @ matrix.T, atol=1e-6)
    directions = np.random.default_rng(0).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = np.einsum("mk,nkc->nmc", sh_basis(directions, 3), usual.sh)
    after = np.einsum("mk,nkc->nmc", sh_basis(directions @ matrix.T, 3), found.sh)
    np.testing.assert_allclose(after, before, atol=1e-5)  # sixteen float32 products


def covariances(cloud: SplatCloud) -> np.ndarray:
    w, x, y, z = packing.unit_quats(cloud.quats).T
    rotation = np.array(
        [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
         [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
         [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]
    ).transpose(2, 0, 1)  # fmt: skip
    axes = rotation * np.exp(cloud.log_scales.astype(float))[:, None]
    return axes @ axes.transpose(0, 2, 1)


def test_an_axes_record_that_names_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.spz"
    record = struct.pack("<III", 0xADBE0003, 4, 17)
    path.write_bytes(with_records(random_cloud(4, 0), 4, record))
    with pytest.raises(DataError, match="0 to 16"):
        formats.read_splats(path)


# What a format loses


@pytest.mark.parametrize("unit", [1e-3, 0.01, 1.0, 300.0])
def test_spz_keeps_positions_to_a_part_of_a_splat_at_any_scale(tmp_path: Path, unit: float) -> None:
    cloud = random_cloud(500, 0)
    cloud = replace(
        cloud,
        means=(cloud.means * unit).astype(np.float32),
        log_scales=np.clip(cloud.log_scales / 4 - 3.5 + np.log(unit), -9.9, 5).astype(np.float32),
    )
    spz.write_spz(tmp_path / "a.spz", cloud)
    found = spz.read_spz(tmp_path / "a.spz")
    size = np.exp(np.median(cloud.log_scales))
    assert np.abs(found.means - cloud.means).max() < 0.1 * size


@pytest.mark.parametrize(
    ("name", "unit", "offset", "verb"),
    [("spz", 1e-4, 0, "resizes"), ("spz", 0.1, 1e6, "moves"), ("sog", 0.1, 1e4, "moves"),
     ("compressed-ply", 1e-3, 0, "moves"), ("spz", 1.0, 0, None), ("sog", 1.0, 0, None)],
)  # fmt: skip
def test_a_writer_says_in_scene_units_what_it_cannot_hold(
    tmp_path: Path, caplog, name: str, unit: float, offset: float, verb: str | None
) -> None:
    cloud = random_cloud(2000, 0)
    spread = cloud.means * (1 if name == "compressed-ply" else unit) + np.float32(offset)
    if offset:
        spread[::2] = cloud.means[::2]  # one part at the origin, one far from it
    scales = cloud.log_scales / 4 - 3 + np.float32(np.log(unit))
    cloud = replace(cloud, means=spread.astype(np.float32), log_scales=scales.astype(np.float32))
    with caplog.at_level(logging.WARNING, logger="scene4d"):
        formats.write_splats(tmp_path / f"a{formats.format_named(name).suffixes[0]}", cloud)
    told = [r.getMessage() for r in caplog.records]
    if verb is None:
        assert told == []
    else:
        assert any(f" {verb} " in t and "scene units" in t and "median splat" in t for t in told)


def test_writing_the_same_ply_again_gives_the_same_bytes(tmp_path: Path) -> None:
    cloud = replace(random_cloud(20), antialiased=True)
    write_ply(tmp_path / "a.ply", cloud)
    write_ply(tmp_path / "b.ply", read_ply(tmp_path / "a.ply"))
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
