import math

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.poses import se3_exp
from scene4d.cameras.rays import camera_rays, pixel_centres, project, rays_at


def cameras(count: int, width: int = 8, height: int = 6) -> Camera:
    generator = torch.Generator().manual_seed(3)
    c2w = se3_exp(torch.randn(count, 6, generator=generator))
    K = torch.tensor([[9.0, 0.0, 4.2], [0.0, 8.0, 2.9], [0.0, 0.0, 1.0]]).expand(count, 3, 3)
    return Camera(c2w=c2w, K=K, width=width, height=height)


def single(batch: Camera, index: int) -> Camera:
    return Camera(c2w=batch.c2w[index], K=batch.K[index], width=batch.width, height=batch.height)


def test_top_left_pixel_centre():
    assert pixel_centres(3, 2)[0, 0].tolist() == [0.5, 0.5]
    assert pixel_centres(3, 2)[1, 2].tolist() == [2.5, 1.5]


def test_central_ray_looks_along_minus_z():
    K = torch.tensor([[5.0, 0.0, 4.0], [0.0, 5.0, 3.0], [0.0, 0.0, 1.0]])
    rays = rays_at(Camera(c2w=torch.eye(4), K=K, width=8, height=6), torch.tensor([[4.0, 3.0]]))
    assert rays.directions[0].tolist() == [0.0, 0.0, -1.0]
    # Up in the picture (smaller y) is +y of the camera; right is +x.
    up_right = rays_at(Camera(c2w=torch.eye(4), K=K, width=8, height=6), torch.tensor([[5.0, 2.0]]))
    assert up_right.directions[0, 0] > 0 and up_right.directions[0, 1] > 0


def test_points_along_rays_project_back():
    camera = single(cameras(1), 0)
    rays = camera_rays(camera)
    assert rays.directions.shape == (6, 8, 3)
    points = rays.origins + 2.5 * rays.directions
    pixels, depth = project(camera, points.reshape(-1, 3))
    # float32, values up to 8 px: rounding of a few 1e-6.
    torch.testing.assert_close(pixels.reshape(6, 8, 2), pixel_centres(8, 6), atol=1e-4, rtol=0)
    assert (depth > 0).all()
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(6, 8))


def test_batch_equals_single_cameras():
    batch = cameras(3)
    together = camera_rays(batch, areas=True)
    assert together.directions.shape == (3, 6, 8, 3)
    for i in range(3):
        alone = camera_rays(single(batch, i), areas=True)
        torch.testing.assert_close(together.directions[i], alone.directions)
        torch.testing.assert_close(together.origins[i], alone.origins)
        torch.testing.assert_close(together.pixel_area[i], alone.pixel_area)


def test_pixel_areas_add_up_to_the_solid_angle():
    # A square pinhole picture of half width w at distance 1 covers
    # 4 asin(w^2 / (1 + w^2)) steradian.
    size, focal = 200, 80.0
    K = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
    camera = Camera(c2w=torch.eye(4), K=K, width=size, height=size)
    half = size / 2 / focal
    exact = 4 * math.asin(half**2 / (1 + half**2))
    # The midpoint rule's error is of order (1 / focal)^2.
    assert camera_rays(camera, areas=True).pixel_area.sum().item() == pytest.approx(exact, rel=1e-4)


def test_distorted_rays_go_through_the_lens():
    lens = Distortion("opencv", (0.1, -0.02, 0.001, 0.002))
    straight = single(cameras(1), 0)
    bent = Camera(c2w=straight.c2w, K=straight.K, width=8, height=6, distortion=lens)
    pixels = torch.tensor([[1.0, 1.0], [7.0, 5.0]])
    assert not torch.allclose(
        rays_at(bent, pixels).directions, rays_at(straight, pixels).directions
    )
    # At the principal point the lens does nothing.
    centre = torch.tensor([[4.2, 2.9]])
    torch.testing.assert_close(
        rays_at(bent, centre).directions, rays_at(straight, centre).directions
    )


def test_gradient_with_respect_to_the_pose():
    K = torch.tensor([[9.0, 0.0, 4.2], [0.0, 8.0, 2.9], [0.0, 0.0, 1.0]], dtype=torch.float64)
    pixels = torch.tensor([[1.0, 2.0], [6.0, 4.0]], dtype=torch.float64)

    def through(tangent):
        camera = Camera(c2w=se3_exp(tangent), K=K, width=8, height=6)
        rays = rays_at(camera, pixels)
        return rays.origins, rays.directions

    start = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(through, start)


def test_points_behind_have_no_positive_depth():
    K = torch.eye(3)
    camera = Camera(c2w=torch.eye(4), K=K, width=2, height=2)
    pixels, depth = project(camera, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    assert (depth <= 0).all() and torch.isfinite(pixels).all()
