"""Where a field lies: rays begin and end where surfaces may be, so that steps are not lost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_ball import look_at

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Points, Scene
from scene4d.methods.dynamic_field.place import find_place

FOCAL, SIZE = 50.0, 40
DISTANCE = 5.0
"""Of the cameras from what they look at, the origin."""


def scene(**optional):
    K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    frames = []
    for k, angle in enumerate(torch.linspace(-0.6, 0.6, 9)):
        eye = DISTANCE * torch.stack([angle.sin(), 0 * angle, angle.cos()])
        c2w = look_at(eye, torch.zeros(3)).float()
        camera = Camera(c2w=c2w, K=K, width=SIZE, height=SIZE, time=torch.tensor(float(k)))
        frames.append(Frame(name=str(k), camera=camera, image_path=Path(f"{k}.png")))
    return Scene(root=Path(), dataparser="nerfstudio", frames=frames, test_indices=[],
                 train_indices=range(9), split_rule="", **optional)  # fmt: skip


def test_rays_go_from_before_the_stated_near_to_behind_the_stated_far():
    place = find_place(scene(bounds=(2.0, 8.0)))
    assert place.near * place.radius == pytest.approx(0.5 * 2.0)
    # cameras turned by up to 69 degrees see the farthest points from further away than 8
    assert 8.0 < place.far * place.radius < 2 * 1.5 * 8.0


def test_a_stated_near_of_one_frame_alone_does_not_pull_the_field_to_the_lenses():
    usual, outlier = (find_place(scene(bounds=(near, 8.0))) for near in (1.0, 0.01))
    # it counts as a fifth of the distance of what the cameras look at, which is 1
    for name in ("radius", "near", "far", "uniform_to"):
        assert getattr(outlier, name) == pytest.approx(getattr(usual, name), rel=1e-5)


def test_cameras_that_look_at_one_place_have_nothing_right_before_them():
    place = find_place(scene())
    assert 0.2 * DISTANCE < place.near * place.radius < 0.5 * DISTANCE
    assert place.far == 20.0


def test_known_points_bound_rays_whatever_is_stated():
    generator = torch.Generator().manual_seed(0)
    xyz = 2 * torch.rand(500, 3, generator=generator) - 1
    points = Points(xyz=xyz, rgb=torch.zeros(500, 3, dtype=torch.uint8))
    place = find_place(scene(points=points))
    nearest, farthest = DISTANCE - 3**0.5, DISTANCE + 3**0.5  # of the cube's corners
    assert 0.5 * nearest <= place.near * place.radius < 0.5 * DISTANCE
    assert 1.5 * DISTANCE < place.far * place.radius <= 1.5 * farthest
    assert find_place(replace(scene(points=points), bounds=(0.1, 100.0))) == place
