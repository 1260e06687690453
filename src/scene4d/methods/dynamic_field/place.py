"""Where a field lies: the content's ball, how far rays go, and the capture's times."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.ranges import Finite, NotNegative, Positive
from scene4d.representations.base import Representation
from scene4d.representations.content import find_content

_TRIM = 0.05
"""Share of the content's points that may lie outside of the ball."""
_NEAR, _FAR = 0.02, 20.0
"""Of rays, in radii of the ball, where nothing bounds the content."""
_BEHIND = 1.5
"""Rays go so many times as far as the most distant of the known points."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A ball in space, and a stretch of time; lengths in scene units, times in seconds."""

    centre: tuple[Finite, Finite, Finite]
    radius: Positive
    near: NotNegative
    """Of rays, in radii."""
    far: Positive
    uniform_to: NotNegative
    """Distance, in radii, up to which steps along rays are equally long."""
    start_s: Finite
    duration_s: NotNegative


def find_place(scene: Scene, teacher: Representation | None = None) -> Place:
    """From the training cameras, and what is known of the surfaces (or the teacher's). Raises
    :class:`DataError` where there is no training camera."""
    cameras = scene.train_cameras()
    if not cameras:
        raise DataError("there is no training camera to place a field by", where=scene.root)
    content = find_content(scene, teacher)
    centre = content.points.median(dim=0).values
    away = (content.points - centre).norm(dim=-1)
    radius = max(float(away[:: max(1, len(away) // 100_000)].quantile(1 - _TRIM)), 1e-6)
    positions = torch.stack([camera.position.cpu().float() for camera in cameras])
    distances = (positions - centre).norm(dim=-1)
    if content.bounded:
        near = max(float(distances.min()) / radius - 1.0, _NEAR)
        far = float(distances.max()) / radius + 1.0
        uniform_to = far
    else:
        near, far = _NEAR, _FAR
        if teacher is not None or scene.points is not None:
            some = content.points[:: max(1, len(content.points) // 2000)]
            farthest = torch.cdist(positions, some).amax(dim=1).quantile(0.9)
            far = min(far, _BEHIND * float(farthest) / radius)
        uniform_to = float(distances.median()) / radius + 0.5
    times = [float(camera.time) for camera in cameras if camera.time is not None] or [0.0]
    return Place(
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        radius=radius,
        near=near,
        far=max(far, 2 * near),
        uniform_to=uniform_to,
        start_s=min(times),
        duration_s=max(times) - min(times),
    )
