"""Points on rays, in the coordinates that MobileR2L encodes: content lies within about 1.5.

Near and far come from the content's points (the teacher's, the capture's, or guessed from the
cameras; the capture's stated bounds come first where something lies behind the content):

``ball``: nothing behind the content, as in Blender's scenes: evenly spaced in distance from where
the nearest camera meets the content's ball to where the farthest one leaves it.
``forward``: all cameras face alike, as in LLFF's captures: evenly spaced in the disparity of
normalised device coordinates (Mildenhall et al. 2020, appendix C), from the near plane to infinity.
``around``: otherwise, evenly spaced in disparity from near to far, and space beyond the content's
ball contracted (which the paper does not do; it has no such captures).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import up_axis
from scene4d.cameras.rays import Rays
from scene4d.methods.lightslab.placement import FORWARD_ANGLE
from scene4d.rendering.fields.hash_grid import contracted
from scene4d.representations.content import Content, sampled_rays

Kind = Literal["ball", "forward", "around"]
REACH = 1.5
"""Coordinates of the content's ball, or of the pictures' edges: those of Blender's scenes."""
_TRIM = 0.01
"""Share of the content's points taken for outliers."""
_MIN_COSINE = 0.05
"""Between a ray and the axis of ``forward``: below, the ray counts as parallel to its planes."""


class RayPoints(nn.Module):
    """Where the points of a ray lie, and their coordinates."""

    centre: Tensor
    rotation: Tensor

    def __init__(
        self,
        *,
        kind: Kind,
        centre: Float[Tensor, " 3"],
        rotation: Float[Tensor, "3 3"],
        near: float,
        far: float,
        scale: float,
    ) -> None:
        """``centre``: of the content or, if ``forward``, of the cameras. ``rotation``: rows are
        right, down and into the scene. ``near``, ``far``: scene units. ``scale``: radius of the
        content or, if ``forward``, the largest tangent of a ray."""
        super().__init__()
        self.kind, self.near, self.far, self.scale = kind, near, far, scale
        self.register_buffer("centre", centre)
        self.register_buffer("rotation", rotation)

    def plain(self) -> dict[str, float | str]:
        """What is not a buffer."""
        return {"kind": self.kind, "near": self.near, "far": self.far, "scale": self.scale}

    def forward(self, rays: Rays, count: int) -> Float[Tensor, "*rays {count} 3"]:
        """Coordinates of ``count`` points on each ray, near to far."""
        origins, directions = rays.origins, rays.directions
        if self.kind == "forward":
            return self._device_coordinates(origins, directions, count)
        if self.kind == "ball":
            t = torch.linspace(self.near, self.far, count)
        else:
            t = 1 / torch.linspace(1 / self.near, 1 / self.far, count)
        t = t.to(origins)[:, None]
        points = origins[..., None, :] + t * directions[..., None, :]
        unit = contracted(points.reshape(-1, 3), self.centre, self.scale)
        # Contraction puts the ball into the middle half of the unit cube.
        return ((unit - 0.5) * (4 * REACH)).reshape(points.shape)

    def _device_coordinates(self, origins: Tensor, directions: Tensor, count: int) -> Tensor:
        o = (origins - self.centre) @ self.rotation.T
        d = directions @ self.rotation.T
        # Masked before the division: NaN would come back in the gradient.
        z = torch.where(d[..., 2:] > _MIN_COSINE, d[..., 2:], torch.ones_like(d[..., 2:]))
        tangent = (d[..., :2] / z)[..., None, :]
        s = torch.linspace(1 / self.near, 0, count).to(origins)[:, None]
        q = s * o[..., None, :2] + (1 - s * o[..., None, 2:]) * tangent
        depth = (2 * s * self.near - 1).expand(*q.shape[:-1], 1)
        return torch.cat([q / self.scale, depth], dim=-1) * REACH


def place_points(
    cameras: list[Camera], content: Content, bounds: tuple[float, float] | None
) -> RayPoints:
    """Points for the rays of these training cameras."""
    rays = sampled_rays(cameras)
    positions = torch.stack([c.position.cpu().float() for c in cameras])
    forward = torch.nn.functional.normalize(rays.directions.mean(dim=0), dim=0)
    rotation = _frame(forward, up_axis(cameras).float())
    centre = content.points.median(dim=0).values
    radius = max(float((content.points - centre).norm(dim=-1).quantile(1 - _TRIM)), 1e-6)
    if content.bounded:
        away = (positions - centre).norm(dim=-1)
        near = max(float(away.min()) - radius, 0.05 * radius)
        far = float(away.max()) + radius
        return RayPoints(
            kind="ball", centre=centre, rotation=rotation, near=near, far=far, scale=radius
        )
    cosines = (rays.directions @ forward).clamp(-1, 1)
    middle = positions.mean(dim=0)
    near, far = bounds or _depths(cameras, content)
    if float(cosines.min().acos()) > FORWARD_ANGLE:
        return RayPoints(
            kind="around", centre=centre, rotation=rotation, near=near, far=far, scale=radius
        )
    local = rays.directions @ rotation.T
    scale = float((local[:, :2] / local[:, 2:]).abs().max())
    return RayPoints(
        kind="forward", centre=middle, rotation=rotation, near=near, far=far, scale=scale
    )


def _depths(cameras: list[Camera], content: Content) -> tuple[float, float]:
    """Near and far: depths between which the cameras have the content, but for outliers."""
    depths = []
    for camera in cameras:
        viewmat = camera.viewmat.cpu().float()
        depths.append(content.points[::10] @ viewmat[2, :3] + viewmat[2, 3])
    ahead = torch.cat(depths)
    ahead = ahead[ahead > 0]
    if len(ahead) == 0:
        return 1.0, 100.0
    ahead = ahead[:: max(1, len(ahead) // 100_000)]
    near = max(float(ahead.quantile(_TRIM)), 1e-3 * float(ahead.median()))
    return near, max(float(ahead.quantile(1 - _TRIM)), 2 * near)


def _frame(forward: Float[Tensor, " 3"], up: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    if abs(float(forward @ up)) > 0.98:
        up = torch.eye(3)[forward.abs().argmin()]
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    return torch.stack([right, torch.linalg.cross(forward, right), forward])
