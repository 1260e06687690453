"""The two radiance fields: grids and networks from places (and times) to densities and colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.ranges import Within
from scene4d.rendering.fields.hash_grid import GridShape, HashGrids
from scene4d.rendering.fields.networks import Mlp, MlpShape

STATIC_AXES = ((0, 1, 2),)
DYNAMIC_AXES = ((0, 1, 3), (0, 2, 3), (1, 2, 3))
"""(x, y, t), (x, z, t) and (y, z, t) of places (x, y, z, t)."""
GEOMETRY = 15
"""Numbers that a density network hands on to the network of colours."""
_MOST_LOG_DENSITY = 12.0


@dataclass(frozen=True, kw_only=True)
class PlainGrid:
    """A :class:`GridShape` as it may be in a checkpoint."""

    resolutions: tuple[Annotated[int, Within(1, 1 << 20)], ...]
    rows: tuple[Annotated[int, Within(1, 1 << 26)], ...]
    features: Annotated[int, Within(1, 64)]
    last_resolutions: tuple[Annotated[int, Within(1, 1 << 20)], ...] = ()

    def shape(self) -> GridShape:
        """Raises ValueError where there is no such grid."""
        if len(self.rows) > 64 or sum(self.rows) * self.features > 1 << 28:
            raise ValueError("the grid's tables are larger than any that is made")
        return GridShape(**vars(self))


def plain_grid(shape: GridShape) -> dict[str, Any]:
    """As lists and numbers."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(shape).items()}


class Field(nn.Module):
    """Density and colour of one medium. What is seen from far off may depend on direction."""

    def __init__(
        self,
        grid: GridShape,
        axes: tuple[tuple[int, int, int], ...],
        *,
        neurons: int,
        seen: int,
        first_density: float,
        generator: torch.Generator | None = None,
    ) -> None:
        """``seen``: numbers that tell direction and appearance; ``first_density``: before training,
        per radius of the content."""
        super().__init__()
        self.first_log_density = math.log(first_density)
        self.grids = HashGrids([grid] * len(axes), axes, generator=generator)
        density = MlpShape(inputs=self.grids.width, outputs=1 + GEOMETRY, neurons=neurons)
        colour = MlpShape(inputs=GEOMETRY + seen, outputs=3, neurons=neurons)
        self.density_network = Mlp(density, generator=generator)
        self.colour_network = Mlp(colour, generator=generator)

    def density(self, places: Float[Tensor, "n axes"]) -> Float[Tensor, " n"]:
        """At places in the unit cube (and times in 0..1), per radius of the content."""
        features = self.grids(places)
        return self._density(features, self.density_network(features))

    def forward(
        self, places: Float[Tensor, "n axes"], seen: Float[Tensor, "n seen"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Densities, and colours 0..1; ``seen``: direction and appearance."""
        features = self.grids(places)
        out = self.density_network(features)
        colour = self.colour_network(torch.cat([out[:, 1:], seen], dim=1))
        return self._density(features, out), torch.sigmoid(colour)

    def _density(self, features: Tensor, out: Tensor) -> Tensor:
        # Not by the network alone: one without biases that has learned to turn every place off has
        # no unit left that turns one on again. Each level's first feature counts as it is.
        direct = features[:, :: self.grids.shapes[0].features].sum(dim=1)
        log_density = out[:, 0] + direct + self.first_log_density
        return torch.exp(log_density.clamp_max(_MOST_LOG_DENSITY))
