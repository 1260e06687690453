"""Bundles of kind splats4d: what they keep of a motion, what they take, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle import independent_decoder as independent
from formats.splat_files import random_cloud
from formats.test_moving_splats import random_moving
from scipy.spatial.transform import Rotation

from scene4d.bundle.container import Bundle, open_bundle
from scene4d.bundle.scene_info import default_info
from scene4d.bundle.splats import SplatQuantisation, bundle_writer
from scene4d.errors import DataError, UsageError
from scene4d.formats.moving_splats import MovingSplats, quat_rotate
from scene4d.methods.deformable.bundle_content import (
    MotionQuantisation,
    decode_chunk,
    decode_moving,
    encode_splats4d,
)
from scene4d.methods.deformable.bundle_manifest import KIND, motion_rate
from scene4d.methods.deformable.bundle_motion import (
    Knots,
    chunk_codes,
    codes_of_chunk,
    filled,
    joined_chunks,
    merged,
    nodes_of,
    ranks_of,
    rotation_vectors,
    weight_codes,
)
from scene4d.methods.deformable.bundle_seen import (
    coarse_weights,
    coarse_windows,
    held,
    shown_knots,
)

FINE = MotionQuantisation(
    splats=SplatQuantisation(position_bits=20), shift_step=2.0, rotation_step=1e-4,
    weight_error=0.0, window_error=0.0,
)  # fmt: skip


def written(moving: MovingSplats, path: Path, settings: MotionQuantisation | None = None) -> Bundle:
    coded = encode_splats4d(moving, settings)
    bundle_writer(KIND, coded, default_info(moving.cloud)).write(path)
    return open_bundle(path)


def swaying(
    count: int, *, nodes: int = 30, knots: int = 33, interval: float = 0.1, jitter: float = 0.0
) -> MovingSplats:
    """Many splats, the first half of which sway: nodes turn about the vertical axis the more, the
    higher they are."""
    rng = np.random.default_rng(5)
    half = count // 2
    cloud = random_cloud(count, 1)
    cloud = replace(
        cloud,
        means=(rng.random((count, 3)) * 2 - 1).astype(np.float32),
        log_scales=(-3.5 + 0.5 * rng.random((count, 3))).astype(np.float32),
    )
    rests = cloud.means[rng.choice(half, nodes, replace=False)].astype(np.float64)
    times = interval * (np.arange(knots) - 1.0)
    angles = 0.5 * (rests[:, 1:2] + 1) * np.sin(2 * times) + jitter * rng.normal(
        size=(nodes, knots)
    )
    knots7 = np.zeros((nodes, knots, 7), dtype=np.float32)
    knots7[..., 0], knots7[..., 2] = np.cos(angles / 2), np.sin(angles / 2)
    knots7[..., 4] = 0.2 * np.sin(times) + jitter * rng.normal(size=(nodes, knots))
    apart = ((cloud.means[:half, None].astype(np.float64) - rests) ** 2).sum(axis=2)
    indices = np.argsort(apart, axis=1)[:, :4]
    weights = np.exp(-2 * np.take_along_axis(apart, indices, axis=1))
    return MovingSplats(
        cloud=cloud,
        num_moving=half,
        node_indices=indices.astype(np.uint16),
        node_weights=(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        knots=knots7,
        start_s=1.0,
        knot_interval_s=interval,
        duration_s=interval * (knots - 3),
    )


def in_the_bundles_order(moving: MovingSplats, bundle: Bundle) -> np.ndarray:
    """Which of ``moving``'s Gaussians each of the bundle's is, told by their first moments."""
    ours = moving.cloud.means[:, None].astype(np.float64)
    theirs = decode_moving(bundle).moving.cloud.means.astype(np.float64)
    return np.argmin(((ours - theirs[None]) ** 2).sum(axis=2), axis=0)


# Codes


def test_poses_come_back_within_half_a_step_of_each() -> None:
    moving = random_moving()
    poses = moving.knots.astype(np.float64)
    poses[..., :4] /= np.linalg.norm(poses[..., :4], axis=-1, keepdims=True)
    rests = np.random.default_rng(0).integers(0, 1000, (6, 3))
    knots = Knots(
        origin=np.array([0.3, -1.0, 2.0]), step=0.01, grid_rests=rests, rotation_step=0.02,
        shift_step=0.03,
    )  # fmt: skip
    back = knots.poses(knots.codes(poses))
    # half a step of each axis, and float64's rounding
    assert np.abs(knots.places(back) - knots.places(poses)).max() <= 0.015 * (1 + 1e-9)
    first = Rotation.from_quat(poses[..., [1, 2, 3, 0]].reshape(-1, 4))
    second = Rotation.from_quat(back[..., [1, 2, 3, 0]].reshape(-1, 4))
    # a rotation vector's error is at least the angle between the rotations
    assert (first * second.inv()).magnitude().max() <= 0.01 * np.sqrt(3) * (1 + 1e-9)
    assert np.array_equal(knots.codes(back), knots.codes(poses))


def test_a_node_that_goes_on_turning_has_no_jump_in_its_codes() -> None:
    angles = np.linspace(0, 20, 41)  # three turns and more
    quats = np.stack([np.cos(angles / 2), 0 * angles, 0 * angles, np.sin(angles / 2)], axis=1)
    vectors = rotation_vectors(quats[None] * np.where(np.arange(41) % 3, 1, -1)[:, None])
    np.testing.assert_allclose(vectors[0, :, 2], angles, atol=1e-9)


def test_chunks_hold_what_they_share_and_join_to_the_whole() -> None:
    codes = np.random.default_rng(1).integers(-500, 500, (5, 12, 6))
    parts = [(0, 4), (4, 3), (7, 2)]
    chunks = [codes_of_chunk(chunk_codes(codes, *part), 5) for part in parts]
    for (segment, segments), chunk in zip(parts, chunks, strict=True):
        assert np.array_equal(chunk, codes[:, segment : segment + segments + 3])
    assert np.array_equal(joined_chunks(chunks), codes)
    chunks[1] = chunks[1] + (np.arange(6) == 2)
    with pytest.raises(DataError, match="chunks 0 and 1 differ in the knots that both have"):
        joined_chunks(chunks)


def test_ranks_are_those_of_all_squared_distances() -> None:
    rng = np.random.default_rng(2)
    points, rests = rng.integers(0, 16, (200, 3)), rng.integers(-8, 16, (40, 3))
    rests[20:] = rests[:20]  # equal distances: the lower number comes first
    indices = np.stack([rng.choice(40, 4, replace=False) for _ in points])
    ranks = ranks_of(points, rests, indices)
    for point, own, found in zip(points, indices, ranks, strict=True):
        squares = ((rests - point) ** 2).sum(axis=1)
        order = sorted(range(40), key=lambda node: (squares[node], node))
        assert [order[rank] for rank in found] == own.tolist()
    assert np.array_equal(nodes_of(points, rests, ranks), indices)
    assert np.array_equal(nodes_of(points, rests, np.minimum(ranks, 5)),
                          nodes_of(points, rests, np.minimum(ranks, 5).copy()))  # fmt: skip


def test_weights_sum_to_one_and_are_off_by_less_than_a_unit() -> None:
    weights = np.random.default_rng(3).dirichlet([0.5] * 4, 300).astype(np.float32)
    for unit in (1, 5, 15):
        codes = weight_codes(weights, unit)
        assert (codes.sum(axis=1) == 255).all() and (codes >= 0).all() and not (codes % unit).any()
        assert np.abs(codes / 255 - weights).max() < unit / 255


def test_a_node_that_comes_twice_has_both_weights_and_leaves_room_for_others() -> None:
    indices, weights = merged(np.array([[3, 3, 1, 3], [0, 1, 2, 3]]), np.full((2, 4), 0.25))
    assert indices.tolist() == [[3, -1, 1, -1], [0, 1, 2, 3]]
    assert weights.tolist() == [[0.75, 0, 0.25, 0], [0.25] * 4]
    ranks = filled(np.array([[1, 9, 0, 9]]), np.array([[False, True, False, True]]))
    assert ranks.tolist() == [[1, 2, 0, 3]]


# Whole bundles


@pytest.mark.parametrize("windows", [False, True])
def test_a_motion_comes_back_within_its_steps(windows: bool, tmp_path: Path) -> None:
    moving = swaying(200)
    if windows:
        edges = np.tile(np.float32([1.4, 3.1, 0.1, 0.05]), (100, 1))
        moving = replace(moving, opacity_windows=edges)
    bundle = written(moving, tmp_path / "a.s4d", FINE)
    back, rows = decode_moving(bundle).moving, in_the_bundles_order(moving, bundle)
    assert sorted(rows.tolist()) == list(range(len(moving)))
    assert (rows[: moving.num_moving] < moving.num_moving).all()
    size = float(np.ptp(moving.at(1.0).means, axis=0).max())
    for time in (-3.0, 1.0, 1.4, 2.7, 4.0, 50.0):
        ours, theirs = moving.at(time), back.at(time)
        alphas = [1 / (1 + np.exp(-c.logit_opacities.astype(float))) for c in (theirs, ours)]
        seen = alphas[1][rows] > 0.05  # what is not there may be anywhere
        # weights of 1/255 between nodes whose ways are half as far apart as the scene is wide
        np.testing.assert_allclose(theirs.means[seen], ours.means[rows][seen], atol=0.002 * size)
        # 64 levels of alpha, and edges of 1/10 and 1/20 s off by 1/160 s and with widths as coarse
        np.testing.assert_allclose(alphas[0], alphas[1][rows], atol=1 / 126 + 0.08 * windows + 1e-6)
    times = (back.start_s, back.knot_interval_s, back.duration_s)
    assert times == (moving.start_s, moving.knot_interval_s, moving.duration_s)


def alphas_of(moving: MovingSplats) -> np.ndarray:
    return 1 / (1 + np.exp(-moving.cloud.logit_opacities.astype(float)))


def test_steps_of_poses_cost_less_than_those_of_positions_do(tmp_path: Path) -> None:
    moving = swaying(2000)
    bundle = written(moving, tmp_path / "a.s4d")
    weighed = written(moving, tmp_path / "b.s4d", MotionQuantisation(weight_error=0.0))
    exact = decode_moving(weighed).moving
    back, rows = decode_moving(bundle).moving, in_the_bundles_order(moving, bundle)
    half, step = moving.num_moving, bundle.manifest["positions"]["step"]
    still = (back.cloud.means - moving.cloud.means[rows])[half:]
    opacity = alphas_of(moving)[rows][:half]
    for time in (1.0, 1.83, 3.1):
        near = (exact.at(time).means - moving.at(time).means[rows])[:half]
        assert np.sqrt((near**2).mean()) < 1.25 * np.sqrt((still**2).mean())
        off = (back.at(time).means - moving.at(time).means[rows])[:half] - near
        # 1.25 steps of 1.25 steps of the positions, in a mean over times
        seen = opacity * np.sqrt((off**2).sum(axis=1))
        assert np.sqrt((seen**2).mean()) < 1.25**2 * step


def test_a_fainter_gaussian_has_coarser_weights_and_edges() -> None:
    """The same ones over and over, of which half are ten times as opaque."""
    moving = swaying(400)
    faint = np.arange(200) % 2 == 0
    logits = moving.cloud.logit_opacities.copy()
    logits[:200] = np.where(faint, np.log(0.08 / 0.92), np.log(0.8 / 0.2))
    rng = np.random.default_rng(4)
    edges = np.stack(
        [1.2 + rng.random(200), 2.5 + rng.random(200), *(0.05 + 0.1 * rng.random((2, 200)))]
    )
    moving = replace(
        moving, cloud=replace(moving.cloud, logit_opacities=logits),
        opacity_windows=edges.T.astype(np.float32),
    )  # fmt: skip
    own, weights = np.arange(200), moving.node_weights.astype(float)
    indices = moving.node_indices.astype(np.int64)
    codes = coarse_weights(moving, own, moving.knots.astype(float), indices, weights, 0.01)
    assert (codes.sum(axis=1) == 255).all() and (codes >= 0).all()
    units = np.gcd.reduce(codes, axis=1)
    assert np.median(units[faint]) > 2 * np.median(units[~faint])
    exact, opacity = moving.opacity_windows.astype(float), alphas_of(moving)[:200]
    coarse = coarse_windows(exact, opacity, 0.01, 1 / 32)
    steps = np.rint(coarse / 0.01).astype(int)
    np.testing.assert_allclose(coarse, 0.01 * steps, atol=1e-12)
    many = np.gcd.reduce(steps, axis=1)
    assert np.median(many[faint]) >= 2 * np.median(many[~faint])
    for time in np.linspace(1.0, 4.0, 61):
        rise, fall, *widths = (np.stack([exact, coarse])).transpose(2, 0, 1)
        there = (
            1 / (1 + np.exp((rise - time) / widths[0])) / (1 + np.exp((time - fall) / widths[1]))
        )
        # between the times that are looked at, and half a step of 0.01 where nothing coarser fits
        assert (opacity * np.abs(there[0] - there[1])).max() < 1.3 / 32


def test_a_knot_that_nothing_seen_depends_on_repeats_another() -> None:
    moving = swaying(40, nodes=4, knots=13)
    edges = np.tile(np.float32([1.25, 1.45, 0.005, 0.005]), (20, 1))  # there in segments 2 to 4
    moving = replace(moving, opacity_windows=edges)
    own, ones = np.arange(20), np.ones((20, 4), dtype=np.int64)
    shown = shown_knots(moving, own, np.tile(np.arange(4), (20, 1)), ones, 5)
    assert shown[:4].all(axis=0).tolist() == [2 <= knot <= 7 for knot in range(13)]
    assert np.array_equal(shown[:4].all(axis=0), shown[:4].any(axis=0)) and not shown[4].any()
    codes = np.random.default_rng(1).integers(0, 99, (5, 13, 6))
    kept = held(codes, shown)
    assert np.array_equal(kept[:4, 2:8], codes[:4, 2:8])
    assert (kept[:4, :2] == kept[:4, 2:3]).all() and (kept[:4, 8:] == kept[:4, 7:8]).all()
    assert (kept[4] == codes[4, :1]).all()
    always = replace(moving, opacity_windows=None)
    assert shown_knots(always, own, np.tile(np.arange(4), (20, 1)), ones, 5).all()


def test_of_a_gaussian_that_is_left_out_nothing_is_stored(tmp_path: Path) -> None:
    """One faint Gaussian so far away that the others' grid would be coarse for it."""
    moving = swaying(400)
    means, logits = moving.cloud.means.copy(), moving.cloud.logit_opacities.copy()
    means[7], logits[7] = 1e6, -12.0
    moving = replace(
        moving, cloud=replace(moving.cloud, means=means, logit_opacities=logits),
        opacity_windows=np.tile(np.float32([1.4, 3.1, 0.1, 0.05]), (200, 1)),
    )  # fmt: skip
    bundle = written(moving, tmp_path / "a.s4d")
    back = decode_moving(bundle).moving
    assert (len(back), back.num_moving) == (399, 199)


