"""Moving Gaussians as plain arrays: splines and blends against matrices, and what cannot be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from formats.splat_files import random_cloud
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from scene4d.formats.moving_splats import MovingSplats, blended_poses, spline_poses

RNG = np.random.default_rng(3)


def matrix_of(pose: np.ndarray) -> np.ndarray:
    """[4, 4] of one pose (quaternion wxyz, translation)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose[[1, 2, 3, 0]]).as_matrix()
    matrix[:3, 3] = pose[4:]
    return matrix


def pose_of(matrix: np.ndarray) -> np.ndarray:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return np.array([w, x, y, z, *matrix[:3, 3]])


def twist_matrix(turn, shift) -> np.ndarray:
    x, y, z = turn
    top = np.array([[0, -z, y, shift[0]], [z, 0, -x, shift[1]], [-y, x, 0, shift[2]]])
    return np.vstack([top, np.zeros(4)])


def random_knots(nodes: int, count: int) -> np.ndarray:
    """Poses that turn by up to about a radian from knot to knot."""
    knots = np.empty((nodes, count, 7), np.float32)
    for node in range(nodes):
        matrix = np.eye(4)
        for k in range(count):
            step = expm(twist_matrix(0.5 * RNG.normal(size=3), RNG.normal(size=3)))
            matrix = matrix @ step
            knots[node, k] = pose_of(matrix) * ([RNG.choice([-1, 1])] * 4 + [1] * 3)
    return knots


def random_moving(*, moving: int = 40, windows: bool = False) -> MovingSplats:
    weights = RNG.random((moving, 4)).astype(np.float32)
    edges = np.tile(np.float32([0.4, 1.1, 0.1, 0.05]), (moving, 1))
    return MovingSplats(
        cloud=random_cloud(100),
        num_moving=moving,
        node_indices=RNG.integers(0, 6, (moving, 4)).astype(np.uint16),
        node_weights=weights / weights.sum(axis=1, keepdims=True),
        knots=random_knots(6, 7),
        start_s=0.25,
        knot_interval_s=0.5,
        duration_s=2.0,
        opacity_windows=edges if windows else None,
    )


# Splines


def test_a_spline_is_the_product_of_matrix_exponentials() -> None:
    knots = random_knots(3, 6).astype(np.float64)
    at = 1.3
    u = at - 1
    shares = [(5 + 3 * u - 3 * u**2 + u**3) / 6, (1 + 3 * u + 3 * u**2 - 2 * u**3) / 6, u**3 / 6]
    for knot, pose in zip(knots, spline_poses(knots, at), strict=True):
        matrices = [matrix_of(k) for k in knot]
        wanted = matrices[1]
        for i, share in enumerate(shares):
            step = np.linalg.inv(matrices[1 + i]) @ matrices[2 + i]
            wanted = wanted @ expm(share * logm(step).real)
        # the knots are float32: their quaternions' lengths are off by 1e-7
        np.testing.assert_allclose(matrix_of(pose), wanted, atol=1e-6)


@pytest.mark.parametrize("speed", [1e-7, 1e-3, 0.8])
def test_knots_of_a_constant_twist_give_that_twist(speed: float) -> None:
    twist = twist_matrix(speed * np.array([0.3, -0.5, 0.6]), [0.2, 0.1, -0.4])
    knots = np.array([[pose_of(expm(k * twist)) for k in range(-1, 7)]])
    for at in (0.0, 0.4, 1.0, 3.7, 5.0):
        np.testing.assert_allclose(
            matrix_of(spline_poses(knots, at)[0]), expm(at * twist), atol=1e-12
        )


def test_a_spline_is_smooth_across_knots() -> None:
    knots = random_knots(4, 7).astype(np.float64)

    def derivatives(at: float, sign: int) -> np.ndarray:
        h = 1e-4 * sign
        samples = [
            np.stack([matrix_of(pose) for pose in spline_poses(knots, at + i * h)])
            for i in range(4)
        ]
        slope = (-3 * samples[0] + 4 * samples[1] - samples[2]) / (2 * h)
        bend = (2 * samples[0] - 5 * samples[1] + 4 * samples[2] - samples[3]) / h**2
        return np.stack([slope, bend])

    for at in (1.0, 2.0, 3.0):
        left, right = derivatives(at, -1), derivatives(at, 1)
        # one-sided differences are off by h times a third derivative of up to a few hundred
        np.testing.assert_allclose(left, right, atol=0.1)


# Blending


def test_a_blend_is_rigid_and_between_its_nodes() -> None:
    turn = np.array([np.cos(0.3), 0, 0, np.sin(0.3), 1.0, 0, 0])  # by 0.6 about z
    still = np.array([1.0, 0, 0, 0, 0, 0, 0])
    poses = np.stack([still, turn])
    indices = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]])
    blended = blended_poses(poses, indices, np.full((3, 4), 0.25))
    np.testing.assert_allclose(blended[0], still, atol=1e-12)
    np.testing.assert_allclose(blended[2], turn, atol=1e-12)
    # half way in screw motion is what dual quaternions of equal weight give (Kavan 2008)
    half = pose_of(expm(0.5 * logm(matrix_of(turn)).real))
    np.testing.assert_allclose(blended[1], half, atol=1e-12)


