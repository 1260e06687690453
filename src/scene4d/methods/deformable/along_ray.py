"""The objective of velocities along the viewing ray, which one camera hardly sees."""

from __future__ import annotations

import torch

from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.method import AlongRayOptions
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step


class AlongRay(Objective):
    """Squared velocity of the nodes along the rays of the step's views, in node spacings a frame.

    Shape of Motion (Wang et al. 2024), its code; where several cameras look from other sides, or
    depth is measured, these say it better.
    """

    options: AlongRayOptions

    def __init__(self, options: AlongRayOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        times = sorted({float(c.time) for c in inputs.task.training_cameras if c.time is not None})
        steps = torch.tensor(times).diff()
        self.frame = float(steps.median()) if len(steps) else 1.0

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Not where depth is measured."""
        scene = inputs.task.capture
        return scene is not None and not scene.measures_depth

    def __call__(self, step: Step) -> Term:
        """The mean over nodes and views."""
        splats = step.representation
        assert isinstance(splats, DeformableSplats)
        nodes, terms = splats.nodes, []
        for view in step.views:
            time = view.camera.time
            if time is None or not len(nodes):
                continue
            half = 0.5 * self.frame
            poses = nodes.poses(torch.stack([time - half, time + half]))
            velocity = (poses[1, :, 4:] - poses[0, :, 4:]) / nodes.timing.spacing
            ray = torch.nn.functional.normalize(poses[0, :, 4:] - view.camera.position, dim=-1)
            terms.append((velocity * ray.detach()).sum(-1).square().mean())
        loss = mean(terms) if terms else step.background.sum() * 0.0
        return Term(loss=loss, log={"along_ray": loss.detach()})
