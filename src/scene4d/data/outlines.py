"""Whether a capture's masks are an object's outlines, or holes in photographs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

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
