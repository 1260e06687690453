"""The objective of optical flow: what is seen at a pixel is, in the next picture, where it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import project
from scene4d.data.flow import DenseFlow, centres, consistent, grey_pictures, inside, sampled
from scene4d.data.trajectories import trajectories
from scene4d.methods.deformable.method import FlowOptions
from scene4d.methods.deformable.observed import observed
from scene4d.rendering.render import Want
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_LARGEST_SIDE = 640
"""Flow is taken in pictures at most this wide and high, pixels."""


class FlowTerm(Objective):
    """Distance between where flow goes from a pixel to the picture before or after and where the
    surface at that pixel goes, in hundredths of the picture's diagonal: ``Render.positions`` at
    that picture's time, seen by its camera. Where flow holds both ways, in the moving masks.
    """

    options: FlowOptions

    def __init__(self, options: FlowOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.generator, self.images = inputs.generator, inputs.task.images
        scene = inputs.task.scene
        found = observed(scene, self.images, options.moving_masks, by_network=options.by_network)
        self.masks = found.around
        self.paths = [p for p in trajectories(scene, scene.train_indices) if len(p) > 1]
        self.where = {i: (path, at) for path in self.paths for at, i in enumerate(path)}
        self.flows: dict[int, DenseFlow] = {}

    def __call__(self, step: Step) -> Term:
        """The mean over the pixels of one view, every few steps."""
        nothing = step.background.sum() * 0.0
        found = [(v, i) for v in step.views if isinstance(i := v.index, int) and i in self.where]
        if step.number % self.options.every or not found:
            return Term(loss=nothing)
        view, index = found[0]
        path, at = self.where[index]
        other = self._other(at, len(path))
        then = self.images.camera(path[other]).to(step.background.device)
        if then.time is None:
            return Term(loss=nothing)
        target, known = self._target(path, at, other, view.camera)
        if not bool(known.any()):
            return Term(loss=nothing)
        render = step.render(view.camera, want=Want(positions_at=(float(then.time),)))
        assert render.positions is not None
        pixels, depth = project(then, render.positions[0].flatten(0, 1))
        diagonal = (then.width**2 + then.height**2) ** 0.5
        # Huber's distance, quadratic below a pixel of the pictures that flow is taken in
        off = (pixels - target.flatten(0, 1).to(pixels)).norm(dim=-1)
        bend = max(1.0, max(then.width, then.height) / _LARGEST_SIDE)
        huber = torch.where(off < bend, 0.5 * off * off / bend, off - 0.5 * bend)
        valid = known.flatten().to(pixels.device) & (render.alpha.flatten() > 0.5) & (depth > 0)
        loss = (huber * valid).sum() / (valid.sum().clamp_min(1) * 0.01 * diagonal)
        return Term(loss=loss, log={"flow": loss.detach()})

    def _other(self, at: int, count: int) -> int:
        """The frame before or after."""
        step = 1 if float(torch.rand((), generator=self.generator)) < 0.5 else -1
        return at + step if 0 <= at + step < count else at - step

    def _flow(self, path: Sequence[int]) -> DenseFlow:
        """Flow between the pictures of a camera."""
        if path[0] not in self.flows:
            size = self.images.camera(path[0])
            downscale = -(-max(size.width, size.height) // _LARGEST_SIDE)
            self.flows[path[0]] = DenseFlow(
                grey_pictures(self.images, path, downscale=downscale)[0]
            )
        return self.flows[path[0]]

    def _target(
        self, path: Sequence[int], at: int, other: int, camera: Camera
    ) -> tuple[Float[Tensor, "height width 2"], Bool[Tensor, "height width"]]:
        """Where flow goes from each pixel of ``camera``, in pixels of the other picture in full
        size; and where that is known, and of what moves."""
        flow = self._flow(path)
        forth, back = flow(at, other), flow(other, at)
        shape = forth.shape[:2]
        ends = centres(shape) + forth
        holds = consistent(forth, sampled(back, ends)) & inside(ends, shape)
        small = (camera.height, camera.width)
        full = self.images.camera(path[other])
        to_flow = np.array([shape[1] / small[1], shape[0] / small[0]], np.float32)
        places = centres(small) * to_flow
        target = sampled(ends, places) * np.array(
            [full.width / shape[1], full.height / shape[0]], np.float32
        )
        y, x = (places[..., k].astype(np.int64) for k in (1, 0))
        moving = (
            torch.nn.functional.adaptive_max_pool2d(
                self.masks[path[at]][None, None].float(), small
            )[0, 0]
            > 0
        )
        return torch.from_numpy(target), torch.from_numpy(holds[y, x]) & moving
