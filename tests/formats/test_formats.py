"""Every splat format: round trips within its own precision, real files, recognition, axes."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import benchmark
from formats.splat_files import angles, order_in_file, random_cloud

from scene4d.errors import DataError, UsageError
from scene4d.exporters.edit import with_sh_degree
from scene4d.formats import packing
from scene4d.formats import registry as formats
from scene4d.formats.glb import read_glb, write_glb
from scene4d.formats.palette import codebook, nearest_level, palette
from scene4d.formats.sog import read_sog, write_sog
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.spz import read_spz, write_spz

NAMES = [form.name for form in formats.FORMATS if form.name != "s4d"]
"""The bundle has tests of its own."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Largest errors that a format's codes allow for ``random_cloud``; float32 rounding apart."""

    mean: float
    angle: float
    log_scale: float
    opacity: float
    colour: float
    """Of sh0, in its own unit: 0.2821 of the colour's."""
    sh: float | None
    """None: not kept."""


def three(step: float) -> float:
    """Radians by which rounding three components to ``step`` can turn a rotation.

    The three are off by at most e = sqrt(3) step / 2 together, the fourth, which follows from them,
    by |three| / fourth <= sqrt(3) times that; the chord is at most 2 e, and the rotation turns by
    twice the angle between the quaternions.
    """
    error = math.sqrt(3) * step / 2
    return 2 * error * math.sqrt(1 + 3) * 1.05


BOUNDS = {
    "ply": Bounds(mean=0, angle=1e-6, log_scale=0, opacity=0, colour=0, sh=0),
    # float32 exp, log and sigmoid
    "glb": Bounds(mean=0, angle=1e-6, log_scale=2e-6, opacity=1e-6, colour=0, sh=0),
    # half a step of 10 bits over a chunk's extent (at most 8; 8 in log-scale), 10 bits over
    # sqrt(2) per component, 8 bits of opacity, of a colour of at most 0..1, of -4..4
    "compressed-ply": Bounds(
        mean=8 / 1023 / 2,
        angle=three(math.sqrt(2) / 1023),
        log_scale=8 / 1023 / 2,
        opacity=0.5 / 255,
        colour=0.5 / 255 / packing.SH_C0,
        sh=8 / 256 / 2,
    ),
    # 4 components of 1/128, of which a 1 is cut to 127/128
    "splat": Bounds(
        mean=0,
        angle=2 * math.sqrt(3 / 256**2 + 1 / 128**2) * 1.05,
        log_scale=2e-6,
        opacity=0.5 / 255,
        colour=0.5 / 255 / packing.SH_C0,
        sh=None,
    ),
    # 12 fractional bits; 1/16; 9 bits over 1/sqrt(2); colour over 1/0.15; buckets of 2^(8 - 4)/128
    "spz": Bounds(
        mean=2**-13,
        angle=three(math.sqrt(0.5) / 511),
        log_scale=1 / 32,
        opacity=0.5 / 255,
        colour=0.5 / 255 / 0.15,
        sh=8.5 / 128,
    ),
    # 16 bits over 2 ln 5 in ln(1 + |x|), at most 5 times as much in x; 8 bits over sqrt(2)
    "sog": Bounds(
        mean=2 * math.log(5) / 65535 / 2 * 5,
        angle=three(math.sqrt(2) / 255),
        log_scale=8 / 256,  # a codebook of 256 for even values: half a step is 8/512, some more
        opacity=0.5 / 255,
        colour=3.4 / 256,
        sh=math.inf,  # a palette: checked by its mean below
    ),
}


def assert_within(found: SplatCloud, cloud: SplatCloud, bounds: Bounds) -> None:
    scale = 1 + 1e-5  # float32 arithmetic on the way
    assert len(found) == len(cloud)
    assert np.abs(found.means - cloud.means).max() <= bounds.mean * scale + 1e-6 * bounds.mean
    assert angles(found.quats, cloud.quats).max() <= bounds.angle
    assert np.abs(found.log_scales - cloud.log_scales).max() <= bounds.log_scale * scale
    opacities = packing.opacity_of(found.logit_opacities), packing.opacity_of(cloud.logit_opacities)
    assert np.abs(opacities[0] - opacities[1]).max() <= bounds.opacity * scale
    assert np.abs(found.sh[:, 0] - cloud.sh[:, 0]).max() <= bounds.colour * scale
    if bounds.sh is None:
        assert found.sh_degree == 0
    else:
        assert found.sh_degree == cloud.sh_degree
        assert np.abs(found.sh[:, 1:] - cloud.sh[:, 1:]).max(initial=0) <= bounds.sh * scale


