"""Pictures of a triplane field: by volume rendering, or of its surface as a mesh.

Volume rendering takes the density of VolSDF (Yariv et al. 2021, arXiv 2106.12052): with the
distance d, the distribution function of Laplace's distribution of mean 0 and scale ``beta``, at -d,
over ``beta``. It needs no normals, which planes that are read bilinearly hardly have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool3d
from torch.utils.checkpoint import checkpoint

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.rendering.fields.volume import RaySamples, volume_render
from scene4d.rendering.isosurface.near_surface import grid_places
from scene4d.rendering.mesh.rasterization import Mesh, rasterize
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.triplane_field import FieldSurface, TriplaneField

RAYS_AT_ONCE = 4096
_LEAST_ALPHA = 0.003
"""A cube is empty where a step through it adds less at all its corners and those beside it."""
_OPAQUE = 7.0
"""Optical depth behind which nothing is looked at: 0.1% gets through."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """The cube in the scene that a field fills."""

    centre: tuple[float, float, float]
    half: float
    """Half a side, scene units."""

    def inside(self, places: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Scene coordinates in those of the box, [-1, 1]^3."""
        return (places - places.new_tensor(self.centre)) / self.half

    def outside(self, places: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """The way back."""
        return places * self.half + places.new_tensor(self.centre)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fog:
    """How a field is volume rendered."""

    beta: float
    """Scale of the density, in half sides of the box: how far the surface is blurred."""
    steps: int
    """Parts of a ray within the box."""
    phase: float = 0.5
    """Where in its part a sample lies, 0..1."""
    rough: Float[Tensor, "n n n"]
    """Distances on a grid over the box: see :func:`rough_distances`."""

    def density(self, distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Per half side of the box."""
        tail = 0.5 * torch.exp(-distance.abs() / self.beta)
        return torch.where(distance > 0, tail, 1 - tail) / self.beta


@torch.no_grad()
def rough_distances(field: TriplaneField, cells: int) -> Float[Tensor, "n n n"]:
    """The field's distances on a grid of ``cells`` along a side of its box."""
    low = field.table.new_full((3,), -1.0)
    return field.distance(grid_places(low, -low, cells)).reshape(3 * (cells + 1,))


def fog_picture(
    field: TriplaneField,
    box: Box,
    camera: Camera,
    fog: Fog,
    *,
    background: Float[Tensor, " 3"] | None = None,
    want: Want = RGB,
) -> Render:
    """The field in its box, volume rendered: one camera or a batch; differentiable in the field and
    in the camera's pose. With gradients, more than one chunk of rays is rendered again on the way
    back."""
    rays = camera_rays(camera)
    shape = rays.origins.shape[:-1]
    origins, directions = box.inside(rays.origins).reshape(-1, 3), rays.directions.reshape(-1, 3)
    again = len(origins) > RAYS_AT_ONCE and torch.is_grad_enabled()
    chunks = []
    for first in range(0, len(origins), RAYS_AT_ONCE):
        part = slice(first, first + RAYS_AT_ONCE)
        samples = _samples(origins[part].detach(), directions[part].detach(), fog)
        arguments = (field, origins[part], directions[part], samples, fog)
        if again:
            chunks.append(checkpoint(_pixels, *arguments, use_reentrant=False))
        else:
            chunks.append(_pixels(*arguments))
    pixels = torch.cat(chunks).reshape(*shape, 5)
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    if background is not None:
        rgb = rgb + (1 - alpha)[..., None] * background
    depth = None
    if want.depth:
        forward = -camera.c2w[..., None, None, :3, 2]
        along = (rays.directions * forward).sum(dim=-1) * box.half
        depth = pixels[..., 4] / alpha.clamp_min(1e-6) * along
    return Render(rgb=rgb, alpha=alpha, depth=depth)


def _pixels(
    field: TriplaneField, origins: Tensor, directions: Tensor, samples: RaySamples, fog: Fog
) -> Float[Tensor, "rays 5"]:
    """Colour, alpha and the weighted sum of distances."""
    rays = samples.rays()
    places = origins[rays] + samples.middles[:, None] * directions[rays]
    features = field.features(places)
    density = fog.density(field.distance_of(places, features))
    colour = field.colour_of(features)
    seen = volume_render(density[:, None], colour[:, None], samples)
    return torch.cat([seen.rgb, seen.alpha[:, None], seen.distance[:, None]], dim=1)


@torch.no_grad()
def _samples(origins: Tensor, directions: Tensor, fog: Fog) -> RaySamples:
    """One in each part of a ray that lies in the box, where something may be seen."""
    steep = torch.where(directions.abs() > 1e-9, directions, 1e-9)
    ends = torch.stack([(-1 - origins) / steep, (1 - origins) / steep])
    near = ends.amin(dim=0).amax(dim=1).clamp_min(0)
    far = ends.amax(dim=0).amin(dim=1)
    width = (far - near).clamp_min(0) / fog.steps
    parts = torch.arange(fog.steps, device=origins.device) + fog.phase
    middles = near[:, None] + width[:, None] * parts
    places = origins[:, None] + middles[..., None] * directions[:, None]
    most, least = _densities(fog)
    cells = len(most)
    at = ((places + 1) * (cells / 2)).long().clamp(0, cells - 1)
    flat = (at[..., 0] * cells + at[..., 1]) * cells + at[..., 2]
    hidden = (least.reshape(-1)[flat] * width[:, None]).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
    kept = (most.reshape(-1)[flat] * width[:, None] > _LEAST_ALPHA) & (before < _OPAQUE)
    counts = kept.sum(dim=1)
    return RaySamples(
        firsts=torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)]),
        middles=middles[kept],
        widths=width[:, None].expand_as(middles)[kept],
    )


