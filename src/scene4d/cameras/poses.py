"""Rigid motions: the exponential map for pose refinement, and repair of rounded rotations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix that takes ``u`` to the cross product ``vector x u``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [
        torch.stack([zero, -z, y], -1),
        torch.stack([z, zero, -x], -1),
        torch.stack([-y, x, zero], -1),
    ]
    return torch.stack(rows, -2)


def se3_exp(tangent: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """The rigid motion exp(tangent): three translation components, then a rotation vector in rad.

    Differentiable everywhere, also at zero (Taylor series below 0.1 rad). Refine a pose with
    ``se3_exp(tangent) @ c2w``. Eade, "Lie groups for 2D and 3D transformations", eq. 84.
    """
    rho, phi = tangent[..., :3], tangent[..., 3:]
    angle2 = (phi * phi).sum(-1)
    small = angle2 < 1e-2
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    # sin(t)/t, (1-cos t)/t^2 and (t-sin t)/t^3; the series' next terms are below 1e-15 at t = 0.1
    a = torch.where(small, _series(angle2, (1, -6, 120, -5040, 362880)), angle.sin() / angle)
    b = torch.where(small, _series(angle2, (2, -24, 720, -40320, 3628800)), _versine(angle) / safe)
    c = torch.where(
        small,
        _series(angle2, (6, -120, 5040, -362880, 39916800)),
        (angle - angle.sin()) / (safe * angle),
    )
    hat = skew(phi)
    square = hat @ hat
    eye = torch.eye(3, dtype=tangent.dtype, device=tangent.device)
    rotation = eye + a[..., None, None] * hat + b[..., None, None] * square
    left = eye + b[..., None, None] * hat + c[..., None, None] * square
    top = torch.cat([rotation, left @ rho[..., None]], dim=-1)
    bottom = tangent.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*tangent.shape[:-1], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def _series(
    square: Float[Tensor, " *batch"], divisors: tuple[int, ...]
) -> Float[Tensor, " *batch"]:
    """The power series in ``square`` with coefficients one over ``divisors``."""
    total = torch.zeros_like(square)
    for divisor in reversed(divisors):
        total = total * square + 1.0 / divisor
    return total


def _versine(angle: Float[Tensor, " *batch"]) -> Float[Tensor, " *batch"]:
    """1 - cos(angle), without cancellation."""
    return 2 * (angle / 2).sin() ** 2


def rotation_error(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, " *batch"]:
    """How far a matrix is from a rotation: the largest entry of |M^T M - 1|.

    A reflection (determinant below 0) gives infinity; NaN stays NaN.
    """
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    error = (matrix.transpose(-1, -2) @ matrix - eye).abs().amax((-1, -2))
    mirrored = torch.linalg.det(matrix) < 0
    return torch.where(mirrored, torch.full_like(error, torch.inf), error)


def closest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to ``matrix`` in the Frobenius norm (SVD, Kabsch 1976)."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh)
    signs = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    return (u * signs[..., None, :]) @ vh