def test_the_sign_of_a_nodes_quaternion_does_not_matter() -> None:
    knots = random_knots(5, 4)[:, 0].astype(np.float64)
    indices, weights = RNG.integers(0, 5, (20, 4)), RNG.random((20, 4))
    flipped = knots * np.where(np.arange(5)[:, None] % 2, [-1.0] * 4 + [1.0] * 3, 1.0)
    one, two = (blended_poses(k, indices, weights) for k in (knots, flipped))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(matrix_of(a), matrix_of(b), atol=1e-12)


# Splats at a time


def test_splats_of_one_node_keep_their_shape() -> None:
    moving = random_moving()
    moving = replace(moving, node_indices=np.full((40, 4), 2, np.uint16))
    cloud = moving.at(1.17)
    pose = matrix_of(moving.node_poses(1.17)[2])
    wanted = moving.cloud.means[:40] @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(cloud.means[:40], wanted, atol=1e-5)
    before = Rotation.from_quat(moving.cloud.quats[:40, [1, 2, 3, 0]]).as_matrix()
    after = Rotation.from_quat(cloud.quats[:40, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(after, pose[:3, :3] @ before, atol=1e-5)
    np.testing.assert_array_equal(cloud.means[40:], moving.cloud.means[40:])
    np.testing.assert_array_equal(cloud.log_scales, moving.cloud.log_scales)
    np.testing.assert_array_equal(cloud.sh, moving.cloud.sh)


def test_time_stands_still_before_the_start_and_after_the_end() -> None:
    moving = random_moving(windows=True)
    for outside, edge in ((-9.0, 0.25), (99.0, 2.25)):
        one, two = moving.at(outside), moving.at(edge)
        np.testing.assert_array_equal(one.means, two.means)
        np.testing.assert_array_equal(one.logit_opacities, two.logit_opacities)


def test_opacity_has_a_plateau_with_two_soft_edges() -> None:
    moving = random_moving(windows=True)
    alphas = 1 / (1 + np.exp(-moving.cloud.logit_opacities[:40].astype(np.float64)))

    def share(time: float) -> np.ndarray:
        logits = moving.at(time).logit_opacities[:40].astype(np.float64)
        return 1 / (1 + np.exp(-logits)) / alphas

    # the other edge, seven of its widths away, takes a thousandth at most
    np.testing.assert_allclose(share(0.4), 0.5, atol=1e-3)
    np.testing.assert_allclose(share(1.1), 0.5, atol=1e-3)
    np.testing.assert_allclose(share(0.5), 1 / (1 + np.exp(-1.0)), atol=1e-4)
    assert (share(0.8) > 0.97).all()
    assert (share(2.25) < 1e-8).all()
    always = replace(moving, opacity_windows=np.tile(np.float32([-np.inf, np.inf, 1, 1]), (40, 1)))
    np.testing.assert_allclose(
        always.at(0.9).logit_opacities, moving.cloud.logit_opacities, atol=1e-4
    )


def test_moving_and_then_turning_the_world_is_turning_and_then_moving() -> None:
    moving = random_moving(windows=True)
    similarity = np.eye(4)
    similarity[:3, :3] = 1.7 * Rotation.from_rotvec([0.3, 2.0, -1.0]).as_matrix()
    similarity[:3, 3] = (3.0, -2.0, 1.0)
    for time in (0.3, 1.4):
        one = moving.at(time).transformed(similarity)
        two = moving.transformed(similarity).at(time)
        np.testing.assert_allclose(one.means, two.means, atol=1e-4)
        a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (one.quats, two.quats))
        np.testing.assert_allclose(np.abs((a * b).sum(axis=1)), 1.0, atol=1e-5)
        np.testing.assert_allclose(one.log_scales, two.log_scales, atol=1e-6)


def test_nothing_moves_where_nothing_can() -> None:
    moving = MovingSplats(
        cloud=random_cloud(7), num_moving=0, node_indices=np.empty((0, 4), np.uint16),
        node_weights=np.empty((0, 4), np.float32), knots=np.empty((0, 4, 7), np.float32),
        start_s=0.0, knot_interval_s=1.0, duration_s=1.0,
    )  # fmt: skip
    assert moving.at(0.5) is moving.cloud
    assert moving.transformed(np.diag([2.0, 2, 2, 1])).num_nodes == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_moving": 101}, "101 of 100"),
        ({"node_indices": np.full((40, 4), 6, np.uint16)}, "reach 6 of 6 nodes"),
        ({"node_indices": np.zeros((40, 4), np.int64)}, "must be uint16"),
        ({"node_weights": np.full((40, 4), 0.3, np.float32)}, "sum to 1"),
        ({"node_weights": np.tile(np.float32([-0.5, 0.5, 0.5, 0.5]), (40, 1))}, "not be negative"),
        ({"knots": np.zeros((6, 7, 7), np.float32)}, "length 1"),
        ({"knots": random_knots(6, 3)}, "at least 4"),
        ({"knot_interval_s": 0.0}, "cannot be"),
        ({"duration_s": float("nan")}, "cannot be"),
        ({"duration_s": 2.1}, "last 2.0 s"),
        ({"opacity_windows": np.zeros((40, 4), np.float32)}, "widths above 0"),
        ({"opacity_windows": np.zeros((39, 4), np.float32)}, r"\[40, 4\]"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(random_moving(), **wrong)


def test_no_torch_is_needed() -> None:
    code = "import sys, scene4d.formats.moving_splats; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
