"""Cameras of videos: one turn about what is looked at, in time that stands still or goes on."""

import math
from dataclasses import replace

import pytest
import torch

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.between import Spread
from scene4d.cameras.beyond import CamerasBeyond, Reach
from scene4d.cameras.flights import Flight, Flights
from scene4d.cameras.rays import project

RING = CamerasOnSphere(distance=4.0, view_angle=0.8, size=40, lowest=0.0, highest=1.0)
TRAINED = [
    replace(camera, time=torch.tensor(0.5 * number))
    for number, camera in enumerate(RING.draw(torch.Generator().manual_seed(0), 9))
]
"""At 0 to 4 s."""
STILL = Spread(between=0.0, jitter=0.0, turn=0.0, any_time=0.0)


def drawn(count=40, cameras=TRAINED, **flight):
    beyond = CamerasBeyond(cameras, STILL, Reach(angle=0.0))
    flights = Flights(beyond, Flight(**{"frames": 5, **flight}), distance=beyond.distance,
                      times=beyond.between.times)  # fmt: skip
    return flights.draw(torch.Generator().manual_seed(1), count)


def test_a_flight_turns_evenly_about_what_is_looked_at():
    homes = torch.stack([c.c2w for c in TRAINED])
    sweeps = []
    for flight in drawn(sweep=30.0):
        assert flight.c2w.shape == (5, 4, 4)
        assert float((homes - flight.c2w[0]).abs().amax(dim=(1, 2)).min()) < 1e-5  # float32
        xy, depth = project(flight, torch.zeros(5, 1, 3))
        assert torch.allclose(xy, torch.full_like(xy, 20.0), atol=1e-2)
        assert torch.allclose(depth, torch.full_like(depth, 4.0), atol=1e-3)
        chords = flight.position.diff(dim=0).norm(dim=-1)
        assert torch.allclose(chords, chords.mean().expand(4), atol=1e-5)
        whole = float((flight.position[-1] - flight.position[0]).norm())
        sweeps.append(2 * math.degrees(math.asin(whole / 8)))
    assert max(sweeps) <= 30.01 and min(sweeps) < 10 < 20 < max(sweeps)


def test_time_stands_still_in_a_share_of_flights_and_goes_on_in_the_others():
    known = {float(c.time) for c in TRAINED}
    assert all(len(f.time.unique()) == 1 and float(f.time[0]) in known for f in drawn(frozen=1.0))
    for flight in drawn(frozen=0.0):
        # five of the nine moments, half a second apart, or what is left of the scene
        start = float(flight.time[0])
        assert start in known
        steps = torch.full((4,), min(0.5, (4.0 - start) / 4))
        assert torch.allclose(flight.time.diff(), steps, atol=1e-6)
    for seconds in (1.0, 9.0):
        assert all(float(f.time[-1]) == pytest.approx(min(float(f.time[0]) + seconds, 4.0))
                   for f in drawn(frozen=0.0, seconds=seconds))  # fmt: skip
    frozen = sum(len(f.time.unique()) == 1 for f in drawn(400, frozen=0.25))
    assert 65 < frozen < 135  # 100 expected, four standard deviations


def test_a_scene_without_time_has_flights_without():
    timeless = [replace(camera, time=None) for camera in TRAINED]
    assert all(flight.time is None for flight in drawn(cameras=timeless, frozen=0.0))
