"""The objective of smooth depth: surfaces change where pictures do."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.evaluation.protocol import composited
from scene4d.rendering.render import DEPTH, Render
from scene4d.representations.method import DepthSmoothnessOptions
from scene4d.training.objectives.base import Objective, Term, mean
from scene4d.training.step import Step

_OPAQUE = 0.5
"""Pixels count where alpha is above."""


class DepthSmoothness(Objective):
    """The mean of |d w| exp(-edges |d I|) between neighbouring pixels, right and below (Godard et
    al. 2017, eq. 5): w is the inverse of the rendered depth relative to its mean, I the
    photograph's grey value.

    Few photographs do not tell how deep a bare surface lies, and floaters before the cameras cost
    nothing; smooth inverse depth does.
    """

    options: DepthSmoothnessOptions
    want = DEPTH

    def __call__(self, step: Step) -> Term:
        """The mean over the step's views; 0 of single pixels."""
        terms = [self._of(view, step.view(view), step.background) for view in step.views]
        loss = mean(terms)
        return Term(loss=loss, log={"smooth_depth": loss.detach()})

    def _of(self, view: View, render: Render, background: Float[Tensor, " 3"]) -> Float[Tensor, ""]:
        if render.depth is None:
            raise UsageError("the scene renders no depth that could be smooth",
                             fix="give smooth_depth.weight 0")  # fmt: skip
        counts = (render.alpha.detach() > _OPAQUE) & (render.depth.detach() > 0)
        if view.mask is not None:
            counts = counts & view.mask
        if not bool(counts.any()):
            return render.alpha.sum() * 0.0
        inverse = torch.where(counts, render.depth, torch.ones_like(render.depth)).reciprocal()
        inverse = inverse / inverse[counts].detach().mean()
        grey = composited(view, background).mean(dim=-1)
        total, number = render.alpha.sum() * 0.0, 0
        for axis in (-1, -2):
            length = counts.shape[axis] - 1
            both = counts.narrow(axis, 0, length) & counts.narrow(axis, 1, length)
            kept = (-self.options.edges * grey.diff(dim=axis).abs()).exp() * both
            total = total + (kept * inverse.diff(dim=axis).abs()).sum()
            number += int(both.sum())
        return total / max(1, number)
