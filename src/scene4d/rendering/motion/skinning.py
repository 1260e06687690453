"""Gaussians that follow four nodes each: dual-quaternion skinning, differentiable.

A Gaussian's motion is the blend of its nodes' (Kavan et al. 2008): weighted dual quaternions are
summed, each with the sign that puts it on the side of the heaviest, and made of unit length. So it
is rigid: a Gaussian turns and shifts, and never stretches. On the CPU Numba kernels do it;
elsewhere, and as what they are checked against, plain torch.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor

from scene4d.rendering.backends import numba_unavailable_reason
from scene4d.rendering.motion.poses import pose_apply, quat_conjugate, quat_product
from scene4d.rendering.splats.projection import flat
from scene4d.rendering.threads import KERNEL_LOCK, kernels_take

NODES_PER_GAUSSIAN = 4


def dual_quaternions(poses: Float[Tensor, "nodes 7"]) -> Float[Tensor, "nodes 8"]:
    """Unit dual quaternions of poses: the rotation, and half the translation times it."""
    real = torch.nn.functional.normalize(poses[:, :4], dim=-1)
    shift = torch.cat([torch.zeros_like(poses[:, :1]), poses[:, 4:]], dim=-1)
    return torch.cat([real, 0.5 * quat_product(shift, real)], dim=-1)


def blended_poses(
    poses: Float[Tensor, "nodes 7"],
    indices: Int32[Tensor, "n 4"],
    weights: Float[Tensor, "n 4"],
) -> Float[Tensor, "n 7"]:
    """The rigid motion of each Gaussian: unit quaternion and translation; in plain torch."""
    four = dual_quaternions(poses)[indices.long()]
    with torch.no_grad():
        heaviest = weights.argmax(dim=1)[:, None, None].expand(-1, -1, 4)
        side = (four[..., :4] * four[..., :4].gather(1, heaviest)).sum(-1)
        signs = torch.where(side < 0, -1.0, 1.0).to(weights.dtype)
    blend = ((weights * signs)[..., None] * four).sum(dim=1)
    blend = blend / blend[:, :4].norm(dim=-1, keepdim=True)
    turn = blend[:, :4]
    shift = 2.0 * quat_product(blend[:, 4:], quat_conjugate(turn))[:, 1:]
    return torch.cat([turn, shift], dim=-1)


def skin_reference(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    poses: Float[Tensor, "nodes 7"],
    indices: Int32[Tensor, "n 4"],
    weights: Float[Tensor, "n 4"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """What :func:`skin` computes, in plain torch and any precision."""
    blend = blended_poses(poses, indices, weights)
    return pose_apply(blend, means), quat_product(blend[:, :4], quats)


def skin(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    poses: Float[Tensor, "nodes 7"],
    indices: Int32[Tensor, "n 4"],
    weights: Float[Tensor, "n 4"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """Means and quaternions (wxyz, lengths stay) where the nodes' ``poses`` (quaternion wxyz of any
    length but 0, translation) take them; differentiable in all but ``indices``.

    ``weights``: not negative, of any sum but 0. Indices must be of nodes that there are. The same
    inputs give the same bits, whatever the number of threads.
    """
    if not kernels_take(means) or numba_unavailable_reason() is not None:
        return skin_reference(means, quats, poses, indices, weights)
    return _Skin.apply(means, quats, dual_quaternions(poses), indices, weights)


class _Skin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, nodes, indices, weights):
        from scene4d.rendering.motion.skinning_kernels import skin_forward

        new_means, new_quats = torch.empty_like(means), torch.empty_like(quats)
        with KERNEL_LOCK:
            skin_forward(
                *(flat(t) for t in (means, quats, nodes, indices, weights)),
                flat(new_means), flat(new_quats),
            )  # fmt: skip
        ctx.save_for_backward(means, quats, nodes, indices, weights)
        return new_means, new_quats

    @staticmethod
    def backward(ctx, g_means, g_quats):
        from scene4d.rendering.motion.skinning_kernels import CHUNKS, skin_backward

        means, quats, nodes, indices, weights = ctx.saved_tensors
        results = [torch.empty(t.shape) for t in (means, quats, weights)]
        sums = np.zeros((CHUNKS, nodes.numel()), np.float32)
        with KERNEL_LOCK:
            skin_backward(
                (flat(means), flat(quats)), flat(nodes), flat(indices), flat(weights),
                (flat(g_means), flat(g_quats)), tuple(flat(t) for t in results), sums,
            )  # fmt: skip
        by_nodes = torch.from_numpy(sums.sum(axis=0)).reshape(nodes.shape)
        return results[0], results[1], by_nodes, None, results[2]