def test_a_decoder_written_from_the_specification_gets_the_same_codes_and_places(tmp_path) -> None:
    moving = random_moving(windows=True)
    bundle = written(moving, tmp_path / "a.s4d", replace(FINE, chunk_s=1.0))
    manifest, points, codes = independent.decode(tmp_path / "a.s4d")
    found = decode_moving(bundle)
    assert len(manifest[KIND]["chunks"]) == 2
    rows = np.flatnonzero(codes["moving"][:, 0])
    assert rows.tolist() == found.order[: moving.num_moving].tolist()
    assert codes["nodes"][rows].min() >= 0 and codes["weights"][rows].sum(axis=1).max() <= 255
    for time in (0.3, 1.4, 2.25):
        theirs, ours = independent.moved_splats(manifest, points, codes, time), found.at(time)
        reach = float(np.ptp(ours.means))
        np.testing.assert_allclose(theirs["means"], ours.means, atol=1e-5 * reach)  # float32 knots


def test_a_chunk_alone_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    bundle = written(swaying(400), tmp_path / "a.s4d", MotionQuantisation(chunk_s=0.7))
    whole = decode_moving(bundle).moving.knots
    chunks = bundle.manifest[KIND]["chunks"]
    assert len(chunks) == 5 and whole.shape[1] == 33
    for number, chunk in enumerate(chunks):
        first, last = chunk["segment"], chunk["segment"] + chunk["segments"] + 3
        assert np.array_equal(decode_chunk(bundle, number), whole[:, first:last])
    some = decode_moving(bundle, stages=3).moving  # the points and two chunks
    assert np.array_equal(some.knots, whole[:, : some.knots.shape[1]])
    assert some.duration_s == pytest.approx(1.2)
    none = decode_moving(bundle, stages=1).moving
    assert np.array_equal(none.at(2.0).means, none.cloud.means)


