"""Cubic splines through keys, exact or smoothing, open or closed, in plain torch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.quaternions import rotation_from_quat


class CubicSpline:
    """The cubic spline that minimises ``sum |y - f|^2 + smoothing * integral |f''|^2``.

    ``smoothing`` 0 interpolates. Open splines are natural (no curvature at the ends), closed ones
    are twice continuously differentiable across the seam. Reinsch, "Smoothing by spline
    functions", 1967; notation of Green and Silverman 1994, section 2.3.3. The system is solved
    dense, which suits up to a few thousand keys.
    """

    def __init__(
        self,
        knots: Float[Tensor, " num_keys"],
        values: Float[Tensor, "num_keys dim"],
        *,
        smoothing: float = 0.0,
        period: float | None = None,
    ) -> None:
        """``knots`` ascending. ``period``: the knot at which a closed spline is back at its start,
        beyond the last knot; None leaves it open. Raises ValueError where knots do not ascend.
        """
        ends = knots if period is None else torch.cat([knots, knots[:1] + period])
        self.steps = ends.diff()
        if len(self.steps) and not bool((self.steps > 0).all()):
            raise ValueError("the knots of a spline must ascend")
        self.ends, self.period = ends, period
        self.values, self.bend = _fit(self.steps, values, smoothing, closed=period is not None)
        """Values and second derivatives at the ends of the segments."""

    def __call__(self, at: Float[Tensor, " num_samples"]) -> Float[Tensor, "num_samples dim"]:
        """The spline at ``at``; open splines stop at their ends, closed ones wrap around."""
        if len(self.ends) == 1:
            return self.values.expand(len(at), -1)
        if self.period is not None:
            at = (at - self.ends[0]) % self.period + self.ends[0]
        at = at.clamp(self.ends[0], self.ends[-1])
        index = (torch.searchsorted(self.ends, at, right=True) - 1).clamp(0, len(self.steps) - 1)
        step = self.steps[index][:, None]
        after = (at - self.ends[index])[:, None] / step
        before = 1 - after
        linear = before * self.values[index] + after * self.values[index + 1]
        cubic = (before**3 - before) * self.bend[index] + (after**3 - after) * self.bend[index + 1]
        return linear + cubic * step**2 / 6


def _fit(
    steps: Float[Tensor, " num_steps"],
    values: Float[Tensor, "num_keys dim"],
    smoothing: float,
    *,
    closed: bool,
) -> tuple[Float[Tensor, "num_ends dim"], Float[Tensor, "num_ends dim"]]:
    """Fitted values and second derivatives at each segment's ends (Green and Silverman, 2.12).

    Solves ``(R + smoothing Q^T Q) bend = Q^T y`` with ``Q^T`` the second divided difference and
    ``R`` the Gram matrix of the hat functions, over the inner knots or over all of a closed spline.
    """
    count = len(values)
    inner = list(range(count)) if closed else list(range(1, count - 1))
    bend = torch.zeros_like(values)
    fitted = values
    if inner and count > 1:
        here = torch.tensor(inner)
        left, right = steps[here - 1][:, None], steps[here][:, None]
        eye = torch.eye(count, dtype=values.dtype)
        previous, this, following = eye[(here - 1) % count], eye[here], eye[(here + 1) % count]
        difference = (following - this) / right - (this - previous) / left
        gram = (previous * left + 2 * this * (left + right) + following * right) / 6
        system = gram[:, here] + smoothing * difference @ difference.T
        bend[here] = torch.linalg.solve(system, difference @ values)
        fitted = values - smoothing * difference.T @ bend[here]
    if closed:
        return torch.cat([fitted, fitted[:1]]), torch.cat([bend, bend[:1]])
    return fitted, bend


def quaternion_from_rotation(
    rotation: Float[Tensor, "num_keys 3 3"],
) -> Float[Tensor, "num_keys 4"]:
    """Unit quaternions wxyz, from the largest of the four components, so stable everywhere."""
    trace = rotation.diagonal(dim1=-2, dim2=-1)
    squared = torch.stack(
        [
            1 + trace.sum(-1),
            1 + trace[:, 0] - trace[:, 1] - trace[:, 2],
            1 - trace[:, 0] + trace[:, 1] - trace[:, 2],
            1 - trace[:, 0] - trace[:, 1] + trace[:, 2],
        ],
        dim=-1,
    )
    skew, symmetric = rotation - rotation.mT, rotation + rotation.mT
    x, y, z = skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]
    xy, xz, yz = symmetric[:, 0, 1], symmetric[:, 0, 2], symmetric[:, 1, 2]
    w2, x2, y2, z2 = squared.unbind(-1)
    rows = torch.stack(
        [
            torch.stack([w2, x, y, z], -1),
            torch.stack([x, x2, xy, xz], -1),
            torch.stack([y, xy, y2, yz], -1),
            torch.stack([z, xz, yz, z2], -1),
        ],
        dim=-2,
    )
    best = squared.argmax(-1)
    return torch.nn.functional.normalize(rows[torch.arange(len(rows)), best], dim=-1)


class RotationSpline:
    """A smooth path of rotations through keys: a cubic spline of quaternions, made unit again.

    Neighbouring quaternions are given the same sign, so that each turn is the short way round.
    A loop that turns a full circle ends at minus its first quaternion; it is fitted over two
    rounds, after which the quaternion is itself again.
    """

    def __init__(
        self,
        knots: Float[Tensor, " num_keys"],
        rotations: Float[Tensor, "num_keys 3 3"],
        *,
        smoothing: float = 0.0,
        period: float | None = None,
    ) -> None:
        keys = quaternion_from_rotation(rotations)
        flips = torch.where((keys[1:] * keys[:-1]).sum(-1) < 0, -1.0, 1.0).to(keys)
        keys = keys * torch.cat([keys.new_ones(1), flips.cumprod(0)])[:, None]
        if period is not None and float((keys[0] * keys[-1]).sum()) < 0:
            knots, keys = torch.cat([knots, knots + period]), torch.cat([keys, -keys])
            period = 2 * period
        self.spline = CubicSpline(knots, keys, smoothing=smoothing, period=period)

    def __call__(self, at: Float[Tensor, " num_samples"]) -> Float[Tensor, "num_samples 3 3"]:
        """The rotations at ``at``."""
        return rotation_from_quat(self.spline(at))
