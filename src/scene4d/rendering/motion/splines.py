"""Cumulative cubic B-splines of rigid poses, in plain torch: there are few nodes.

Sommer et al. 2020, "Efficient derivative computation for cumulative B-splines on Lie groups"
(arXiv 1911.08860), section 3: the pose is the product of the first knot and of three shares of the
steps from knot to knot. Turning the world or choosing another canonical pose turns the spline with
it, and knots of a constant twist give that twist.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.rendering.motion.poses import pose_between, pose_exp, pose_log, pose_product

FEWEST_KNOTS = 4
_STIFF = 1e-3
"""Of a fit's pull to straight splines."""


def segments(
    at: Float[Tensor, " times"], num_knots: int
) -> tuple[Int[Tensor, " times"], Float[Tensor, " times"]]:
    """The first of the four knots that count ``at`` so many intervals after the second knot, and
    the share of the interval that has passed. Before and after the spline: its ends."""
    at = at.clamp(0.0, float(num_knots - FEWEST_KNOTS + 1))
    first = at.floor().clamp(max=num_knots - FEWEST_KNOTS)
    return first.long(), at - first


def spline_poses(
    knots: Float[Tensor, "nodes knots 7"], at: Float[Tensor, " times"]
) -> Float[Tensor, "times nodes 7"]:
    """Poses ``at`` intervals after the second knot; differentiable in both.

    The knots' quaternions may have any length but 0; the results' have length 1.
    """
    first, u = segments(at, knots.shape[1])
    quats = torch.nn.functional.normalize(knots[..., :4], dim=-1)
    unit = torch.cat([quats, knots[..., 4:]], dim=-1).transpose(0, 1)
    four = unit[first[:, None] + torch.arange(4, device=knots.device)]  # [times, 4, nodes, 7]
    square, cube = u * u, u * u * u
    shares = torch.stack(
        [(5 + 3 * u - 3 * square + cube) / 6, (1 + 3 * u + 3 * square - 2 * cube) / 6, cube / 6],
        dim=-1,
    )
    steps = pose_log(pose_between(four[:, :3], four[:, 1:]))
    moves = pose_exp(shares[..., None, None] * steps)
    pose = pose_product(pose_product(four[:, 0], moves[:, 0]), moves[:, 1])
    return pose_product(pose, moves[:, 2])


def continuous(quats: Float[Tensor, "frames nodes 4"]) -> Float[Tensor, "frames nodes 4"]:
    """Of q and -q, each the one that is nearer to the frame before."""
    result = quats.clone()
    for k in range(1, len(quats)):
        side = (result[k] * result[k - 1]).sum(-1, keepdim=True)
        result[k] = torch.where(side < 0, -result[k], result[k])
    return result


def fitted_knots(
    values: Float[Tensor, "nodes frames channels"],
    weights: Float[Tensor, "nodes frames"],
    at: Float[Tensor, " frames"],
    num_knots: int,
) -> Float[Tensor, "nodes knots channels"]:
    """Control points of uniform cubic B-splines, in weighted least squares; for poses, whose spline
    multiplies in place of adding, it is near enough to begin with."""
    first, u = segments(at.double(), num_knots)
    basis = torch.zeros(len(at), num_knots, dtype=torch.float64)
    shares = torch.stack(
        [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], dim=-1
    ) / 6  # fmt: skip
    basis.scatter_(1, first[:, None] + torch.arange(4), shares)
    bend = torch.zeros(num_knots - 2, num_knots, dtype=torch.float64)
    for k in range(num_knots - 2):
        bend[k, k : k + 3] = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    pull = _STIFF * bend.T @ bend + 1e-9 * torch.eye(num_knots, dtype=torch.float64)
    weighted = basis.T[None] * weights.double()[:, None]
    solution = torch.linalg.solve(weighted @ basis + pull, weighted @ values.double())
    return solution.float()
