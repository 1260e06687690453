"""What a prior is asked for by guidance's options, and whether it can answer."""

from __future__ import annotations

import logging
from dataclasses import replace

from scene4d.errors import UsageError
from scene4d.priors.guiders import Guider
from scene4d.priors.levels import Times
from scene4d.priors.prior import LatentPrior, Prior, check_of_pictures
from scene4d.priors.recipes import recipe
from scene4d.priors.score_loss import ScoreLoss
from scene4d.priors.scores import LATENT_LOSSES
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.task import World

_PICTURES = 17
"""Of a video of a prior that knows any number: one more than a multiple of the 4 or 8 that become a
latent frame."""
_log = logging.getLogger("scene4d")


def loss_of(options: GuidanceOptions) -> ScoreLoss:
    """The score loss that the options name, at their times."""
    loss = recipe(options.loss, options.scale, negative=bool(options.negative_prompt))
    falls = options.annealed and loss.states == 1
    times = Times(
        low=options.least_time,
        high=options.most_time,
        kind="annealed" if falls else "uniform",
    )
    return replace(loss, times=times)


def guider_of(options: GuidanceOptions) -> Guider:
    """The guider that the options name."""
    return Guider(
        kind=options.guider, parallel=options.apg_parallel, most=options.apg_most,
        momentum=options.apg_momentum, unwanted=options.unwanted,
    )  # fmt: skip


def of_length(prior: Prior, options: GuidanceOptions) -> Prior:
    """A prior of videos as one of as many pictures as are asked for."""
    if prior.info.frames is None:
        return prior
    assert prior.num_pictures is not None
    return prior.of_videos(
        options.frames or (prior.num_pictures if prior.num_pictures > 1 else _PICTURES)
    )


def check_prior(prior: Prior, options: GuidanceOptions) -> None:
    """Raises :class:`UsageError` for a prior that cannot be asked about renders."""
    info, where = prior.info, type(prior).__name__
    check_of_pictures(prior, videos=options.target == "score")
    if info.space == "latent" and not isinstance(prior, LatentPrior):
        raise UsageError("a prior of latents that neither encodes nor decodes pictures",
                         where=where, fix="make it a LatentPrior")  # fmt: skip
    decoded = info.space == "latent" and not options.through_encoder
    if decoded and options.loss not in LATENT_LOSSES:
        raise UsageError(f"the loss {options.loss!r} has no clean picture to decode, and this is a "
                         "prior of latents", where=where,
                         fix=f"choose one of {', '.join(LATENT_LOSSES)}, or "
                         "guidance.through_encoder")  # fmt: skip
    if options.channels != "all" and options.channels not in info.channels:
        raise UsageError(f"guides {options.channels}, and the prior knows "
                         f"{'+'.join(info.channels)}", where=where)  # fmt: skip
    said = [n for n in ("prompt", "negative_prompt", "now") if getattr(options, n)]
    if said and "text" not in info.conditions:
        raise UsageError(f"guidance.{said[0]} is given, and this prior reads no text", where=where,
                         fix="leave it out")  # fmt: skip
    if options.loss != "fixer":
        times = Times(low=options.least_time, high=options.most_time)
        times.within(options.noise_schedule, info.ratios)


def check_times(prior: Prior, world: World, options: GuidanceOptions) -> None:
    """Raises :class:`UsageError` for a prior of how time goes on and a scene that does not move;
    notes where flights turn, of which it knows nothing."""
    if not prior.info.by_time:
        return
    if world.times is None:
        raise UsageError("this prior knows how time goes on, and the scene does not move",
                         where=type(prior).__name__,
                         fix="give a capture with times, or a prior of pictures")  # fmt: skip
    if options.sweep > 0 or options.frozen > 0:
        _log.warning(
            "note: this prior knows how time goes on before the cameras that it learned from; of "
            "flights that turn, or in which time stands still, it knows nothing: "
            "--guidance.sweep 0 --guidance.frozen 0"
        )
