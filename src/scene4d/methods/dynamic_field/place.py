"""Where a field lies: the content's ball, how far rays go, and the capture's times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.points import find_focus, raised_near
from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.ranges import Finite, NotNegative, Positive
from scene4d.representations.base import Representation
from scene4d.representations.content import find_content

_TRIM = 0.05
"""Share of the content's points that may lie outside of the ball."""
_NEAR, _FAR = 0.02, 20.0
"""Of rays, in radii of the ball, where nothing bounds the content."""
_BEFORE, _BEHIND = 0.5, 1.5
"""Rays begin so many times as far as the nearest of the points where surfaces are, or may be, and
end so many times as far as the most distant: steps elsewhere are lost, and fog before the cameras
explains what one camera sees."""


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
    focus = find_focus(cameras)
    known = teacher is not None or scene.points is not None
    bounds = None if known or scene.bounds is None else raised_near(scene.bounds, focus)
    content = find_content(replace(scene, bounds=bounds), teacher)
    centre = content.points.median(dim=0).values
    away = (content.points - centre).norm(dim=-1)
    radius = max(float(away[:: max(1, len(away) // 100_000)].quantile(1 - _TRIM)), 1e-6)
    positions = torch.stack([camera.position.cpu().float() for camera in cameras])
    distances = (positions - centre).norm(dim=-1)
    if content.bounded:
        near = max(float(distances.min()) / radius - 1.0, _NEAR)
        far = uniform_to = float(distances.max()) / radius + 1.0
    else:
        nearest, farthest = _reach(positions, content.points)
        # stated bounds are along each camera's own rays
        nearest = nearest if bounds is None else bounds[0]
        where = known or bounds is not None
        near = max(_NEAR, _BEFORE * nearest / radius) if where or focus is not None else _NEAR
        far = min(_FAR, _BEHIND * farthest / radius) if where else _FAR
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


def _reach(
    positions: Float[Tensor, "cameras 3"], points: Float[Tensor, "n 3"]
) -> tuple[float, float]:
    """How far the nearest of some of the points is from any camera, and the farthest of most."""
    # in any order: guessed points lie in layers, which strides would alias
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    apart = torch.cdist(positions, points[order[:2000]])
    return float(apart.min()), float(apart.amax(dim=1).quantile(0.9))
