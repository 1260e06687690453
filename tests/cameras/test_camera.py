from dataclasses import replace

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.poses import se3_exp
from scene4d.cameras.rays import camera_rays, project


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
    assert Camera.stack([camera(), camera()]).time is None
    with pytest.raises(ValueError, match="with a time and without"):
        Camera.stack([first, camera()])
    with pytest.raises(ValueError, match="undistort"):
        Camera.stack([camera(distortion=Distortion("opencv", (0.1,)))])


def test_position_and_pose():
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    assert camera().with_pose(c2w).position.tolist() == [1.0, 2.0, 3.0]


def ray_camera(batch=()) -> Camera:
    generator = torch.Generator().manual_seed(1)
    pose = se3_exp(torch.randn(*batch, 6, generator=generator))
    # Focal lengths and centre are multiples of 1/8: shifts of the centre are exact in float32.
    K = torch.tensor([[90.125, 0.0, 51.25], [0.0, 91.5, 33.875], [0.0, 0.0, 1.0]])
    K = K.expand(*batch, 3, 3)
    return Camera(c2w=pose, K=K, width=101, height=67, time=torch.zeros(batch))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (37, 20), (-8, 50)])
def test_a_crops_rays_are_the_pictures(batch, x, y):
    whole = ray_camera(batch)
    part = whole.cropped(x, y, 24, 16)
    assert (part.width, part.height) == (24, 16)
    assert part.c2w is whole.c2w and part.time is whole.time
    outer = camera_rays(whole.cropped(-8, -8, 120, 80))  # what the picture would be, larger
    inner = camera_rays(part)
    window = (..., slice(y + 8, y + 24), slice(x + 8, x + 32), slice(None))
    assert torch.equal(inner.directions, outer.directions[window])
    assert torch.equal(inner.origins, outer.origins[window])
    if x >= 0:
        inside = (..., slice(y, y + 16), slice(x, x + 24), slice(None))
        assert torch.equal(inner.directions, camera_rays(whole).directions[inside])


def test_each_camera_of_a_batch_is_cropped_at_a_place_of_its_own():
    whole = ray_camera((3,))
    x, y = torch.tensor([0, 5, 77]), torch.tensor([1, 51, 30])
    part = camera_rays(whole.cropped(x, y, 24, 16)).directions
    for i in range(3):
        one = Camera(c2w=whole.c2w[i], K=whole.K[i], width=101, height=67)
        alone = camera_rays(one.cropped(int(x[i]), int(y[i]), 24, 16)).directions
        assert torch.equal(part[i], alone)
    with pytest.raises(ValueError, match="empty"):
        whole.cropped(0, 0, 0, 16)


def test_a_crops_lens_bends_its_rays_as_the_pictures():
    lens = Distortion("opencv", (0.1, -0.02, 0.001, 0.002))
    whole = replace(ray_camera(), distortion=lens)
    part = camera_rays(whole.cropped(40, 9, 24, 16)).directions
    assert torch.equal(part, camera_rays(whole).directions[9:25, 40:64])


def test_a_camera_moved_with_its_world_sees_the_same():
    generator = torch.Generator().manual_seed(2)
    similarity = se3_exp(torch.randn(6, generator=generator).double())
    similarity[:3, :3] *= 2.5
    before = ray_camera()
    after = before.moved(similarity)
    points = torch.randn(20, 3, generator=generator).double()
    there = points @ similarity[:3, :3].T + similarity[:3, 3]
    double = replace(before, c2w=before.c2w.double(), K=before.K.double())
    pixels, depth = project(double, points)
    moved, distance = project(replace(after, K=after.K.double()), there)
    seen = depth.abs() > 0.1  # beside the camera a pixel is anywhere
    torch.testing.assert_close(moved[seen], pixels[seen], rtol=1e-4, atol=1e-3)  # poses in float32
    torch.testing.assert_close(distance, 2.5 * depth, rtol=1e-4, atol=1e-4)
