"""Bundles of kind splats: what goes in comes out, within the stated steps."""

from dataclasses import replace

import numpy as np
import pytest

from scene4d.bundle.arrays import dequantise
from scene4d.bundle.coding import decode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.rotations import angles_between, canonical
from scene4d.bundle.scene_info import default_info
from scene4d.bundle.splat_file import read_s4d, write_s4d
from scene4d.bundle.splats import (
    SplatQuantisation,
    decode_splats,
    encode_splats,
    encoded_size,
    out_of_reach,
    read_splats_bundle,
    wanted_step,
    write_splats_bundle,
)
from scene4d.errors import DataError, UsageError
from scene4d.formats.splat_cloud import SplatCloud


def make_cloud(count: int, degree: int = 3, seed: int = 0) -> SplatCloud:
    rng = np.random.default_rng(seed)
    f = np.float32
    return SplatCloud(
        means=rng.normal(size=(count, 3)).astype(f),
        quats=rng.normal(size=(count, 4)).astype(f),
        log_scales=rng.normal(-4, 0.7, (count, 3)).astype(f),
        logit_opacities=rng.normal(0, 2, count).astype(f),
        sh=(rng.normal(size=(count, (degree + 1) ** 2, 3)) * 0.3).astype(f),
    )


def covariances(cloud: SplatCloud) -> np.ndarray:
    q = cloud.quats / np.linalg.norm(cloud.quats, axis=1, keepdims=True)
    w, x, y, z = q.astype(np.float64).T
    r = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    squares = np.exp(2 * cloud.log_scales.astype(np.float64))
    return np.einsum("nij,nj,nkj->nik", r, squares, r)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("count", [0, 1, 2, 500])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("folder", [False, True])
def test_round_trip_is_within_half_a_step(tmp_path, count, degree, folder):
    cloud = make_cloud(count, degree)
    settings = SplatQuantisation(sh_dead_zone=0.5, sh_transform=count > 100, stages=(0.3, 1.0))
    path = tmp_path / "scene.s4d"
    coded = write_splats_bundle(path, cloud, settings, folder=folder)
    back, manifest = read_splats_bundle(path)
    assert len(back) == manifest["count"] == count and back.sh_degree == degree
    if not count:
        return
    # The order changes: pair by the nearest centre, which is far closer than any other.
    distance = np.linalg.norm(cloud.means[:, None] - back.means[None], axis=2)
    pair = distance.argmin(axis=1)
    assert sorted(pair) == list(range(count))
    step = coded.manifest["positions"]["step"]
    # float32 of the result adds 2^-24 of the coordinates, which are below 8
    assert np.abs(back.means[pair] - cloud.means).max() <= step / 2 * 1.0001 + 1e-6
    alpha = np.abs(sigmoid(back.logit_opacities[pair]) - sigmoid(cloud.logit_opacities))
    assert alpha.max() <= 0.5 / 63 + 1e-6
    assert np.abs(back.sh[pair, 0] - cloud.sh[:, 0]).max() <= 0.03 / 2 * np.sqrt(3) + 1e-4
    if degree:
        difference = (back.sh[pair, 1:] - cloud.sh[:, 1:]).reshape(count, -1)
        # Half a step in each of the components of an orthonormal basis (stored with 12 bits).
        assert np.linalg.norm(difference, axis=1).max() <= 0.025 * difference.shape[1] ** 0.5 * 1.02
    # Sizes move by 3%; a turn by 0.01 * sqrt(3) * 2.34 rad mixes axes of very different size.
    a, b = covariances(cloud), covariances(back)[pair]
    largest = np.linalg.norm(a, ord=2, axis=(1, 2))
    assert (np.linalg.norm(a - b, ord=2, axis=(1, 2)) / largest).max() <= 0.062 + 2 * 0.041


