"""The depth objective: rendered against measured or estimated depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.rendering.render import DEPTH
from scene4d.representations.method import DepthOptions
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step

_LEAST = 1e-3
"""Deviation, as a share of the mean, below which a surface counts as flat: it is not blown up."""


class Depth(Objective):
    """L1 of inverse depth relative to the view's mean inverse depth, where depth was measured.

    Inverse depth bounds the pull of distant surfaces (as in DN-Splatter and 3DGS's depth
    regularisation); dividing by the mean makes the term independent of the scene's unit. Estimated
    depth is right up to more than that: see :func:`shape_difference`.
    """

    options: DepthOptions
    want = DEPTH

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether any training image has a depth map."""
        scene = inputs.task.capture
        return scene is not None and any(
            scene.frames[i].depth_path is not None for i in scene.train_indices
        )

    def __call__(self, step: Step) -> Term:
        """The loss; 0 where no view has depth."""
        terms = []
        for view in step.views:
            factor = self.options.estimated if view.depth_estimated else 1.0
            if view.depth is None or factor == 0:
                continue
            rendered = step.view(view)
            assert rendered.depth is not None
            valid = (view.depth > 0) & (rendered.alpha.detach() > 0.5)
            if view.mask is not None:
                valid &= view.mask
            if not bool(valid.any()):
                continue
            measured = 1.0 / view.depth[valid]
            predicted = 1.0 / rendered.depth[valid].clamp_min(1e-6)
            if view.depth_estimated:
                terms.append(factor * shape_difference(predicted, measured))
            else:
                terms.append((predicted - measured).abs().mean() / measured.mean())
        loss = mean(terms) if terms else torch.zeros((), device=step.background.device)
        return Term(loss=loss, log={"depth": loss})


def shape_difference(
    predicted: Float[Tensor, " pixels"], estimated: Float[Tensor, " pixels"]
) -> Float[Tensor, ""]:
    """L1 of inverse depths, each less its median and over its mean deviation from it; times the
    deviation of ``estimated`` as a share of its mean, which is the unit of measured depth's term.

    No scale and no shift of either counts (Ranftl et al., "Towards robust monocular depth
    estimation", TPAMI 2022, eqs. 5 and 6).
    """
    (p, _), (e, deviation) = _normalised(predicted), _normalised(estimated)
    return (p - e).abs().mean() * deviation / estimated.mean()


def _normalised(values: Tensor) -> tuple[Tensor, Tensor]:
    """And the mean deviation that was divided by."""
    off = values - values.median()
    deviation = off.abs().mean()
    return off / deviation.clamp_min(_LEAST * values.detach().abs().mean()), deviation
