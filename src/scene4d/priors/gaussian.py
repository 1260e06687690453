"""Priors whose denoiser is exact: Gaussians and mixtures of them. The oracles of every loss.

Of N(mu, C), the posterior mean at x_t = alpha x + sigma n is
mu + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha mu).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.priors.prior import NOTHING, Condition, Kind, Prior, PriorInfo, broadcast

Mean = Callable[[Condition], Tensor]
"""A mean picture, or one of each picture of a batch, of what is known of them."""


class GaussianPrior(Prior):
    """Pictures around a mean picture."""

    mean: Tensor | None
    variances: Tensor
    axes: Tensor

    def __init__(
        self,
        mean: Float[Tensor, "*batch channels height width"] | Mean,
        covariance: Tensor | float,
        *,
        channels: tuple[Kind, ...] = ("rgb",),
        conditions: frozenset[str] = frozenset(),
        frames: int | None = None,
    ) -> None:
        """``covariance``: a variance; or variances [channels, height, width] of each value; or the
        whole matrix [n, n] of the n flattened values. ``mean`` may depend on the condition, whose
        fields that it reads are then named in ``conditions``. ``frames``: of videos, whose mean has
        that axis first and whose pictures vary independently. Raises :class:`UsageError` for a
        matrix that is no covariance."""
        super().__init__()
        self._mean = None if isinstance(mean, Tensor) else mean
        self.register_buffer("mean", mean if isinstance(mean, Tensor) else None)
        like = mean if isinstance(mean, Tensor) else torch.zeros(())
        given = torch.as_tensor(covariance).to(like)
        self.full = given.ndim == 2
        if self.full:
            variances, axes = torch.linalg.eigh(given)
            if not torch.allclose(given, given.mT) or bool((variances < 0).any()):
                raise UsageError("a covariance is symmetric and has no negative eigenvalue")
        else:
            variances, axes = given, given.new_zeros(0)
            if bool((variances < 0).any()):
                raise UsageError("a variance is not negative")
        self.register_buffer("variances", variances)
        self.register_buffer("axes", axes)
        size = None if self._mean is not None else (like.shape[-1], like.shape[-2])
        self.info = PriorInfo(channels=channels, size=size, conditions=conditions, frames=frames)

    def mean_of(self, condition: Condition) -> Tensor:
        """The mean picture, or that of each picture of a batch."""
        if self._mean is not None:
            return self._mean(condition)
        assert self.mean is not None
        return self.mean

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """The posterior mean."""
        a, s = broadcast(alpha, x_t), broadcast(sigma, x_t)
        mean = self.mean_of(condition).to(x_t)
        return mean + self._along(x_t - a * mean, lambda c, a, s: a * c / (a * a * c + s * s), a, s)

    def log_density(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, " *batch"]:
        """Of noised pictures, but for the constant of all Gaussians of this many values."""
        a, s = broadcast(alpha, x_t), broadcast(sigma, x_t)
        apart = x_t - a * self.mean_of(condition).to(x_t)
        weighed = self._along(apart, lambda c, a, s: 1 / (a * a * c + s * s), a, s)
        squares = (apart * weighed).flatten(-3).sum(-1)
        a, s = alpha[..., None].to(x_t), sigma[..., None].to(x_t)
        spread = self.variances if self.full else self.variances.expand(x_t.shape[-3:]).flatten()
        return -0.5 * (squares + (a * a * spread + s * s).log().sum(-1))

    def _along(self, apart: Tensor, factor: Callable[..., Tensor], a: Tensor, s: Tensor) -> Tensor:
        """``apart`` multiplied by a function of the covariance."""
        if not self.full:
            return factor(self.variances, a, s) * apart
        flat = apart.flatten(-3) @ self.axes
        flat = factor(self.variances, a.flatten(-3), s.flatten(-3)) * flat
        return (flat @ self.axes.mT).unflatten(-1, apart.shape[-3:])


class MixturePrior(Prior):
    """A weighted mixture of Gaussians, by their exact responsibilities."""

    log_weights: Tensor

    def __init__(self, parts: Sequence[GaussianPrior], weights: Sequence[float]) -> None:
        """``weights``: positive; they are divided by their sum. Raises :class:`UsageError`."""
        super().__init__()
        if not parts or len(parts) != len(weights) or min(weights) <= 0:
            raise UsageError(f"a mixture of {len(parts)} Gaussians with the weights {weights}",
                             fix="give each a positive weight")  # fmt: skip
        self.parts = torch.nn.ModuleList(parts)
        shares = torch.tensor(list(weights), dtype=torch.float64)
        self.register_buffer("log_weights", (shares / shares.sum()).log())
        self.info = parts[0].info

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """Each Gaussian's posterior mean, weighed by its probability given ``x_t``."""
        parts: Sequence[GaussianPrior] = list(self.parts)  # type: ignore[arg-type]
        logs = [
            log + part.log_density(x_t, alpha, sigma, condition)
            for log, part in zip(self.log_weights.to(x_t), parts, strict=True)
        ]
        shares = torch.stack(logs).softmax(dim=0)
        means = torch.stack([part.denoise(x_t, alpha, sigma, condition) for part in parts])
        return (shares[..., None, None, None] * means).sum(dim=0)


class ByText(Prior):
    """A prior for each text, and one of pictures of which nothing is said."""

    def __init__(self, priors: Mapping[str, Prior], otherwise: Prior) -> None:
        """All are of the same kind of pictures."""
        super().__init__()
        self.texts = list(priors)
        self.priors = torch.nn.ModuleList(priors.values())
        self.otherwise = otherwise
        info = otherwise.info
        self.info = PriorInfo(
            channels=info.channels, value_range=info.value_range, ratios=info.ratios,
            conditions=info.conditions | {"text"}, size=info.size, frames=info.frames,
            space=info.space,
        )  # fmt: skip

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """That of the prior of the text. Raises :class:`UsageError` for another text."""
        prior: Prior = self.otherwise
        if condition.text is not None:
            if condition.text not in self.texts:
                raise UsageError(f"this prior knows no text {condition.text!r}",
                                 fix=f"choose one of: {', '.join(self.texts)}")  # fmt: skip
            prior = self.priors[self.texts.index(condition.text)]  # type: ignore[assignment]
        return prior.denoise(x_t, alpha, sigma, condition)
