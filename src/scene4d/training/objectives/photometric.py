"""The photometric objective: renders against photographs."""

from __future__ import annotations

import torch
from torch import Tensor

from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.representations.method import PhotometricOptions
from scene4d.training.objectives.base import Objective, TrainingStep, mean
from scene4d.training.objectives.fused_ssim import fused_l1_ssim


class Photometric(Objective):
    """(1 - w) L1 + w (1 - SSIM) between render and photograph (3DGS, eq. 7)."""

    options: PhotometricOptions

    def __call__(self, step: TrainingStep) -> dict[str, Tensor]:
        """The loss, and the PSNR of this step's views."""
        losses, psnrs = [], []
        for view in step.views:
            target = composited(view, step.background)
            rgb = step.adjustments.exposed(step.render(view).rgb, view.index)
            losses.append(
                fused_l1_ssim(rgb, target, ssim_weight=self.options.ssim_weight, mask=view.mask)
            )
            with torch.no_grad():
                psnrs.append(psnr(rgb.clamp(0, 1), target, mask=view.mask))
        return {"photometric": mean(losses), "psnr": mean(psnrs)}
