"""Cameras around content that nobody photographed: the same ones every time, or drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera

UP = (0.0, -1.0, 0.0)
"""As in files of 3D Gaussian Splatting, whose axes are a camera's of COLMAP: y points down."""
_CIRCLE_VIEW_ANGLE = 0.8
_CIRCLE_ELEVATION = 0.3
"""Of cameras over the plane through the content's centre, radians."""
_SPHERE_VIEW_ANGLE = math.radians(50.0)
_KINDS = (1.2, 2.0, 1.2, 2.0, None)
"""Distances in turn, as multiples of that at which the content fills the picture; None: inside.
Five kinds, so that every eighth camera, which is held out, is of all kinds in turn."""


@dataclass(frozen=True, kw_only=True)
class CamerasOnSphere:
    """Square cameras that look at the origin, from directions drawn evenly over a band of the
    sphere, where -y is up; see :data:`UP`. Of several views, each is a batch of them at one
    elevation, evenly all around."""

    distance: float
    """From the origin, scene units."""
    view_angle: float
    """Radians."""
    size: int
    """Width and height in pixels."""
    lowest: float = -90.0
    highest: float = 90.0
    """Elevation over the horizon, degrees."""
    azimuths: tuple[float, float] = (0.0, 360.0)
    """From x to z, degrees: between which the first view stands."""
    views: int = 1
    times: tuple[float, float] | None = None
    """First and last second, between which times are drawn evenly; None: a static scene."""

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` cameras or batches; takes three random numbers for each."""
        first, last = (angle / 360 for angle in self.azimuths)
        found = []
        for turn, height, moment in torch.rand(count, 3, generator=generator).double():
            turned = first + (last - first) * turn
            views = [
                self._at(turned + view / self.views, height, moment) for view in range(self.views)
            ]
            found.append(Camera.stack(views) if self.views > 1 else views[0])
        return found

    def _at(self, turn: Tensor, height: Tensor, moment: Tensor) -> Camera:
        """The camera at a share of a turn, of the band and of the times."""
        low, high = (math.sin(math.radians(angle)) for angle in (self.lowest, self.highest))
        up = low + (high - low) * height
        flat, angle = (1 - up * up).clamp_min(0).sqrt(), 2 * math.pi * turn
        eye = self.distance * torch.stack([flat * angle.cos(), -up, flat * angle.sin()])
        camera = _looking(eye, torch.zeros_like(eye), self.view_angle, self.size)
        if self.times is None:
            return camera
        first, last = self.times
        return replace(camera, time=(first + (last - first) * moment).float())


def circle_around(
    points: Float[Tensor, "n 3"], *, count: int, size: int, least_radius: float = 1e-6
) -> list[Camera]:
    """Cameras on a circle around the content, looking at its middle, ``size`` pixels square.

    The content is where the points lie between their 10th and 90th percentile per axis, so that
    floaters and far backgrounds do not push the cameras away. ``points``: at least one.
    """
    low, middle, high = _quantiles(points, (0.1, 0.5, 0.9))
    radius = max(float((high - low).norm()) / 2, least_radius)
    distance = 1.3 * radius / math.tan(_CIRCLE_VIEW_ANGLE / 2)
    cameras = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        flat = math.cos(_CIRCLE_ELEVATION)
        back = middle.new_tensor(
            [math.cos(angle) * flat, -math.sin(_CIRCLE_ELEVATION), math.sin(angle) * flat]
        )
        cameras.append(_looking(middle + distance * back, middle, _CIRCLE_VIEW_ANGLE, size))
    return cameras


def sphere_around(
    points: Float[Tensor, "n 3"], *, count: int, size: int, least_radius: float = 1e-6
) -> list[Camera]:
    """Cameras that see the content from all sides: four fifths of them on a sphere (evenly, at
    1.2 and 2 times the distance at which the content fills the picture), a fifth inside.

    The content is the ball around the points' median that holds 80% of them. ``points``: at least
    one.
    """
    points = points.double()
    centre = points.median(dim=0).values
    distances = (points - centre).norm(dim=-1).sort().values
    radius = max(float(distances[int(0.8 * (len(distances) - 1))]), least_radius)
    fit = radius / math.sin(_SPHERE_VIEW_ANGLE / 2)
    generator = torch.Generator().manual_seed(0)
    cameras = []
    for i in range(count):
        z = 1 - 2 * (i + 0.5) / count
        turn = math.pi * (1 + 5**0.5) * i
        flat = math.sqrt(1 - z * z)
        direction = centre.new_tensor([flat * math.cos(turn), flat * math.sin(turn), z])
        jitter = torch.rand(3, generator=generator).double() * 2 - 1
        away = _KINDS[i % len(_KINDS)]
        if away is None:
            eye = centre + 0.5 * radius * jitter
            at = eye + direction
        else:
            eye = centre + fit * away * direction
            at = centre + 0.2 * radius * jitter
        cameras.append(_looking(eye, at, _SPHERE_VIEW_ANGLE, size))
    return cameras


def _quantiles(points: Float[Tensor, "n 3"], shares: tuple[float, ...]) -> list[Tensor]:
    """Per axis, linear between points; without torch.quantile's limit on how many there are."""
    rising = points.double().sort(dim=0).values
    found = []
    for share in shares:
        place = share * (len(rising) - 1)
        low = int(place)
        high = min(low + 1, len(rising) - 1)
        found.append(rising[low] + (place - low) * (rising[high] - rising[low]))
    return found


def _looking(
    eye: Float[Tensor, " 3"], at: Float[Tensor, " 3"], view_angle: float, size: int
) -> Camera:
    """A square camera at ``eye``, upright but for a view along the vertical."""
    back = torch.nn.functional.normalize(eye - at, dim=0)
    up = back.new_tensor(UP if abs(float(back[1])) < 0.95 else (1.0, 0.0, 0.0))
    right = torch.nn.functional.normalize(torch.linalg.cross(up, back), dim=0)
    pose = torch.eye(4, dtype=back.dtype)
    pose[:3] = torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=1)
    focal = size / 2 / math.tan(view_angle / 2)
    intrinsics = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
    return Camera(c2w=pose.float(), K=intrinsics, width=size, height=size)
