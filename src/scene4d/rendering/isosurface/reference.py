"""FlexiCubes in plain torch: any float type, differentiable throughout, slow.

It says in the plainest way what the kernels do; they are checked against it, and it against
``gradcheck`` in float64. Which edges meet in which vertex it takes from ``cubes``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cubes import EDGES
from scene4d.rendering.isosurface.cubes import SurfaceCubes
from scene4d.rendering.isosurface.flexicubes import CubeWeights


def dual_vertices(
    sdf: Float[Tensor, "nx ny nz"],
    offsets: Float[Tensor, "nx ny nz 3"],
    weights: CubeWeights,
    cubes: SurfaceCubes,
    *,
    lower: Float[Tensor, " 3"],
    upper: Float[Tensor, " 3"],
) -> tuple[Float[Tensor, "num_vertices 3"], Float[Tensor, " num_vertices"]]:
    """Vertices, and the mean absolute deviations of their distances from their crossings."""
    vertex = torch.arange(len(cubes.cube_of_vertex)).repeat_interleave(
        torch.from_numpy(cubes.firsts).diff()
    )
    cube, edge = torch.from_numpy(cubes.cube_of_vertex)[vertex], torch.from_numpy(cubes.edges)
    ends = torch.tensor([(corner, corner | 1 << axis) for corner, axis in EDGES])[edge]
    nodes = torch.from_numpy(cubes.nodes)[cube[:, None], ends]  # [crossings, 2, 3]
    at = tuple(nodes.unbind(dim=-1))
    size = (upper - lower) / (torch.tensor(sdf.shape) - 1)
    x = lower + size * (nodes + offsets[at])
    p, q = (sdf[at] * weights.alpha[cube[:, None], ends])[..., None].unbind(dim=1)
    u = (q * x[:, 0] - p * x[:, 1]) / (q - p)
    beta = weights.beta[cube, edge]

    def summed(values: Tensor) -> Tensor:
        out = values.new_zeros(len(cubes.cube_of_vertex), *values.shape[1:])
        return out.index_add(0, vertex, values)

    v = summed(beta[:, None] * u) / summed(beta)[:, None]
    count = summed(torch.ones_like(beta))
    distance = (v[vertex] - u).norm(dim=-1)
    mean = summed(distance) / count
    return v, summed((distance - mean[vertex]).abs()) / count


def centres(
    vertices: Float[Tensor, "num_vertices 3"],
    gamma: Float[Tensor, " num_vertices"],
    quads: Tensor,
) -> Float[Tensor, "num_quads 3"]:
    """The middles of the diagonals, weighed by the products of gamma at their ends."""
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    g = gamma[quads]
    first, second = (g[:, 0] * g[:, 2])[:, None], (g[:, 1] * g[:, 3])[:, None]
    return (first * (a + c) / 2 + second * (b + d) / 2) / (first + second)
