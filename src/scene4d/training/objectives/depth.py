"""The depth objective: rendered against measured depth."""

from __future__ import annotations

import torch

from scene4d.rendering.render import DEPTH
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step


class Depth(Objective):
    """L1 of inverse depth relative to the view's mean inverse depth, where depth was measured.

    Inverse depth bounds the pull of distant surfaces (as in DN-Splatter and 3DGS's depth
    regularisation); dividing by the mean makes the term independent of the scene's unit.
    """

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
            if view.depth is None:
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
            terms.append((predicted - measured).abs().mean() / measured.mean())
        loss = mean(terms) if terms else torch.zeros((), device=step.background.device)
        return Term(loss=loss, log={"depth": loss})
