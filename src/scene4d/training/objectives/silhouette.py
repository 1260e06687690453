"""Alpha against masks, where masks are the outline of an object."""

from __future__ import annotations

from scene4d.data.outlines import leave_out_borders
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step

_LOOKED_AT = 24
"""Pictures, at most."""


class Silhouette(Objective):
    """Mean absolute difference between alpha and masks: without it what is dark goes, as pictures
    without alpha are compared on black."""

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether any training picture has a mask."""
        task = inputs.task
        if task.capture is None:
            return False
        return any(task.images.view(i).mask is not None for i in task.scene.train_indices)

    def __call__(self, step: Step) -> Term:
        """0: what masks leave is all there, and nothing else is."""
        terms = [
            (step.view(view).alpha - view.mask.float()).abs().mean()
            for view in step.views
            if view.mask is not None
        ]
        loss = mean(terms) if terms else step.background.new_zeros(())
        return Term(loss=loss, log={"silhouette": loss})


class Outlines(Silhouette):
    """The same where masks leave out most of the pictures' borders: then they are those of an
    object. A passer-by's leaves most of it in, and says nothing of the surface behind."""

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether masks are an object's, by some training pictures."""
        task = inputs.task
        if task.capture is None:
            return False
        train = task.scene.train_indices
        chosen = train[:: -(-len(train) // _LOOKED_AT)]
        return leave_out_borders(task.images.view(i).mask for i in chosen)
