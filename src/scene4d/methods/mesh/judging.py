"""Which triangles photographs see through."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LEAST_LOOKS = 2
"""Pictures that a triangle is judged by, at least."""


class Judgement:
    """Of each triangle, how much more the pictures that show it look like what lies behind: the sum
    of squared differences over its pixels, and in how many pictures these are."""

    def __init__(self, count: int) -> None:
        self.gains = torch.zeros(count, dtype=torch.float64)
        self.looks = torch.zeros(count, dtype=torch.int64)

    def look(
        self,
        faces: Int[Tensor, "height width"],
        counts: Bool[Tensor, "height width"],
        *,
        photograph: Float[Tensor, "height width 3"],
        shown: Float[Tensor, "height width 3"],
        behind: Float[Tensor, "height width 3"],
    ) -> None:
        """One picture more: ``faces`` are the triangles that are ``shown``, and ``counts`` the
        pixels that say something, all of which have a triangle."""
        here, there = ((seen - photograph).square().sum(-1)[counts] for seen in (shown, behind))
        of = faces[counts].cpu().long()
        self.gains.index_add_(0, of, (here - there).cpu().double())
        self.looks[of.unique()] += 1

    def seen_through(self) -> Bool[Tensor, " num_triangles"]:
        """The triangles that at least two pictures show, all in all as what they are not."""
        return (self.gains > 0) & (self.looks >= _LEAST_LOOKS)