def test_a_moving_splat_takes_at_most_one_and_a_half_times_a_still_one(tmp_path: Path) -> None:
    moving = swaying(6000, nodes=60)
    coded = encode_splats4d(moving)
    of_each = {name: bits / 8 for name, bits in coded.bits.items()}
    motion = motion_rate(coded.manifest)[0]
    followed = sum(of_each[name] for name in ("moving", "nodes", "weights", "node_rest"))
    shared = sum(
        of_each[name] for name in ("positions", "opacity", "log_scales", "rotation", "dc", "sh")
    )
    each = shared / len(moving)
    assert (followed + motion) / moving.num_moving < 0.5 * each
    still = encode_splats4d(moving.taken(np.arange(3000, 6000)))
    assert still.bits["moving"] < 100  # what never moves costs nothing more
    assert still.manifest[KIND]["chunks"] == [] and still.manifest[KIND]["nodes"] == 0


def test_bytes_a_second_are_bounded(tmp_path: Path) -> None:
    """A motion that trembles: its codes hardly repeat."""
    moving = swaying(400, nodes=100, knots=63, interval=1 / 30, jitter=0.5)
    free = encode_splats4d(moving)
    assert 8_000 < motion_rate(free.manifest)[1] < MotionQuantisation().most_per_second
    bound = encode_splats4d(moving, MotionQuantisation(most_per_second=6_000))
    assert 3_000 < motion_rate(bound.manifest)[1] <= 6_000
    assert bound.manifest[KIND]["shift_step"] > free.manifest[KIND]["shift_step"]


