"""The 3DGS PLY: bit-exact round trips, independent readers, similarity transforms, bad files."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_packages import import_or_skip

from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.errors import DataError, Scene4dError
from scene4d.formats.ply import property_names, read_ply, write_ply
from scene4d.formats.splat_cloud import SplatCloud, rotate_sh, sh_basis, split_similarity
from scene4d.rendering.splats.reference import sh_basis as torch_sh_basis

NAMES = ("means", "quats", "log_scales", "logit_opacities", "sh")


def random_cloud(count: int = 50, degree: int = 3, seed: int = 0) -> SplatCloud:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return SplatCloud(
        means=normal(count, 3),
        quats=normal(count, 4),
        log_scales=normal(count, 3) - 3,
        logit_opacities=normal(count),
        sh=normal(count, (degree + 1) ** 2, 3),
    )


def random_rotation(seed: int) -> np.ndarray:
    quat = torch.from_numpy(np.random.default_rng(seed).normal(size=4))
    return rotation_from_quat(quat).numpy()


def assert_same(a: SplatCloud, b: SplatCloud) -> None:
    for name in NAMES:
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name


# Round trips and other readers


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, degree: int) -> None:
    cloud = random_cloud(degree=degree)
    write_ply(tmp_path / "a.ply", cloud)
    again = read_ply(tmp_path / "a.ply")
    assert again.sh_degree == degree
    assert_same(again, cloud)
    write_ply(tmp_path / "b.ply", again)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_an_empty_cloud_survives(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_cloud(0))
    assert len(read_ply(tmp_path / "a.ply")) == 0


@pytest.mark.parametrize("degree", [0, 3])
def test_gsply_reads_the_same_values(tmp_path: Path, degree: int) -> None:
    gsply = import_or_skip("gsply")
    cloud = random_cloud(degree=degree)
    write_ply(tmp_path / "a.ply", cloud)
    assert_gsply_agrees(gsply, tmp_path / "a.ply", cloud)


def assert_gsply_agrees(gsply, path: Path, cloud: SplatCloud) -> None:
    data = gsply.plyread(str(path))
    np.testing.assert_array_equal(data.means, cloud.means)
    np.testing.assert_array_equal(data.scales, cloud.log_scales)
    np.testing.assert_array_equal(data.quats, cloud.quats)
    np.testing.assert_array_equal(data.opacities.reshape(-1), cloud.logit_opacities)
    np.testing.assert_array_equal(data.sh0.reshape(-1, 3), cloud.sh[:, 0])
    if cloud.sh_degree:
        np.testing.assert_array_equal(
            np.asarray(data.shN).reshape(len(cloud), -1, 3), cloud.sh[:, 1:]
        )


def test_the_reference_file_is_read_as_gsply_reads_it(shared_data: Path, tmp_path: Path) -> None:
    gsply = import_or_skip("gsply")
    path = shared_data / "splats" / "inria_iteration_7000.ply"
    cloud = read_ply(path)
    assert (len(cloud), cloud.sh_degree) == (9080, 3)
    assert_gsply_agrees(gsply, path, cloud)
    write_ply(tmp_path / "a.ply", cloud)
    assert (tmp_path / "a.ply").read_bytes() == path.read_bytes()


def test_gaussforge_reads_the_same_values(tmp_path: Path) -> None:
    gaussforge = import_or_skip("gaussforge")
    cloud = random_cloud()
    write_ply(tmp_path / "a.ply", cloud)
    found = gaussforge.GaussForge().read((tmp_path / "a.ply").read_bytes(), "ply")
    assert "error" not in found, found
    data = found["data"]
    assert data["numPoints"] == len(cloud)

    def floats(name: str, *shape: int) -> np.ndarray:
        return np.frombuffer(data[name], np.float32).reshape(len(cloud), *shape)

    np.testing.assert_array_equal(floats("positions", 3), cloud.means)
    np.testing.assert_array_equal(floats("scales", 3), cloud.log_scales)
    np.testing.assert_array_equal(floats("alphas"), cloud.logit_opacities)
    np.testing.assert_array_equal(floats("colors", 3), cloud.sh[:, 0])
    np.testing.assert_array_equal(floats("sh", 15, 3), cloud.sh[:, 1:])
    unit = cloud.quats / np.linalg.norm(cloud.quats, axis=1, keepdims=True)
    length = np.linalg.norm(floats("rotations", 4), axis=1, keepdims=True)
    # float32 normalisation, which it may do or not
    np.testing.assert_allclose(floats("rotations", 4) / length, unit, atol=1e-6)


# Tolerance


def rewritten(cloud: SplatCloud, path: Path, kind: str, *, order: str, seed: int = 0) -> None:
    """The cloud with properties shuffled, without normals, after another element."""
    write_ply(path, cloud)
    data = path.read_bytes()
    body = data[data.index(b"end_header\n") + 11 :]
    names = property_names(3 * (cloud.sh.shape[1] - 1))
    rows = np.frombuffer(body, dtype=[(n, "<f4") for n in names])
    kept = [n for n in names if not n.startswith("n")] + ["extra"]
    np.random.default_rng(seed).shuffle(kept)
    code = {"float": "f4", "double": "f8"}[kind]
    sign, form = {"little": ("<", "little"), "big": (">", "big")}[order]
    new = np.zeros(len(rows), dtype=[(n, sign + code) for n in kept])
    for name in set(kept) - {"extra"}:
        new[name] = rows[name]
    header = f"ply\nformat binary_{form}_endian 1.0\ncomment made by a test\n"
    header += "element camera 2\nproperty int id\nproperty uchar flag\n"
    header += f"element vertex {len(rows)}\n" + "".join(f"property {kind} {n}\n" for n in kept)
    path.write_bytes((header + "end_header\n").encode() + bytes(10) + new.tobytes())


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_order_type_and_extra_properties_do_not_matter(
    tmp_path: Path, kind: str, order: str
) -> None:
    cloud = random_cloud(degree=2)
    rewritten(cloud, tmp_path / "a.ply", kind, order=order)
    assert_same(read_ply(tmp_path / "a.ply"), cloud)


def test_an_opacity_of_exactly_one_is_read_as_opaque(tmp_path: Path) -> None:
    cloud = random_cloud(3)
    write_ply(tmp_path / "a.ply", cloud)
    data = (tmp_path / "a.ply").read_bytes()
    value = struct.pack("<f", cloud.logit_opacities[1])
    assert data.count(value) == 1
    (tmp_path / "a.ply").write_bytes(data.replace(value, struct.pack("<f", np.inf)))
    opacity = read_ply(tmp_path / "a.ply").logit_opacities[1]
    assert 1 / (1 + np.exp(-np.float32(opacity))) == np.float32(1)


# Transforms


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_basis_is_the_renderers(degree: int) -> None:
    directions = np.random.default_rng(0).normal(size=(100, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ours = sh_basis(directions, degree)
    theirs = torch_sh_basis(torch.from_numpy(directions), degree).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-14)  # float64 rounding of O(1) values


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), degree=st.integers(0, 3))
def test_rotated_harmonics_give_the_same_colour_in_rotated_directions(
    seed: int, degree: int
) -> None:
    rotation = random_rotation(seed)
    rng = np.random.default_rng(seed)
    sh = rng.normal(size=(5, (degree + 1) ** 2, 3)).astype(np.float32)
    directions = rng.normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = np.einsum("mk,nkc->nmc", sh_basis(directions, degree), sh)
    turned = rotate_sh(sh, rotation)
    after = np.einsum("mk,nkc->nmc", sh_basis(directions @ rotation.T, degree), turned)
    # sixteen float32 products of values up to about 4: a few times 1e-6
    np.testing.assert_allclose(after, before, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_a_similarity_moves_covariances_and_means_as_algebra_says(seed: int, scale: float) -> None:
    rotation = random_rotation(seed)
    similarity = np.eye(4)
    similarity[:3, :3] = scale * rotation
    similarity[:3, 3] = (1, -2, 3)
    cloud = random_cloud(20, seed=seed)
    moved = cloud.transformed(similarity)
    expected = covariances(cloud)
    expected = scale**2 * rotation @ expected @ rotation.T
    size = np.abs(expected).max(axis=(1, 2), keepdims=True)
    # float32 quaternions and logarithms: relative error of a few times 1e-6
    np.testing.assert_allclose(covariances(moved) / size, expected / size, atol=2e-5)
    means = cloud.means.astype(np.float64) @ (scale * rotation).T + similarity[:3, 3]
    np.testing.assert_allclose(moved.means, means, rtol=1e-6, atol=1e-6 * scale)


def covariances(cloud: SplatCloud) -> np.ndarray:
    rotation = rotation_from_quat(torch.from_numpy(cloud.quats).double()).numpy()
    axes = rotation * np.exp(cloud.log_scales.astype(np.float64))[:, None]
    return axes @ axes.transpose(0, 2, 1)


def test_there_and_back_again(tmp_path: Path) -> None:
    similarity = np.eye(4)
    similarity[:3, :3] = 2.5 * random_rotation(3)
    similarity[:3, 3] = (4, 5, 6)
    cloud = random_cloud()
    again = cloud.transformed(similarity).transformed(np.linalg.inv(similarity))
    for name in ("means", "log_scales", "sh"):
        # two float32 roundings of values up to about 30
        np.testing.assert_allclose(getattr(again, name), getattr(cloud, name), atol=2e-5)
    assert_same(cloud.transformed(np.eye(4)), cloud)


@pytest.mark.parametrize(
    "linear",
    [np.diag([1.0, 1, -1]), np.diag([1.0, 2, 1]), np.zeros((3, 3)), np.full((3, 3), np.nan)],
)
def test_what_is_no_similarity_is_refused(linear: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    with pytest.raises(DataError):
        split_similarity(matrix)


# Bad files


def good_file(path: Path) -> bytes:
    write_ply(path, random_cloud(10, degree=0))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-1], "cut off"),
        (lambda d: d.replace(b"vertex 10", b"vertex 10000000000"), "cut off"),
        (lambda d: d.replace(b"vertex 10", b"vertex -1"), "makes no sense"),
        (lambda d: d.replace(b"vertex 10", b"vertex x"), "makes no sense"),
        (lambda d: d.replace(b"vertex 10", b"vertex 1" + b"0" * 30), "makes no sense"),
        (lambda d: d.replace(b"float opacity", b"float opacitx"), "no property opacity"),
        (lambda d: d.replace(b"float rot_3", b"float rot_2"), "twice"),
        (lambda d: d.replace(b"float nx", b"float f_rest_0"), "f_rest"),
        (lambda d: d.replace(b"float nx", b"list uchar int nx"), "mesh"),
        (lambda d: d.replace(b"binary_little_endian", b"ascii"), "text cannot be read"),
        (lambda d: d.replace(b"float nx", b"quaternion nx"), "makes no sense"),
        (lambda d: d.replace(b"end_header\n", b"comment x\n"), "header"),
        (lambda d: d.replace(b"float x\n", b"float packed_position\n"), "compressed"),
        (lambda d: d[4:], "not a PLY"),
        (lambda d: b"", "not a PLY"),
    ],
)
def test_damaged_files_are_refused_in_words(tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(damage(good_file(path)))
    with pytest.raises(DataError, match=message) as caught:
        read_ply(path)
    assert str(path) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_a_cloud_or_our_error(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.ply"
    content = bytearray(good_file(path))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(DataError):
        assert len(read_ply(path)) <= len(content)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_refused_by_name(tmp_path: Path, value: float) -> None:
    cloud = random_cloud(5)
    write_ply(tmp_path / "a.ply", cloud)
    before = (tmp_path / "a.ply").read_bytes()
    cloud.means[3, 1] = value
    with pytest.raises(DataError, match="splat 3 has a position y"):
        write_ply(tmp_path / "a.ply", cloud)
    assert (tmp_path / "a.ply").read_bytes() == before
    old = struct.pack("<f", random_cloud(5).means[3, 1])
    assert before.count(old) == 1
    (tmp_path / "b.ply").write_bytes(before.replace(old, struct.pack("<f", value)))
    with pytest.raises(DataError, match="splat 3 has a position y"):
        read_ply(tmp_path / "b.ply")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Scene4dError, match=r"a\.ply"):
        read_ply(tmp_path / "a.ply")
