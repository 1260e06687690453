"""What networks predict, converted to the clean picture and back: the only place that does.

With x_t = alpha x + sigma n:

- ``x0``: x itself.
- ``eps``: n, as DDPM does.
- ``v``: alpha n - sigma x (Salimans & Ho 2022); alpha^2 + sigma^2 = 1.
- ``flow``: n - x, the velocity of x_t = (1 - sigma) x + sigma n (rectified flow: SD3, Flux, Wan).
- ``reversed-flow``: x - n (Mochi, whose sigmas run from 0 to 1, and models with negated outputs).

Pictures with exploding variance, x + S n, are scaled first: :func:`vp_from_ve`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.priors.prior import broadcast

Prediction = Literal["x0", "eps", "v", "flow", "reversed-flow"]


def x0_from(
    kind: Prediction,
    output: Float[Tensor, " *pictures"],
    x_t: Float[Tensor, " *pictures"],
    alpha: Float[Tensor, " *batch"],
    sigma: Float[Tensor, " *batch"],
) -> Float[Tensor, " *pictures"]:
    """The clean pictures that ``output`` means. Raises :class:`UsageError` for levels that are not
    of the kind (a flow's have alpha + sigma = 1, a v's alpha^2 + sigma^2 = 1)."""
    _check_levels(kind, alpha, sigma)
    a, s = broadcast(alpha, x_t), broadcast(sigma, x_t)
    if kind == "x0":
        return output
    if kind == "eps":
        return (x_t - s * output) / a
    if kind == "v":
        return a * x_t - s * output
    if kind == "flow":
        return x_t - s * output
    return x_t + s * output


def output_from(
    kind: Prediction,
    x0: Float[Tensor, " *pictures"],
    x_t: Float[Tensor, " *pictures"],
    alpha: Float[Tensor, " *batch"],
    sigma: Float[Tensor, " *batch"],
) -> Float[Tensor, " *pictures"]:
    """What a network of this kind would put out for the clean pictures ``x0``; sigma above 0."""
    _check_levels(kind, alpha, sigma)
    a, s = broadcast(alpha, x_t), broadcast(sigma, x_t)
    if kind == "x0":
        return x0
    if kind == "eps":
        return (x_t - a * x0) / s
    if kind == "v":
        return (a * x_t - x0) / s
    if kind == "flow":
        return (x_t - x0) / s
    return (x0 - x_t) / s


def eps_from_x0(
    x0: Float[Tensor, " *pictures"],
    x_t: Float[Tensor, " *pictures"],
    alpha: Float[Tensor, " *batch"],
    sigma: Float[Tensor, " *batch"],
) -> Float[Tensor, " *pictures"]:
    """The noise that ``x0`` leaves of ``x_t``."""
    return output_from("eps", x0, x_t, alpha, sigma)


def vp_from_ve(
    x_ve: Float[Tensor, " *pictures"], noise: Float[Tensor, " *batch"]
) -> tuple[Float[Tensor, " *pictures"], Float[Tensor, " *batch"], Float[Tensor, " *batch"]]:
    """x + S n as x_t, alpha, sigma with alpha^2 + sigma^2 = 1 and the same sigma / alpha = S."""
    alpha = (1 + noise.square()).rsqrt()
    return broadcast(alpha, x_ve) * x_ve, alpha, noise * alpha


def _check_levels(kind: Prediction, alpha: Tensor, sigma: Tensor) -> None:
    if kind in ("x0", "eps"):
        return
    total = alpha.square() + sigma.square() if kind == "v" else alpha + sigma
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):  # half precision's tables
        told = "alpha^2 + sigma^2 = 1" if kind == "v" else "alpha + sigma = 1"
        raise UsageError(f"a prediction of {kind} has {told}; given: {total.flatten()[0]:.4g}")
