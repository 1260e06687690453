"""Losses that are differentiated through the priors: for generators, whose pictures are many.

Of pictures x that a generator makes, and their noised x_t, let f be what a prior makes of x_t and
g what a second one does that knows x exactly. The scores of the two differ by alpha (g - f) /
sigma^2, and a divergence is the mean of a distance d of that difference. Its gradient in the
generator, with the distribution of x_t held fixed, is that of

    E[ d'(g - f) . (x - g) ]

(Luo et al. 2024, "One-step diffusion distillation through score implicit matching", theorem 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from scene4d.priors.prior import NOTHING, Condition, Prior, broadcast


@dataclass(frozen=True, kw_only=True)
class ScoreDivergence:
    """A distance of two clean pictures, as plain data."""

    distance: Literal["square", "pseudo-huber"] = "pseudo-huber"
    """d: half the square; or sqrt(square + width^2) - width (SIM)."""
    width: float = 0.1
    """Of the pseudo-Huber distance, as a root mean square of a picture's values."""
    square: float = 0.0
    """Weight of the squared difference itself beside it: SiD's 1 - alpha, which is -0.2 (Zhou et
    al. 2024, "Score identity distillation", equation 23, with the square distance)."""


SIM = ScoreDivergence()
SID = ScoreDivergence(distance="square", square=-0.2)


def divergence_loss(
    loss: ScoreDivergence,
    prior: Prior,
    second: Prior,
    x: Float[Tensor, "batch *frames channels height width"],
    noise: Float[Tensor, "batch *frames channels height width"],
    alpha: Float[Tensor, " batch"],
    sigma: Float[Tensor, " batch"],
    condition: Condition = NOTHING,
) -> Float[Tensor, " batch"]:
    """The loss of each picture, a mean over its values, in units of squared clean pictures: the
    divergence of scores times sigma^4 / alpha^2.

    Differentiable in ``x``, through both priors, whose weights should want no gradients. ``second``
    must be trained along on what the generator makes.
    """
    x_t = broadcast(alpha, x) * x + broadcast(sigma, x) * noise
    f = prior.denoise(x_t, alpha, sigma, condition)
    g = second.denoise(x_t, alpha, sigma, condition)
    apart = g - f
    pull = apart
    if loss.distance == "pseudo-huber":
        mean = apart.square().flatten(1).mean(dim=1)
        pull = apart / broadcast((mean + loss.width**2).sqrt(), apart)
    found = pull * (x - g) + loss.square * apart.square()
    return found.flatten(1).mean(dim=1)
