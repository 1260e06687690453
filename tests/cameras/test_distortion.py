import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_packages import import_or_skip

from scene4d.cameras.distortion import (
    Distortion,
    distort,
    injective_radius,
    undistort,
)

OPENCV = Distortion("opencv", (0.06, -0.08, -0.001, 0.0002, 0.03, -0.01))
BARREL = Distortion("opencv", (-0.3, 0.09, 0.001, -0.002))
FISHEYE = Distortion("fisheye", (0.03, -0.01, 0.004, -0.0007))
LENSES = [OPENCV, BARREL, FISHEYE]


def grid(limit: float, count: int = 21) -> torch.Tensor:
    axis = torch.linspace(-limit, limit, count, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


def test_opencv_model_equals_cv2():
    cv2 = import_or_skip("cv2")
    xy = grid(0.6)
    k1, k2, p1, p2, k3, _ = OPENCV.padded()
    # OpenCV's own r^8 term is part of a rational model, so it is compared without ours.
    ours = distort(xy, Distortion("opencv", (k1, k2, p1, p2, k3)))
    points = np.concatenate([xy.reshape(-1, 2).numpy(), np.ones((xy[..., 0].numel(), 1))], 1)
    theirs, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), np.eye(3), np.array([k1, k2, p1, p2, k3])
    )
    # Both are double precision: only rounding differs.
    np.testing.assert_allclose(ours.reshape(-1, 2).numpy(), theirs[:, 0], atol=1e-12)


def test_fisheye_model_equals_cv2():
    cv2 = import_or_skip("cv2")
    xy = grid(2.0)
    theirs = cv2.fisheye.distortPoints(
        xy.reshape(-1, 1, 2).numpy(), np.eye(3), np.array(FISHEYE.padded())
    )
    np.testing.assert_allclose(
        distort(xy, FISHEYE).reshape(-1, 2).numpy(), theirs[:, 0], atol=1e-12
    )


def test_r8_term_is_nerfstudios_k4():
    r = 0.7
    moved = distort(
        torch.tensor([r, 0.0], dtype=torch.float64), Distortion("opencv", (0.0,) * 5 + (0.5,))
    )
    assert moved[0].item() == pytest.approx(r * (1 + 0.5 * r**8), abs=1e-15)


@pytest.mark.parametrize("lens", LENSES)
def test_undistort_undoes_distort(lens):
    xy = grid(0.7)
    # Newton ends at rounding in double precision.
    torch.testing.assert_close(undistort(distort(xy, lens), lens), xy, atol=1e-9, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    k=st.tuples(*[st.floats(-0.15, 0.15)] * 2, *[st.floats(-0.01, 0.01)] * 2),
    x=st.floats(-0.8, 0.8),
    y=st.floats(-0.8, 0.8),
)
def test_undistort_is_right_or_says_it_is_not(k, x, y):
    lens = Distortion("opencv", k)
    target = distort(torch.tensor([x, y], dtype=torch.float64), lens)
    found = undistort(target, lens)
    if bool(torch.isnan(found).any()):
        assert math.hypot(x, y) > 0.5 * injective_radius(lens)
    else:
        torch.testing.assert_close(distort(found, lens), target, atol=1e-5, rtol=0)


def test_no_preimage_gives_nan():
    lens = Distortion("opencv", (-0.5,))
    turning = injective_radius(lens)
    # 1 - 1.5 r^2 = 0 where r (1 - 0.5 r^2) turns back; the radius is found on a grid of 1/400.
    assert turning == pytest.approx(math.sqrt(2 / 3), abs=0.003)
    highest = turning * (1 - 0.5 * turning**2)
    beyond = torch.tensor([[highest * 1.2, 0.0], [0.3, 0.0]], dtype=torch.float64)
    found = undistort(beyond, lens)
    assert torch.isnan(found[0]).all() and torch.isfinite(found[1]).all()
    # A fisheye sees 90 degrees off its axis at radius pi/2; no pinhole picture reaches that.
    straight = Distortion("fisheye", (0.0,))
    assert torch.isnan(undistort(torch.tensor([1.6, 0.0], dtype=torch.float64), straight)).all()


def test_fisheye_is_smooth_at_the_centre():
    centre = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    out = distort(centre, FISHEYE)
    gradient = torch.autograd.grad(out.sum(), centre)[0]
    assert torch.isfinite(gradient).all()
    assert undistort(torch.zeros(2, dtype=torch.float64), FISHEYE).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("lens", LENSES)
def test_distort_gradient(lens):
    xy = (grid(0.6, 4) + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: distort(v, lens), xy)


def test_too_many_coefficients():
    with pytest.raises(ValueError, match="at most 4"):
        distort(torch.zeros(2), Distortion("fisheye", (0.0,) * 5))
