"""Depth and opacity as pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)
"""Powers 0 to 5 for red, green and blue: the polynomial form of Turbo by Mikhailov, 2019."""


def turbo(values: Float[Tensor, " *shape"]) -> Float[Tensor, "*shape 3"]:
    """The Turbo colours (0..1) of values 0 (blue) to 1 (red); values outside are clamped."""
    x = values.clamp(0, 1)[..., None]
    coefficients = x.new_tensor(_TURBO)
    colour = coefficients[:, -1].expand(*x.shape[:-1], 3)
    for power in range(coefficients.shape[1] - 2, -1, -1):
        colour = colour * x + coefficients[:, power]
    return colour.clamp(0, 1)


def depth_range(
    depth: Float[Tensor, " *shape"],
    alpha: Float[Tensor, " *shape"],
    *,
    low: float = 0.02,
    high: float = 0.98,
) -> tuple[float, float]:
    """Percentiles of the depth where something is seen (alpha above 1/2); (0, 1) in empty space."""
    seen = depth[(alpha > 0.5) & torch.isfinite(depth) & (depth > 0)]
    if seen.numel() == 0:
        return 0.0, 1.0
    # quantile() takes 16 million values at most; an even sample of one million says the same
    seen = seen[:: 1 + seen.numel() // 1_000_000]
    near, far = seen.quantile(seen.new_tensor([low, high])).tolist()
    return float(near), float(far)


def colour_depth(
    depth: Float[Tensor, " *shape"],
    alpha: Float[Tensor, " *shape"],
    limits: tuple[float, float],
) -> Float[Tensor, "*shape 3"]:
    """Turbo colours of depth between ``limits`` (near blue, far red), fading to black with alpha.

    Pixels without a finite depth are black.
    """
    near, far = limits
    finite = torch.isfinite(depth)
    share = (torch.where(finite, depth, torch.zeros_like(depth)) - near) / max(far - near, 1e-12)
    return turbo(share) * (alpha.clamp(0, 1) * finite)[..., None]
