"""Regions, flicker and omega of captures of a scene that moves."""

import math
from dataclasses import replace

import pytest
import torch
from turning_cameras import HEIGHT, WIDTH, looking, scene

from scene4d.evaluation.dynamic import (
    FixedCamera,
    fixed_camera,
    flicker,
    is_dynamic,
)


def test_flicker_is_the_change_of_what_stands_still():
    cameras = [looking(0, t) for t in (0.0, 0.1, 0.2)]
    pictures = {t: torch.full((HEIGHT, WIDTH, 3), 0.5) for t in (0.0, 0.1, 0.2)}
    pictures[0.1] = pictures[0.1] + 3 / 255
    pictures[0.2][:, : WIDTH // 2] += 1  # what moves may change

    def render(camera):
        return pictures[round(float(camera.time), 3)]

    half = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    half[:, : WIDTH // 2] = False
    still = FixedCamera(cameras=cameras, still=[half] * 3)
    assert flicker(still, render) == pytest.approx(3.0, abs=1e-4)
    everything = FixedCamera(cameras=cameras, still=[None] * 3)
    # 3 steps first; then 255 / 2 - 3 in one half (cut at white) and 3 in the other
    assert flicker(everything, render) == pytest.approx((3 + (124.5 + 3) / 2) / 2, abs=1e-3)
    nothing = FixedCamera(cameras=cameras, still=[~half & half] * 3)
    assert math.isnan(flicker(nothing, render))


class Cameras:
    def __init__(self, found):
        self.scene = found

    def camera(self, index, downscale=1):
        return self.scene.frames[index].camera

    def view(self, index, downscale=1):
        raise AssertionError("its pixels are not needed")


def test_flicker_is_looked_for_where_a_held_out_camera_stands_still():
    moving = [looking(5 * k, k / 10) for k in range(6)]
    fixed = [looking(40, k / 10) for k in (1, 3, 5)]
    found = scene([*moving, *fixed], held_out=[6, 7, 8])
    frames = [replace(f, camera_id=str(i // 6)) for i, f in enumerate(found.frames)]
    found = replace(found, frames=frames)
    chosen = fixed_camera(found, Cameras(found), {})
    assert [float(c.time) for c in chosen.cameras] == pytest.approx([0.1, 0.3, 0.5])
    assert torch.equal(chosen.cameras[0].c2w, fixed[0].c2w)
    # without one, from the middle of the way, at all times
    alone = scene(moving)
    chosen = fixed_camera(alone, Cameras(alone), {})
    assert len(chosen.cameras) == 6 and torch.equal(chosen.cameras[0].c2w, moving[3].c2w)
    assert fixed_camera(scene(moving[:1]), Cameras(scene(moving[:1])), {}) is None


def test_a_capture_of_one_time_is_not_dynamic():
    assert not is_dynamic(scene([looking(k, 1.0) for k in range(3)]))
    assert not is_dynamic(scene([replace(looking(k, 1.0), time=None) for k in range(3)]))
    assert is_dynamic(scene([looking(k, float(k)) for k in range(3)]))
