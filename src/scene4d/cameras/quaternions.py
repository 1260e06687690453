"""Rotation matrices of quaternions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_from_quat(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions wxyz of any length; the identity where it is zero.

    Entry by entry: products of many small matrices (``bmm``) are several times slower on the CPU.
    """
    tiny = torch.finfo(quat.dtype).tiny
    w, x, y, z = torch.nn.functional.normalize(quat, dim=-1, eps=tiny).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
