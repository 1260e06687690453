"""Score losses as plain data: what each of them compares, and nothing of how.

Every loss here gives pictures x the gradient

    g = w(t) h (target - baseline),

where target is a mixture of what a prior says of the noised pictures, and baseline that of which it
is to be the same. In the space ``eps`` both are noises; in the space ``x0`` they are clean pictures
and the sign is turned, g = w(t) h (baseline - target), as a noise points away from its picture.
A mixture is written in noises e(x_t, condition); its factors for x0 are the same, as they sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from scene4d.errors import UsageError
from scene4d.priors.levels import Times

Role = Literal["y", "none", "negative", "now"]
"""Conditions: what is wanted; nothing; what is not wanted; what there is now (Bridge's source)."""


Divergence = Literal["reverse-kl", "forward-kl", "jensen-shannon", "hellinger"]
"""D_f(p || q) = E_q f(p / q) of what a prior knows, p, and what there is, q. f(u) is -log u;
u log u; u log u - (u + 1) log((u + 1) / 2); (sqrt u - 1)^2."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One term of a mixture: a factor times what the prior says under a condition."""

    role: Role
    factor: float
    factor_end: float | None = None
    """At the end of training, linearly; None: as at the start."""
    from_t: float = 0.0
    """Time below which it is left out."""

    def factor_at(self, progress: float) -> float:
        """The factor at ``progress`` (0..1) of training."""
        last = self.factor if self.factor_end is None else self.factor_end
        return self.factor + (last - self.factor) * progress


Mix = tuple[Part, ...]


def guided(scale: float, *, over: Role = "none", to: Role = "y") -> Mix:
    """e_0 + k (e_y - e_0): the one convention of classifier-free guidance here. k = 0 is the
    unconditional noise, k = 1 the conditional one. (threestudio's SDS has e_y + k (e_y - e_0), so
    its scale k is k + 1 here.) What may become of the difference before: guiders."""
    parts = (Part(role=to, factor=scale), Part(role=over, factor=1.0 - scale))
    return tuple(part for part in parts if part.factor)


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How noise is found by following a prior's own path from the picture (DDIM inversion)."""

    steps: int = 10
    """Of the whole way from 0 to 1: fewer to an earlier time."""
    mix: Mix = (Part(role="none", factor=1.0),)
    fresh: float = 0.0
    """Share (in standard deviations) of fresh noise in the noise that is found; its variance is
    kept."""
    overshoot: bool = False
    """The last step ends at random up to a step beyond t; the noise that is found there is used at
    t (SDI)."""


@dataclass(frozen=True, kw_only=True)
class ScoreLoss:
    """One score loss. :func:`scene4d.priors.scores.score_gradient` executes it."""

    name: str
    noise: Literal["fresh", "inverted", "none"] = "fresh"
    """Where x_t comes from: fresh noise, inversion, or x itself (fixers)."""
    inversion: Inversion = Inversion()
    target: Mix = (Part(role="y", factor=1.0),)
    against: Literal[
        "noise", "nothing", "prior", "second", "earlier", "later", "reference", "picture"
    ] = "noise"
    """The baseline: the noise that was added; 0; the prior at the same x_t; a second prior there;
    the prior at the earlier x_s of the same inversion; at a later time with the same noise; at
    the noised reference; the picture itself."""
    baseline: Mix = (Part(role="none", factor=1.0),)
    """Of the baselines that ask a prior."""
    weight: Literal["one", "variance", "alpha", "sigma_over_alpha", "alpha_over_sigma"] = "variance"
    """w: 1, sigma^2, alpha, sigma / alpha, alpha / sigma."""
    normaliser: Literal["none", "residual"] = "none"
    """h: 1; or 1 over the mean of \\|x - x0\\| of a picture (DMD)."""
    divergence: Divergence = "reverse-kl"
    """What is to become small where a second prior says what there is: g is multiplied by
    f''(r) r^2, r = p / q the ratio of the densities of x_t (f-distill); 1 of the reverse KL."""
    space: Literal["eps", "x0"] = "eps"
    times: Times = field(default_factory=Times)
    step: float = 0.05
    """How much earlier is ``earlier``; the largest distance of ``later``, as a share of the way
    from the least time."""
    states: int = 1
    """Noise levels at which the same is asked, one in each of as many strata of the times, the
    highest first; the gradient is their mean (PRD)."""

    def __post_init__(self) -> None:
        picture = self.against == "picture"
        if picture != (self.space == "x0"):
            raise UsageError(
                f"the score loss {self.name!r} compares a {self.space} with {self.against}",
                fix="pictures (x0) are compared with the picture, noises (eps) with noises",
            )
        if self.noise == "none" and self.space != "x0":
            raise UsageError(f"the score loss {self.name!r} asks for noise where there is none")
        if (self.against == "earlier") and self.noise != "inverted":
            raise UsageError("an earlier x_s is that of an inversion", where=self.name)
        if self.divergence != "reverse-kl" and self.against != "second":
            raise UsageError(f"the divergence {self.divergence} is one from what a second prior "
                             "knows", where=self.name)  # fmt: skip
        if self.states < 1 or self.inversion.steps < 1 or not 0 <= self.inversion.fresh <= 1:
            raise UsageError("states and steps are 1 or more, fresh is a share", where=self.name)

    @property
    def roles(self) -> set[Role]:
        """Conditions that it asks for."""
        mixes: Sequence[Mix] = [self.target]
        if self.against in ("prior", "second", "earlier", "later", "reference"):
            mixes = [*mixes, self.baseline]
        if self.noise == "inverted":
            mixes = [*mixes, self.inversion.mix]
        return {part.role for mix in mixes for part in mix}
