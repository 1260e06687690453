"""Structural similarity (Wang et al. 2004, eq. 13) as plain, differentiable torch.

The window is an 11x11 Gaussian of sigma 1.5, normalised to sum 1 and centred on its pixel;
``C1 = 0.01^2`` and ``C2 = 0.03^2`` for images in 0..1; variances are those of the window itself
(divided by the sum of weights, not by n - 1); channels are treated separately and averaged.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

WINDOW_RADIUS = 5
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2

Padding = Literal["zero", "valid"]


def gaussian_window(
    *, dtype: torch.dtype, device: torch.device | None = None
) -> Float[Tensor, " 11"]:
    """The one-dimensional window: 11 Gaussian weights that sum to 1."""
    offsets = torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return (weights / weights.sum()).to(device=device, dtype=dtype)


def ssim_map(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    *,
    padding: Padding = "zero",
) -> Float[Tensor, "*batch map_height map_width 3"]:
    """The SSIM of the window around every pixel; images in 0..1.

    ``padding="zero"``: a value for every pixel, windows beyond the border see black in both
    images, as in the 3D Gaussian Splatting code and fused-ssim. ``padding="valid"``: only windows
    that lie inside the picture (5 pixels fewer on each side), as in Wang et al. and
    ``skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)``.
    """
    height, width = pred.shape[-3:-1]
    if padding == "valid" and min(height, width) < 2 * WINDOW_RADIUS + 1:
        raise ValueError(f"'valid' SSIM needs 11x11 pixels or more, got {width}x{height}")
    planes_of = (-1, 1, height, width)
    x = pred.movedim(-1, -3).reshape(planes_of)
    y = target.movedim(-1, -3).reshape(planes_of)
    weights = gaussian_window(dtype=pred.dtype, device=pred.device)
    pad = WINDOW_RADIUS if padding == "zero" else 0

    def windowed(planes: Tensor) -> Tensor:
        rows = functional.conv2d(planes, weights[None, None, :, None], padding=(pad, 0))
        return functional.conv2d(rows, weights[None, None, None, :], padding=(0, pad))

    mean_x, mean_y = windowed(x), windowed(y)
    var_x = windowed(x * x) - mean_x**2
    var_y = windowed(y * y) - mean_y**2
    cov = windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    result = (luminance * structure).reshape(*pred.shape[:-3], 3, *mean_x.shape[-2:])
    return result.movedim(-3, -1)


def ssim(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    mask: Bool[Tensor, "*batch height width"] | None = None,
    *,
    padding: Padding = "zero",
) -> Float[Tensor, " *batch"]:
    """The mean SSIM, one value per image; see :func:`ssim_map` for the two kinds of ``padding``.

    With a ``mask``, the map is averaged over valid pixels only, and ``pred`` takes the target's
    value where the mask is False, so that nothing ``pred`` shows there counts through the windows
    of valid neighbours. An image without a valid pixel scores NaN.
    """
    if mask is None:
        return ssim_map(pred, target, padding=padding).mean(dim=(-3, -2, -1))
    similarity = ssim_map(torch.where(mask[..., None], pred, target), target, padding=padding)
    if padding == "valid":
        inner = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
        mask = mask[..., inner, inner]
    kept = similarity.where(mask[..., None], 0.0).sum(dim=(-3, -2, -1))
    return kept / (3 * mask.sum(dim=(-2, -1))).to(kept.dtype)
