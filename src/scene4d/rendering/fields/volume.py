"""Volume rendering: densities and colours at samples along rays become the rays' pixels.

Emission and absorption (Max 1995, eq. 5), piecewise constant. At sample i of width ``d_i``, media m
with densities ``s_m`` and colours ``c_m`` share the place: the total density is ``s = sum s_m``,
the colour ``sum s_m c_m / s`` (NeRF in the Wild, eq. 10; D2NeRF, eq. 5). With ``T_i =
exp(-sum_{j<i} s_j d_j)`` the weight of a sample is ``w_i = T_i (1 - exp(-s_i d_i))``; a pixel is
the weighted sum of colours, its alpha the sum of weights.

:func:`volume_render` runs in Numba on the CPU (``volume_kernels``), in torch elsewhere;
``reference_volume_render`` is the definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.rendering.fields import volume_kernels
from scene4d.rendering.threads import KERNEL_LOCK


@dataclass(frozen=True, kw_only=True, eq=False)
class RaySamples:
    """Where rays are sampled: the samples of all rays one after the other, from near to far."""

    firsts: Int[Tensor, " bounds"]
    """[rays + 1] first sample of each ray, then how many there are; int64."""
    middles: Float[Tensor, " n"]
    """Distance along the ray at which a sample looks."""
    widths: Float[Tensor, " n"]
    """Length of the part of the ray that a sample stands for."""

    @property
    def count(self) -> int:
        """Samples of all rays."""
        return len(self.middles)

    @property
    def num_rays(self) -> int:
        """Rays, those without samples included."""
        return len(self.firsts) - 1

    def rays(self) -> Int[Tensor, " n"]:
        """The ray of each sample."""
        counts = self.firsts.diff()
        return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)

    def before(
        self, density: Float[Tensor, " n"], opaque: float, which: UInt8[Tensor, " n"]
    ) -> tuple[RaySamples, UInt8[Tensor, " n"]]:
        """Those before which the optical depth of ``density`` is below ``opaque``, and what
        ``which`` says of them."""
        firsts, rays = self.firsts, self.rays()
        depth = (density.double() * self.widths).cumsum(dim=0)  # double: over all rays
        depth = torch.cat([depth.new_zeros(1), depth])
        kept = depth[:-1] - depth[firsts[rays]] < opaque
        counts = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(dim=0)])
        left = RaySamples(
            firsts=counts[firsts], middles=self.middles[kept], widths=self.widths[kept]
        )
        return left, which[kept]

    def padded(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """[n, ...] as [rays, most, ...]: the same values, 0 where a ray has no more samples."""
        counts = self.firsts.diff()
        most = int(counts.max()) if len(counts) else 0
        rays = self.rays()
        place = torch.arange(self.count, device=rays.device) - self.firsts[rays]
        out = values.new_zeros(len(counts), most, *values.shape[1:])
        return out.index_put((rays, place), values)


@dataclass(frozen=True, kw_only=True, eq=False)
class RayPixels:
    """What rays show."""

    rgb: Float[Tensor, "rays 3"]
    """Premultiplied: over black."""
    alpha: Float[Tensor, " rays"]
    distance: Float[Tensor, " rays"]
    """Sum of distances along the ray, each by its weight: times alpha, the expected one."""
    weights: Float[Tensor, " n"]
    """What each sample makes up of its ray's pixel."""


def volume_render(
    density: Float[Tensor, "n media"], colour: Float[Tensor, "n media 3"], samples: RaySamples
) -> RayPixels:
    """The rays' pixels; differentiable once in ``density`` (per length, at least 0) and ``colour``.

    Raises ValueError for shapes that do not fit.
    """
    _check(density, colour, samples)
    if density.device.type != "cpu":
        return reference_volume_render(density, colour, samples)
    dtype = density.dtype
    arguments = (samples.middles.to(dtype), samples.widths.to(dtype), samples.firsts)
    out, weights = _Composite.apply(density, colour.to(dtype), *arguments)
    return RayPixels(rgb=out[:, :3], alpha=out[:, 3], distance=out[:, 4], weights=weights)


