"""Conversions between conventions, and the poses' algebra."""

import math

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import c2w_from_viewmat, flip_yz, invert_rigid, viewmat_from_c2w
from scene4d.cameras.poses import closest_rotation, rotation_error, se3_exp, skew
from scene4d.cameras.rays import project


def poses(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return se3_exp(torch.randn(count, 6, dtype=torch.float64, generator=generator))


def test_c2w_and_viewmat_are_inverse_conversions():
    c2w = poses()
    torch.testing.assert_close(c2w_from_viewmat(viewmat_from_c2w(c2w)), c2w)
    torch.testing.assert_close(flip_yz(flip_yz(c2w)), c2w)
    torch.testing.assert_close(invert_rigid(c2w) @ c2w, torch.eye(4).double().expand(5, 4, 4))


def test_known_point_projects_where_it_should():
    # The camera stands at (1, 2, 3), unturned: it looks along -z, with +y up.
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    K = torch.tensor([[100.0, 0.0, 50.0], [0.0, 100.0, 40.0], [0.0, 0.0, 1.0]])
    camera = Camera(c2w=c2w, K=K, width=100, height=80)
    # 4 ahead, 1 to the right, 0.4 up: 100 * 1/4 = 25 px right, 10 px up (smaller y).
    pixels, depth = project(camera, torch.tensor([[2.0, 2.4, -1.0]]))
    torch.testing.assert_close(pixels, torch.tensor([[75.0, 30.0]]))
    torch.testing.assert_close(depth, torch.tensor([4.0]))


def test_viewmat_has_opencv_axes():
    viewmat = viewmat_from_c2w(torch.eye(4))
    ahead_up = viewmat @ torch.tensor([0.0, 1.0, -2.0, 1.0])
    assert ahead_up.tolist() == [0.0, -1.0, 2.0, 1.0]


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 0.09999, 0.10001, 1.0, 3.0])
def test_se3_exp_is_the_matrix_exponential(size):
    generator = torch.Generator().manual_seed(1)
    tangent = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    tangent[:, 3:] *= size / tangent[:, 3:].norm(dim=-1, keepdim=True)
    generator_matrix = torch.zeros(4, 4, 4, dtype=torch.float64)
    generator_matrix[:, :3, :3] = skew(tangent[:, 3:])
    generator_matrix[:, :3, 3] = tangent[:, :3]
    # Double precision on both sides; the formulas lose at most three digits near 0.1 rad.
    torch.testing.assert_close(
        se3_exp(tangent), torch.linalg.matrix_exp(generator_matrix), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("scale", [0.0, 1e-8, 0.05, 1.0])
def test_se3_exp_gradient(scale):
    tangent = scale * torch.tensor([0.3, -0.2, 0.5, 0.6, -0.7, 0.4], dtype=torch.float64)
    assert torch.autograd.gradcheck(se3_exp, tangent.requires_grad_())
    assert torch.autograd.gradgradcheck(se3_exp, tangent)


def test_se3_exp_small_motions_add_up():
    a = 1e-4 * torch.tensor([1.0, 2, 3, -1, 2, 1], dtype=torch.float64)
    # exp(a) exp(-a) is the identity exactly.
    torch.testing.assert_close(se3_exp(a) @ se3_exp(-a), torch.eye(4).double(), atol=1e-15, rtol=0)


def test_rotation_error_and_repair():
    rotation = poses()[:, :3, :3]
    assert rotation_error(rotation).max() < 1e-14
    noisy = rotation + 1e-4 * torch.randn(
        rotation.shape, generator=torch.Generator().manual_seed(2)
    )
    repaired = closest_rotation(noisy)
    assert rotation_error(repaired).max() < 1e-14
    # The repair moves the matrix by no more than the noise did: the rotation itself is a candidate.
    moved = (repaired - noisy).flatten(1).norm(dim=1)
    assert (moved <= (rotation - noisy).flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(closest_rotation(rotation), rotation)


def test_mirror_is_no_rotation():
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    assert rotation_error(mirror).item() == math.inf
    assert torch.linalg.det(closest_rotation(mirror)).item() == pytest.approx(1.0)
    assert math.isnan(rotation_error(torch.full((3, 3), torch.nan)).item())


def test_scaled_rotation_is_noticed():
    assert rotation_error(1.01 * torch.eye(3)).item() == pytest.approx(1.01**2 - 1, rel=1e-5)