def written(name: str, cloud: SplatCloud, folder: Path) -> Path:
    path = folder / f"a{formats.format_named(name).suffixes[0]}"
    assert formats.write_splats(path, cloud) == name
    return path


@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("antialiased", [False, True])
def test_a_file_says_how_it_was_trained_or_the_writer_warns(form, antialiased, tmp_path, caplog):
    cloud = replace(random_cloud(10), antialiased=antialiased)
    path = tmp_path / f"scene{form.suffixes[0]}"
    formats.write_splats(path, cloud)
    assert formats.read_splats(path).antialiased == (antialiased and form.keeps_antialiasing)
    warned = "trained with antialiasing" in caplog.text
    assert warned == (antialiased and not form.keeps_antialiasing)


def test_no_edit_forgets_how_splats_were_trained() -> None:
    cloud = replace(random_cloud(10), antialiased=True)
    turn = np.diag([2.0, 2.0, 2.0, 1.0])
    for changed in (cloud.transformed(turn), packing.taken(cloud, np.arange(3)),
                    with_sh_degree(cloud, 0)):  # fmt: skip
        assert changed.antialiased


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_within_the_formats_precision(
    tmp_path: Path, name: str, degree: int
) -> None:
    cloud = random_cloud(1500, degree)
    path = written(name, cloud, tmp_path)
    expected = packing.taken(cloud, order_in_file(name, cloud))
    assert_within(formats.read_splats(path), expected, BOUNDS[name])


@pytest.mark.parametrize("name", NAMES)
def test_reading_and_writing_again_loses_no_more(tmp_path: Path, name: str) -> None:
    """Codes are found again exactly, so that converting there and back does not wear a scene."""
    once = formats.read_splats(written(name, random_cloud(700), tmp_path))
    twice = formats.read_splats(written(name, once, tmp_path))
    once = packing.taken(once, order_in_file(name, once))
    for part in ("means", "log_scales", "sh"):
        a, b = getattr(once, part), getattr(twice, part)
        # chunks' bounds are themselves values, and float32 rounds differently on the way
        np.testing.assert_allclose(a, b, atol=3e-6 if name != "sog" else 2e-5, err_msg=part)
    opacities = [packing.opacity_of(cloud.logit_opacities) for cloud in (once, twice)]
    np.testing.assert_allclose(*opacities, atol=1e-6)
    # a quaternion whose two largest components are equal may store the other one
    steps = {"splat": BOUNDS["splat"].angle, "glb": 1e-6, "ply": 1e-6}
    assert np.median(angles(once.quats, twice.quats)) <= steps.get(name, 1e-5)


@pytest.mark.parametrize("name", ["ply", "compressed-ply", "spz", "sog"])
def test_an_empty_cloud_survives_where_the_format_can_say_it(tmp_path: Path, name: str) -> None:
    path = written(name, random_cloud(0, 1), tmp_path)
    assert len(formats.read_splats(path)) == 0


