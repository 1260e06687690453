"""Places of what is seen, as priors of ``xyz`` know them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.rendering.render import Render


def places_seen(
    render: Render, camera: Camera, *, settled: bool
) -> Float[Tensor, "*batch height width 3"]:
    """World coordinates of what each pixel shows; means nothing where alpha is 0.

    ``settled``: those at the one time that was asked for, where the scene can say so. Otherwise,
    and of scenes that cannot, those of the depth, along the lens's rays. Differentiable in both.
    """
    if settled and render.positions is not None:
        return render.positions[..., 0, :, :, :]
    assert render.depth is not None
    rays = camera_rays(camera)
    ahead = -camera.c2w[..., None, None, :3, 2]
    distance = render.depth / (rays.directions * ahead).sum(dim=-1)
    return rays.origins + distance[..., None] * rays.directions


def place_code(places: Float[Tensor, "*pixels 3"], extent: float) -> Float[Tensor, "*pixels 3"]:
    """Places as priors know them: p / (|p| + extent), from the origin, 0, to what is infinitely
    far, which has length 1. In the working frame the origin is the mean of the cameras, and half
    the length is the scene's extent."""
    return places / (places.norm(dim=-1, keepdim=True) + extent)
