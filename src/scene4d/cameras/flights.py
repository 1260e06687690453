"""Cameras of videos that nobody took: they turn about what is looked at while time stands still
("freeze time") or goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.beyond import turned_about
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


@runtime_checkable
class _Drawn(Protocol):
    """A distribution of single cameras."""

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]: ...


class Flights:
    """Draws flights, each as a batch of cameras, one of each frame.

    The first camera is drawn by ``cameras``. The others are it, turned about the point ``distance``
    scene units in front of it, by an angle that grows evenly up to one drawn evenly up to
    the largest, about an axis of any direction in the picture's plane. Where time goes on it does
    so evenly, from the first camera's, and not beyond the scene's end.
    """

    def __init__(
        self,
        cameras: _Drawn,
        flight: Flight,
        *,
        distance: float,
        times: Float[Tensor, " moments"] | None,
    ) -> None:
        """``times``: of the training pictures, seconds; None: nothing moves."""
        self.cameras, self.flight, self.distance = cameras, flight, distance
        self.times = None if times is None else times.unique()

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` flights; takes the same number of random numbers for each."""
        first = self.cameras.draw(generator, count)
        u = torch.rand(count, 3, generator=generator, dtype=torch.float64)
        return [self._flight(camera, *row.tolist()) for camera, row in zip(first, u, strict=True)]

    def _flight(self, first: Camera, size: float, way: float, kind: float) -> Camera:
        flight = self.flight
        turns = math.radians(flight.sweep) * size * torch.linspace(0, 1, flight.frames).double()
        cameras = [
            turned_about(first, self.distance, angle, 2 * math.pi * way) for angle in turns.tolist()
        ]
        whole = Camera.stack(cameras)
        if first.time is None or self.times is None or kind < flight.frozen:
            return whole
        start, end = float(first.time), float(self.times[-1])
        length = min(self._seconds(end - float(self.times[0])), end - start)
        seconds = torch.linspace(start, start + length, flight.frames, dtype=torch.float64)
        return replace(whole, time=seconds.to(first.time))

    def _seconds(self, duration: float) -> float:
        assert self.times is not None
        if self.flight.seconds is not None:
            return self.flight.seconds
        return duration * (self.flight.frames - 1) / max(1, len(self.times) - 1)
