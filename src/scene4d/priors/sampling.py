"""Pictures that a prior thinks of: DDIM (Song et al. 2021), from noise or from a picture."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.priors.levels import Path, levels_at, time_at
from scene4d.priors.prior import NOTHING, Condition, Prior, broadcast

_LATEST = 0.999
"""Time from which a sample starts where a prior is valid at any noise: at 1 there is no signal."""
_NOISE = 20.0
"""sigma / alpha that a prior must know for pictures to be drawn out of nothing."""


@torch.no_grad()
def sample(
    prior: Prior,
    start: Float[Tensor, "batch *frames channels height width"] | None,
    *,
    shape: tuple[int, ...] = (),
    steps: int = 50,
    time: float | None = None,
    path: Path = "cosine",
    condition: Condition = NOTHING,
    reuse: float = 0.0,
    generator: torch.Generator,
) -> Float[Tensor, "batch *frames channels height width"]:
    """Clean pictures (or latents) of the prior's distribution, by ``steps`` steps without fresh
    noise.

    ``start``: pictures that are noised to ``time`` (0..1, by default the latest) and go from there
    (SDEdit, Meng et al. 2022); None: out of noise of ``shape``. ``reuse``: how much may change from
    step to step and count as nothing, see :meth:`Prior.reusing`; 0: all is asked anew. Raises
    :class:`UsageError` for a prior that is not valid at so much noise.
    """
    low, high = (time_at(path, ratio) for ratio in prior.info.ratios)
    latest = min(high, _LATEST)
    begin = latest if time is None else min(time, _LATEST)
    if begin > latest + 1e-6:
        raise UsageError(f"this prior is valid up to the time {latest:.3g}, not at {begin:.3g}",
                         where=type(prior).__name__, fix="start from less noise")  # fmt: skip
    if start is None and math.isfinite(prior.info.ratios[1]) and prior.info.ratios[1] < _NOISE:
        raise UsageError(
            f"this prior is valid up to sigma/alpha {prior.info.ratios[1]:.3g}: it cannot draw "
            "pictures out of nothing",
            where=type(prior).__name__, fix="start from a picture",
        )  # fmt: skip
    noise = torch.randn(shape if start is None else start.shape, generator=generator)
    times = torch.linspace(begin, max(low, 0.0), steps + 1, dtype=torch.float64)
    levels = [tuple(level.float() for level in levels_at(path, t)) for t in times]
    alpha, sigma = levels[0]
    x = sigma * noise if start is None else sigma * noise.to(start) + alpha * start
    x0 = x
    with prior.reusing(reuse) if reuse > 0 else nullcontext():
        for (alpha, sigma), (a, s) in pairwise(levels):
            each = alpha.expand(len(x)).to(x), sigma.expand(len(x)).to(x)
            x0 = prior.denoise(x, *each, condition)
            x = a * x0 + s * (x - broadcast(each[0], x) * x0) / sigma
    return x0
