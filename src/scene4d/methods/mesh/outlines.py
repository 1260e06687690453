"""Whether a capture's masks are an object's outlines, or holes in photographs."""

from __future__ import annotations

import torch

from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.silhouette import Silhouette


class Outlines(Silhouette):
    """Alpha against masks, where these leave out most of the pictures' borders: then they are those
    of an object. A passer-by's leaves most of it in, and says nothing of the surface behind."""

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether masks are an object's."""
        if not super().applies_to(inputs):
            return False
        task = inputs.task
        masks = (task.images.view(i).mask for i in task.scene.train_indices)
        borders = [
            torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            for mask in masks
            if mask is not None
        ]
        return float(torch.cat(borders).float().mean()) < 0.5
