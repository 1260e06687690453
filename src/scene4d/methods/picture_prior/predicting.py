"""The objective of a predictor of frames: EDM's loss, told the picture before."""

from __future__ import annotations

import torch

from scene4d.errors import UsageError
from scene4d.methods.picture_prior.frames_method import PredictingOptions
from scene4d.methods.picture_prior.objective import drawn_ratios, edm_term
from scene4d.methods.picture_prior.trainable import FramesTraining
from scene4d.methods.picture_prior.videos import read_videos
from scene4d.priors.prior import CHANNELS, broadcast
from scene4d.priors.unet import Before
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step


class Predicting(Objective):
    """As of single pictures (:func:`edm_term`), with the deviation of what changes where the
    picture before is told, and with that of pictures where it is forgotten."""

    options: PredictingOptions
    needs_views = False

    def __init__(self, options: PredictingOptions, inputs: ObjectiveInputs) -> None:
        """Raises as :func:`read_videos`."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.processes = inputs.processes
        self.own = self.processes.rows(options.batch, "pairs (--predicting.batch)")
        self.videos = read_videos(options)

    def __call__(self, step: Step) -> Term:
        """The term; in the log its mean over the low, the middle and the high third of noise.

        Raises :class:`UsageError` for videos of other kinds, or with longer times, than the network
        began with.
        """
        options, trained = self.options, step.trainable
        assert isinstance(trained, FramesTraining)
        network, generator = trained.prior, self.generator
        self._check(trained)
        pairs = self.videos.pairs(
            options.batch, options.crop_size, generator, mirrored=options.mirrored
        )
        ratios = drawn_ratios(options.batch, options.noise_mean, options.noise_spread, generator)
        noise = torch.randn(pairs.pictures.shape, generator=generator)
        known = torch.rand(options.batch, generator=generator) >= options.forget
        noisy = pairs.pictures + broadcast(ratios, noise) * noise
        own, device = self.own, self.device
        before = Before(
            pictures=pairs.before[own].to(device), seconds=pairs.seconds[own].to(device),
            known=known[own].to(device),
        )  # fmt: skip
        with torch.autocast(device.type, torch.bfloat16, enabled=options.half_precision):
            made = network.cleaned(noisy[own].to(device), ratios[own].to(device), before=before)
        made = self.processes.gathered(made.float())
        whole = Before(pictures=pairs.before, seconds=pairs.seconds, known=known)
        _, deviation = network.expected(noisy, whole)
        return edm_term(
            made, pairs.pictures.to(made), pairs.known.to(made), ratios.to(made),
            deviation.to(made), sizes=[CHANNELS[kind] for kind in network.shape.channels],
        )  # fmt: skip

    def _check(self, trained: FramesTraining) -> None:
        shape, videos = trained.prior.shape, self.videos
        assert shape.video is not None
        if shape.channels != videos.channels:
            raise UsageError(f"the videos are of {'+'.join(videos.channels)} now, and the network "
                             f"is of {'+'.join(shape.channels)}",
                             fix="give videos of the kinds that it began with")  # fmt: skip
        if videos.longest > shape.video.longest * (1 + 1e-6):
            raise UsageError(f"pairs of pictures up to {videos.longest:.3g} s apart, and the "
                             f"network is of up to {shape.video.longest:.3g} s",
                             fix="give a smaller --predicting.apart")  # fmt: skip