def _densities(fog: Fog) -> tuple[Float[Tensor, "m m m"], Float[Tensor, "m m m"]]:
    """The most in each cube of the rough grid and in those around it, and the least."""
    density = fog.density(fog.rough)[None, None]
    most = max_pool3d(max_pool3d(density, 2, stride=1), 3, stride=1, padding=1)
    least = -max_pool3d(-density, 4, stride=1, padding=1)
    return most[0, 0], least[0, 0]


def mesh_picture(
    field: TriplaneField,
    box: Box,
    camera: Camera,
    surface: FieldSurface,
    *,
    background: Float[Tensor, " 3"] | None = None,
    want: Want = RGB,
) -> Render:
    """The field's surface, rasterised, in the field's colours at the places that pixels show; one
    camera or a batch. Differentiable in the field, through the mesh, and in the camera's pose.
    ``extras["surface"]`` holds ``surface`` where gradients are taken."""
    batch = camera.c2w.shape[:-2]
    mesh = Mesh(
        vertices=box.outside(surface.mesh.vertices),
        triangles=surface.mesh.triangles,
        paint=lambda places: field.colour(box.inside(places)),
    )
    views = camera.viewmat.reshape(-1, 4, 4)
    intrinsics = camera.K.expand(*batch, 3, 3).reshape(-1, 3, 3)
    pictures = [
        rasterize(mesh, v, K, width=camera.width, height=camera.height, depths=want.depth)
        for v, K in zip(views, intrinsics, strict=True)
    ]
    shape = (*batch, camera.height, camera.width)
    alpha = torch.stack([picture.alpha for picture in pictures]).reshape(shape)
    rgb = torch.stack([picture.rgb for picture in pictures]).reshape(*shape, 3)
    if background is not None:
        rgb = rgb + (1 - alpha)[..., None] * background
    depths = [picture.depths for picture in pictures if picture.depths is not None]
    return Render(
        rgb=rgb,
        alpha=alpha,
        depth=torch.stack(depths).reshape(shape) if depths else None,
        extras={"surface": surface} if torch.is_grad_enabled() else {},
    )
