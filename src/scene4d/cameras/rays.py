"""Rays: where the pixels of a camera look."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import undistort


@dataclass(frozen=True, kw_only=True, eq=False)
class Rays:
    """Half-lines in the world, in any arrangement."""

    origins: Float[Tensor, "*rays 3"]
    directions: Float[Tensor, "*rays 3"]
    """Of length 1."""
    pixel_area: Float[Tensor, " *rays"] | None = None
    """Solid angle of the ray's pixel in steradian."""


def pixel_centres(
    width: int, height: int, *, device: torch.device | str = "cpu"
) -> Float[Tensor, "{height} {width} 2"]:
    """The (x, y) of every pixel's centre; the top-left one is (0.5, 0.5)."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5,
        torch.arange(width, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def camera_rays(camera: Camera, *, areas: bool = False) -> Rays:
    """One ray per pixel: shape [*batch, height, width, 3] for a camera or batch of cameras."""
    pixels = pixel_centres(camera.width, camera.height, device=camera.K.device).to(camera.K.dtype)
    batch = camera.K.shape[:-2]
    pixels = pixels.reshape(-1, 2).expand(*batch, -1, 2)
    rays = rays_at(camera, pixels, areas=areas)
    shape = (*batch, camera.height, camera.width)
    return Rays(
        origins=rays.origins.reshape(*shape, 3),
        directions=rays.directions.reshape(*shape, 3),
        pixel_area=None if rays.pixel_area is None else rays.pixel_area.reshape(shape),
    )


def rays_at(
    camera: Camera, pixels: Float[Tensor, "*batch num_rays 2"], *, areas: bool = False
) -> Rays:
    """Rays through the given (x, y) positions: ``num_rays`` for each camera of the batch.

    Differentiable in the camera's pose. A distorted camera's rays are bent by its lens; a position
    that its lens cannot reach gives NaN. ``pixel_area`` leaves the lens's distortion out.
    """
    focal = torch.stack([camera.K[..., 0, 0], camera.K[..., 1, 1]], -1)[..., None, :]
    xy = (pixels - camera.K[..., None, :2, 2]) / focal
    if camera.distortion is not None:
        xy = undistort(xy, camera.distortion)
    local = torch.stack([xy[..., 0], -xy[..., 1], -torch.ones_like(xy[..., 0])], -1)
    length = local.norm(dim=-1, keepdim=True)
    directions = (local / length) @ camera.c2w[..., :3, :3].transpose(-1, -2)
    origins = camera.position[..., None, :].expand_as(directions)
    area = None
    if areas:
        area = length[..., 0] ** -3 / (focal[..., 0] * focal[..., 1])
    return Rays(origins=origins, directions=directions, pixel_area=area)


def project(
    camera: Camera, points: Float[Tensor, "*batch num_points 3"]
) -> tuple[Float[Tensor, "*batch num_points 2"], Float[Tensor, "*batch num_points"]]:
    """Pixel positions and depths of world points; the lens's distortion is left out.

    A point with depth 0 or less is behind the camera and its position means nothing.
    """
    viewmat = camera.viewmat
    local = points @ viewmat[..., :3, :3].transpose(-1, -2) + viewmat[..., None, :3, 3]
    depth = local[..., 2]
    safe = torch.where(depth.abs() > 1e-12, depth, torch.full_like(depth, 1e-12))
    image = local @ camera.K.transpose(-1, -2)
    return image[..., :2] / safe[..., None], depth


def unproject(
    camera: Camera, depth: Float[Tensor, "height width"]
) -> Float[Tensor, "height width 3"]:
    """World positions of what a camera's pixels show, from their depth along the viewing axis; the
    lens's distortion is left out."""
    pixels = pixel_centres(camera.width, camera.height, device=depth.device).to(depth.dtype)
    focal = torch.stack([camera.K[0, 0], camera.K[1, 1]])
    xy = (pixels - camera.K[:2, 2]) / focal * depth[..., None]
    local = torch.stack([xy[..., 0], -xy[..., 1], -depth], dim=-1)
    return local @ camera.c2w[:3, :3].T + camera.position
