"""Where a scene's surfaces are, before anything is trained on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import focus_point
from scene4d.cameras.rays import Rays, camera_rays, rays_at
from scene4d.data.scene import Scene
from scene4d.errors import UsageError
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import Representation

_RAYS_ACROSS = 24
"""Rays of a training camera along an axis that placement looks at, edges included."""
_MOST_POINTS = 100_000
_OPAQUE = 0.85
"""A teacher whose pictures are opaque in less than this share has nothing behind its content."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is known of the surfaces before training."""

    points: Float[Tensor, "n 3"]
    """On surfaces, or else where they may be; scene units."""
    bounded: bool
    """Nothing lies behind the points: rays that miss them see the background."""


def sampled_rays(cameras: Sequence[Camera]) -> Rays:
    """A grid of each camera's rays, the picture's corners included: [cameras * rays, 3]."""
    across = torch.linspace(0, 1, _RAYS_ACROSS)
    unit = torch.stack(torch.meshgrid(across, across, indexing="xy"), dim=-1).reshape(-1, 2)
    parts = []
    for camera in cameras:
        pixels = unit * torch.tensor([camera.width, camera.height], dtype=torch.float32)
        parts.append(rays_at(camera.to("cpu"), pixels))
    return Rays(
        origins=torch.cat([r.origins for r in parts]).detach().float(),
        directions=torch.cat([r.directions for r in parts]).detach().float(),
    )


def find_content(scene: Scene, teacher: Representation | None = None) -> Content:
    """Where surfaces are: seen by the teacher, else the capture's points, else guessed.

    Guessed: with the capture's bounds, points on the cameras' rays between near and far; otherwise
    the ball that fills the cameras' pictures, around the point that they look at.
    """
    cameras = scene.train_cameras()
    if teacher is not None:
        return _seen_by(teacher, cameras)
    bounded = scene.background is not None
    if scene.points is not None and len(scene.points.xyz) > 100:
        stride = max(1, len(scene.points.xyz) // _MOST_POINTS)
        return Content(points=scene.points.xyz[::stride].float(), bounded=bounded)
    if scene.bounds is not None and not bounded:
        return Content(points=_between(cameras, *scene.bounds), bounded=False)
    centre, distance = focus_point(cameras)
    camera = cameras[0]
    half = min(camera.width / float(camera.K[0, 0]), camera.height / float(camera.K[1, 1])) / 2
    radius = distance * half / math.hypot(1, half)
    ball = normalize(torch.randn(4096, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    return Content(points=centre.float() + radius * ball, bounded=bounded)


def _between(cameras: Sequence[Camera], near: float, far: float) -> Float[Tensor, "n 3"]:
    """Points on the cameras' rays, evenly spaced in disparity."""
    rays = sampled_rays(cameras)
    origins, directions = rays.origins[::7], rays.directions[::7]
    depths = 1 / torch.linspace(1 / far, 1 / near, 8)
    return (origins[:, None] + directions[:, None] * depths[:, None]).reshape(-1, 3)


@torch.no_grad()
def _seen_by(teacher: Representation, cameras: Sequence[Camera]) -> Content:
    """Points where the teacher's rendered depths are, in up to 40 of the cameras."""
    points, opaque = [], []
    for camera in cameras[:: max(1, len(cameras) // 40)]:
        small = camera.to("cpu").downscaled(max(1, camera.width // 100))
        small = replace(small, distortion=None)
        render = teacher.render(small, want=DEPTH)
        assert render.depth is not None
        rays = camera_rays(small)
        along = -(rays.directions @ small.c2w[:3, 2])
        solid = render.alpha > 0.5
        opaque.append(solid.float().mean())
        at = rays.origins + rays.directions * (render.depth / along)[..., None]
        points.append(at[solid])
    found = torch.cat(points)
    if len(found) < 100:
        raise UsageError(
            "the teacher shows nothing to the capture's training cameras",
            fix="give a teacher of this capture",
        )
    found = found[:: max(1, len(found) // _MOST_POINTS)]
    return Content(points=found, bounded=float(torch.stack(opaque).mean()) < _OPAQUE)
