"""Pictures of a triplane field: by volume rendering, or of its surface as a mesh.

Volume rendering is that of NeuS (Wang et al. 2021, arXiv 2106.10689): from one end of a part of a
ray to the other, what gets through falls by the ratio of sigmoid(distance / blur), and never rises.
A ray that only just meets the surface then has an alpha of 1/2, so that the mesh has the outline
that the fog had. (VolSDF's density, tried first, makes a ball of 0.6, blurred by 0.01, look 5%
larger than its mesh.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, max_pool3d, pad
from torch.utils.checkpoint import checkpoint

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.rendering.fields.volume import RaySamples, volume_render
from scene4d.rendering.isosurface.near_surface import grid_places
from scene4d.rendering.mesh.rasterization import Mesh, rasterize
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.triplane_field import FieldSurface, TriplaneField

RAYS_AT_ONCE = 4096
_FAR, _DEEP = 6.0, 7.0
"""In blurs: farther outside nothing is seen (an alpha of 0.25%), and what lies behind a place so
far inside is hidden (0.1% gets through)."""


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

    blur: float
    """How far the surface is blurred, in half sides of the box: 1 / s of NeuS."""
    steps: int
    """Parts of a ray within the box."""
    phase: float = 0.5
    """Moves the edges of the parts along the ray, by up to half a part: 0..1."""
    rough: Float[Tensor, "n n n"]
    """Distances on a grid over the box: see :func:`rough_distances`."""
    shape_moves: bool = True
    """Whether distances get gradients; otherwise colours alone."""


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
        parts = _parts(origins[part].detach(), directions[part].detach(), fog)
        arguments = (field, origins[part], directions[part], parts, fog)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """The parts of rays that are looked at, and the places where these begin and end."""

    samples: RaySamples
    rays: Int[Tensor, " places"]
    """The ray of each place."""
    distances: Float[Tensor, " places"]
    """Along it."""
    before: Int[Tensor, " n"]
    """The place at which each sample's part begins; the next one is where it ends."""


def _pixels(
    field: TriplaneField, origins: Tensor, directions: Tensor, parts: _Parts, fog: Fog
) -> Float[Tensor, "rays 5"]:
    """Colour, alpha and the weighted sum of distances."""
    places = origins[parts.rays] + parts.distances[:, None] * directions[parts.rays]
    features = field.features(places)
    distance = field.distance_of(places, features)
    through = logsigmoid((distance if fog.shape_moves else distance.detach()) / fog.blur)
    colour = field.colour_of(features)
    first, last = parts.before, parts.before + 1
    depth = (through[first] - through[last]).clamp_min(0)
    density = depth / parts.samples.widths.clamp_min(1e-9)
    middle = (colour[first] + colour[last]) / 2
    seen = volume_render(density[:, None], middle[:, None], parts.samples)
    return torch.cat([seen.rgb, seen.alpha[:, None], seen.distance[:, None]], dim=1)


@torch.no_grad()
def _parts(origins: Tensor, directions: Tensor, fog: Fog) -> _Parts:
    """Those in the box where something may be seen."""
    steep = torch.where(directions.abs() > 1e-9, directions, 1e-9)
    ends = torch.stack([(-1 - origins) / steep, (1 - origins) / steep])
    near = ends.amin(dim=0).amax(dim=1).clamp_min(0)
    far = ends.amax(dim=0).amin(dim=1)
    width = (far - near).clamp_min(0) / fog.steps
    steps = torch.arange(fog.steps + 1, device=origins.device) + (fog.phase - 0.5)
    edges = (near[:, None] + width[:, None] * steps).clamp_min(0)
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    nearest, farthest = _around(fog.rough)
    cells = len(nearest)
    places = origins[:, None] + middles[..., None] * directions[:, None]
    at = ((places + 1) * (cells / 2)).long().clamp(0, cells - 1)
    flat = (at[..., 0] * cells + at[..., 1]) * cells + at[..., 2]
    hidden = (farthest.reshape(-1)[flat] < -_DEEP * fog.blur).cumsum(dim=1) > 1
    kept = (nearest.reshape(-1)[flat] < _FAR * fog.blur) & ~hidden & (width[:, None] > 0)
    asked = pad(kept, (0, 1)) | pad(kept, (1, 0))
    counts = kept.sum(dim=1)
    number = asked.reshape(-1).cumsum(dim=0).reshape(asked.shape) - 1
    return _Parts(
        samples=RaySamples(
            firsts=torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)]),
            middles=middles[kept],
            widths=(edges[:, 1:] - edges[:, :-1])[kept],
        ),
        rays=asked.nonzero()[:, 0],
        distances=edges[asked],
        before=number[:, :-1][kept],
    )


def _around(rough: Float[Tensor, "n n n"]) -> tuple[Float[Tensor, "m m m"], Float[Tensor, "m m m"]]:
    """The least and the largest distance at the corners of each cube and of those around it."""
    values = torch.stack([-rough, rough])[:, None]
    found = max_pool3d(values, 4, stride=1, padding=1)
    return -found[0, 0], found[1, 0]


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
