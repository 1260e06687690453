"""Fixing: renders at cameras that nobody stood at against what a fixer makes of them.

Generate, then reconstruct: repaired pictures lie in the ring of pseudo-views, with how confident
the fixer is of each pixel, and are compared with until newer ones of the better scene replace them.
"""

from __future__ import annotations

from scene4d.priors.fixer import Fixer
from scene4d.representations.method import FixingOptions
from scene4d.training.objectives.away import OfPseudoViews, cameras_beyond, crop_within
from scene4d.training.objectives.base import ObjectiveInputs, Term
from scene4d.training.pseudo_views import PseudoViews
from scene4d.training.references import Confident, FixedScene, References
from scene4d.training.step import Step


class Fixing(OfPseudoViews):
    """The mean absolute difference to repaired pictures, weighed by the fixer's confidence.

    A resumed training goes on with the same pictures: they are part of a checkpoint.
    """

    options: FixingOptions
    needs_views = False

    def __init__(self, options: FixingOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`UsageError` where there are no training pictures."""
        super().__init__(options, inputs)
        task = inputs.task
        assert isinstance(task.fixer, Fixer)
        self.generator, self.device = inputs.generator, inputs.device
        inputs.processes.rows(options.crops, "crops of repaired pictures")
        cameras = task.training_cameras
        self.poses = cameras_beyond(cameras, options)
        self.size = crop_within(options.crop_size, cameras)
        self.source = FixedScene(fixer=task.fixer, references=References(task))
        largest = max(c.width * c.height for c in cameras)
        self.views = PseudoViews(
            Confident(scene=self.source), cameras, budget_bytes=4.0 * largest * options.pictures,
            cell=max(1, min(self.size) // 2), device=inputs.device, kept=True,
            processes=inputs.processes,
        )  # fmt: skip

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether there is a fixer."""
        return inputs.task.fixer is not None

    def __call__(self, step: Step) -> Term:
        """The term; in the log also the mean confidence."""
        self.source.scene = step.scene()
        if step.number % self.options.refresh_every == 0 or not len(self.views):
            for camera in self.poses.draw(self.generator):
                self.views.add(camera)
        options = self.options
        places = self.views.draw(options.crops, hard=0.0, size=self.size, generator=self.generator)
        crops = self.views.crops(places)
        render = step.render(crops.camera)
        # a step's background is drawn at random
        there = self.source.references.background.to(step.background)
        rgb = render.rgb + (1 - render.alpha)[..., None] * (there - step.background)
        confidence = crops.alpha[..., None]
        loss = (confidence * (rgb - crops.rgb).abs()).mean()
        return Term(loss=loss, log={"fixing": loss, "fixer_confidence": confidence.mean()})
