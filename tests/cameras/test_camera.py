import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.rays import project


def camera(width: int = 101, height: int = 67, **other) -> Camera:
    K = torch.tensor([[90.0, 0.0, 51.0], [0.0, 91.0, 33.0], [0.0, 0.0, 1.0]])
    return Camera(c2w=torch.eye(4), K=K, width=width, height=height, **other)


def test_resized_keeps_the_field_of_view():
    point = torch.tensor([[0.3, -0.2, -2.0]])
    before, _ = project(camera(), point)
    after, _ = project(camera().resized(50, 40), point)
    torch.testing.assert_close(after, before * torch.tensor([50 / 101, 40 / 67]))


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_downscaled_pixels_are_boxes(factor):
    small = camera().downscaled(factor)
    assert (small.width, small.height) == (101 // factor, 67 // factor)
    point = torch.tensor([[0.3, -0.2, -2.0]])
    before, _ = project(camera(), point)
    after, _ = project(small, point)
    # Box (i, j) covers [i f, (i+1) f): positions are divided by exactly f, also after rounding
    # the size.
    torch.testing.assert_close(after * factor, before)


def test_downscaling_to_nothing():
    with pytest.raises(ValueError, match="cannot be downscaled"):
        camera().downscaled(68)


def test_stack_keeps_times_and_refuses_mixtures():
    first, second = (camera(time=torch.tensor(t)) for t in (0.0, 0.5))
    batch = Camera.stack([first, second])
    assert batch.c2w.shape == (2, 4, 4) and batch.time.tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match="different image sizes"):
        Camera.stack([first, camera(width=100)])
    with pytest.raises(ValueError, match="undistort"):
        Camera.stack([camera(distortion=Distortion("opencv", (0.1,)))])


def test_position_and_pose():
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    assert camera().with_pose(c2w).position.tolist() == [1.0, 2.0, 3.0]
