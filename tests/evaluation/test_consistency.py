"""View consistency on a wall whose pictures are known in closed form."""

import math

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import pixel_centres
from scene4d.evaluation.consistency import consistency, warped

SIZE, FOCAL, WALL = 64, 80.0, 5.0


def camera_at(x: float) -> Camera:
    """Looks straight at the wall z = -WALL."""
    c2w = torch.eye(4)
    c2w[0, 3] = x
    K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=K, width=SIZE, height=SIZE)


def wall_seen_by(camera: Camera) -> torch.Tensor:
    """A wall whose colours are linear in its position, which bilinear sampling keeps exactly."""
    xy = (pixel_centres(SIZE, SIZE) - SIZE / 2) / FOCAL * WALL
    x, y = xy[..., 0] + camera.position[0], xy[..., 1]
    return torch.stack([0.5 + 0.1 * x, 0.5 + 0.1 * y, 0.5 - 0.05 * x], dim=-1)


def depth_of_wall() -> torch.Tensor:
    return torch.full((SIZE, SIZE), WALL)


def path(count=6):
    # Steps of 3.3 pixels: neither whole pixels nor the same twice.
    return [camera_at(0.206 * i) for i in range(count)]


def test_a_picture_warped_by_its_depth_is_the_other_picture():
    first, second = path(2)
    got, known = warped(wall_seen_by(second), second, depth_of_wall(), first, depth_of_wall())
    # All but the columns that the second camera does not see.
    assert known.float().mean() > 0.9 and not known.all()
    inside = known.clone()
    inside[:, :5] = inside[:, -5:] = False  # half a pixel at the border is clamped
    inside[:2] = inside[-2:] = False
    torch.testing.assert_close(got[inside], wall_seen_by(first)[inside], rtol=0, atol=1e-5)


def test_noise_of_each_frame_is_measured_as_twice_its_variance():
    """Two independent errors of variance s^2 differ by 2 s^2, less what bilinear weights average:
    whole-pixel steps leave none."""
    step = WALL / FOCAL * 4  # four pixels
    cameras = [camera_at(step * i) for i in range(12)]
    generator = torch.Generator().manual_seed(0)
    sigma = 0.05
    pictures = [
        wall_seen_by(c) + sigma * torch.randn(SIZE, SIZE, 3, generator=generator) for c in cameras
    ]
    got = consistency(pictures, [depth_of_wall()] * len(cameras), cameras)
    want = -10 * math.log10(2 * sigma**2)
    assert got == pytest.approx(want, abs=0.1)  # 130,000 samples: 0.02 dB at one deviation


def test_a_steady_scene_beats_a_flickering_one():
    cameras = path()
    steady = [wall_seen_by(c) for c in cameras]
    flicker = [p + 0.02 * (-1) ** i for i, p in enumerate(steady)]
    depths = [depth_of_wall()] * len(cameras)
    assert consistency(steady, depths, cameras) > 60
    # Each frame differs from the next by 0.04.
    assert consistency(flicker, depths, cameras) == pytest.approx(-20 * math.log10(0.04), abs=0.1)


def test_hidden_surfaces_are_left_out():
    """A near square covers a part of the wall in the second frame only."""
    first, second = path(2)
    near = depth_of_wall()
    near[20:40, 20:40] = 1.0
    picture = wall_seen_by(second)
    picture[20:40, 20:40] = 0.0
    got, known = warped(picture, second, near, first, depth_of_wall())
    assert (got[known] - wall_seen_by(first)[known]).abs().max() < 0.02
    assert known.float().mean() < 0.9


def test_frames_without_depth_say_nothing():
    cameras = path(2)
    pictures = [wall_seen_by(c) for c in cameras]
    assert math.isnan(consistency(pictures, [torch.zeros(SIZE, SIZE)] * 2, cameras))
    with pytest.raises(ValueError, match="two or more"):
        consistency(pictures[:1], [depth_of_wall()], cameras[:1])
