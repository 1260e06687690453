"""Learned quantisation: steps that training chooses, and an estimate of the bits they cost.

Rounding passes gradients straight through, and the step learns from the rounding error (LSQ, Esser
et al. 2020). The bits of a code are those of a discretised logistic distribution whose place and
width are learned too; the bundle's real tables are histograms, which cost at most a little less.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SMALLEST_PROBABILITY = 2.0**-16


class Quantiser(nn.Module):
    """One step, and one distribution of codes, for each channel of an attribute."""

    def __init__(self, channels: int, step: float) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.full((channels,), math.log(step)))
        self.place = nn.Parameter(torch.zeros(channels))
        """Centre of the codes' distribution, in steps."""
        self.log_width = nn.Parameter(torch.zeros(channels))
        """Logarithm of the distribution's width, in steps."""

    @property
    def step(self) -> Float[Tensor, " c"]:
        """Distance between two values of a channel."""
        return self.log_step.exp()

    def forward(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """``values`` rounded to whole steps."""
        scaled = values / self.step
        return (scaled + (scaled.round() - scaled).detach()) * self.step

    def codes(self, values: Float[Tensor, "n c"]) -> Tensor:
        """The whole numbers that stand for ``values``, int32."""
        return (values / self.step).round().int()

    def bits(self, values: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Estimated bits of each row, differentiable in everything."""
        scaled = values / self.step - self.place
        inverse = (-self.log_width).exp()
        # sigmoid(a) - sigmoid(b) = (e^-b - e^-a) / ((1 + e^-a)(1 + e^-b)), without cancellation
        # on the left half only; the distribution is symmetric, so use it there.
        distance = -scaled.abs()
        upper = torch.sigmoid((distance + 0.5) * inverse)
        lower = torch.sigmoid((distance - 0.5) * inverse)
        return -(upper - lower).clamp_min(_SMALLEST_PROBABILITY).log2().sum(dim=-1)

    @torch.no_grad()
    def fit(self, values: Float[Tensor, "n c"]) -> None:
        """Sets place and width to those of ``values``."""
        if values.shape[0] == 0:
            return
        scaled = values / self.step
        self.place.copy_(scaled.median(dim=0).values)
        spread = (scaled - self.place).abs().mean(dim=0)
        # The mean absolute deviation of a logistic distribution is 2 ln 2 widths.
        self.log_width.copy_((spread / (2 * math.log(2))).clamp_min(0.1).log())
