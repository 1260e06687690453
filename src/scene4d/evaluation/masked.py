"""DyCheck's masked metrics: what can be judged of a dynamic scene from another camera.

Gao et al., "Monocular Dynamic View Synthesis: A Reality Check" (NeurIPS 2022), as its code
computes them. A prediction is rounded to 8 bits first. Only pixels count whose surface the
training pictures show (:mod:`scene4d.evaluation.covisible`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from scene4d.evaluation.lpips import SMALLEST_SIDE, lpips_map
from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.ssim import C1, C2, WINDOW_RADIUS, gaussian_window

MASKED_METRICS = {
    "mpsnr": "PSNR over covisible pixels; the render rounded to 8 bits (DyCheck)",
    "mssim": "11x11 Gaussian window of sigma 1.5, partial convolution, whole windows, mean of the "
    "whole map: windows without a covisible pixel count 1 (DyCheck)",
    "mlpips": "v0.1, AlexNet, map of the pictures times the mask, mean over covisible pixels "
    "(DyCheck)",
    "mpsnr_moving": "mPSNR of the covisible pixels whose surface moves at any time",
    "mpsnr_still": "mPSNR of the other covisible pixels",
}
"""What these figures of eval.json are, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Which pixels of a held-out picture count for what."""

    covisible: Bool[Tensor, "height width"] | None
    """Whose surface the training pictures show; None: not known."""
    moving: Bool[Tensor, "height width"] | None = None
    """Whose surface moves at any time; None: not known."""
    covisible_from_flow: bool = False
    """Whether it was made here; else the capture says it."""
    moving_from_flow: bool = False


@dataclass(frozen=True, kw_only=True)
class MaskedFigures:
    """The masked figures of one picture; None where no pixel counts or nothing is known."""

    mpsnr: float | None = None
    mssim: float | None = None
    mlpips: float | None = None
    mpsnr_moving: float | None = None
    mpsnr_still: float | None = None
    covisible_share: float | None = None


def rounded(picture: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A picture in 0..1 as a file of 8 bits a channel would hold it."""
    return (picture.clamp(0.0, 1.0) * 255.0).round() / 255.0


def masked_figures(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    regions: Regions,
    *,
    mask: Bool[Tensor, "height width"] | None = None,
    with_lpips: bool = True,
) -> MaskedFigures:
    """The figures of one picture in 0..1; ``mask``: pixels that count at all."""
    pred = rounded(pred)
    everywhere = torch.ones(pred.shape[:2], dtype=torch.bool, device=pred.device)
    counts = everywhere if mask is None else mask
    moving = still = None
    known = counts if regions.covisible is None else counts & regions.covisible.to(pred.device)
    if regions.moving is not None:
        there = regions.moving.to(pred.device)
        moving, still = _psnr(pred, target, known & there), _psnr(pred, target, known & ~there)
    if regions.covisible is None:
        return MaskedFigures(mpsnr_moving=moving, mpsnr_still=still)
    some = bool(known.any())
    large = min(pred.shape[:2]) >= SMALLEST_SIDE
    return MaskedFigures(
        mpsnr=_psnr(pred, target, known),
        mssim=float(masked_ssim(pred, target, known)) if some else None,
        mlpips=float(masked_lpips(pred, target, known)) if some and large and with_lpips else None,
        mpsnr_moving=moving,
        mpsnr_still=still,
        covisible_share=float(known.float().mean()),
    )


def _psnr(pred: Tensor, target: Tensor, mask: Tensor) -> float | None:
    return float(psnr(pred, target, mask)) if bool(mask.any()) else None


def masked_ssim(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"],
) -> Float[Tensor, ""]:
    """The mean over all whole windows of an SSIM that sees the pixels of ``mask`` alone.

    Rows first, then columns: each a sum over the pixels that count, divided by the share of pixels
    that do (Liu et al. 2018, sec. 3.1; the share is not weighted by the Gaussian). A window without
    any is equal in both pictures, so it counts 1. Pictures below 11x11 raise :class:`ValueError`.
    """
    if min(pred.shape[:2]) < 2 * WINDOW_RADIUS + 1:
        raise ValueError(f"masked SSIM needs 11x11 pixels or more, got {tuple(pred.shape[:2])}")
    x, y = (picture.movedim(-1, 0)[:, None] for picture in (pred, target))
    counts = mask.to(pred.dtype)[None, None]
    mean_x, mean_y = _partial(x, counts), _partial(y, counts)
    var_x = (_partial(x * x, counts) - mean_x**2).clamp_min(0.0)
    var_y = (_partial(y * y, counts) - mean_y**2).clamp_min(0.0)
    cov = _partial(x * y, counts) - mean_x * mean_y
    cov = cov.sign() * torch.minimum((var_x * var_y).sqrt(), cov.abs())
    similarity = (2 * mean_x * mean_y + C1) * (2 * cov + C2)
    return (similarity / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))).mean()


def _partial(
    planes: Float[Tensor, "n 1 height width"], counts: Float[Tensor, "1 1 height width"]
) -> Float[Tensor, "n 1 h w"]:
    """The Gaussian window over pixels that count, along rows, then along columns."""
    weights = gaussian_window(dtype=planes.dtype, device=planes.device)
    for window in (weights[None, None, None, :], weights[None, None, :, None]):
        there = functional.conv2d(counts, torch.ones_like(window))
        planes = functional.conv2d(planes * counts, window) * window.numel() / there.clamp_min(1.0)
        counts = (there > 0).to(planes.dtype)
    return planes


def masked_lpips(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"],
) -> Float[Tensor, ""]:
    """LPIPS of the pictures times ``mask``, averaged over its pixels."""
    counts = mask[..., None].to(pred.dtype)
    with torch.no_grad():
        return lpips_map(pred * counts, target * counts)[mask].mean()
