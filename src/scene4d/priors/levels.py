"""Noise levels: time 0..1 against alpha and sigma, and which times a step asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError

Path = Literal["cosine", "flow", "ddpm", "sd"]
_BETAS = {"ddpm": (1e-4, 0.02, 1.0), "sd": (0.00085, 0.012, 0.5)}
"""First and last beta of 1000 steps, and the power in which they are linear: Ho et al. 2020, and
Stable Diffusion's "scaled linear"."""
_STEPS = 1000


def levels_at(
    path: Path, t: Float[Tensor, " *batch"]
) -> tuple[Float[Tensor, " *batch"], Float[Tensor, " *batch"]]:
    """alpha and sigma at ``t``, 0 (clean) to 1 (noise).

    ``cosine``: alpha = cos(pi t / 2), sigma = sin(pi t / 2). ``flow``: alpha = 1 - t, sigma = t.
    ``ddpm``, ``sd``: the tables of 1000 steps, step 1000 t, linear in the logarithm between them;
    alpha^2 + sigma^2 = 1.
    """
    if path == "cosine":
        angle = 0.5 * math.pi * t
        return angle.cos(), angle.sin()
    if path == "flow":
        return 1 - t, t
    table = _log_alphas(path).to(t)
    place = t.clamp(0, 1) * _STEPS
    low = place.long().clamp(0, _STEPS - 1)
    log_alpha = torch.lerp(table[low], table[low + 1], place - low)
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


def time_at(path: Path, ratio: float) -> float:
    """The time at which sigma / alpha is ``ratio`` (0 or more, inf: 1)."""
    if math.isinf(ratio):
        return 1.0
    if path == "cosine":
        return 2 / math.pi * math.atan(ratio)
    if path == "flow":
        return ratio / (1 + ratio)
    wanted = -0.5 * math.log1p(ratio * ratio)  # log alpha, as alpha^2 + sigma^2 = 1
    table = _log_alphas(path)
    after = int((table > wanted).sum())
    if after == 0:
        return 0.0
    if after > _STEPS:
        return 1.0
    before, beyond = float(table[after - 1]), float(table[after])
    return (after - 1 + (before - wanted) / (before - beyond)) / _STEPS


@cache
def _log_alphas(path: Path) -> Float[Tensor, " 1001"]:
    first, last, power = _BETAS[path]
    betas = torch.linspace(first**power, last**power, _STEPS, dtype=torch.float64) ** (1 / power)
    logs = 0.5 * torch.log1p(-betas).cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), logs])


@dataclass(frozen=True, kw_only=True)
class Times:
    """Which times a step asks for."""

    low: float = 0.02
    high: float = 0.98
    """The largest; of ``annealed``, at the start of training."""
    kind: Literal["uniform", "annealed"] = "uniform"
    """Drawn evenly, or falling from high to low as high - (high - low) sqrt(progress) (HiFA)."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise UsageError(
                f"times from {self.low} to {self.high}", fix="give 0 <= low <= high <= 1"
            )

    def within(self, path: Path, ratios: tuple[float, float]) -> Times:
        """Those at which a prior is valid, see :attr:`PriorInfo.ratios`.

        Raises :class:`UsageError` where it is valid at none.
        """
        least, most = (time_at(path, ratio) for ratio in ratios)
        low, high = max(self.low, least), min(self.high, most)
        if low > high:
            raise UsageError(
                f"at no noise of times {self.low:g} to {self.high:g} this prior is valid: it is "
                f"from {least:.3g} to {most:.3g} (sigma/alpha {ratios[0]:g} to {ratios[1]:g})",
                fix="ask for times within that",
            )
        return Times(low=low, high=high, kind=self.kind)

    def draw(
        self, count: int, progress: float, generator: torch.Generator, strata: int = 1
    ) -> Float[Tensor, "strata count"]:
        """Times of ``count`` pictures, float64 on the CPU: in each stratum one for each picture,
        the highest stratum first; takes strata * count random numbers."""
        u = torch.rand(strata, count, generator=generator, dtype=torch.float64)
        high = self.high
        if self.kind == "annealed":
            high -= (self.high - self.low) * math.sqrt(progress)
            u = u * 0 + 1 if strata == 1 else u
        place = (torch.arange(strata - 1, -1, -1, dtype=torch.float64)[:, None] + u) / strata
        return self.low + (high - self.low) * place
