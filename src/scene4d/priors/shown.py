"""A prior's pictures as pictures for people: colours, depth from blue to red, normals."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.priors.prior import CHANNELS, Kind, PriorInfo
from scene4d.rendering.colormap import turbo


def shown(
    pictures: Float[Tensor, "batch channels height width"], info: PriorInfo
) -> dict[Kind, Float[Tensor, "batch height width 3"]]:
    """By kind, 0..1; depth from the nearest of all pictures (blue) to the farthest (red)."""
    low, high = info.value_range
    parts = pictures.split([CHANNELS[kind] for kind in info.channels], dim=1)
    found: dict[Kind, Tensor] = {}
    for kind, part in zip(info.channels, parts, strict=True):
        if kind == "depth":
            near, far = part.amin(), part.amax()
            found[kind] = turbo((part[:, 0] - near) / (far - near).clamp_min(1e-6))
        else:
            found[kind] = ((part - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1)
    return found


def sheet(
    pictures: Float[Tensor, "batch channels height width"], info: PriorInfo
) -> Float[Tensor, "rows columns 3"]:
    """All of them beside each other, a row for each kind; 0..1."""
    rows = [torch.cat(list(maps), dim=1) for maps in shown(pictures, info).values()]
    return torch.cat(rows, dim=0)