def test_recorded_errors_are_those_of_the_decoded_values(tmp_path):
    cloud = make_cloud(3000)
    coded = write_splats_bundle(tmp_path / "a.s4d", cloud, SplatQuantisation(stages=(1.0,)))
    back, _ = read_splats_bundle(tmp_path / "a.s4d")
    entries = {entry["name"]: entry for entry in coded.manifest["arrays"]}
    from scipy.spatial import cKDTree

    pair = cKDTree(back.means).query(cloud.means)[1]
    xyz, log_scales = canonical(cloud.quats, cloud.log_scales)
    found = {
        "opacity": sigmoid(back.logit_opacities[pair]) - sigmoid(cloud.logit_opacities),
        "log_scales": back.log_scales[pair] - log_scales,
        "dc": back.sh[pair, 0] - cloud.sh[:, 0],
        "sh": back.sh[pair, 1:] - cloud.sh[:, 1:],
    }
    w = np.sqrt(1 - (xyz**2).sum(axis=1, keepdims=True))
    angles = angles_between(np.hstack([w, xyz]), back.quats[pair].astype(np.float64))
    # Balls have no orientation, and their error is not counted.
    found["rotation"] = angles[np.ptp(back.log_scales[pair], axis=1) > 0]
    for name, difference in found.items():
        rms = np.sqrt(np.mean(difference**2))
        # written with 3 digits; opacities beyond the clamp of the logit differ by 1/4096
        assert rms == pytest.approx(entries[name]["error"]["rms"], rel=0.01), name
        assert np.abs(difference).max() == pytest.approx(
            entries[name]["error"]["max"], rel=0.01, abs=3e-4
        ), name


def test_stages_bring_the_important_splats_first(tmp_path):
    cloud = make_cloud(1000)
    importance = np.arange(1000.0)
    settings = SplatQuantisation(stages=(0.1, 0.5, 1.0))
    write_splats_bundle(tmp_path / "a.s4d", cloud, settings, importance=importance)
    bundle = open_bundle(tmp_path / "a.s4d")
    assert [stage["points"] for stage in bundle.manifest["stages"]] == [100, 400, 500]
    coarse = decode_splats(bundle, stages=1)
    assert len(coarse) == 100
    distance = np.linalg.norm(cloud.means[900:, None] - coarse.means[None], axis=2).min(axis=1)
    assert distance.max() < 0.01
    whole = decode_splats(bundle)
    np.testing.assert_array_equal(whole.means[:100], coarse.means)
    np.testing.assert_array_equal(whole.sh[:100], coarse.sh)


def with_far(cloud: SplatCloud, *, size: float, logit: float, count: int = 20) -> SplatCloud:
    """``cloud``, the last ``count`` of its splats a hundred million times as far away."""
    means, scales, logits = (
        cloud.means.copy(),
        cloud.log_scales.copy(),
        cloud.logit_opacities.copy(),
    )
    means[-count:] *= 1e8
    scales[-count:], logits[-count:] = np.log(size), logit
    return replace(cloud, means=means, log_scales=scales, logit_opacities=logits)


def test_faint_splats_far_away_make_no_others_coarse(tmp_path, caplog):
    """Trainings leave such; on an even grid around them a room of millimetres had steps of
    half a metre."""
    caplog.set_level("INFO", logger="scene4d")
    cloud = with_far(make_cloud(2000), size=10.0, logit=-5.0)
    coded = write_splats_bundle(tmp_path / "a.s4d", cloud)
    assert coded.manifest["count"] == 1980 and "20 splats were left out" in caplog.text
    back, _ = read_splats_bundle(tmp_path / "a.s4d")
    near = cloud.means[:1980].astype(np.float64)
    away = np.abs(near[:, None] - back.means[None]).max(axis=2).min(axis=1)
    assert away.max() <= wanted_step(cloud) / 2 + 1e-6  # half a step; float32 of the bundle


@pytest.mark.parametrize("change", [
    {"size": 1e8, "logit": 5.0},  # a sky: as large as it is far
    {"size": 1e8, "logit": -5.0},  # faint, but still seen
])  # fmt: skip
def test_what_is_seen_far_away_stays(change):
    assert not out_of_reach(with_far(make_cloud(2000), **change)).any()


def test_nothing_is_left_out_where_the_grid_is_fine_enough_or_was_asked_for():
    cloud = make_cloud(2000)
    assert not out_of_reach(cloud).any()
    far = with_far(cloud, size=10.0, logit=-5.0)
    assert encode_splats(far, SplatQuantisation(position_bits=12)).manifest["count"] == 2000
    few = with_far(cloud, size=10.0, logit=-5.0, count=1)
    assert out_of_reach(few).sum() == 1
    assert not out_of_reach(make_cloud(1)).any() and not out_of_reach(make_cloud(0)).any()


