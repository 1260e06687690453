"""The objective that keeps what moves and what stands still apart."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.scene import View
from scene4d.evaluation.protocol import composited
from scene4d.methods.deformable.masks import grown
from scene4d.methods.deformable.method import ApartOptions
from scene4d.methods.deformable.observed import observed
from scene4d.rendering.render import Want
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step


class Apart(Objective):
    """Outside of the moving masks what stands still explains a photograph alone (L1), and nothing
    that moves is seen; inside, where depth told the masks, nothing that stands still is seen.

    Otherwise moving Gaussians paint the floor beside a thing that moves, which is seen there
    always, and what stands still behind them never learns; and a ghost of the thing stands where it
    is most of the time. Pixels within ``options.border`` of a mask's edge count for neither, as
    masks are not that sharp. Pictures are half as large as the step's.
    """

    options: ApartOptions

    def __init__(self, options: ApartOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        found = observed(
            inputs.task.scene, inputs.task.images, options.moving_masks,
            by_network=options.by_network,
        )  # fmt: skip
        self.masks, self.sure = found.masks, found.by_depth

    def __call__(self, step: Step) -> Term:
        """The mean over the step's views, every few steps."""
        found = [(v, self.masks[i]) for v in step.views
                 if isinstance(i := v.index, int) and i in self.masks]  # fmt: skip
        if step.number % self.options.every or not found:
            return Term(loss=step.background.sum() * 0.0)
        views = [self._of_view(step, view, mask) for view, mask in found]
        static, spill, ghost = (mean(list(each)) for each in zip(*views, strict=True))
        loss = self.options.static * static + self.options.spill * spill
        loss = loss + self.options.ghost * ghost
        log = {"static": static, "spill": spill, "ghost": ghost}
        return Term(loss=loss, log={name: value.detach() for name, value in log.items()})

    def _of_view(
        self, step: Step, view: View, mask: Bool[Tensor, "full_height full_width"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """The error of what stands still, how much of what moves is seen outside of the mask, and
        how much of what stands still inside of it."""
        width, height = max(1, view.camera.width // 2), max(1, view.camera.height // 2)
        camera, adjustments = view.camera, step.adjustments
        if adjustments is not None:
            camera = adjustments.refined(camera, view.index)
        want = Want(parts=("static",), shares=True)
        picture = view.index
        render = step.render(camera.resized(width, height), want=want, picture=picture)
        still, moving = (
            ~_grown(m, height, width, self.options.border).to(render.alpha.device)
            for m in (mask, ~mask)
        )
        if view.mask is not None:
            counts = _resized(view.mask[..., None].float(), height, width)[..., 0] == 1
            still, moving = still & counts, moving & counts
        alone = render.parts["static"]
        rgb = alone.rgb + (1 - alone.alpha)[..., None] * step.background
        if adjustments is not None:
            rgb = adjustments.exposed(rgb, view.index)
        target = _resized(composited(view, step.background), height, width)
        error = (rgb - target).abs().mean(dim=-1)
        count = still.sum().clamp_min(1)
        return (
            (error * still).sum() / count,
            (render.shares["dynamic"] * still).sum() / count,
            self.sure * (render.shares["static"] * moving).sum() / moving.sum().clamp_min(1),
        )


def _resized(
    picture: Float[Tensor, "full_height full_width channels"], height: int, width: int
) -> Float[Tensor, "height width channels"]:
    """The means of the pixels that become one."""
    small = torch.nn.functional.interpolate(
        picture.permute(2, 0, 1)[None], (height, width), mode="area"
    )
    return small[0].permute(1, 2, 0)


def _grown(
    mask: Bool[Tensor, "full_height full_width"], height: int, width: int, border: float
) -> Bool[Tensor, "height width"]:
    """The mask in another size, with a border around it, a share of its diagonal."""
    wide = grown(mask, border)[None, None].float()
    small = torch.nn.functional.adaptive_max_pool2d(wide, (height, width))
    return small[0, 0] > 0
