"""A parent's attributes on the way to plain Gaussians: pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.methods.lpgs.structure import Structure


def as_gaussians(
    means: Float[Tensor, "n 3"], attributes: Mapping[str, Tensor], keep: Float[Tensor, " n"]
) -> dict[str, Tensor]:
    """Plain Gaussians, named as by :class:`GaussianSplats`, but ``alphas`` with the masks in."""
    ones = torch.ones_like(attributes["rotations"][:, :1])
    return {
        "means": means,
        "quats": torch.cat([ones, attributes["rotations"]], dim=-1),
        "scales": attributes["scales"],
        # A mask multiplies the opacity; on, it is exactly 1 and only passes its gradient.
        "alphas": attributes["opacities"][:, 0].sigmoid() * keep,
        "sh0": attributes["sh0"][:, None],
        "shN": attributes["shN"].unflatten(1, (-1, 3)),
    }


def own_inputs(base: Mapping[str, Tensor], structure: Structure) -> Float[Tensor, "n 10"]:
    """What tokens see of the parent: sizes relative to the scene, turn, opacity, colour."""
    sizes = base["scales"] - math.log(structure.radius) + 4.0
    return torch.cat([sizes, base["rotations"], 0.3 * base["opacities"], base["sh0"]], dim=-1)


def turned(
    offsets: Float[Tensor, "n children 3"], base: Mapping[str, Tensor]
) -> Float[Tensor, "n children 3"]:
    """Offsets from the parents' axes and sizes into the world."""
    local = offsets * base["scales"].exp()[:, None]
    v = base["rotations"][:, None].expand_as(local)
    # Rotation by the quaternion (1, v), of length sqrt(1 + |v|^2).
    cross = torch.linalg.cross(v, local)
    twice = 2 / (1 + (v * v).sum(-1, keepdim=True))
    return local + twice * (cross + torch.linalg.cross(v, cross))


def switch(logits: Float[Tensor, " *n"], on: Bool[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    """1 where a mask is ``on``, otherwise 0; gradients as of the logits' sigmoid."""
    soft = logits.sigmoid()
    return soft + (on.float() - soft).detach()


def corrected(
    base: Mapping[str, Tensor], corrections: Float[Tensor, "n c"], structure: Structure
) -> dict[str, Tensor]:
    """Attributes with the network's corrections, channels in the structure's order, added."""
    widths = [channels for _, channels in structure.attributes]
    parts = corrections.split(widths, dim=-1)
    return {
        name: base[name] + part for (name, _), part in zip(structure.attributes, parts, strict=True)
    }
