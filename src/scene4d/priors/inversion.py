"""DDIM inversion: from a picture along a prior's own path to a noised one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.priors.levels import Path, levels_at
from scene4d.priors.prior import broadcast

Noise = Callable[[Tensor, Tensor], Tensor]
"""The noise that a prior sees in x_t at times t [batch]."""
EARLIEST = 1e-3
"""Of times, 0..1: the noise of a clean picture is not defined, so paths start there, where x_t is x
to three digits."""


def inversion_times(
    t: Float[Tensor, " batch"],
    steps: int,
    *,
    first: float = EARLIEST,
    beyond: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "times batch"]:
    """Times of the paths to ``t``: from ``first`` over every 1/``steps``; then on to ``beyond``.
    Pictures that arrive early wait: their times repeat."""
    grid = torch.arange(1, steps + 1, dtype=t.dtype)[:, None] / steps
    grid = grid[grid[:, 0] < float(t.max())]
    rows = [torch.full_like(t, first)[None], grid.minimum(t), t[None]]
    if beyond is not None:
        rows.append(beyond[None])
    return torch.cat(rows).clamp_min(first)


def invert(
    x: Float[Tensor, "batch channels height width"],
    times: Float[Tensor, "times batch"],
    noise: Noise,
    path: Path,
    *,
    noised: bool = False,
) -> Float[Tensor, "batch channels height width"]:
    """x_t at the last of ``times``, by Euler steps of x_t / alpha in sigma / alpha (DDIM, Song et
    al. 2021, eq. 13). ``x`` is clean, and brought to the first level by scaling alone; or it is
    ``noised`` to that level already."""
    found = x if noised else broadcast(levels_at(path, times[0])[0], x) * x
    for before, after in pairwise(times):
        (a, s), (b, z) = levels_at(path, before), levels_at(path, after)
        e = noise(found, before)
        found = broadcast(b / a, x) * found + broadcast(z - b * s / a, x) * e
    return found


def mixed_with_fresh(
    found: Float[Tensor, "batch channels height width"], share: float, generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """The noise with a share of fresh noise; of variance 1 where ``found`` is."""
    drawn = torch.randn(found.shape, generator=generator, dtype=found.dtype).to(found)
    return math.sqrt(1 - share * share) * found + share * drawn
