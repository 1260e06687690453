"""L1 + D-SSIM in one pass over the image: the photometric loss of 3D Gaussian Splatting.

``loss = (1 - w) mean|p - t| + w (1 - mean SSIM(p, t))`` (Kerbl et al. 2023, eq. 7). The forward
computes the five windowed moments E[p], E[t], E[pp], E[tt], E[pt] of a row at once and from them
the SSIM and its derivatives by E[p], E[pp] and E[pt]; the backward filters these three maps with
the same, symmetric window (as fused-ssim does on CUDA, Mallick et al. 2024, "Taming 3DGS"):

    dL/dp = G * dE[p] + 2 p (G * dE[pp]) + t (G * dE[pt])

Every sum has a fixed order whatever the number of threads: results are reproducible bit by bit.
The kernels are in ``ssim_kernels.py``; on other devices than the CPU the torch reference is used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.evaluation.ssim import C1, C2, WINDOW_RADIUS, gaussian_window, ssim
from scene4d.training.objectives import ssim_kernels


class PhotometricParts(NamedTuple):
    """The loss and, detached, what it is made of."""

    loss: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    """Mean absolute difference of the valid pixels."""
    ssim: Float[Tensor, ""]
    """Mean SSIM of the valid pixels, windows zero-padded at the border."""


def fused_l1_ssim(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    *,
    ssim_weight: float,
    mask: Bool[Tensor, "height width"] | None = None,
) -> Float[Tensor, ""]:
    """``(1 - ssim_weight) L1 + ssim_weight (1 - SSIM)``, a scalar; differentiable in ``pred``.

    Where ``mask`` is False, ``pred`` counts as equal to ``target`` (no gradient), and the pixel is
    left out of both means; with no valid pixel the loss is 0. Raises ``ValueError`` if ``target``
    requires a gradient. The gradient itself cannot be differentiated again.
    """
    return fused_l1_ssim_parts(pred, target, ssim_weight=ssim_weight, mask=mask).loss


def fused_l1_ssim_parts(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    *,
    ssim_weight: float,
    mask: Bool[Tensor, "height width"] | None = None,
) -> PhotometricParts:
    """:func:`fused_l1_ssim` together with its L1 and SSIM for the log."""
    if target.requires_grad:
        raise ValueError("fused_l1_ssim has no gradient for its target: detach it")
    if target.shape != pred.shape or (mask is not None and mask.shape != pred.shape[:2]):
        shapes = [list(x.shape) for x in (pred, target, mask) if x is not None]
        raise ValueError(f"pictures and their mask have the shapes {shapes}")
    target = target.to(pred)
    if pred.device.type != "cpu":
        return reference_l1_ssim_parts(pred, target, ssim_weight=ssim_weight, mask=mask)
    if pred.dtype not in (torch.float32, torch.float64):
        pred, target = pred.float(), target.float()
    return PhotometricParts(*_FusedL1Ssim.apply(pred, target, float(ssim_weight), mask))


def reference_l1_ssim_parts(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    *,
    ssim_weight: float,
    mask: Bool[Tensor, "height width"] | None = None,
) -> PhotometricParts:
    """The same in plain torch, on any device: what the kernels are tested against."""
    if mask is None:
        l1, similarity = (pred - target).abs().mean(), ssim(pred, target)
    elif not mask.any():
        l1, similarity = pred.sum() * 0.0, pred.new_ones(())
    else:
        l1 = torch.where(mask[..., None], pred - target, 0.0).abs().sum() / (3 * mask.sum())
        similarity = ssim(pred, target, mask)
    loss = (1.0 - ssim_weight) * l1 + ssim_weight * (1.0 - similarity)
    return PhotometricParts(loss, l1.detach(), similarity.detach())


class _FusedL1Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, ssim_weight, mask):  # type: ignore[no-untyped-def]
        height, width = pred.shape[:2]
        real = np.float32 if pred.dtype == torch.float32 else np.float64
        window = gaussian_window(dtype=pred.dtype).numpy()
        weights = tuple(window[: WINDOW_RADIUS + 1])
        columns = ssim_kernels.padded_width(width)
        padded = (3, height + 2 * WINDOW_RADIUS, columns)
        planes, valid = np.empty((2, *padded), real), np.empty((height, columns), real)
        # empty: no gradient wanted; the border stays zero: there is no loss beyond the picture
        maps = np.zeros((3 if ctx.needs_input_grad[0] else 0, *padded), real)
        # one memory layout, or Numba would compile the kernels again for every other
        pred_array, target_array = (x.detach().contiguous().numpy() for x in (pred, target))
        mask_array = np.empty((0, 0), np.bool_) if mask is None else mask.contiguous().numpy()
        l1_sums = ssim_kernels.split_planes(pred_array, target_array, mask_array, planes, valid)
        constants = (real(C1), real(C2), real(0.0))
        ssim_sums = ssim_kernels.ssim_maps(planes, valid, weights, constants, maps)
        count = 3.0 * (height * width if mask is None else int(mask.sum()))
        l1 = l1_sums.sum(dtype=np.float64) / max(count, 1.0)
        similarity = ssim_sums.sum(dtype=np.float64) / count if count else 1.0
        ctx.shape, ctx.saved = pred.shape, (planes, maps, valid, weights, ssim_weight, count)
        parts = ((1 - ssim_weight) * l1 + ssim_weight * (1 - similarity), l1, similarity)
        loss, l1, similarity = (pred.new_tensor(part) for part in parts)
        ctx.mark_non_differentiable(l1, similarity)
        return loss, l1, similarity

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _grad_l1, _grad_ssim):  # type: ignore[no-untyped-def]
        planes, maps, valid, weights, ssim_weight, count = ctx.saved
        scale = float(grad_loss) / max(count, 1.0)
        scales = ((1 - ssim_weight) * scale, -ssim_weight * scale, 0.0)
        scales = tuple(planes.dtype.type(value) for value in scales)
        grad = torch.empty(ctx.shape, dtype=grad_loss.dtype)
        ssim_kernels.gradient(planes, maps, valid, weights, scales, grad.numpy())
        return grad, None, None, None