def test_what_nobody_follows_is_left_out_and_few_nodes_become_four(tmp_path: Path) -> None:
    moving = swaying(200, nodes=6)
    two = replace(moving, node_indices=np.where(moving.node_indices < 3, 2, 5).astype(np.uint16))
    bundle = written(two, tmp_path / "a.s4d", FINE)
    back, rows = decode_moving(bundle).moving, in_the_bundles_order(two, bundle)
    assert back.num_nodes == 4
    size = float(np.ptp(two.at(1.0).means, axis=0).max())
    np.testing.assert_allclose(back.at(1.3).means, two.at(1.3).means[rows], atol=0.002 * size)


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_a_node_that_is_lost_far_away_and_a_scene_of_one_splat_are_stored(far, tmp_path) -> None:
    """Steps are no finer than a channel's codes reach."""
    moving = swaying(200, nodes=6).taken(np.arange(1 if far == 1 else 200))
    knots = moving.knots.copy()
    knots[int(moving.node_indices[0, 0]), 5:, 4] += far
    moving = replace(moving, knots=knots)
    bundle = written(moving, tmp_path / "a.s4d")
    back = decode_moving(bundle).moving
    wanted, found = moving.at(2.0).means, back.at(2.0).means
    reach = max(1.0, float(np.abs(wanted).max()))
    # a weight's unit at that distance, and the others' places with it
    np.testing.assert_allclose(
        np.sort(found, axis=0), np.sort(wanted, axis=0), atol=0.07 * reach
    )  # fmt: skip


