"""Learned quantisation: steps that training chooses, and an estimate of the bits they cost.

Rounding passes gradients straight through, and the step learns from the rounding error (LSQ, Esser
et al. 2020). The bits of a code are those of a discretised logistic distribution whose place and
width are learned too; the bundle's real tables are histograms, which cost at most a little less.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scene4d.methods.lpgs.quantiser_kernels import (
    SHARPEST,
    SMALLEST_PROBABILITY,
    bits_backward,
    bits_of_rows,
    num_chunks,
    round_backward,
    round_rows,
)
from scene4d.rendering.splats.projection import empty
from scene4d.rendering.threads import KERNEL_LOCK, kernels_take


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

    def forward(
        self, values: Float[Tensor, "p c"], rows: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n c"]:
        """``values``, or ``rows`` of them, rounded to whole steps."""
        if kernels_take(values):
            return _Round.apply(values, rows, self.step)
        scaled = (values if rows is None else values[rows]) / self.step
        return (scaled + (scaled.round() - scaled).detach()) * self.step

    def codes(self, values: Float[Tensor, "n c"]) -> Tensor:
        """The whole numbers that stand for ``values``, int32."""
        return (values / self.step).round().int()

    def bits(
        self, values: Float[Tensor, "p c"], rows: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Estimated bits of each row, or of ``rows``, differentiable in everything."""
        sharp = (-self.log_width).exp()
        if kernels_take(values):
            return _Bits.apply(values, rows, self.step, self.place, sharp.clamp_max(SHARPEST))
        scaled = (values if rows is None else values[rows]) / self.step - self.place
        # sigmoid(a) - sigmoid(b) = (e^-b - e^-a) / ((1 + e^-a)(1 + e^-b)), without cancellation
        # on the left half only; the distribution is symmetric, so use it there.
        distance = -scaled.abs()
        upper = torch.sigmoid((distance + 0.5) * sharp)
        lower = torch.sigmoid((distance - 0.5) * sharp)
        return -(upper - lower).clamp_min(SMALLEST_PROBABILITY).log2().sum(dim=-1)

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


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _rows_of(rows: Tensor | None, count: int) -> np.ndarray:
    return np.arange(count) if rows is None else _array(rows)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rows, step):
        ctx.save_for_backward(values, rows, step)
        chosen = _rows_of(rows, len(values))
        out = empty(len(chosen), values.shape[1])
        with KERNEL_LOCK:
            round_rows(_array(values), chosen, _array(step), out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Straight through, and LSQ's for the step."""
        values, rows, step = ctx.saved_tensors
        sums = np.zeros((num_chunks(len(grad)), len(step)), np.float32)
        d_values = empty(0 if rows is None else len(values), len(step)).zero_()
        with KERNEL_LOCK:
            round_backward(
                _array(values), _rows_of(rows, len(values)), _array(step), _array(grad),
                d_values.numpy(), sums,
            )  # fmt: skip
        d_step = torch.from_numpy(sums.sum(axis=0, dtype=np.float64)).float()
        return grad if rows is None else d_values, None, d_step


class _Bits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rows, step, place, sharp):
        law = np.stack([_array(t) for t in (step, place, sharp, (-sharp / 2).exp())])
        chosen = _rows_of(rows, len(values))
        bits, powers = empty(len(chosen)), empty(len(chosen), values.shape[1])
        with KERNEL_LOCK:
            bits_of_rows(_array(values), chosen, law, bits.numpy(), powers.numpy())
        ctx.save_for_backward(values, rows, sharp, powers)
        ctx.law = law
        return bits

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        values, rows, sharp, powers = ctx.saved_tensors
        law = np.vstack([ctx.law, _array(1 / sharp.double().expm1()).astype(np.float32)])
        chosen = _rows_of(rows, len(values))
        d_values = empty(*values.shape)
        if rows is not None:
            d_values.zero_()
        sums = np.zeros((num_chunks(len(chosen)), 3, values.shape[1]), np.float32)
        with KERNEL_LOCK:
            bits_backward(
                _array(values), chosen, law, powers.numpy(), _array(grad), d_values.numpy(), sums
            )
        whole = torch.from_numpy(sums.sum(axis=0, dtype=np.float64)).float()
        return d_values, None, *whole
