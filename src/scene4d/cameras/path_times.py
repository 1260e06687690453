"""The time of a camera path: stopped, or running as fast as the scene did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from scene4d.cameras.camera import Camera


def at_time(cameras: Sequence[Camera], time_s: float) -> list[Camera]:
    """The cameras, all at one time (seconds)."""
    return [replace(c, time=torch.full_like(c.c2w[..., 0, 0], time_s)) for c in cameras]


def in_real_time(
    cameras: Sequence[Camera], *, span: tuple[float, float], fps: float
) -> list[Camera]:
    """The cameras, each ``1 / fps`` seconds after the one before it, from the first time of
    ``span`` (seconds) on; where its last is reached, the scene starts again."""
    first, duration = span[0], span[1] - span[0]
    gone = [index / fps for index in range(len(cameras))]
    if duration <= 0:
        return at_time(cameras, first)
    # A whole number of rounds may come out a rounding below one: that frame is the first again.
    turns = [s / duration for s in gone]
    shares = [turn - int(turn + 1e-9) for turn in turns]
    return [
        replace(c, time=torch.full_like(c.c2w[..., 0, 0], first + max(share, 0.0) * duration))
        for c, share in zip(cameras, shares, strict=True)
    ]


def in_time_order(cameras: Sequence[Camera]) -> bool:
    """Whether every camera has a time, each later than the one before: one camera's way."""
    times = [float(camera.time) for camera in cameras if camera.time is not None]
    return len(times) == len(cameras) > 1 and all(a < b for a, b in pairwise(times))


def span_of(cameras: Sequence[Camera]) -> tuple[float, float] | None:
    """First and last time, seconds; None where a camera has none, or all have the same."""
    times = [float(camera.time) for camera in cameras if camera.time is not None]
    if not times or len(times) < len(cameras) or min(times) == max(times):
        return None
    return min(times), max(times)
