"""Lens distortion: OpenCV's radial-tangential model and its fisheye model.

Distorting is a closed formula; undistorting a point takes Newton steps.
Source: OpenCV's calib3d documentation; the r^8 term as in nerfstudio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

_NEWTON_STEPS = 20
_CONVERGED = 1e-5
"""Residual in normalised image coordinates: a hundredth of a pixel at 1000 px focal length."""


@dataclass(frozen=True)
class Distortion:
    """Coefficients of one lens, in OpenCV's meaning.

    ``opencv``: k1, k2, p1, p2, k3, k4 (k4 as in nerfstudio: the r^8 term).
    ``fisheye``: k1, k2, k3, k4 (equidistant).
    """

    model: Literal["opencv", "fisheye"]
    coefficients: tuple[float, ...]

    def padded(self) -> tuple[float, ...]:
        """The coefficients, with the ones left out as zeros. Raises ValueError on too many."""
        size = 6 if self.model == "opencv" else 4
        if len(self.coefficients) > size:
            raise ValueError(f"{self.model} takes at most {size} coefficients")
        return (*self.coefficients, *([0.0] * (size - len(self.coefficients))))


def distort(xy: Float[Tensor, "*batch 2"], distortion: Distortion) -> Float[Tensor, "*batch 2"]:
    """Where the lens puts a point; both in normalised image coordinates (x right, y down)."""
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    if distortion.model == "fisheye":
        k1, k2, k3, k4 = distortion.padded()
        r = r2.clamp_min(1e-20).sqrt()
        theta = torch.atan(r)
        t2 = theta * theta
        scaled = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        return xy * torch.where(r2 > 1e-16, scaled / r, torch.ones_like(r))[..., None]
    k1, k2, p1, p2, k3, k4 = distortion.padded()
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        dim=-1,
    )


def undistort(xy: Float[Tensor, "*batch 2"], distortion: Distortion) -> Float[Tensor, "*batch 2"]:
    """The point that the lens put at ``xy``: the inverse of :func:`distort`.

    Newton's method in double precision. A point that nothing is mapped to (beyond the radius where
    the model folds over, or 90 degrees and more off the axis of a fisheye) comes back as NaN.
    """
    wanted = xy.double()
    if distortion.model == "fisheye":
        found = _undistort_fisheye(wanted, distortion)
    else:
        found = _undistort_opencv(wanted, distortion)
    residual = (distort(found, distortion) - wanted).abs().amax(-1)
    good = (residual < _CONVERGED) & (found.norm(dim=-1) <= injective_radius(distortion))
    return torch.where(good[..., None], found, torch.nan).to(xy.dtype)


def _undistort_fisheye(
    wanted: Float[Tensor, "*batch 2"], distortion: Distortion
) -> Float[Tensor, "*batch 2"]:
    k1, k2, k3, k4 = distortion.padded()
    target = wanted.norm(dim=-1)
    theta = target.clamp_max(math.pi / 2)
    for _ in range(_NEWTON_STEPS):
        t2 = theta * theta
        value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) - target
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        theta = (theta - value / slope).clamp(0.0, math.pi / 2 - 1e-9)
    scale = torch.where(target > 1e-8, torch.tan(theta) / target, torch.ones_like(target))
    return wanted * scale[..., None]


def _undistort_opencv(
    wanted: Float[Tensor, "*batch 2"], distortion: Distortion
) -> Float[Tensor, "*batch 2"]:
    found = wanted.clone()
    for _ in range(_NEWTON_STEPS):
        residual = distort(found, distortion) - wanted
        a, b, c, d = _jacobian_opencv(found, distortion)
        determinant = a * d - b * c
        safe = torch.where(determinant.abs() > 1e-12, determinant, torch.ones_like(determinant))
        step_x = (d * residual[..., 0] - b * residual[..., 1]) / safe
        step_y = (a * residual[..., 1] - c * residual[..., 0]) / safe
        found = found - torch.stack([step_x, step_y], dim=-1)
    return found


def _jacobian_opencv(
    xy: Float[Tensor, "*batch 2"], distortion: Distortion
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of d(distorted)/d(xy), entry by entry."""
    k1, k2, p1, p2, k3, k4 = distortion.padded()
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    slope = 2 * (k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4)))  # d radial/dx = slope * x
    mixed = slope * x * y + 2 * p1 * x + 2 * p2 * y
    return (
        radial + slope * x * x + 2 * p1 * y + 6 * p2 * x,
        mixed,
        mixed,
        radial + slope * y * y + 6 * p1 * y + 2 * p2 * x,
    )


def injective_radius(distortion: Distortion) -> float:
    """The radius up to which the model is one to one (radial part); infinite where it always is.

    Beyond it a fitted polynomial folds the picture over itself and means nothing.
    """
    radius = torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)
    if distortion.model == "fisheye":
        t2 = (radius * (math.pi / 2)) ** 2
        k1, k2, k3, k4 = distortion.padded()
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        folded = torch.nonzero(slope <= 0)
        return math.inf if len(folded) == 0 else math.tan(t2[folded[0, 0]].sqrt().item())
    k1, k2, _, _, k3, k4 = distortion.padded()
    r2 = (radius * 10.0) ** 2
    slope = 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * (7 * k3 + r2 * 9 * k4)))
    folded = torch.nonzero(slope <= 0)
    return math.inf if len(folded) == 0 else r2[folded[0, 0]].sqrt().item()
