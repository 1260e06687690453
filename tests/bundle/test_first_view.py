"""How a scene stands that nobody photographed: box, up, and a view in which all of it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scene4d.bundle import first_view
from scene4d.bundle.scene_info import MADE_UP, default_info, default_view
from scene4d.formats.splat_cloud import SplatCloud


def cloud_of(means: np.ndarray) -> SplatCloud:
    count = len(means)
    return SplatCloud(
        means=means.astype(np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        log_scales=np.full((count, 3), -4, np.float32),
        logit_opacities=np.full(count, 4, np.float32),
        sh=np.zeros((count, 1, 3), np.float32),
    )


def box_of(low: list[float], high: list[float], *, floaters: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    inside = rng.uniform(low, high, (4000, 3))
    middle, size = (np.array(low) + high) / 2, np.subtract(high, low)
    far = middle + size * rng.uniform(-8, 8, (floaters, 3))
    return np.concatenate([inside, far])


@pytest.mark.parametrize(
    ("low", "high"),
    [([-4, -0.4, -0.5], [4, 0.4, 0.5]), ([-0.3, -3, -0.3], [0.3, 0, 0.3]),
     ([100, 50, -3], [100.001, 50.002, -2.999])],
)  # fmt: skip
@pytest.mark.parametrize("floaters", [0, 120])
def test_the_made_up_view_fills_its_picture(low: list, high: list, floaters: int) -> None:
    view = default_view(cloud_of(box_of(low, high, floaters=floaters)))
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, 8).T
    c2w = np.array(view.c2w)
    local = (corners - c2w[:3, 3]) @ c2w[:3, :3]
    x = view.fx * local[:, 0] / -local[:, 2] + view.cx
    y = view.cy - view.fy * local[:, 1] / -local[:, 2]
    assert (local[:, 2] < 0).all()
    margins = [
        x.min() / view.width, 1 - x.max() / view.width,
        y.min() / view.height, 1 - y.max() / view.height,
    ]  # fmt: skip
    # 7.5% at the nearest sides, less what float32 and the splats' first and last 0.3% take.
    assert 0.04 < min(margins) < 0.12
    assert view.name == MADE_UP


def ground() -> np.ndarray:
    """A ground of 4 x 4 with a heap on it, z up."""
    rng = np.random.default_rng(1)
    flat = np.concatenate([rng.uniform(-2, 2, (3600, 2)), np.zeros((3600, 1))], axis=1)
    heap = np.concatenate(
        [rng.uniform(-0.5, 0.5, (2400, 2)), rng.uniform(0, 1.4, (2400, 1))], axis=1
    )
    return np.concatenate([flat, heap])


def test_up_is_found_by_the_ground_whatever_the_axes() -> None:
    c, s = np.cos(0.4), np.sin(0.4)
    y_down = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    for turn in (np.eye(3), y_down, np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ y_down):
        places = ground() @ turn.T
        up = first_view.find_up(places, *first_view.content_box(places))
        assert up @ turn[:, 2] > np.cos(np.radians(3))


def test_without_a_ground_y_points_down_as_in_the_format() -> None:
    places = np.random.default_rng(2).normal(size=(4000, 3))
    up = first_view.find_up(places, *first_view.content_box(places))
    assert up.tolist() == [0, -1, 0]


def test_a_thing_mirrored_along_y_stands_along_z() -> None:
    rng = np.random.default_rng(3)  # a chair: two arms along y, a back at one end of x, z up
    seat = rng.uniform([-1, -1, -0.1], [1, 1, 0], (2000, 3))
    back = rng.uniform([-1, -1, 0], [-0.9, 1, 1.6], (1500, 3))
    legs = [rng.uniform([x, y, -1.2], [x + 0.1, y + 0.1, 0], (200, 3))
            for x in (-1, 0.9) for y in (-1, 0.9)]  # fmt: skip
    places = np.concatenate([seat, back, *legs])
    up = first_view.find_up(places, *first_view.content_box(places))
    assert up.tolist() == [0, 0, 1]


def test_limits_are_where_the_cameras_stood() -> None:
    cloud = cloud_of(box_of([-500, -500, 5], [500, 500, 1000]))
    view = default_view(cloud)
    cameras = []
    for x in (-4.7, 4.7):
        c2w = np.eye(4)
        c2w[:3, 3] = (x, x, x)
        cameras.append(replace(view, c2w=tuple(map(tuple, c2w.tolist()))))
    limits = default_info(cloud, cameras=cameras).limits.cameras
    assert np.allclose(limits, [[-4.7] * 3, [4.7] * 3])


def test_a_relief_looks_right_from_near_the_one_place_it_was_seen_from() -> None:
    cloud = cloud_of(box_of([-500, -500, 5], [500, 500, 1000]))
    view = default_view(cloud)
    cameras = []
    for turn in (1.0, -1.0):
        c2w = np.diag([turn, turn, 1.0, 1.0])
        c2w[:3, 3] = (0.0, 0.0, -4000.0)
        cameras.append(replace(view, c2w=tuple(map(tuple, c2w.tolist()))))
    info = default_info(cloud, cameras=cameras)
    low, high = np.array(info.limits.cameras)
    away = np.linalg.norm(np.mean(info.limits.content, axis=0) - (0, 0, -4000))
    assert np.allclose((low + high) / 2, (0, 0, -4000))
    assert np.allclose((high - low) / 2, 0.03 * away)


def test_no_splats_have_a_view_too() -> None:
    view = default_view(cloud_of(np.zeros((0, 3))))
    assert np.isfinite(view.c2w).all()