def reference_volume_render(
    density: Float[Tensor, "n media"], colour: Float[Tensor, "n media 3"], samples: RaySamples
) -> RayPixels:
    """The definition of :func:`volume_render` in plain torch."""
    _check(density, colour, samples)
    total = density.sum(dim=-1)
    depth = samples.padded(total * samples.widths)
    before = torch.cat([depth.new_zeros(len(depth), 1), depth.cumsum(dim=1)[:, :-1]], dim=1)
    weight = torch.exp(-before) * -torch.expm1(-depth)
    present = torch.where(total > 0, total, torch.ones_like(total))
    mixed = samples.padded((density[..., None] * colour).sum(dim=1) / present[:, None])
    distances = samples.padded(samples.middles.to(density.dtype))
    rays = samples.rays()
    place = torch.arange(samples.count, device=rays.device) - samples.firsts[rays]
    return RayPixels(
        rgb=(weight[..., None] * mixed).sum(dim=1),
        alpha=weight.sum(dim=1),
        distance=(weight * distances).sum(dim=1),
        weights=weight[rays, place],
    )


def _check(density: Tensor, colour: Tensor, samples: RaySamples) -> None:
    fits = density.ndim == 2 and density.shape[1] > 0 and len(density) == samples.count
    if not fits or tuple(colour.shape) != (*density.shape, 3):
        raise ValueError(
            f"{samples.count} samples, densities {tuple(density.shape)}, colours "
            f"{tuple(colour.shape)}: expected [n, media] and [n, media, 3]"
        )


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, colour, middles, widths, firsts):
        ctx.save_for_backward(density, colour, middles, widths, firsts)
        dtype = _array(density).dtype
        out = np.empty((len(firsts) - 1, 5), dtype)
        weights = np.empty(len(density), dtype)
        arrays = [_array(t) for t in (density, colour, middles, widths, firsts)]
        with KERNEL_LOCK:
            volume_kernels.forward(*arrays, out, weights)
        return torch.from_numpy(out), torch.from_numpy(weights)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, d_weights):
        saved = ctx.saved_tensors  # once: a checkpoint computes them again for each reading
        density, colour = saved[:2]
        arrays = [_array(t) for t in (*saved, grad, d_weights)]
        d_density = torch.empty(density.shape, dtype=density.dtype)
        d_colour = torch.empty(colour.shape, dtype=colour.dtype)
        with KERNEL_LOCK:
            volume_kernels.backward(*arrays, d_density.numpy(), d_colour.numpy())
        return d_density, d_colour, None, None, None


def distortion(weights: Float[Tensor, " n"], samples: RaySamples) -> Float[Tensor, " rays"]:
    """How far each ray's weight is spread (Mip-NeRF 360, Barron et al. 2022, eq. 15):
    ``sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 d_i / 3`` in the unit of the samples' distances."""
    if weights.device.type != "cpu":
        return reference_distortion(weights, samples)
    arguments = (samples.middles.to(weights.dtype), samples.widths.to(weights.dtype))
    return _Distortion.apply(weights, *arguments, samples.firsts)


def reference_distortion(
    weights: Float[Tensor, " n"], samples: RaySamples
) -> Float[Tensor, " rays"]:
    """The definition of :func:`distortion` in plain torch."""
    w, m = samples.padded(weights), samples.padded(samples.middles.to(weights.dtype))
    widths = samples.padded(samples.widths.to(weights.dtype))
    apart = (m[:, :, None] - m[:, None, :]).abs()
    between = (w[:, :, None] * w[:, None, :] * apart).sum(dim=(1, 2))
    return between + (w**2 * widths).sum(dim=1) / 3


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, middles, widths, firsts):
        arrays = [_array(t) for t in (weights, middles, widths, firsts)]
        out, slope = np.empty(len(firsts) - 1, arrays[0].dtype), np.empty_like(arrays[0])
        with KERNEL_LOCK:
            volume_kernels.distortion(*arrays, out, slope)
        ctx.save_for_backward(torch.from_numpy(slope), firsts)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        slope, firsts = ctx.saved_tensors
        return slope * torch.repeat_interleave(grad, firsts.diff()), None, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
