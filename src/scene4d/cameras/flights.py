"""Cameras of videos that nobody took: they turn about what is looked at while time stands still
("freeze time") or goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from scene4d.cameras.beyond import CamerasBeyond, turned_about
from scene4d.cameras.camera import Camera


@dataclass(frozen=True, kw_only=True)
class Flight:
    """How a video's camera moves."""

    frames: int
    """At least two."""
    sweep: float = 15.0
    """The largest turn from the first frame to the last, degrees; 0: the camera stands still."""
    frozen: float = 0.5
    """Probability that time stands still, of scenes that move."""
    seconds: float | None = None
    """From the first frame to the last where time goes on; None: as long as so many of the
    capture's moments."""


class Flights:
    """Draws flights, each as a batch of cameras, one of each frame.

    The first camera is drawn by ``cameras``. The others are it, turned about the point in front of
    it that all training cameras look at, by an angle that grows evenly up to one drawn evenly up to
    the largest, about an axis of any direction in the picture's plane. Where time goes on it does
    so evenly, from the first camera's, or from as much earlier as the scene would end too soon.
    """

    def __init__(self, cameras: CamerasBeyond, flight: Flight) -> None:
        self.cameras, self.flight = cameras, flight
        times = cameras.between.times
        self.times = None if times is None else times.unique()
        """Of the training pictures, rising, seconds."""

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` flights; takes the same number of random numbers for each."""
        first = self.cameras.draw(generator, count)
        u = torch.rand(count, 3, generator=generator, dtype=torch.float64)
        return [self._flight(camera, *row.tolist()) for camera, row in zip(first, u, strict=True)]

    def _flight(self, first: Camera, size: float, way: float, kind: float) -> Camera:
        flight = self.flight
        turns = math.radians(flight.sweep) * size * torch.linspace(0, 1, flight.frames).double()
        cameras = [
            turned_about(first, self.cameras.distance, angle, 2 * math.pi * way)
            for angle in turns.tolist()
        ]
        whole = Camera.stack(cameras)
        if first.time is None or self.times is None or kind < flight.frozen:
            return whole
        begin, end = float(self.times[0]), float(self.times[-1])
        length = min(self._seconds(end - begin), end - begin)
        start = min(float(first.time), end - length)
        seconds = torch.linspace(start, start + length, flight.frames, dtype=torch.float64)
        return replace(whole, time=seconds.to(first.time))

    def _seconds(self, duration: float) -> float:
        assert self.times is not None
        if self.flight.seconds is not None:
            return self.flight.seconds
        return duration * (self.flight.frames - 1) / max(1, len(self.times) - 1)
