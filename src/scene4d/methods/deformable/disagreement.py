"""The objective that keeps small what each picture has apart from the others."""

from __future__ import annotations

import torch

from scene4d.methods.deformable.four_real import FourRealSplats
from scene4d.methods.deformable.four_real_method import DisagreementOptions
from scene4d.training.objectives.base import Objective, Term
from scene4d.training.step import Step


class Disagreement(Objective):
    """The mean absolute value (4Real has 0.01 of the L1 norms) of the deformations and the changes
    of colour of the step's pictures."""

    options: DisagreementOptions

    def __call__(self, step: Step) -> Term:
        """The term, in hundredths of the scene's extent, of a radian and of full colour."""
        splats = step.representation
        assert isinstance(splats, FourRealSplats)
        total = step.background.new_zeros(())
        exposure = None if step.adjustments is None else step.adjustments.exposure
        for view in step.views:
            assert isinstance(view.index, int)
            own = splats.own_of(view.index)
            if own is not None:
                total = total + own.abs().mean()
            if exposure is not None:
                same = torch.eye(3, 4, device=exposure.device)
                change = (exposure[view.index] - same).abs().mean()
                total = total + self.options.colour * change
        loss = 100 * total / max(1, len(step.views))
        return Term(loss=loss + splats.nodes.no_loss(), log={"disagreement": loss.detach()})
