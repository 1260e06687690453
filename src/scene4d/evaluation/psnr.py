"""Peak signal-to-noise ratio."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_MSE = 1e-10
"""Equal images score 100 dB instead of infinity, so that means and JSON stay finite."""


def psnr(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    mask: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, " *batch"]:
    """``-10 log10(MSE)`` in decibels, one value per image; images in 0..1, differentiable.

    Pixels where ``mask`` is False are left out of the mean exactly. Never above 100 dB (see
    :data:`SMALLEST_MSE`); an image without a valid pixel scores NaN, for there is nothing to say.
    """
    error = (pred - target) ** 2
    if mask is None:
        mse = error.mean(dim=(-3, -2, -1))
    else:
        # where, not a product: a NaN in a pixel that is masked out must not count
        kept = error.where(mask[..., None], 0.0).sum(dim=(-3, -2, -1))
        mse = kept / (3 * mask.sum(dim=(-2, -1))).to(kept.dtype)
    return -10.0 * mse.clamp_min(SMALLEST_MSE).log10()
