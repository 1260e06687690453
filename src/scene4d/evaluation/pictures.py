"""Pictures for the eye: photograph, render and error beside each other."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from scene4d.files import atomic_path

ERROR_AT_TOP = 0.25
"""The mean absolute difference of the channels that is drawn in the brightest colour."""
GAP = 4
"""White pixels between the pictures."""
_HEAT = (
    (0.00, 0.00, 0.01),
    (0.34, 0.06, 0.43),
    (0.73, 0.21, 0.33),
    (0.98, 0.55, 0.04),
    (0.99, 1.00, 0.64),
)
"""Black, violet, red, orange, pale yellow at equal distances: even steps in lightness."""
_EXCLUDED = (0.35, 0.35, 0.38)


def error_heat(
    pred: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None = None,
) -> Float[Tensor, "h w 3"]:
    """The absolute difference, averaged over channels, as colours: black is 0, pale yellow 0.25.

    Pixels that ``mask`` excludes are grey.
    """
    error = ((pred - target).abs().mean(dim=-1) / ERROR_AT_TOP).clamp(0.0, 1.0)
    colors = error.new_tensor(_HEAT)
    position = error * (len(_HEAT) - 1)
    below = position.floor().long().clamp_max(len(_HEAT) - 2)
    share = (position - below)[..., None]
    heat = colors[below] * (1 - share) + colors[below + 1] * share
    return heat if mask is None else torch.where(mask[..., None], heat, heat.new_tensor(_EXCLUDED))


def side_by_side(
    target: Float[Tensor, "h w 3"],
    pred: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None = None,
) -> UInt8[Tensor, "h wide 3"]:
    """Photograph | render | error."""
    gap = torch.ones_like(target[:, :GAP])
    joined = torch.cat([target, gap, pred, gap, error_heat(pred, target, mask)], dim=1)
    return (joined.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def write_picture(path: Path, pixels: UInt8[Tensor, "h w 3"]) -> None:
    """Writes a PNG, atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels.cpu().numpy()).save(temporary, compress_level=3)
