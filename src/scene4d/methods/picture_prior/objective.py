"""The objective of our own prior: EDM's loss over its log-normal noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.methods.picture_prior.method import DenoisingOptions
from scene4d.methods.picture_prior.pictures import read_pictures
from scene4d.methods.picture_prior.trainable import UnetTraining
from scene4d.priors.prior import CHANNELS, broadcast
from scene4d.priors.unet import UnetPrior, load_unet
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_THIRDS = ("denoising_low_noise", "denoising_mid_noise", "denoising_high_noise")


class Denoising(Objective):
    """The mean of (s^2 + d^2) / (s d)^2 (D(x + s n; s) - x)^2 (Karras et al. 2022, section 5), of
    each kind of channels, and over the kinds.

    ln s is normal; a batch has one from each of as many parts of it, equally likely. With a teacher
    x is what classifier-free guidance makes of its two answers, so that the network gives in one
    what guidance asks two for (SnapFusion, Li et al. 2023, section 4.3; Meng et al. 2023).
    """

    options: DenoisingOptions
    needs_views = False

    def __init__(self, options: DenoisingOptions, inputs: ObjectiveInputs) -> None:
        """Raises as :func:`read_pictures`."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.processes = inputs.processes
        self.own = self.processes.rows(options.batch, "crops (--denoising.batch)")
        self.pictures = read_pictures(options)
        self.teacher: UnetPrior | None = None
        if options.teacher is not None:
            self.teacher = load_unet(options.teacher).to(inputs.device)
            if not self.teacher.shape.vocabulary:
                raise UsageError("the teacher reads no texts, so there is no guidance to learn",
                                 where=options.teacher)  # fmt: skip

    def __call__(self, step: Step) -> Term:
        """The term; in the log its mean over the low, the middle and the high third of noise."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, UnetTraining)
        shape = trained.prior.shape
        if shape.channels != self.pictures.channels:
            raise UsageError(f"the pictures are of {'+'.join(self.pictures.channels)} now, and the "
                             f"network is of {'+'.join(shape.channels)}",
                             fix="give pictures of the kinds that it began with")  # fmt: skip
        crops = self.pictures.crops(
            options.batch, options.crop_size, self.generator, mirrored=options.mirrored
        )
        ratios = drawn_ratios(
            options.batch, options.noise_mean, options.noise_spread, self.generator
        )
        noise = torch.randn(crops.pictures.shape, generator=self.generator)
        forgotten = torch.rand(options.batch, generator=self.generator) < options.forget_text
        texts = ["" if f else c for c, f in zip(crops.captions, forgotten.tolist(), strict=True)]
        noisy = (crops.pictures + broadcast(ratios, noise) * noise)[self.own].to(self.device)
        own = ratios[self.own].to(self.device)
        half = options.half_precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            made = trained.prior.cleaned(noisy, own, texts[self.own])
        made = self.processes.gathered(made.float())
        wanted = crops.pictures
        if self.teacher is not None:
            wanted = self.processes.gathered(self._taught(noisy, own, texts[self.own]))
        deviation = torch.full_like(ratios, shape.deviation)
        return edm_term(
            made, wanted.to(made), crops.known.to(made), ratios.to(made), deviation.to(made),
            sizes=[CHANNELS[kind] for kind in shape.channels],
        )  # fmt: skip

    @torch.no_grad()
    def _taught(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        ratios: Float[Tensor, " batch"],
        texts: Sequence[str],
    ) -> Float[Tensor, "batch channels height width"]:
        """The teacher's guided answers; unguided where there is no text."""
        assert self.teacher is not None
        without = self.teacher.cleaned(noisy, ratios)
        return without + self.options.scale * (self.teacher.cleaned(noisy, ratios, texts) - without)


def drawn_ratios(
    count: int, mean: float, spread: float, generator: torch.Generator
) -> Float[Tensor, " count"]:
    """s of each picture of a batch, rising: ln s is normal, one from each of ``count`` parts of it
    that are equally likely."""
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    place = (torch.arange(count, dtype=torch.float64) + u) / count
    normal = torch.special.ndtri(place.clamp(1e-6, 1 - 1e-6))
    return (mean + spread * normal).exp().float()


def edm_term(
    made: Float[Tensor, "batch channels height width"],
    wanted: Float[Tensor, "batch channels height width"],
    known: Float[Tensor, "batch channels height width"],
    ratios: Float[Tensor, " batch"],
    deviation: Float[Tensor, " batch"],
    *,
    sizes: Sequence[int],
) -> Term:
    """The mean of (s^2 + d^2) / (s d)^2 (made - wanted)^2 of what is known, of each kind of
    ``sizes`` channels, and over the kinds; in the log of each third of the batch, which is in the
    order of noise."""
    weight = (ratios.square() + deviation.square()) / (ratios * deviation).square()
    square = (made - wanted).square() * known
    each = torch.stack([part.flatten(1).mean(dim=1) for part in square.split(sizes, dim=1)])
    found = weight * each.mean(dim=0)
    thirds = found.detach().tensor_split(len(_THIRDS))
    log = {name: t.mean() for name, t in zip(_THIRDS, thirds, strict=True) if len(t)}
    return Term(loss=found.mean(), log=log)
