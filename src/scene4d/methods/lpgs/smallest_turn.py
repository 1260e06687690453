"""A Gaussian's axes may be named in 24 ways; the one that turns least has the smallest codes."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.cameras.quaternions import rotation_from_quat


def smallest_turn(
    quats: Float[Tensor, "n 4"],
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "n 3"]]:
    """The turn of each Gaussian as v of the quaternion (1, v), and the order of its axes.

    Permuting the axes, with signs so that the frame stays right-handed, describes the same
    Gaussian once its scales are permuted alike. The best of the 24 turns by at most 62.8 degrees,
    so |v| <= 0.6104. Returns v [n, 3] and, for each new axis, the old one whose scale it takes.
    Quaternions have any length; zero is no turn.
    """
    largest = quats.abs().amax(dim=-1, keepdim=True)  # squares would overflow or vanish
    quats = torch.where(largest == 0, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
    quats = quats / torch.where(largest == 0, 1.0, largest)
    products = torch.stack([_product(quats, q) for q in _QUATS.to(quats)])
    products = products / products.norm(dim=-1, keepdim=True)
    best = products[..., 0].abs().argmax(dim=0)
    chosen = products[best, torch.arange(len(quats))]
    return chosen[:, 1:] / chosen[:, :1], _ORDERS[best]


def _product(a: Float[Tensor, "n 4"], b: Float[Tensor, " 4"]) -> Float[Tensor, "n 4"]:
    """Hamilton product a b."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def _turns_of_a_cube() -> tuple[Tensor, Tensor]:
    """The 24 rotations that map axes to axes, as quaternions, and where each takes its axes."""
    quats = []
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=4):
        length = sum(s * s for s in signs) ** 0.5
        first = next((s for s in signs if s != 0), 0.0)
        if length in (1.0, 2**0.5, 2.0) and first > 0:
            quats.append([s / length for s in signs])
    table = torch.tensor(quats, dtype=torch.float64)
    matrices = rotation_from_quat(table)
    # Column j of the matrix is where axis j goes: new axis j is old axis argmax.
    return table.float(), matrices.abs().argmax(dim=1)


_QUATS, _ORDERS = _turns_of_a_cube()
