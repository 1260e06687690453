"""Whether a capture's masks are an object's outlines, or holes in photographs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from scene4d.data.scene import View

_WITHIN = 0.05
"""Where the line lies, as a share of the sides."""


def leave_out_borders(masks: Iterable[Bool[Tensor, "height width"] | None]) -> bool:
    """Whether masks are an object's: False along most of a line just within the pictures' borders,
    beyond which undistorted pictures have nothing. A passer-by's leaves most of it in."""
    lines = []
    for mask in masks:
        if mask is not None:
            height, width = (round(_WITHIN * n) for n in mask.shape)
            inner = mask[height : len(mask) - height, width : mask.shape[1] - width]
            lines += [inner[0], inner[-1], inner[:, 0], inner[:, -1]]
    return bool(lines) and float(torch.cat(lines).float().mean()) < 0.5


def outlines_of(views: Iterable[View]) -> dict[int, Bool[Tensor, "height width"]]:
    """By the index of their view, the pixels that show the object, where pictures say so: by alpha,
    or by masks that leave out the borders."""
    looks = list(views)
    masked = leave_out_borders(view.mask for view in looks)
    found = {}
    for view in looks:
        told = [] if view.alpha is None else [view.alpha > 0.5]
        if masked and view.mask is not None:
            told.append(view.mask)
        if told:
            assert isinstance(view.index, int), "not a batch"
            found[view.index] = torch.stack(told).all(dim=0)
    return found
