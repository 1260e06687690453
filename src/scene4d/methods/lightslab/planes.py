"""The feature planes of all slabs: which pairs of coordinates they span, how fine, how stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.plain import from_table
from scene4d.ranges import Within
from scene4d.rendering.fields.plane_lookup import FeaturePlanes, Plane

_Samples = Annotated[int, Within(1, 1 << 14)]


@dataclass(frozen=True, kw_only=True)
class FeaturePlanesShape:
    """Sizes of the feature planes; the same for every slab."""

    slabs: Annotated[int, Within(1, 64)]
    depths: Annotated[int, Within(2, 64)] = 2
    """Planes of a slab, 2 or more."""
    featured: Annotated[int, Within(1, 64)] | None = None
    """How many of them have features, evenly chosen; None: all."""
    crossed: bool = True
    """Also the pairs of one coordinate on the first plane and one on the last (xu, xv, yu, yv)."""
    features: Annotated[int, Within(1, 256)] = 4
    """Of each plane, level by level the same."""
    resolutions: tuple[_Samples, ...] = (16, 43, 115)
    """Samples along an axis of the planes xy, uv and those between, coarse to fine."""
    crossed_resolutions: tuple[_Samples, ...] = (16, 32, 64)
    """The same of xu, xv, yu and yv; as many levels or fewer."""

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The coordinates (column's, row's) of each plane."""
        count = self.depths if self.featured is None else min(self.featured, self.depths)
        chosen = [round(k * (self.depths - 1) / max(1, count - 1)) for k in range(count)]
        parallel = [(2 * k, 2 * k + 1) for k in chosen]
        last = 2 * self.depths - 2
        crossed = [(0, last), (0, last + 1), (1, last), (1, last + 1)] if self.crossed else []
        return (*parallel, *crossed)

    def feature_planes(self) -> FeaturePlanes:
        """Level by level, in the order of storage and of features."""
        planes = []
        for level in range(max(len(self.resolutions), len(self.crossed_resolutions))):
            for a, b in self.pairs:
                parallel = a % 2 == 0 and b == a + 1
                sizes = self.resolutions if parallel else self.crossed_resolutions
                if level < len(sizes):
                    planes.append(Plane(axes=(a, b), columns=sizes[level], rows=sizes[level]))
        return FeaturePlanes(planes=tuple(planes), features=self.features, slabs=self.slabs)

    def fitting(self, values: int) -> FeaturePlanesShape:
        """The same with fewer samples along every axis, where there are more than ``values``."""
        shape, share = self, 1.0
        while shape.values > values and max(shape.resolutions) > 4:
            share *= min(0.98, (values / shape.values) ** 0.5)
            shape = replace(
                self,
                resolutions=tuple(max(4, int(r * share)) for r in self.resolutions),
                crossed_resolutions=tuple(max(4, int(r * share)) for r in self.crossed_resolutions),
            )
        return shape

    @property
    def values(self) -> int:
        """Numbers that all planes hold."""
        return self.feature_planes().texels * self.features

    def plain(self) -> dict[str, Any]:
        """As numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> FeaturePlanesShape:
        """From :meth:`plain`."""
        return from_table(cls, plain, where="planes")


def plane_codes(
    grid: Float[Tensor, "slabs rows columns features"], bits: int
) -> tuple[Float[Tensor, "slabs rows columns features"], Float[Tensor, "slabs 1 1 features"]]:
    """Integers of at most ``bits`` bits, sign included, and their steps: one of each slab's plane
    and feature, such that the largest value is the largest code. Code times step is the value."""
    step = grid.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-8) / (2 ** (bits - 1) - 1)
    return (grid / step).round(), step


def rounded(
    table: Float[Tensor, "texels features"], planes: FeaturePlanes, bits: int
) -> Float[Tensor, "texels features"]:
    """The table as :func:`plane_codes` keep it, with the gradient of the table itself."""
    values = table.detach()
    near = torch.empty_like(values)
    for index in range(len(planes.planes)):
        codes, step = plane_codes(planes.grid(values, index), bits)
        planes.grid(near, index).copy_(codes * step)
    return table + (near - values)
