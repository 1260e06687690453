"""Normals of what is seen, by the depths of neighbouring pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

_THERE = 0.5
"""The least alpha of a neighbour that counts."""


def normals_of_depth(
    depth: Float[Tensor, "*batch height width"],
    alpha: Float[Tensor, "*batch height width"],
    K: Float[Tensor, "*#batch 3 3"],
) -> Float[Tensor, "*batch height width 3"]:
    """Unit normals toward the camera times ``alpha``: x right, y up, z out of the picture.

    The cross product of the differences to the pixels left and right, above and below; at an
    outline, of those that show something too. 0 where there are none. ``depth`` along the viewing
    axis; differentiable in it and in ``alpha``.
    """
    rows, columns = (torch.arange(n, device=depth.device) + 0.5 for n in depth.shape[-2:])
    at = K[..., None, None, :, :]
    x = (columns - at[..., 0, 2]) / at[..., 0, 0]
    y = (rows[:, None] - at[..., 1, 2]) / at[..., 1, 1]
    x, y = (part.expand(depth.shape) for part in (x, y))
    places = depth[..., None] * torch.stack([x, -y, -torch.ones_like(x)], dim=-1)
    there = alpha.detach() > _THERE
    right = _neighbour(places, there, -2, 1) - _neighbour(places, there, -2, -1)
    down = _neighbour(places, there, -3, 1) - _neighbour(places, there, -3, -1)
    # Lengths are those of pixels: an epsilon that does not depend on the scene's unit.
    normals = normalize(torch.linalg.cross(down, right), dim=-1, eps=1e-30)
    return normals * (alpha * there)[..., None]


def _neighbour(places: Tensor, there: Tensor, axis: int, step: int) -> Tensor:
    """The place of the next pixel along an axis, or a pixel's own where that one shows nothing."""
    count = places.shape[axis]
    index = (torch.arange(count, device=places.device) + step).clamp(0, count - 1)
    known = there.index_select(axis + 1, index)
    return torch.where(known[..., None], places.index_select(axis, index), places)
