"""A picture seen from another camera, by the depth of what that camera shows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import project, unproject
from scene4d.rendering.render import Render

_OPAQUE = 0.5
_NEARER = 1.05
"""A surface is the one that the other camera sees where it lies at most 5% behind it."""


def warped(
    picture: Float[Tensor, "height width 3"],
    from_camera: Camera,
    seen_there: Render,
    to_camera: Camera,
    seen_here: Render,
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """The colours of ``picture`` at the surfaces that ``seen_here`` shows, and where they are
    known: inside of the picture, at an opaque surface, which ``seen_there`` does not hide.

    Both renders are of one scene, with depth; sizes may differ. 0 where nothing is known. Where the
    depth is wrong the colours are those of another place: who asks compares several pictures.
    """
    assert seen_here.depth is not None and seen_there.depth is not None
    points = unproject(to_camera, seen_here.depth).flatten(0, 1)
    xy, away = project(from_camera, points)
    sides = xy.new_tensor([from_camera.width, from_camera.height])
    place = (2 * xy / sides - 1).nan_to_num(9.0, 9.0, -9.0).clamp(-9, 9)
    inside = (away > 0) & (place.abs() < 1).all(dim=-1)
    grid = place.view(1, *seen_here.depth.shape, 2)
    depths = torch.stack([seen_there.depth, seen_there.alpha])
    distance, opacity = _sampled(depths, grid).flatten(1)
    hidden = (away > _NEARER * distance) & (opacity > _OPAQUE)
    known = (inside & ~hidden).view(seen_here.depth.shape) & (seen_here.alpha > _OPAQUE)
    colours = _sampled(picture.permute(2, 0, 1), grid).permute(1, 2, 0)
    return colours * known[..., None], known


def _sampled(maps: Float[Tensor, "channels _ _"], grid: Tensor) -> Tensor:
    """Bilinear, of pixels' centres."""
    sampled = functional.grid_sample(maps[None], grid.to(maps), padding_mode="border",
                                     align_corners=False)  # fmt: skip
    return sampled[0]
