"""Cameras beyond those that photographed: turned around what is looked at, out of their ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from scene4d.cameras.between import CamerasBetween, Spread
from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import focus_point
from scene4d.cameras.poses import se3_exp


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far cameras go."""

    angle: float = 20.0
    """The largest turn around what is looked at, degrees; 0: none goes beyond."""
    share: float = 1.0
    """Probability of a camera that is turned so."""


class CamerasBeyond:
    """Draws cameras as :class:`CamerasBetween` does, and turns a share of them about a point in
    front of them, by an angle drawn evenly up to the largest, about an axis of any direction in
    the picture's plane. So the point stays where it was in the picture, and is seen from elsewhere.

    The point lies on the camera's axis, as far away as the point that all training cameras look at
    (:func:`focus_point`).
    """

    def __init__(self, cameras: Sequence[Camera], spread: Spread, reach: Reach) -> None:
        """``cameras``: at least one."""
        self.between = CamerasBetween(cameras, spread)
        self.reach = reach
        self.distance = focus_point(cameras)[1]
        """To what is turned about, scene units."""

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` cameras; takes the same number of random numbers for each."""
        cameras = self.between.draw(generator, count)
        u = torch.rand(count, 3, generator=generator, dtype=torch.float64)
        return [self._turned(camera, *row.tolist()) for camera, row in zip(cameras, u, strict=True)]

    def _turned(self, camera: Camera, kind: float, size: float, way: float) -> Camera:
        if kind >= self.reach.share:
            return camera
        angle = math.radians(self.reach.angle) * size
        return turned_about(camera, self.distance, angle, 2 * math.pi * way)


def turned_about(camera: Camera, distance: float, angle: float, direction: float) -> Camera:
    """``camera``, turned by ``angle`` about the point ``distance`` scene units in front of it,
    about the axis in the picture's plane that lies at ``direction``; radians."""
    axis = torch.tensor([math.cos(direction), math.sin(direction), 0.0], dtype=torch.float64)
    turn = se3_exp(torch.cat([torch.zeros(3, dtype=torch.float64), angle * axis]))
    pivot = torch.tensor([0.0, 0.0, -distance], dtype=torch.float64)
    turn[:3, 3] = pivot - turn[:3, :3] @ pivot
    return replace(camera, c2w=(camera.c2w.double() @ turn).to(camera.c2w))
