"""Score losses executed: the gradient that a prior gives to pictures, and its injection.

The pictures may be renders, latents or anything of the prior's kind. Nothing is differentiated
through a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.priors.guiders import CFG, Guider
from scene4d.priors.inversion import EARLIEST, inversion_times, invert, mixed_with_fresh
from scene4d.priors.levels import Path, levels_at, time_at
from scene4d.priors.prior import NOTHING, Condition, LatentPrior, Prior, broadcast, check_pictures
from scene4d.priors.score_loss import Mix, Role, ScoreLoss, guided

Texts = Mapping[Role, str]
"""What is said of each role; of one that is not named nothing."""
LogRatio = Callable[[Tensor, Tensor, Tensor], Tensor]
"""One number for each of the noised pictures x_t, at their alpha and sigma."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Whom a score loss asks, and what it tells them."""

    prior: Prior
    known: Condition = NOTHING
    """What is known of the pictures whatever the text."""
    texts: Texts = field(default_factory=dict)
    path: Path = "cosine"
    """How alpha and sigma belong to times; see :func:`levels_at`."""
    guider: Guider = CFG
    """What becomes of the difference that guidance enlarges, of every prior that is asked."""
    second: Prior | None = None
    """VSD's phi."""
    log_ratio: LogRatio | None = None
    """f-distill's log of what the prior's density is to phi's, of noised pictures at their levels:
    the logits of a discriminator, or exact."""
    reference: Float[Tensor, "batch *frames channels height width"] | None = None
    """DDS's other picture."""
    reference_texts: Texts = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """What a score loss gives to pictures."""

    gradient: Float[Tensor, "batch *frames channels height width"]
    """x - gradient is where the loss wants the pictures. Holds NaN or Inf where the prior does."""
    times: Float[Tensor, "states batch"]
    """0..1, float64; 0 without noise."""
    target: Float[Tensor, "batch *frames channels height width"] | None
    """Clean pictures that the target is of, at the last state; None through an encoder."""


@torch.no_grad()
def score_gradient(
    loss: ScoreLoss,
    asked: Asked,
    x: Float[Tensor, "batch *frames channels height width"],
    *,
    generator: torch.Generator,
    progress: float = 0.0,
) -> Score:
    """The gradient g of ``loss`` at the pictures ``x``, at times drawn for each.

    ``progress``: 0..1 of training, for what is annealed; ``generator``: on the CPU. Raises
    :class:`UsageError` for pictures that the prior does not take, for what is asked for and not
    given, and where the prior is valid at none of the loss's times.
    """
    check_asked(loss, asked)
    check_pictures(asked.prior, x)
    if loss.noise == "none":
        return _without_noise(loss, asked, x, progress)
    times = loss.times.within(asked.path, asked.prior.info.ratios)
    drawn = times.draw(len(x), progress, generator, loss.states)
    total, target = torch.zeros_like(x), x
    for t in drawn:
        state = _State(loss=loss, asked=asked, x=x, t=t, progress=progress, generator=generator)
        gradient, target = state.gradient()
        total = total + gradient / loss.states
    return Score(gradient=total, times=drawn, target=target)


def inject(x: Float[Tensor, " *pictures"], gradient: Float[Tensor, " *pictures"]) -> Tensor:
    """0.5 sum (x - sg(x - g))^2: a loss whose gradient in ``x`` is ``gradient``."""
    return 0.5 * (x - (x - gradient).detach()).square().sum()


def check_asked(loss: ScoreLoss, asked: Asked) -> None:
    """Raises :class:`UsageError` for a loss that lacks what it compares with, or is always 0."""
    if loss.against == "second" and asked.second is None:
        raise UsageError(
            f"the score loss {loss.name!r} compares with a second prior, and there is none",
            fix="give one of what is rendered now, or choose another loss",
        )
    if loss.divergence != "reverse-kl" and asked.log_ratio is None:
        raise UsageError(
            f"the score loss {loss.name!r} weighs by a ratio of densities, and there is none",
            fix="give log_ratio, such as a discriminator's logits, or choose reverse-kl",
        )
    if loss.against == "reference" and asked.reference is None:
        raise UsageError(f"the score loss {loss.name!r} compares with a reference picture")
    if asked.guider.kind == "perp-neg":
        _check_told(loss, asked, "negative", "its guider perp-neg compares")
    if loss.against not in ("nothing", "prior"):
        return
    for role in sorted(loss.roles - {"none"}):
        _check_told(loss, asked, role, "compares")