def test_the_canonical_description_is_the_same_gaussian_with_the_smallest_angle():
    cloud = make_cloud(4000)
    xyz, log_scales = canonical(cloud.quats, cloud.log_scales)
    w = np.sqrt(1 - (xyz**2).sum(axis=1, keepdims=True))
    same = replace(cloud, quats=np.hstack([w, xyz]).astype(np.float32), log_scales=log_scales)
    a, b = covariances(cloud), covariances(same)
    # float32 quaternions turn by up to 1e-7, the ratio of squared sizes is below e^8
    np.testing.assert_allclose(a, b, atol=2e-6 * np.exp(2 * cloud.log_scales.max()))
    # Rotations of the cube leave no rotation farther than 62.8 degrees (Mackenzie and Thomson 1957)
    assert np.degrees(2 * np.arccos(w)).max() <= 62.8


def test_a_similarity_in_the_manifest_is_undone(tmp_path):
    cloud = make_cloud(50)
    turn = np.array([[0, -2.0, 0, 5], [2, 0, 0, -1], [0, 0, 2, 3], [0, 0, 0, 1]])
    info = replace(default_info(cloud), transform=tuple(map(tuple, turn)))
    write_s4d(tmp_path / "a.s4d", cloud, None, info)
    inner, _ = read_splats_bundle(tmp_path / "a.s4d")
    outer = read_s4d(tmp_path / "a.s4d")
    np.testing.assert_allclose(outer.means, inner.means @ turn[:3, :3].T + turn[:3, 3], atol=1e-5)
    np.testing.assert_allclose(outer.log_scales, inner.log_scales + np.log(2), atol=1e-6)


def test_bytes_depend_on_the_content_alone_and_the_size_is_known_before(tmp_path):
    cloud = make_cloud(300)
    for name in ("a", "b"):
        write_s4d(tmp_path / name, cloud)
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    assert encoded_size(cloud) == len(data)


def test_coarser_steps_make_smaller_files():
    cloud = make_cloud(5000)
    sizes = [
        encode_splats(cloud, SplatQuantisation(sh_steps=step, log_scale_step=step)).size
        for step in (0.02, 0.1, 0.5)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_estimate_of_each_part_is_near_its_size():
    coded = encode_splats(make_cloud(5000), SplatQuantisation())
    # The estimate counts 7 bits per table entry twice (in the arrays and as tables).
    total = sum(coded.bits.values()) / 8
    assert coded.size <= total * 1.02 and total <= coded.size * 1.25


def test_unusable_splats_and_settings_are_told(tmp_path):
    cloud = make_cloud(5)
    broken = cloud.means.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 5 splats.*number 3"):
        encode_splats(replace(cloud, means=broken))
    with pytest.raises(DataError, match="zero rotation"):
        encode_splats(replace(cloud, quats=np.zeros((5, 4), dtype=np.float32)))
    for stages in ((0.5,), (0.0, 1.0), (0.6, 0.3, 1.0)):
        with pytest.raises(UsageError, match="stage"):
            encode_splats(cloud, SplatQuantisation(stages=stages))
    with pytest.raises(UsageError, match="steps of sh"):
        encode_splats(cloud, SplatQuantisation(sh_steps=(0.1, 0.2)))
    with pytest.raises(UsageError, match="position bits"):
        encode_splats(cloud, SplatQuantisation(position_bits=22))


def test_all_splats_in_one_place(tmp_path):
    cloud = make_cloud(200)
    same = replace(cloud, means=np.full((200, 3), 7.25, dtype=np.float32))
    write_s4d(tmp_path / "a.s4d", same)
    back = read_s4d(tmp_path / "a.s4d")
    assert (back.means == np.float32(7.25)).all()


def test_dequantise_follows_the_manifest(tmp_path):
    write_s4d(tmp_path / "a.s4d", make_cloud(100))
    decoded = decode_scene(open_bundle(tmp_path / "a.s4d"))
    codes = decoded.arrays["log_scales"].codes
    values = dequantise("log_scales", decoded.arrays)
    np.testing.assert_array_equal(values, (0.06 * codes.astype(np.float64)).astype(np.float32))
