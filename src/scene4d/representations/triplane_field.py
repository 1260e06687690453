"""Signed distances and colours from three planes of features: a plain function of its tensors.

The planes may be parameters, or what a network makes of something, such as a text (TriplaneTurbo;
AToM, Qian et al. 2024, arXiv 2402.00867); the small networks that read them are shared by all
scenes then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.ranges import Positive, Within
from scene4d.rendering.fields.networks import Mlp, MlpShape
from scene4d.rendering.fields.plane_lookup import TRIPLANE_AXES, FeaturePlanes, lookup_planes
from scene4d.rendering.isosurface.cubes import SurfaceCubes, surface_cubes
from scene4d.rendering.isosurface.flexicubes import NUM_WEIGHTS, CubeWeights, IsoSurface, flexicubes
from scene4d.rendering.isosurface.near_surface import distances_near_surface

_PLACE = 4
"""Numbers that tell a place to the networks, which have no biases: x, y, z and 1."""
_MOST_MOVE = 0.49
"""Of corners, in edges of a cube."""


@dataclass(frozen=True, kw_only=True)
class TriplaneShape:
    """Sizes of planes and networks."""

    resolutions: tuple[Annotated[int, Within(2, 4096)], ...] = (32, 128)
    """Texels along the sides of the planes, level by level."""
    channels: Annotated[int, Within(2, 256)] = 8
    """Features of a texel: the first half are of distances, the others of colours, so that neither
    moves with the other."""
    neurons: Annotated[int, Within(1, 1024)] = 32
    """Of the networks' hidden layers."""
    hidden_layers: Annotated[int, Within(1, 8)] = 1
    radius: Positive = 0.5
    """Of the ball that planes of zeros are, in half sides of the box, if networks are new."""
    bends_cubes: bool = False
    """Whether a third network moves the corners of FlexiCubes and gives their weights."""

    @property
    def planes(self) -> FeaturePlanes:
        """Where the texels lie in a table."""
        sizes = [(side,) * 3 for side in self.resolutions]
        return FeaturePlanes.of_levels(TRIPLANE_AXES, sizes, features=self.channels)


class TriplaneNetworks(nn.Module):
    """What reads the planes' features: distances, colours, and the bending of cubes."""

    def __init__(self, shape: TriplaneShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        of_shape = shape.channels // 2
        planes = len(shape.planes.planes)

        def network(outputs: int, channels: int) -> Mlp:
            sizes = MlpShape(
                inputs=planes * channels + _PLACE, outputs=outputs, neurons=shape.neurons,
                hidden_layers=shape.hidden_layers,
            )  # fmt: skip
            made = Mlp(sizes, generator=generator)
            nn.init.zeros_(made.weights[-1])  # a ball, grey, of cubes that are not bent
            return made

        self.distance = network(1, of_shape)
        self.colour = network(3, shape.channels - of_shape)
        self.bend = network(3 + NUM_WEIGHTS, of_shape) if shape.bends_cubes else None


class TriplaneField:
    """Distances and colours in the box [-1, 1]^3, whose half side is the unit of length."""

    def __init__(self, table: Float[Tensor, "texels channels"], networks: TriplaneNetworks) -> None:
        """``table``: the planes' texels (:class:`FeaturePlanes` states their order)."""
        self.table, self.networks = table, networks
        self.planes = networks.shape.planes

    @classmethod
    def of_planes(
        cls, planes: Sequence[Float[Tensor, "3 channels _ _"]], networks: TriplaneNetworks
    ) -> TriplaneField:
        """From the planes xy, xz and yz of each level; columns go along the first axis."""
        flat = [level.permute(0, 2, 3, 1).reshape(-1, level.shape[1]) for level in planes]
        return cls(torch.cat(flat), networks)

    def features(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n inputs"]:
        """What there is for the networks to read: the planes' features, and the place."""
        ones = places.new_ones(len(places), 1)
        return torch.cat([lookup_planes(places, self.table, self.planes), places, ones], dim=1)

    def _half(self, features: Float[Tensor, "n inputs"], which: slice) -> Float[Tensor, "n half"]:
        """Some features of each plane, and the place."""
        width, count = self.planes.width, len(self.planes.planes)
        some = features[:, :width].reshape(-1, count, width // count)[:, :, which]
        return torch.cat([some.flatten(start_dim=1), features[:, width:]], dim=1)

    def _of_shape(self, features: Float[Tensor, "n inputs"]) -> Float[Tensor, "n half"]:
        return self._half(features, slice(self.planes.features // 2))

    def distance(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Negative inside."""
        return self.distance_of(places, self.features(places))

    def distance_of(
        self, places: Float[Tensor, "n 3"], features: Float[Tensor, "n inputs"]
    ) -> Float[Tensor, " n"]:
        """Of places whose features are known."""
        ball = places.norm(dim=1) - self.networks.shape.radius
        return ball + self.networks.distance(self._of_shape(features))[:, 0]

    def colour(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """0..1."""
        return self.colour_of(self.features(places))

    def colour_of(self, features: Float[Tensor, "n inputs"]) -> Float[Tensor, "n 3"]:
        """Of places whose features are known."""
        half = self._half(features, slice(self.planes.features // 2, None))
        return torch.sigmoid(self.networks.colour(half))

    def surface(self, cells: int, *, coarser: int = 2, centres: bool = False) -> FieldSurface:
        """The surface as a closed mesh, of a grid of ``cells`` along a side; differentiable."""
        lower = self.table.new_full((3,), -1.0)
        sdf = distances_near_surface(
            self.distance, lower=lower, upper=-lower, cells=cells, coarser=coarser
        )
        sdf = _closed(sdf, 1e-3 / cells)
        cubes = surface_cubes(sdf)
        offsets = weights = None
        if self.networks.bend is not None:
            offsets, weights = self._bent(self.networks.bend, cubes, cells)
        mesh = flexicubes(
            sdf, lower=lower, upper=-lower, offsets=offsets, weights=weights, cubes=cubes,
            centres=centres,
        )  # fmt: skip
        return FieldSurface(mesh=mesh, sdf=sdf)

    def _bent(
        self, bend: Mlp, cubes: SurfaceCubes, cells: int
    ) -> tuple[Float[Tensor, "n n n 3"], CubeWeights]:
        """How far corners move, and the weights of the cubes on the surface."""
        edge, side = 2 / cells, cells + 1
        corners = np.unique(cubes.nodes.reshape(-1, 3) @ [side * side, side, 1])
        at = np.stack([corners // side**2, corners // side % side, corners % side], axis=1)
        moves = bend(self._of_shape(self.features(self.table.new_tensor(edge * at - 1))))[:, :3]
        rows = torch.from_numpy(corners).to(moves.device)
        offsets = moves.new_zeros(side**3, 3).index_put((rows,), _MOST_MOVE * moves.tanh())
        middles = self.table.new_tensor(edge * (cubes.places + 0.5) - 1)
        weights = CubeWeights.of(bend(self._of_shape(self.features(middles)))[:, 3:])
        return offsets.reshape(side, side, side, 3), weights


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldSurface:
    """The surface of a field, in its box [-1, 1]^3."""

    mesh: IsoSurface
    sdf: Float[Tensor, "n n n"]
    """Of the grid's corners; true near the surface, rough elsewhere."""


def _closed(sdf: Float[Tensor, "n n n"], least: float) -> Float[Tensor, "n n n"]:
    """Nothing is inside on the border of the grid, so that the surface is closed there."""
    inner = torch.zeros_like(sdf, dtype=torch.bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return torch.where(inner, sdf, sdf.clamp_min(least))
