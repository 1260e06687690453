"""Cameras beyond the training cameras."""

import math

import torch

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.between import CamerasBetween, Spread
from scene4d.cameras.beyond import CamerasBeyond, Reach
from scene4d.cameras.rays import project

TRAINED = CamerasOnSphere(distance=4.0, view_angle=0.8, size=40, lowest=0.0, highest=1.0).draw(
    torch.Generator().manual_seed(0), 12
)
NONE = Spread(between=0.0, jitter=0.0, turn=0.0)


def test_what_is_looked_at_stays_in_the_middle_and_is_seen_from_elsewhere():
    beyond = CamerasBeyond(TRAINED, NONE, Reach(angle=30.0))
    cameras = beyond.draw(torch.Generator().manual_seed(1), 200)
    origin, turned = torch.zeros(1, 3), []
    for camera in cameras:
        xy, depth = project(camera, origin)
        # the training cameras look at the origin; float32 poses
        assert torch.allclose(xy, torch.full_like(xy, 20.0), atol=1e-2)
        assert abs(float(depth) - 4.0) < 1e-3
        nearest = max(float(camera.position @ c.position) / 16 for c in TRAINED)
        turned.append(math.degrees(math.acos(min(1.0, nearest))))
    assert max(turned) <= 30.01
    assert sum(angle > 10 for angle in turned) > 50  # out of the ring, not along it


def test_none_goes_beyond_without_an_angle_and_some_with_a_share():
    generator = torch.Generator().manual_seed(2)
    still = CamerasBeyond(TRAINED, NONE, Reach(angle=0.0)).draw(generator, 20)
    homes = torch.stack([c.c2w for c in TRAINED])
    assert all(float((homes - c.c2w).abs().amax(dim=(1, 2)).min()) < 1e-5 for c in still)
    drawn = CamerasBeyond(TRAINED, NONE, Reach(angle=30.0, share=0.25)).draw(generator, 400)
    moved = [float((homes - c.c2w).abs().amax(dim=(1, 2)).min()) > 1e-5 for c in drawn]
    assert 60 < sum(moved) < 140  # 100 expected, four standard deviations


def test_without_reach_it_draws_as_cameras_between():
    spread = Spread()
    ours = CamerasBeyond(TRAINED, spread, Reach(share=0.0)).draw(
        torch.Generator().manual_seed(3), 5
    )
    theirs = CamerasBetween(TRAINED, spread).draw(torch.Generator().manual_seed(3), 5)
    assert all(torch.equal(a.c2w, b.c2w) for a, b in zip(ours, theirs, strict=True))
