"""Guiders as plain data: what becomes of the difference that classifier-free guidance enlarges.

The mixture is e_0 + k (e_y - e_0), see :func:`scene4d.priors.score_loss.guided`. All is said of
clean pictures here: noises are these times -alpha / sigma and a part that every one of them has.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

GuiderKind = Literal["cfg", "apg", "perp-neg"]


@dataclass(frozen=True, kw_only=True)
class Guider:
    """How a text guides.

    ``cfg``: as it is. ``apg``: adaptive projected guidance (APG, Sadat et al. 2024), whose
    difference loses the part along the picture, which saturates it. ``perp-neg`` (Armandpour et al.
    2023): the difference to what is not wanted is taken away, but for its part along the
    wanted one.
    """

    kind: GuiderKind = "cfg"
    parallel: float = 0.0
    """Of ``apg``: what is kept of the part along the picture; 1: all of it."""
    most: float | None = None
    """Of ``apg``: the largest root mean square of a picture's difference, to which larger ones are
    scaled. (The paper's r is that times the root of the number of values.)"""
    momentum: float = 0.0
    """Of ``apg``, along the steps of a sample: what is kept of the differences before; negative
    pushes away from them."""
    unwanted: float = 1.0
    """Of ``perp-neg``: the weight of what is not wanted."""

    def turned(
        self,
        wanted: Float[Tensor, "batch channels height width"],
        nothing: Float[Tensor, "batch channels height width"],
        unwanted: Float[Tensor, "batch channels height width"] | None = None,
        before: MutableMapping[str, Tensor] | None = None,
    ) -> tuple[
        Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]
    ]:
        """The clean pictures x_y and x_0 that stand for ``wanted`` and ``nothing`` in mixtures.
        ``unwanted``: x_neg, of ``perp-neg``; ``before``: the memory of momentum."""
        difference = wanted - nothing
        if self.kind == "cfg":
            return wanted, nothing
        if self.kind == "perp-neg":
            assert unwanted is not None
            away = unwanted - nothing
            return wanted - self.unwanted * (away - _along(away, difference)), nothing
        if before is not None and self.momentum:
            difference = difference + self.momentum * before.get(
                "difference", torch.zeros_like(difference)
            )
            before["difference"] = difference
        if self.most is not None:
            size = difference.flatten(1).square().mean(dim=1).sqrt()
            share = (self.most / size.clamp_min(1e-12)).clamp_max(1.0)
            difference = difference * share.reshape(-1, *[1] * (difference.ndim - 1))
        along = _along(difference, wanted)
        return wanted, wanted - (difference - along + self.parallel * along)


CFG = Guider()


def _along(
    x: Float[Tensor, "batch channels height width"],
    axis: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The part of each picture along another; 0 where that is 0."""
    over = tuple(range(1, x.ndim))
    square = axis.square().sum(dim=over, keepdim=True)
    share = (x * axis).sum(dim=over, keepdim=True) / torch.where(square > 0, square, 1.0)
    return share * axis
