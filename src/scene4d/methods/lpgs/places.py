"""Where parents may lie: the middles of the cells of contracted space."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.methods.lpgs.place_kernels import round_places
from scene4d.methods.lpgs.structure import Structure
from scene4d.rendering.fields.hash_grid import contracted
from scene4d.rendering.splats.projection import empty
from scene4d.rendering.threads import KERNEL_LOCK, kernels_take


def cube_of(points: Float[Tensor, "n 3"], structure: Structure) -> Float[Tensor, "n 3"]:
    """Points of the world in the contracted unit cube."""
    return contracted(points, points.new_tensor(structure.centre), structure.radius)


def cells_of(points: Float[Tensor, "n 3"], structure: Structure) -> Int[Tensor, "n 3"]:
    """The cells of the contracted unit cube, along each axis, that points lie in."""
    if kernels_take(points):
        return _by_kernel(points, None, structure)[0].long()
    return reference(points, structure)[0]


def rounded_places(
    points: Float[Tensor, "p 3"], structure: Structure, rows: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n 3"]:
    """The middles of the cells that points, or ``rows`` of them, lie in; gradients pass straight
    through."""
    if kernels_take(points):
        return _Rounded.apply(points, rows, structure)
    points = points if rows is None else points[rows]
    middles = reference(points.detach(), structure)[1]
    return middles + (points - points.detach())  # exact, however far away


def reference(
    points: Float[Tensor, "n 3"], structure: Structure
) -> tuple[Int[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Cells and their middles in plain torch."""
    cells = 2**structure.position_bits
    local = cube_of(points, structure) - 0.5
    # All space lies in a ball; the cells at its surface have their middles beyond it.
    limit = 0.5 - 2 / cells
    local = local * (limit / local.norm(dim=-1, keepdim=True)).clamp(max=1.0)
    found = ((local + 0.5) * cells).floor().long().clamp(0, cells - 1)
    local = ((found.to(points) + 0.5) / cells - 0.5) * 4
    norm = local.norm(dim=-1, keepdim=True).clamp_min(1.0)
    local = local / (norm * (2 - norm))
    return found, local * structure.radius + local.new_tensor(structure.centre)


def _by_kernel(
    points: Tensor, rows: Tensor | None, structure: Structure
) -> tuple[Int[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    chosen = np.arange(len(points)) if rows is None else rows.numpy()
    cells, middles = np.empty((len(chosen), 3), np.int32), empty(len(chosen), 3)
    with KERNEL_LOCK:
        round_places(
            points.detach().contiguous().numpy(), chosen, structure.centre, structure.radius,
            2.0**structure.position_bits, cells, middles.numpy(),
        )  # fmt: skip
    return torch.from_numpy(cells), middles


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, rows, structure):
        ctx.save_for_backward(rows)
        ctx.count = len(points)
        return _by_kernel(points, rows, structure)[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        if rows is not None:
            grad = grad.new_zeros(ctx.count, 3).index_copy_(0, rows, grad)
        return grad, None, None
