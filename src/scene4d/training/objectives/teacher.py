"""The teacher's objective: renders against another representation's, where nobody photographed.

Each step compares crops of pseudo-views. A crop is a camera (:meth:`Camera.cropped`), so that any
representation is asked in the usual way, for one batch of small pictures.
"""

from __future__ import annotations

import logging

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.between import CamerasBetween, Spread
from scene4d.rendering.render import Render, Want
from scene4d.representations.method import TeacherOptions
from scene4d.training.objectives.away import OfPseudoViews, crop_within
from scene4d.training.objectives.base import ObjectiveInputs, Term
from scene4d.training.pseudo_views import Crops, PseudoViews
from scene4d.training.step import Step

_log = logging.getLogger("scene4d")
_OPAQUE = 0.5
"""Depth is compared where the teacher's alpha is above."""


class Teaching(OfPseudoViews):
    """Colour, alpha and depth of crops of the teacher's pictures.

    The pictures' cameras are drawn by :class:`CamerasBetween`, the pictures streamed by
    :class:`PseudoViews`. A resumed training draws the same cameras and crops as one that was not
    stopped; only pictures are rendered again, on first use, so its numbers are the same wherever
    the teacher renders the same bits twice.
    """

    options: TeacherOptions
    needs_views = False

    def __init__(self, options: TeacherOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`UsageError` where the budget does not hold one picture."""
        super().__init__(options, inputs)
        task = inputs.task
        assert task.teacher is not None
        cameras = task.training_cameras
        spread = Spread(between=options.between, jitter=options.jitter, turn=options.turn)
        self.cameras = CamerasBetween(cameras, spread)
        if self.cameras.in_one_place:
            _log.warning(
                "no training camera has a neighbour that stands elsewhere and looks the same way: "
                "the teacher shows nothing but turned views, and what is learned from it holds "
                "only there"
            )
        self.generator = inputs.generator
        inputs.processes.rows(options.crops, "crops")
        self.size = crop_within(options.crop_size, cameras)
        self.views = PseudoViews(
            task.teacher,
            cameras,
            budget_bytes=options.cache_mb * 1e6,
            cell=max(1, min(self.size) // 2),
            depth=options.depth_weight > 0,
            unit=task.world.extent,
            device=inputs.device,
            processes=inputs.processes,
        )

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether there is a teacher."""
        return inputs.task.teacher is not None

    def __call__(self, step: Step) -> Term:
        """The loss; in the log also the PSNR of colours and the number of pictures kept."""
        self._refresh(step.number)
        options = self.options
        places = self.views.draw(
            options.crops, hard=options.hard, size=self.size, generator=self.generator
        )
        crops = self.views.crops(places)
        render = step.render(crops.camera, want=Want(depth=options.depth_weight > 0))
        difference = render.rgb - crops.on(step.background)
        squared = difference.square()
        self.views.report(places, squared)
        mse = squared.mean()
        loss = mse if options.loss == "mse" else difference.abs().mean()
        if options.alpha_weight > 0:
            loss = loss + options.alpha_weight * self._alpha_error(render, crops)
        if options.depth_weight > 0 and crops.depth is not None and render.depth is not None:
            loss = loss + options.depth_weight * inverse_depth_error(render, crops, crops.depth)
        psnr = -10.0 * mse.detach().clamp_min(1e-10).log10()
        count = torch.tensor(float(len(self.views)))
        log = {"teacher": loss, "teacher_psnr": psnr, "pseudo_views": count}
        return Term(loss=loss, log=log)

    def _refresh(self, number: int) -> None:
        """The first pictures, then a new one every ``refresh_every`` steps."""
        missing = min(self.options.first_views, self.views.capacity) - len(self.views)
        due = max(missing, int(number % self.options.refresh_every == 0))
        for camera in self.cameras.draw(self.generator, due):
            self.views.add(camera)

    def _alpha_error(self, render: Render, crops: Crops) -> Float[Tensor, ""]:
        if self.options.loss == "mse":
            return torch.nn.functional.mse_loss(render.alpha, crops.alpha)
        return torch.nn.functional.l1_loss(render.alpha, crops.alpha)


def inverse_depth_error(
    render: Render, crops: Crops, depth: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """L1 of inverse depth relative to its mean, where the teacher is opaque (see ``Depth``)."""
    assert render.depth is not None
    valid = (crops.alpha > _OPAQUE) & (depth > 0)
    if not bool(valid.any()):
        return render.depth.sum() * 0.0
    wanted = 1.0 / depth[valid]
    found = 1.0 / render.depth[valid].clamp_min(1e-3 * float(depth[valid].min()))
    return (found - wanted).abs().mean() / wanted.mean()
