"""Omega of cameras whose way is known."""

from dataclasses import replace

import pytest
import torch
from turning_cameras import looking, scene

from scene4d.data.camera_rate import angular_rate, camera_rate


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