def _check_told(loss: ScoreLoss, asked: Asked, role: Role, does: str) -> None:
    reads = "text" in asked.prior.info.conditions
    if not reads or role not in asked.texts:
        raise UsageError(
            f"the score loss {loss.name!r} {does} what a prior says of texts, and "
            + (f"there is no text for {role!r}" if reads else "this prior reads none"),
            where=type(asked.prior).__name__,
            fix="give the texts to a prior that reads them, or choose sds, hifa, sdi or asd",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Noised:
    """Noised pictures, with their levels and times."""

    x_t: Float[Tensor, "batch *frames channels height width"]
    alpha: Float[Tensor, " batch"]
    sigma: Float[Tensor, " batch"]
    t: Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Voice:
    """A prior, and what it is told."""

    prior: Prior
    known: Condition
    texts: Texts
    progress: float
    guider: Guider = CFG
    before: MutableMapping[str, Tensor] | None = None
    """The guider's memory."""

    def x0(self, mix: Mix, at: _Noised) -> tuple[Tensor, Tensor]:
        """The mixture of clean pictures, and the sum of its factors for each of them."""
        factors: dict[Role, Tensor] = {}
        for part in mix:
            factor = part.factor_at(self.progress) * (at.t >= part.from_t).to(at.alpha)
            if bool(factor.any()):
                factors[part.role] = factors.get(part.role, 0.0) + factor
        pictures = self._pictures(factors, at)
        mixed, total = torch.zeros_like(at.x_t), torch.zeros_like(at.alpha)
        for role, factor in factors.items():
            mixed = mixed + broadcast(factor, mixed) * pictures[role]
            total = total + factor
        return mixed, total

    def _pictures(self, roles: Iterable[Role], at: _Noised) -> dict[Role, Tensor]:
        """What the prior says of each role, turned by the guider where y and none are mixed."""
        reads = "text" in self.prior.info.conditions
        asked, guides = list(roles), self.guider.kind != "cfg" and {"y", "none"} <= set(roles)
        if guides and self.guider.kind == "perp-neg":
            asked.append("negative")
        answers: dict[str | None, Tensor] = {}
        found: dict[Role, Tensor] = {}
        for role in asked:
            text = self.texts.get(role) if reads else None
            if text not in answers:
                said = replace(self.known, text=text)
                answers[text] = self.prior.denoise(at.x_t, at.alpha, at.sigma, said)
            found[role] = answers[text]
        if guides:
            found["y"], found["none"] = self.guider.turned(
                found["y"], found["none"], found.get("negative"), self.before
            )
        return found

    def eps(self, mix: Mix, at: _Noised) -> Tensor:
        """The mixture of noises."""
        x0, total = self.x0(mix, at)
        a, s = broadcast(at.alpha, x0), broadcast(at.sigma, x0)
        return (broadcast(total, x0) * at.x_t - a * x0) / s


def _voice(asked: Asked, progress: float) -> _Voice:
    """The prior."""
    return _Voice(
        prior=asked.prior, known=asked.known, texts=asked.texts, progress=progress,
        guider=asked.guider,
    )  # fmt: skip


def weight_at(
    loss: ScoreLoss, alpha: Float[Tensor, " batch"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """w of a loss at these levels."""
    return {
        "one": torch.ones_like(sigma), "variance": sigma * sigma, "alpha": alpha,
        "sigma_over_alpha": sigma / alpha, "alpha_over_sigma": alpha / sigma,
    }[loss.weight]  # fmt: skip


LATENT_LOSSES = ("hifa", "sds", "sdi", "fixer")
"""Those whose target is a clean picture, which can be decoded."""


def latent_gradient(
    loss: ScoreLoss,
    asked: Asked,
    x: Float[Tensor, "batch *frames channels height width"],
    *,
    generator: torch.Generator,
    progress: float = 0.0,
    through_encoder: bool = False,
) -> Score:
    """As :func:`score_gradient`, of a prior of latents: ``x`` is encoded, and what the prior makes
    of it decoded, w (x - dec(x0)). So nothing is differentiated through an encoder, which is
    unstable (stable-dreamfusion#212) and needs its memory; ``through_encoder`` does that all the
    same, for any loss: the gradient of the latents times the encoder's slope.

    Raises :class:`UsageError` for losses whose target is no clean picture, unless it goes through
    the encoder.
    """
    prior = asked.prior
    if through_encoder and isinstance(prior, LatentPrior):
        return _through_encoder(loss, asked, x, prior, generator, progress)
    if not isinstance(prior, LatentPrior) or loss.name not in LATENT_LOSSES:
        raise UsageError(f"the score loss {loss.name!r} has no clean picture to decode",
                         where=type(prior).__name__,
                         fix=f"choose one of {', '.join(LATENT_LOSSES)}")  # fmt: skip
    score = score_gradient(loss, asked, encoded(prior, x), generator=generator, progress=progress)
    assert score.target is not None
    target = decoded(prior, score.target, like=x)
    weight = x.new_ones(len(x))
    if loss.noise != "none":
        alpha, sigma = (level.to(x) for level in levels_at(asked.path, score.times[-1]))
        # of noises, e - n = (x - x0) alpha / sigma
        weight = weight_at(loss, alpha, sigma) * (1 if loss.space == "x0" else alpha / sigma)
    gradient = broadcast(weight, x) * (x - target)
    return Score(gradient=gradient, times=score.times, target=target)


def _through_encoder(
    loss: ScoreLoss,
    asked: Asked,
    x: Tensor,
    prior: LatentPrior,
    generator: torch.Generator,
    progress: float,
) -> Score:
    with torch.enable_grad():
        pictures = x.detach().requires_grad_()
        latents = encoded(prior, pictures)
    score = score_gradient(loss, asked, latents.detach(), generator=generator, progress=progress)
    (gradient,) = torch.autograd.grad(latents, pictures, score.gradient)
    return Score(gradient=gradient, times=score.times, target=None)


LATENT_SIDE = 32
"""Pictures are padded to multiples of it before they are encoded."""


def encoded(
    prior: LatentPrior, x: Float[Tensor, "batch *frames channels height width"]
) -> Float[Tensor, "batch *frames latent_channels h w"]:
    """The latents of pictures, or of videos, of any size."""
    return prior.encode(padded(x, LATENT_SIDE))


def padded(
    x: Float[Tensor, "*batch channels height width"], unit: int
) -> Float[Tensor, "*batch channels high wide"]:
    """Pictures whose last rows and columns are repeated up to a multiple of ``unit``."""
    height, width = x.shape[-2:]
    room = (0, -width % unit, 0, -height % unit)
    pictures = torch.nn.functional.pad(x.flatten(0, -4), room, mode="replicate")
    return pictures.unflatten(0, x.shape[:-3])


def decoded(
    prior: LatentPrior,
    latents: Float[Tensor, "batch *frames latent_channels h w"],
    *,
    like: Float[Tensor, "batch *frames channels height width"],
) -> Float[Tensor, "batch *frames channels height width"]:
    """The pictures of latents that :func:`encoded` gave, as large as ``like``."""
    return prior.decode(latents)[..., : like.shape[-2], : like.shape[-1]]


class Told(Prior):
    """A prior that is told its texts and guided by them: what it makes of pictures is the mixture
    x0_0 + k (x0_y - x0_0). Of one trajectory, along which a guider may remember."""

    def __init__(self, asked: Asked, scale: float) -> None:
        super().__init__()
        self.asked, self.mix, self.info = asked, guided(scale), asked.prior.info
        self._before: dict[str, Tensor] = {}

    def denoise(
        self,
        x_t: Float[Tensor, "batch *frames channels height width"],
        alpha: Float[Tensor, " batch"],
        sigma: Float[Tensor, " batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "batch *frames channels height width"]:
        """The mixture; ``condition`` is not read, as all is told."""
        voice = replace(_voice(self.asked, 0.0), before=self._before)
        return voice.x0(self.mix, _Noised(x_t=x_t, alpha=alpha, sigma=sigma, t=sigma))[0]

    def reusing(self, most: float) -> AbstractContextManager[None]:
        """The prior's own way, of each text apart."""
        return self.asked.prior.reusing(most)


def _without_noise(loss: ScoreLoss, asked: Asked, x: Tensor, progress: float) -> Score:
    """Fixers: the prior is asked at alpha = 1, sigma = 0."""
    zero = torch.zeros(len(x), dtype=torch.float64)
    at = _Noised(x_t=x, alpha=x.new_ones(len(x)), sigma=x.new_zeros(len(x)), t=zero)
    target, _ = _voice(asked, progress).x0(loss.target, at)
    factor = broadcast(_normaliser(loss, x, target), x)
    return Score(gradient=factor * (x - target), times=zero[None], target=target)


def _normaliser(loss: ScoreLoss, x: Tensor, x0: Tensor) -> Float[Tensor, " batch"]:
    if loss.normaliser == "none":
        return x.new_ones(len(x))
    return 1 / (x - x0).abs().flatten(1).mean(dim=1).clamp_min(1e-8)


@dataclass(frozen=True, kw_only=True, eq=False)
class _State:
    """One noise level of one step."""

    loss: ScoreLoss
    asked: Asked
    x: Float[Tensor, "batch *frames channels height width"]
    t: Float[Tensor, " batch"]
    progress: float
    generator: torch.Generator

    @property
    def voice(self) -> _Voice:
        """The prior."""
        return _voice(self.asked, self.progress)

    def gradient(self) -> tuple[Tensor, Tensor]:
        """g, and the clean pictures of the target."""
        loss, x = self.loss, self.x
        noise, earlier = self._noise()
        at = self._noised(x, noise, self.t)
        if loss.space == "x0":
            target, _ = self.voice.x0(loss.target, at)
            difference = x - target
        else:
            wanted = self.voice.eps(loss.target, at)
            difference = wanted - self._baseline(noise, earlier, at)
            target = (at.x_t - broadcast(at.sigma, x) * wanted) / broadcast(at.alpha, x)
        weight = weight_at(loss, at.alpha, at.sigma) * self._curvature(at)
        return broadcast(weight * _normaliser(loss, x, target), x) * difference, target

    def _curvature(self, at: _Noised) -> Float[Tensor, " batch"]:
        """f''(r) r^2 of the divergence."""
        if self.loss.divergence == "reverse-kl":
            return torch.ones_like(at.alpha)
        assert self.asked.log_ratio is not None
        log = self.asked.log_ratio(at.x_t, at.alpha, at.sigma).to(at.alpha)
        return {
            "forward-kl": log.exp, "jensen-shannon": log.sigmoid,
            "hellinger": lambda: 0.5 * (0.5 * log).exp(),
        }[self.loss.divergence]()  # fmt: skip

    def _baseline(self, noise: Tensor, earlier: Tensor | None, at: _Noised) -> Tensor:
        loss, asked, voice = self.loss, self.asked, self.voice
        if loss.against == "noise":
            return noise
        if loss.against == "nothing":
            return torch.zeros_like(noise)
        if loss.against == "earlier":
            assert earlier is not None
            return earlier
        if loss.against == "second":
            assert asked.second is not None
            voice = replace(voice, prior=asked.second)
        elif loss.against == "later":
            at = self._noised(self.x, noise, self._later())
        elif loss.against == "reference":
            assert asked.reference is not None
            at = self._noised(asked.reference, noise, self.t)
            voice = replace(voice, texts=asked.reference_texts)
        return voice.eps(loss.baseline, at)

    def _later(self) -> Float[Tensor, " batch"]:
        times = self.loss.times.within(self.asked.path, self.asked.prior.info.ratios)
        u = torch.rand(len(self.t), generator=self.generator, dtype=torch.float64)
        return (self.t + self.loss.step * u * (self.t - times.low)).clamp_max(times.high)

    def _noised(self, x: Tensor, noise: Tensor, t: Tensor) -> _Noised:
        alpha, sigma = (level.to(x) for level in levels_at(self.asked.path, t))
        x_t = broadcast(alpha, x) * x + broadcast(sigma, x) * noise
        return _Noised(x_t=x_t, alpha=alpha, sigma=sigma, t=t)

    def _noise(self) -> tuple[Tensor, Tensor | None]:
        """The noise of x_t; where the loss compares with it, also what the prior sees at the
        earlier time of the same inversion."""
        x, inversion, path = self.x, self.loss.inversion, self.asked.path
        if self.loss.noise == "fresh":
            return torch.randn(x.shape, generator=self.generator, dtype=x.dtype).to(x), None
        low, high = (time_at(path, ratio) for ratio in self.asked.prior.info.ratios)
        first = max(EARLIEST, low)
        end, earlier = self.t, None
        if self.loss.against == "earlier":
            before = (self.t - self.loss.step).maximum(0.5 * self.t).clamp_min(first)
            x_s = invert(x, inversion_times(before, inversion.steps, first=first), self._seen, path)
            alpha, sigma = (level.to(x) for level in levels_at(path, before))
            at = _Noised(x_t=x_s, alpha=alpha, sigma=sigma, t=before)
            earlier = self.voice.eps(self.loss.baseline, at)
            x_t = invert(x_s, torch.stack([before, self.t]), self._seen, path, noised=True)
        else:
            beyond = None
            if inversion.overshoot:
                u = torch.rand(len(self.t), generator=self.generator, dtype=torch.float64)
                most = min(high, 1 - EARLIEST)
                beyond = end = (self.t + u / inversion.steps).clamp_max(most).maximum(self.t)
            times = inversion_times(self.t, inversion.steps, first=first, beyond=beyond)
            x_t = invert(x, times, self._seen, path)
        a, s = (broadcast(level, x) for level in levels_at(path, end))
        found = (x_t - a * x) / s
        if inversion.fresh:
            found = mixed_with_fresh(found, inversion.fresh, self.generator)
        return found, earlier

    def _seen(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that the prior sees on the path of the inversion."""
        alpha, sigma = (level.to(x_t) for level in levels_at(self.asked.path, t))
        at = _Noised(x_t=x_t, alpha=alpha, sigma=sigma, t=t)
        return self.voice.eps(self.loss.inversion.mix, at)