@pytest.mark.parametrize("name", ["splat", "glb"])
def test_an_empty_cloud_is_refused_where_it_cannot(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no splats"):
        written(name, random_cloud(0), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_one_splat_and_equal_splats_survive(tmp_path: Path, name: str) -> None:
    """Chunks, codebooks and bounds of no extent."""
    one = random_cloud(1)
    assert_within(
        formats.read_splats(written(name, one, tmp_path)), one, replace(BOUNDS[name], mean=1e-3)
    )
    many = packing.taken(one, np.zeros(300, dtype=int))
    found = formats.read_splats(written(name, many, tmp_path))
    assert_within(found, many, replace(BOUNDS[name], mean=1e-3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["means", "quats", "log_scales", "logit_opacities", "sh"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_never_written(tmp_path: Path, name: str, part: str, value: float) -> None:
    cloud = random_cloud(20)
    getattr(cloud, part).reshape(20, -1)[7, 0] = value
    if part == "logit_opacities" and value == np.inf:  # an opacity of exactly 1
        assert formats.read_splats(written(name, cloud, tmp_path)).logit_opacities.max() > 16
        return
    with pytest.raises(DataError, match=r"(splat|Gaussian) 7 "):
        written(name, cloud, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ply"])
def test_a_rotation_of_length_zero_is_never_written(tmp_path: Path, name: str) -> None:
    cloud = random_cloud(20)
    cloud.quats[3] = 0
    with pytest.raises(DataError, match="splat 3 has a rotation quaternion of length 0"):
        written(name, cloud, tmp_path)


def test_extreme_but_finite_values_survive(tmp_path: Path) -> None:
    """What training produces: opacities of exactly 0 and 1, tiny and huge sizes."""
    cloud = random_cloud(10)
    cloud.logit_opacities[:2] = (-200, 200)
    cloud.log_scales[:3, 0] = (-60, -20, 15)
    cloud.quats[4] = (3e-30, 0, 0, 4e-30)
    for name in NAMES:
        found = formats.read_splats(written(name, cloud, tmp_path))
        index = int(np.argsort(order_in_file(name, cloud))[1])
        assert packing.opacity_of(found.logit_opacities)[index] == pytest.approx(1, abs=1e-6)


# Real files, and axes


def test_a_scene_of_two_formats_reads_the_same(shared_data: Path) -> None:
    """PlayCanvas' biker as compressed PLY and as SPZ 4: the same splats in the same order, so the
    axes of SPZ (right-up-back) are turned rightly, and its fourth version is read rightly."""
    splats = shared_data / "splats"
    packed = formats.read_splats(splats / "biker.compressed.ply")
    spz = formats.read_splats(splats / "biker.spz")
    assert len(packed) == len(spz) == 152_746
    assert np.abs(packed.means - spz.means).max() <= 2**-13 * 1.001
    # both from 8-bit codes: 1/255 over the chunk's colours and over 1/0.15
    assert np.abs(packed.sh - spz.sh).max() <= 0.5 / 255 / 0.15 * 1.001
    kept = packed.log_scales >= -10  # SPZ says no less
    assert np.abs(packed.log_scales - spz.log_scales)[kept].max() <= 1 / 32 + 1e-5
    np.testing.assert_array_equal(packed.logit_opacities, spz.logit_opacities)
    assert angles(packed.quats, spz.quats).max() <= BOUNDS["spz"].angle


def test_a_sog_folder_and_its_archive_read_the_same(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "splats" / "playbot_sog_4_0"
    with zipfile.ZipFile(tmp_path / "a.sog", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    clouds = [read_sog(p) for p in (folder, folder / "meta.json", tmp_path / "a.sog")]
    assert (len(clouds[0]), clouds[0].sh_degree) == (8406, 2)
    for part in ("means", "quats", "log_scales", "logit_opacities", "sh"):
        assert getattr(clouds[0], part).tobytes() == getattr(clouds[1], part).tobytes()
        assert getattr(clouds[0], part).tobytes() == getattr(clouds[2], part).tobytes()


def test_a_real_scene_through_sog_again_keeps_its_codes(shared_data: Path, tmp_path: Path) -> None:
    """Scales and colours come from codebooks of 256 and fit into one again; the palette too."""
    cloud = read_sog(shared_data / "splats" / "playbot_sog_4_0")
    write_sog(tmp_path / "meta.json", cloud)
    again = read_sog(tmp_path)
    cloud = packing.taken(cloud, packing.morton_order(cloud.means))
    np.testing.assert_array_equal(again.log_scales, cloud.log_scales)
    np.testing.assert_array_equal(again.logit_opacities, cloud.logit_opacities)
    np.testing.assert_array_equal(again.sh[:, 0], cloud.sh[:, 0])
    np.testing.assert_allclose(again.means, cloud.means, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_scene_survives_every_format(shared_data: Path, tmp_path: Path, name: str) -> None:
    cloud = formats.read_splats(shared_data / "splats" / "inria_iteration_7000.ply")
    found = formats.read_splats(written(name, cloud, tmp_path))
    cloud = packing.taken(cloud, order_in_file(name, cloud))
    extent = float(np.ptp(cloud.means, axis=0).max())
    # 10 bits of a chunk, at worst of the whole; SOG's 16 bits are finer near the middle
    assert np.abs(found.means - cloud.means).max() <= max(2**-13, extent / 1023)
    assert np.median(angles(found.quats, cloud.quats)) <= BOUNDS[name].angle
    # bytes of colour end at 0 and 1, SPZ's at f_dc of 1/0.3
    end = {"splat": 0.5 / packing.SH_C0, "spz": 0.5 / 0.15}.get(name, np.inf)
    error = np.sqrt(((found.sh[:, 0] - np.clip(cloud.sh[:, 0], -end, end)) ** 2).mean())
    assert error <= 0.02  # half a step of SPZ's bytes over 1/0.15, the coarsest, is 0.013


def test_spz_is_written_in_its_own_axes_and_glb_turned_by_its_node(tmp_path: Path) -> None:
    cloud = random_cloud(3, 0)
    write_spz(tmp_path / "a.spz", cloud)
    import zstandard

    data = (tmp_path / "a.spz").read_bytes()
    start = 32 + 16 * data[15]
    packed = struct.unpack_from("<Q", data, 32)[0]
    raw = zstandard.ZstdDecompressor().decompress(data[start : start + packed])
    first = [int.from_bytes(raw[3 * i : 3 * i + 3], "little", signed=True) for i in range(3)]
    x, y, z = cloud.means[0]
    np.testing.assert_allclose(np.array(first) / 4096, [x, -y, -z], atol=2**-13)

    write_glb(tmp_path / "a.glb", cloud)
    data = (tmp_path / "a.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + size])
    assert document["nodes"] == [{"mesh": 0, "rotation": [0, 0, 1, 0]}]
    stored = np.frombuffer(data, "<f4", 3, 28 + size)
    np.testing.assert_array_equal(stored, cloud.means[0])


def test_nodes_of_a_glb_are_followed(tmp_path: Path) -> None:
    """Attributes turned already, a parent that moves and scales: the same scene, transformed."""
    cloud = random_cloud(50)
    write_glb(tmp_path / "a.glb", cloud)
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    nodes = [
        {"children": [1], "scale": [2, 2, 2], "translation": [1, 2, 3]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1]},
    ]
    rewrite_json(tmp_path / "a.glb", lambda d: d.update(nodes=nodes))
    matrix = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    outer = np.diag([2.0, 2, 2, 1])
    outer[:3, 3] = (1, 2, 3)
    expected = cloud.transformed(half_turn @ outer @ matrix)
    found = read_glb(tmp_path / "a.glb")
    np.testing.assert_allclose(found.means, expected.means, atol=1e-5)
    np.testing.assert_allclose(found.sh, expected.sh, atol=1e-5)
    assert angles(found.quats, expected.quats).max() < 1e-5


def test_quantised_attributes_of_a_glb_are_read(tmp_path: Path) -> None:
    """Normalised shorts and bytes, which the extension allows for rotation and opacity."""
    cloud = random_cloud(64, 0)
    write_glb(tmp_path / "a.glb", cloud, fallback_colours=False)
    data = (tmp_path / "a.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    binary = bytearray(data[28 + size :])
    quats = packing.unit_quats(cloud.quats)[:, [1, 2, 3, 0]]
    opacities = packing.opacity_of(cloud.logit_opacities)
    extra = np.rint(quats * 32767).astype("<i2").tobytes()
    extra += np.rint(opacities * 255).astype("u1").tobytes()
    start = len(binary)

    def change(document) -> None:
        views, accessors = document["bufferViews"], document["accessors"]
        views.append({"buffer": 0, "byteOffset": start, "byteLength": 64 * 8})
        views.append({"buffer": 0, "byteOffset": start + 64 * 8, "byteLength": 64})
        names = document["meshes"][0]["primitives"][0]["attributes"]
        for name, view, kind in (("ROTATION", -2, 5122), ("OPACITY", -1, 5121)):
            accessor = accessors[names[f"KHR_gaussian_splatting:{name}"]]
            accessor.update(bufferView=len(views) + view, componentType=kind, normalized=True)

    rewrite_json(tmp_path / "a.glb", change, binary=bytes(binary) + extra)
    found = read_glb(tmp_path / "a.glb")
    assert angles(found.quats, cloud.quats).max() <= 2 * 2 * 0.5 / 32767 * 1.05
    error = packing.opacity_of(found.logit_opacities) - opacities
    assert np.abs(error).max() <= 0.5 / 255 + 1e-6


def rewrite_json(path: Path, change, *, binary: bytes | None = None) -> None:
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + size])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary = data[28 + size :] if binary is None else binary + bytes(-len(binary) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    body += struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)


# SPZ's versions and options


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_older_spz_are_read(tmp_path: Path, version: int, degree: int) -> None:
    cloud = random_cloud(200, degree)
    data = benchmark("fuzz_formats").legacy_spz(cloud, version)
    (tmp_path / "a.spz").write_bytes(data)
    found = read_spz(tmp_path / "a.spz")
    # version 2: x, y, z in steps of 1/127.5, w follows; where w is near 0 that is worth sqrt(3
    # steps / 127.5), so the bound holds for the bulk alone
    limits = {2: 0.08, 3: BOUNDS["spz"].angle}
    assert np.quantile(angles(found.quats, cloud.quats), 0.95) <= limits[version]
    loose = replace(BOUNDS["spz"], angle=0.5, sh=0.5 / 128)  # whole bytes were written there
    assert_within(found, cloud, loose)


def test_spz_keeps_more_bits_of_harmonics_when_asked(tmp_path: Path) -> None:
    cloud = random_cloud(200)
    write_spz(tmp_path / "a.spz", cloud, sh1_bits=8, sh_rest_bits=8)
    assert_within(read_spz(tmp_path / "a.spz"), cloud, replace(BOUNDS["spz"], sh=0.5 / 128))


@pytest.mark.parametrize("reach", [3000.0, 500_000.0])
def test_spz_says_far_positions_with_fewer_bits(tmp_path: Path, reach: float) -> None:
    cloud = random_cloud(100, 0)
    cloud.means[5, 1] = reach
    write_spz(tmp_path / "a.spz", cloud)
    assert np.abs(read_spz(tmp_path / "a.spz").means - cloud.means).max() <= reach / 2**22 * 1.001


def test_spz_refuses_what_is_farther_than_it_can_say(tmp_path: Path) -> None:
    cloud = random_cloud(100, 0)
    cloud.means[5, 1] = 1e8
    with pytest.raises(DataError, match="farther"):
        write_spz(tmp_path / "a.spz", cloud)


# Recognition


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    path = written(name, random_cloud(30), tmp_path)
    assert formats.format_of(path).name == name
    if name != "splat":  # which has no first bytes of its own
        other = path.rename(tmp_path / "b.bin")
        assert formats.format_of(other).name == name


def test_what_is_no_splat_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        formats.read_splats(tmp_path / "a.ply")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UsageError, match="not a splat file"):
        formats.read_splats(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="not a splat file"):
        formats.read_splats(tmp_path)
    with pytest.raises(UsageError, match="no splat format"):
        formats.write_splats(tmp_path / "a.txt", random_cloud(3))
    assert formats.format_by_suffix(Path("x/A.COMPRESSED.PLY")).name == "compressed-ply"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ply"])
def test_the_bytes_of_the_attributes_add_up(tmp_path: Path, name: str) -> None:
    path = written(name, random_cloud(500), tmp_path)
    total = sum(formats.attribute_sizes(path).values())
    # headers, tables and the ZIP's directory are no attributes
    assert 0 <= path.stat().st_size - total <= 5000


# The parts


def test_a_codebook_meets_few_values_and_is_near_the_best_for_many() -> None:
    few = np.repeat(np.float32([-3, 0.5, 7]), 50)
    np.testing.assert_array_equal(codebook(few)[nearest_level(few, codebook(few))], few)
    even = np.random.default_rng(0).uniform(size=200_000)
    levels = codebook(even)
    error = levels[nearest_level(even, levels)] - even
    # the best 256 levels leave (1/256)^2 / 12 of even values
    assert 0.95 <= (error**2).mean() * 12 * 256**2 <= 1.1
    normal = np.random.default_rng(1).normal(size=200_000)
    levels = codebook(normal)
    error = levels[nearest_level(normal, levels)] - normal
    # Panter and Dite: pi sqrt(3) / 2 / N^2 at best
    assert (error**2).mean() * 256**2 / (math.pi * math.sqrt(3) / 2) <= 1.15


def test_a_palette_finds_clusters_and_keeps_few_vectors() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 24)).astype(np.float32)
    which = rng.integers(200, size=5000)
    vectors = centres[which] + rng.normal(scale=1e-3, size=(5000, 24)).astype(np.float32)
    found, labels = palette(vectors, 1024)
    assert len(found) <= 1024
    # clusters are 7 apart; the spread within is 0.005
    assert np.linalg.norm(found[labels] - vectors, axis=1).max() < 0.1
    exact, labels = palette(centres[which], 256)
    np.testing.assert_array_equal(exact[labels], centres[which])


def test_the_z_order_keeps_neighbours_together() -> None:
    means = random_cloud(4000, 0).means
    order = packing.morton_order(means)
    assert sorted(order) == list(range(4000))
    steps = np.linalg.norm(np.diff(means[order], axis=0), axis=1).mean()
    # 4000 in a cube of 8: neighbours are about 8 / 16 apart, strangers 5.3
    assert steps < 1.0
