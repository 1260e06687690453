"""Terms of the loss for fields: colours of rays, and what is seen along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.rays import camera_rays
from scene4d.data.scene import View
from scene4d.evaluation.protocol import composited
from scene4d.methods.dynamic_field.field import FieldSamples, dynamic_share
from scene4d.methods.dynamic_field.method import LineOfSightOptions, SkewedEntropyOptions
from scene4d.rendering.fields.volume import RaySamples, distortion
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term, mean
from scene4d.training.step import Step

_TINY = 1e-6
_LEAST_FOUND = 1e-3
"""Of a ray's weight: where a measured surface counts as not found at all."""


class SquaredError(Objective):
    """Mean squared error of colours (NeRF, Mildenhall et al. 2020, eq. 6), where photographs count.

    Not the absolute error, which pulls at every pixel as hard: a thin fog that is everywhere a
    little wrong would outweigh the few pixels where something moves."""

    def __call__(self, step: Step) -> Term:
        """The error, and as a PSNR."""
        losses = [self._of(step, view) for view in step.views]
        loss = mean(losses)
        psnr = -10 * loss.detach().clamp_min(1e-10).log10()
        return Term(loss=loss, log={"photometric": loss, "psnr": psnr})

    def _of(self, step: Step, view: View) -> Tensor:
        rgb = step.view(view).rgb
        if step.adjustments is not None:
            rgb = step.adjustments.exposed(rgb, view.index)
        squared = (rgb - composited(view, step.background)).square().mean(dim=-1)
        if view.mask is None:
            return squared.mean()
        return (squared * view.mask).sum() / view.mask.sum().clamp_min(1)


class LineOfSight(Objective):
    """Where depth was measured, a ray ends there: minus the logarithm of the weight within
    ``margin`` of it, mean over such rays (after DS-NeRF, Deng et al. 2022, and Urban Radiance
    Fields, Rematas et al. 2022). What is before the surface is empty at the ray's time, too."""

    options: LineOfSightOptions

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether depth of any training image was measured: no ray ends just where a guess is."""
        scene = inputs.task.capture
        return scene is not None and scene.measures_depth

    def __call__(self, step: Step) -> Term:
        """In nats."""
        terms = [
            self._of(step, view, *measured)
            for view in step.views
            if (measured := measured_distances(view)) is not None
        ]
        known = [term for term in terms if term is not None]
        loss = mean(known) if known else step.background.new_zeros(())
        return Term(loss=loss, log={"line_of_sight": loss})

    def _of(self, step: Step, view: View, measured: Tensor, used: Tensor) -> Tensor | None:
        parts: Sequence[FieldSamples] = step.view(view).extras["samples"]
        measured = measured[step.processes.rows(len(measured), "rays")]
        found, first = [], 0
        for samples in parts:
            count = samples.places.num_rays
            distances = measured[first : first + count] / samples.unit
            found.append(
                weight_near(samples.weights, samples.places, distances, self.options.margin)
            )
            first += count
        near = step.processes.gathered(torch.cat(found))[used]
        return -near.clamp_min(_LEAST_FOUND).log().mean() if len(near) else None


def measured_distances(view: View) -> tuple[Float[Tensor, " rays"], Tensor] | None:
    """Along each ray of a view, in scene units, and where it is known; None where depth was not
    measured."""
    depth = view.measured_depth
    if depth is None:
        return None
    ahead = -view.camera.c2w[..., None, None, :3, 2]
    along = (camera_rays(view.camera).directions * ahead).sum(dim=-1)
    used = depth > 0 if view.mask is None else (depth > 0) & view.mask
    return (depth / along).reshape(-1), used.reshape(-1)


def weight_near(
    weights: Float[Tensor, " n"],
    places: RaySamples,
    distances: Float[Tensor, " rays"],
    margin: float,
) -> Float[Tensor, " rays"]:
    """Of each ray, within ``margin`` times the samples' widths (at least one) of a distance."""
    rays = places.rays()
    near = (places.middles - distances[rays]).abs() <= margin * places.widths
    return weights.new_zeros(places.num_rays).index_add(0, rays, weights * near)


class SkewedEntropy(Objective):
    """D2NeRF, eq. 8: mean over rays of sum_i w_i H(share_i^skew); weights count as constants."""

    options: SkewedEntropyOptions

    def __call__(self, step: Step) -> Term:
        """The entropy in nats."""
        return _per_ray("entropy", self._of, step)

    def _of(self, samples: FieldSamples) -> Tensor:
        # Kept off 0 and 1, where the slope of the entropy is infinite.
        skewed = dynamic_share(samples.density).clamp(_TINY, 1 - _TINY) ** self.options.skew
        entropy = -(skewed * skewed.log() + (1 - skewed) * torch.log1p(-skewed))
        return (samples.weights.detach() * entropy).sum()


class DynamicRays(Objective):
    """D2NeRF, eq. 9: mean over rays of the square of the largest dynamic share."""

    def __call__(self, step: Step) -> Term:
        """0: nothing is dynamic; 1: something on each ray is."""
        return _per_ray("dynamic_rays", self._of, step)

    def _of(self, samples: FieldSamples) -> Tensor:
        # The static part is a constant here: fog would make the share smaller, too.
        still, moving = samples.density.unbind(dim=1)
        share = dynamic_share(torch.stack([still.detach(), moving], dim=1))
        zero = share.new_zeros(samples.places.num_rays)
        return zero.scatter_reduce(0, samples.places.rays(), share, "amax").square().sum()


class DynamicSparsity(Objective):
    """The dynamic part's mean optical depth: EmerNeRF's mean density (section 3.4) would grow
    wherever empty samples are left out."""

    def __call__(self, step: Step) -> Term:
        """Per ray."""
        return _per_ray("dynamic_depth", lambda s: (s.density[:, 1] * s.places.widths).sum(), step)


class Distortion(Objective):
    """Mip-NeRF 360, eq. 15: mean over rays."""

    def __call__(self, step: Step) -> Term:
        """In radii of the content."""
        return _per_ray("distortion", lambda s: distortion(s.weights, s.places).sum(), step)


def _per_ray(name: str, total: Callable[[FieldSamples], Tensor], step: Step) -> Term:
    """The mean over all rays of the step's views; ``total``: the sum over those of some samples."""
    parts: list[FieldSamples] = []
    for view in step.views:
        parts += step.view(view).extras["samples"]
    rays = sum(part.places.num_rays for part in parts)
    nothing = step.background.new_zeros(())
    own = sum((total(part) for part in parts if part.places.count), nothing) / rays
    loss = step.processes.gathered(own[None]).mean()
    return Term(loss=loss, log={name: loss})
