"""The photometric objective: renders against photographs."""

from __future__ import annotations

import torch
from torch import Tensor

from scene4d.data.scene import View
from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.representations.method import PhotometricOptions
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.objectives.fused_ssim import fused_l1_ssim
from scene4d.training.step import Step


class Photometric(Objective):
    """(1 - w) L1 + w (1 - SSIM) between render and photograph (3DGS, eq. 7)."""

    options: PhotometricOptions

    def __init__(self, options: PhotometricOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        capture = inputs.task.capture
        weights = [1.0] if capture is None else [frame.weight for frame in capture.frames]
        self.weights = None if set(weights) == {1.0} else torch.tensor(weights)

    def __call__(self, step: Step) -> Term:
        """The loss, and the PSNR of this step's views. Of crops, the mean over them; rays have no
        neighbours, so there it is L1 alone."""
        losses, psnrs = [], []
        for view in step.views:
            target = composited(view, step.background)
            rgb = step.view(view).rgb
            if step.adjustments is not None:
                rgb = step.adjustments.exposed(rgb, view.index)
            losses.append(self._loss(rgb, target, view.mask, self._weights(view)))
            with torch.no_grad():
                psnrs.append(_psnr(rgb.clamp(0, 1), target, view.mask))
        loss = mean(losses)
        return Term(loss=loss, log={"photometric": loss, "psnr": mean(psnrs)})

    def _weights(self, view: View) -> Tensor | None:
        """Of the view's picture, or of each of a batch; None: all count alike."""
        return None if self.weights is None else self.weights[view.index].to(view.rgb)

    def _loss(
        self, rgb: Tensor, target: Tensor, mask: Tensor | None, weights: Tensor | None = None
    ) -> Tensor:
        share = self.options.ssim_weight
        if rgb.ndim == 3:
            loss = fused_l1_ssim(rgb, target, ssim_weight=share, mask=mask)
            return loss if weights is None else weights * loss
        if rgb.shape[1:3] == (1, 1):
            difference = (rgb - target).abs()[:, 0, 0]
            if weights is not None:
                difference = weights[:, None] * difference
            return difference.mean() if mask is None else _mean_where(difference, mask[:, 0, 0])
        masks = [None] * len(rgb) if mask is None else list(mask)
        crops = zip(rgb, target, masks, strict=True)
        losses = [fused_l1_ssim(r, t, ssim_weight=share, mask=m) for r, t, m in crops]
        return mean(losses) if weights is None else (weights * torch.stack(losses)).mean()


def _psnr(rgb: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Over all pixels, of a batch together."""
    if rgb.ndim == 4:
        rgb, target = rgb.flatten(0, 1), target.flatten(0, 1)
        mask = None if mask is None else mask.flatten(0, 1)
    return psnr(rgb, target, mask=mask)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over rows where ``mask``; 0 where there are none."""
    return (values * mask[:, None]).sum() / (mask.sum() * values.shape[1]).clamp_min(1)
