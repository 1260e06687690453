"""Splines of poses in torch: against numpy's, closed forms and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scene4d.formats import moving_splats
from scene4d.rendering.motion.poses import pose_between, pose_exp, pose_log, pose_product
from scene4d.rendering.motion.splines import spline_poses


def random_poses(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(*shape, 7, generator=generator, dtype=torch.float64)
    quats = torch.nn.functional.normalize(poses[..., :4] + torch.tensor([2.0, 0, 0, 0]), dim=-1)
    return torch.cat([quats, poses[..., 4:]], dim=-1)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.05, 0.0999, 0.1001, 1.0, 3.1])
def test_the_logarithm_undoes_the_exponential(angle: float) -> None:
    axis = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    twist = torch.cat([angle * axis, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)])
    pose = pose_exp(twist)
    assert abs(float(pose[:4].norm()) - 1) < 1e-14
    torch.testing.assert_close(pose_log(pose), twist, atol=1e-13, rtol=0)
    turned = pose_exp(torch.cat([angle * axis, torch.zeros(3, dtype=torch.float64)]))
    assert abs(float(turned[0]) - math.cos(angle / 2)) < 1e-14


def test_exponential_and_logarithm_have_the_slopes_of_finite_differences() -> None:
    for scale in (0.0, 0.04, 0.2, 1.0):
        twist = scale * torch.tensor([[0.4, -0.3, 0.8, 0.2, 0.1, -0.7]], dtype=torch.float64)
        twist.requires_grad_()
        assert torch.autograd.gradcheck(pose_exp, twist)
        pose = pose_exp(twist).detach().requires_grad_()
        assert torch.autograd.gradcheck(pose_log, pose)


def test_splines_are_numpys() -> None:
    knots = random_poses(5, 8)
    at = torch.tensor([0.0, 0.7, 2.0, 4.99, 5.0], dtype=torch.float64)
    for time, poses in zip(at.tolist(), spline_poses(knots, at), strict=True):
        wanted = moving_splats.spline_poses(knots.numpy(), time)
        sign = np.sign((wanted[:, :4] * poses[:, :4].numpy()).sum(axis=1, keepdims=True))
        wanted[:, :4] *= sign
        np.testing.assert_allclose(poses.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("speed", [0.0, 1e-6, 0.7])
def test_a_constant_twist_is_kept(speed: float) -> None:
    twist = torch.tensor([0.6, -0.4, 0.5, 0.2, -0.1, 0.3], dtype=torch.float64)
    twist[:3] *= speed
    steps = torch.arange(-1, 7, dtype=torch.float64)
    knots = pose_exp(steps[:, None] * twist)[None]
    at = torch.tensor([0.0, 0.3, 2.5, 5.0], dtype=torch.float64)
    moved = spline_poses(knots, at)[:, 0]
    error = pose_log(pose_between(pose_exp(at[:, None] * twist), moved))
    assert float(error.abs().max()) < 1e-13


def test_turning_the_world_or_the_canonical_pose_turns_the_spline() -> None:
    knots, at = random_poses(3, 6), torch.tensor([1.4], dtype=torch.float64)
    left, right = random_poses(1, seed=5)[0], random_poses(1, seed=6)[0]
    turned = pose_product(pose_product(left.expand_as(knots), knots), right.expand_as(knots))
    poses = spline_poses(knots, at)
    wanted = pose_product(pose_product(left.expand_as(poses), poses), right.expand_as(poses))
    torch.testing.assert_close(spline_poses(turned, at), wanted, atol=1e-12, rtol=0)


def test_gradients_are_slopes() -> None:
    knots = random_poses(2, 5).requires_grad_()
    at = torch.tensor([0.35, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spline_poses, (knots, at))
    still = torch.zeros(1, 5, 7, dtype=torch.float64)
    still[..., 0] = 1.0  # where nothing moves, nothing is divided by zero
    assert torch.autograd.gradcheck(spline_poses, (still.requires_grad_(), at))


def test_time_is_clamped() -> None:
    knots = random_poses(2, 5)
    at = torch.tensor([-3.0, 0.0, 2.0, 9.0], dtype=torch.float64)
    poses = spline_poses(knots, at)
    assert torch.equal(poses[0], poses[1])
    assert torch.equal(poses[2], poses[3])
