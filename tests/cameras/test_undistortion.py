import math

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion, injective_radius, undistort
from scene4d.cameras.undistortion import undistorted_camera, undistortion_grid

OPENCV = Distortion("opencv", (0.06, -0.08, -0.001, 0.0002, 0.03, -0.01))
BARREL = Distortion("opencv", (-0.3, 0.09, 0.001, -0.002))
FISHEYE = Distortion("fisheye", (0.03, -0.01, 0.004, -0.0007))
LENSES = [OPENCV, BARREL, FISHEYE]


def camera(distortion: Distortion | None, width: int = 96, height: int = 64) -> Camera:
    K = torch.tensor([[60.0, 0.0, 50.0], [0.0, 62.0, 30.0], [0.0, 0.0, 1.0]])
    return Camera(c2w=torch.eye(4), K=K, width=width, height=height, distortion=distortion)


def test_undistorted_camera_keeps_K_of_the_opencv_model():
    distorted = camera(OPENCV)
    straight = undistorted_camera(distorted)
    assert straight.distortion is None
    assert torch.equal(straight.K, distorted.K)


def test_fisheye_gets_a_shorter_focal_that_shows_the_border():
    straight = undistorted_camera(camera(Distortion("fisheye", (0.0,))))
    # Half the width is 48 px at 60 px focal length: 0.8 rad off the axis.
    assert straight.K[0, 0].item() <= 48 / math.tan(0.8) * (1 + 1e-6)
    assert straight.K[0, 0] / straight.K[1, 1] == pytest.approx(60 / 62)
    assert straight.K[:2, 2].tolist() == [50.0, 30.0]


@pytest.mark.parametrize(
    ("focal", "expected"), [(40.0, 48 / math.tan(math.radians(55))), (30.0, 30)]
)
def test_wide_fisheye_stops_at_55_degrees(focal, expected):
    # At 40 px the border is 1.2 rad off the axis: too wide, so the picture ends at 55 degrees.
    # At 30 px even the lens's own focal length shows 58 degrees: it is kept, never lengthened.
    lens = Camera(
        c2w=torch.eye(4),
        K=torch.tensor([[focal, 0, 48], [0, focal, 32], [0, 0, 1]]),
        width=96,
        height=64,
        distortion=Distortion("fisheye", (0.0,)),
    )
    assert undistorted_camera(lens).K[0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_grid_equals_cv2_remap():
    cv2 = import_or_skip("cv2")
    distorted = camera(OPENCV)
    flow, inside = undistortion_grid(distorted)
    k1, k2, p1, p2, k3, _ = OPENCV.padded()
    flow, inside = undistortion_grid(camera(Distortion("opencv", (k1, k2, p1, p2, k3))))
    K = distorted.K.double().numpy()
    K_cv = K.copy()
    K_cv[:2, 2] -= 0.5  # OpenCV's pixel (0, 0) is the centre of the first pixel
    map_x, map_y = cv2.initUndistortRectifyMap(
        K_cv, np.array([k1, k2, p1, p2, k3]), None, K_cv, (96, 64), cv2.CV_32FC1
    )
    size = torch.tensor([96.0, 64.0])
    pixels = (flow + 1) / 2 * size - 0.5
    # float32 maps: 1e-4 px is a few units in the last place of 96.
    np.testing.assert_allclose(pixels[..., 0].numpy(), map_x, atol=1e-4)
    np.testing.assert_allclose(pixels[..., 1].numpy(), map_y, atol=1e-4)
    outside = (map_x < -0.5) | (map_x > 95.5) | (map_y < -0.5) | (map_y > 63.5)
    assert np.array_equal(~inside.numpy(), outside)


@pytest.mark.parametrize("lens", LENSES)
def test_undistorting_a_picture_straightens_it(lens):
    """A picture whose colours are its undistorted coordinates shows exactly those."""
    distorted = camera(lens)
    straight = undistorted_camera(distorted)
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1).double()
    K = distorted.K.double()
    scene = undistort((pixels - K[:2, 2]) / K[[0, 1], [0, 1]], lens).float()
    flow, inside = undistortion_grid(distorted)
    seen = functional.grid_sample(
        scene.permute(2, 0, 1)[None], flow[None], align_corners=False, padding_mode="border"
    )[0].permute(1, 2, 0)
    K = straight.K
    wanted = (torch.stack([x, y], -1) - K[:2, 2]) / K[[0, 1], [0, 1]]
    error = (seen - wanted).abs().amax(-1)[inside]
    error = error[torch.isfinite(error)]
    assert len(error) > 0.7 * 96 * 64
    # Bilinear interpolation of a curved map: under 0.05 px of 60 px focal length in the median,
    # and half a pixel where the last row is clamped.
    assert error.median() < 0.05 / 60
    assert error.max() < 1.0 / 60


def test_folded_border_is_not_valid():
    lens = Distortion("opencv", (-0.9,))
    _, inside = undistortion_grid(camera(lens))
    radius = injective_radius(lens)
    corner = math.hypot(50 / 60, 30 / 62)
    assert corner > radius and not inside[0, 0]
    assert inside[30, 50]