def test_what_is_always_there_stays_so(tmp_path: Path) -> None:
    edges = np.tile(np.float32([-np.inf, np.inf, 1.0, 3.0]), (100, 1))
    edges[0] = [np.inf, np.inf, 1, 1]  # one that never comes
    moving = replace(swaying(200), opacity_windows=edges)
    bundle = written(moving, tmp_path / "a.s4d", FINE)
    back, rows = decode_moving(bundle).moving, in_the_bundles_order(moving, bundle)
    for time in (1.0, 1.2, 4.0):
        alphas = [
            1 / (1 + np.exp(-each.at(time).logit_opacities.astype(float)))
            for each in (back, moving)
        ]
        np.testing.assert_allclose(alphas[0], alphas[1][rows], atol=1 / 126 + 2e-4)


def test_too_many_nodes_are_told(tmp_path: Path) -> None:
    knots = np.repeat(random_moving().knots[:1], 5000, axis=0)
    many = MovingSplats(
        cloud=random_cloud(5000), num_moving=5000,
        node_indices=np.arange(5000, dtype=np.uint16)[:, None].repeat(4, axis=1),
        node_weights=np.full((5000, 4), 0.25, np.float32), knots=knots, start_s=0.0,
        knot_interval_s=0.5, duration_s=1.0,
    )  # fmt: skip
    with pytest.raises(UsageError, match="at most 4096 nodes, this scene's Gaussians follow 5000"):
        encode_splats4d(many)


def test_places_of_nodes_lie_among_the_gaussians_that_follow_them(tmp_path: Path) -> None:
    moving = swaying(400)
    bundle = written(moving, tmp_path / "a.s4d")
    _, _, codes = independent.decode(tmp_path / "a.s4d")
    grid = bundle.manifest["positions"]
    rests = np.array(grid["origin"]) + grid["step"] * codes["node_rest"]
    assert np.abs(rests).max() <= 1.0 + 1e-3  # the cube that the Gaussians lie in
    poses = decode_moving(bundle).moving.knots
    places = quat_rotate(poses[:, 5, :4].astype(float), rests) + poses[:, 5, 4:]
    assert np.abs(places - rests).max() < 1.5  # they sway and do not fly about the origin
