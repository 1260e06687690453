"""The objective of our own prior: EDM's loss over its log-normal noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.methods.picture_prior.method import DenoisingOptions
from scene4d.methods.picture_prior.pictures import read_pictures
from scene4d.methods.picture_prior.trainable import UnetTraining
from scene4d.priors.prior import CHANNELS, broadcast
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_THIRDS = ("denoising_low_noise", "denoising_mid_noise", "denoising_high_noise")


class Denoising(Objective):
    """The mean of (s^2 + d^2) / (s d)^2 (D(x + s n; s) - x)^2 (Karras et al. 2022, section 5), of
    each kind of channels, and over the kinds.

    ln s is normal; a batch has one from each of as many parts of it, equally likely.
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

    def __call__(self, step: Step) -> Term:
        """The term; in the log its mean over the low, the middle and the high third of noise."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, UnetTraining)
        shape = trained.prior.shape
        if shape.channels != self.pictures.channels:
            raise UsageError(f"the pictures are of {'+'.join(self.pictures.channels)} now, and the "
                             f"network is of {'+'.join(shape.channels)}")  # fmt: skip
        crops = self.pictures.crops(
            options.batch, options.crop_size, self.generator, mirrored=options.mirrored
        )
        ratios = self._ratios(options.batch)
        noise = torch.randn(crops.pictures.shape, generator=self.generator)
        forgotten = torch.rand(options.batch, generator=self.generator) < options.forget_text
        texts = ["" if f else c for c, f in zip(crops.captions, forgotten.tolist(), strict=True)]
        noisy = (crops.pictures + broadcast(ratios, noise) * noise)[self.own]
        made = self.processes.gathered(
            trained.prior.cleaned(noisy.to(self.device), ratios[self.own].to(self.device),
                                  texts[self.own])
        )  # fmt: skip
        d = shape.deviation
        weight = (ratios.square() + d * d) / (ratios * d).square()
        square = (made - crops.pictures.to(made)).square() * crops.known.to(made)
        sizes = [CHANNELS[kind] for kind in shape.channels]
        each = torch.stack([part.flatten(1).mean(dim=1) for part in square.split(sizes, dim=1)])
        found = weight.to(made) * each.mean(dim=0)
        thirds = found.detach().tensor_split(len(_THIRDS))  # the batch is in the order of noise
        log = {name: t.mean() for name, t in zip(_THIRDS, thirds, strict=True) if len(t)}
        return Term(loss=found.mean(), log=log)

    def _ratios(self, count: int) -> Float[Tensor, " count"]:
        """s of each picture, rising."""
        u = torch.rand(count, generator=self.generator, dtype=torch.float64)
        place = (torch.arange(count, dtype=torch.float64) + u) / count
        normal = torch.special.ndtri(place.clamp(1e-6, 1 - 1e-6))
        return (self.options.noise_mean + self.options.noise_spread * normal).exp().float()
