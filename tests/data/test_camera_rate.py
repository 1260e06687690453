"""Omega of cameras whose way is known."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.data.camera_rate import angular_rate, camera_rate
from scene4d.data.scene import Frame, Scene

WIDTH, HEIGHT = 40, 32


def looking(degrees, time, *, radius=2.0):
    """At the origin from a circle around y."""
    angle = math.radians(degrees)
    s, c = math.sin(angle), math.cos(angle)
    c2w = torch.tensor(
        [[c, 0, s, radius * s], [0, 1, 0, 0], [-s, 0, c, radius * c], [0, 0, 0, 1.0]]
    )
    K = torch.tensor([[30.0, 0, WIDTH / 2], [0, 30.0, HEIGHT / 2], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=WIDTH, height=HEIGHT, time=torch.tensor(time))


def scene(cameras, held_out=()):
    frames = [
        Frame(name=f"{i}.png", camera=c, image_path=Path(f"{i}.png")) for i, c in enumerate(cameras)
    ]
    train = [i for i in range(len(cameras)) if i not in held_out]
    return Scene(root=Path("capture"), dataparser="nerfstudio", frames=frames, train_indices=train,
                 test_indices=list(held_out), split_rule="")  # fmt: skip


def test_omega_is_the_angle_a_second():
    # 3 degrees a picture, 10 pictures a second, looked at the centre of the circle
    assert camera_rate([looking(3 * k, k / 10) for k in range(8)]) == pytest.approx(30.0, rel=1e-4)
    # axes all parallel: no point is looked at; the angle to the nearest one is still a number
    still = [looking(0, k / 10) for k in range(4)]
    assert camera_rate(still) == pytest.approx(0.0, abs=1e-6)
    assert camera_rate(still[:1]) is None
    assert camera_rate([replace(c, time=torch.tensor(0.5)) for c in still]) is None


def test_omega_of_several_cameras_is_their_mean():
    one = [looking(3 * k, k / 10) for k in range(6)]
    other = [looking(90, k / 10 + 0.003) for k in range(6)]
    named = scene([*one, *other])
    frames = [replace(f, camera_id=str(i // 6)) for i, f in enumerate(named.frames)]
    assert angular_rate(replace(named, frames=frames)) == pytest.approx(15.0, rel=1e-3)
