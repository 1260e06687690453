"""Cameras around content: they see it, from all sides, whatever floats far away."""

import math

import pytest
import torch

from scene4d.cameras.around import UP, circle_around, sphere_around
from scene4d.cameras.poses import rotation_error

PLACES = {"circle": circle_around, "sphere": sphere_around}


def content(count=500, *, floaters=0):
    g = torch.Generator().manual_seed(0)
    points = torch.randn(count, 3, generator=g) * 0.7 + torch.tensor([5.0, -3.0, 2.0])
    points[:floaters] *= 1e4
    return points


@pytest.mark.parametrize("name", PLACES)
def test_cameras_are_good_ones_and_the_same_every_time(name):
    cameras = PLACES[name](content(), count=24, size=64)
    again = PLACES[name](content(), count=24, size=64)
    assert len(cameras) == 24
    for camera, other in zip(cameras, again, strict=True):
        assert torch.equal(camera.c2w, other.c2w)
        assert (camera.width, camera.height) == (64, 64)
        assert rotation_error(camera.c2w[:3, :3]) < 1e-5  # float32
        # Upright: the picture's right is level, or the view is nearly along the vertical.
        steep = abs(float(camera.c2w[1, 2])) >= 0.95
        assert steep or abs(float(camera.c2w[1, 0])) < 1e-5
        assert steep or float(camera.c2w[:3, 1] @ torch.tensor(UP)) > 0


def seen_share(camera, points):
    local = (points - camera.position) @ camera.c2w[:3, :3]
    x, y = local[:, 0] / -local[:, 2], local[:, 1] / -local[:, 2]
    edge = camera.width / 2 / float(camera.K[0, 0])
    inside = (local[:, 2] < 0) & (x.abs() < edge) & (y.abs() < edge)
    return float(inside.float().mean())


@pytest.mark.parametrize("floaters", [0, 20])
def test_the_content_is_in_the_pictures_whatever_floats_far_away(floaters):
    points = content(floaters=floaters)
    kept = points[floaters:]
    for camera in circle_around(points, count=8, size=64):
        assert seen_share(camera, kept) > 0.9
    cameras = sphere_around(points, count=40, size=64)
    outside = [c for i, c in enumerate(cameras) if i % 5 != 4]
    assert min(seen_share(c, kept) for c in outside) > 0.6
    inside = [c for i, c in enumerate(cameras) if i % 5 == 4]
    middle = kept.median(dim=0).values
    assert max(float((c.position - middle).norm()) for c in inside) < 1.5
    # From all sides: the directions cancel out and none of the axes is left out.
    directions = torch.stack([c.c2w[:3, 2] for c in outside])
    assert float(directions.mean(dim=0).norm()) < 0.15
    assert float(torch.linalg.eigvalsh(directions.T @ directions / len(outside))[0]) > 0.2


@pytest.mark.parametrize("name", PLACES)
def test_cameras_move_with_the_content(name):
    before = PLACES[name](content(), count=8, size=64)
    after = PLACES[name](content() * 3 + 1, count=8, size=64)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b.position, a.position * 3 + 1, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(b.c2w[:3, :3], a.c2w[:3, :3], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("count", [1, 2])
def test_points_in_one_place_are_seen_from_the_least_radius(name, count):
    points = torch.tensor([[1.0, 2.0, 3.0]]).repeat(count, 1)
    cameras = PLACES[name](points, count=8, size=64, least_radius=0.5)
    outside = [c for i, c in enumerate(cameras) if name == "circle" or i % 4]
    for camera in outside:
        distance = float((camera.position - points[0]).norm())
        assert 0.5 < distance < 0.5 * 6
        assert math.isfinite(distance)
        assert seen_share(camera, points) == 1.0


def test_held_out_cameras_are_of_every_kind() -> None:
    """Every eighth is held out: near, far and inside must all be among them."""
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(3))
    cameras = sphere_around(points, count=120, size=64)
    distances = [float(c.position.norm()) for c in cameras[::8]]
    kinds = {"inside" if d < 1.5 else "near" if d < 6.5 else "far" for d in distances}
    assert kinds == {"inside", "near", "far"}
