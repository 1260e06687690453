"""The door of the iso-surfaces: signed distances at the corners of cubes become a mesh.

FlexiCubes (Shen et al. 2023, arXiv 2308.05371), written from its equations. With distances s and
weights alpha at the corners x of a cube, an edge (i, j) is crossed at

    u = (s_j alpha_j x_i - s_i alpha_i x_j) / (s_j alpha_j - s_i alpha_i)

and the vertex of a loop of crossed edges (``cubes.py``) is v = sum(beta u) / sum(beta). A
quadrilateral of four vertices becomes two triangles along the diagonal whose product of gammas is
larger, or four around its centre, which is differentiable in the gammas. Without weights these are
dual marching cubes whose vertices are the means of their crossings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.rendering.isosurface import kernels
from scene4d.rendering.isosurface.cubes import SurfaceCubes, surface_cubes

NUM_WEIGHTS = 21
"""Of a cube: 8 of corners, 12 of edges, 1 of quadrilaterals."""
_MOST = 0.99
"""How far alpha and beta may be from 1, so that they stay positive."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeWeights:
    """The weights of the cubes that the surface passes through, in their order; all above 0."""

    alpha: Float[Tensor, "num_cubes 8"]
    """Of corners (``scene4d.cubes.CORNERS``)."""
    beta: Float[Tensor, "num_cubes 12"]
    """Of edges (``scene4d.cubes.EDGES``)."""
    gamma: Float[Tensor, " num_cubes"]

    @classmethod
    def of(cls, free: Float[Tensor, "num_cubes 21"]) -> CubeWeights:
        """From numbers without bounds; zeros are the weights of dual marching cubes."""
        near_one = 1 + _MOST * torch.tanh(free[:, :20])
        return cls(alpha=near_one[:, :8], beta=near_one[:, 8:], gamma=free[:, 20].sigmoid())


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoSurface:
    """A mesh of the places where distances are 0; closed, but where it meets the grid's border."""

    vertices: Float[Tensor, "num_vertices 3"]
    triangles: Int[np.ndarray, "num_triangles 3"]
    """Counter-clockwise as seen from outside, where distances are positive; int64."""
    deviations: Float[Tensor, " num_dual"]
    """Mean absolute deviation of a vertex's distances from its crossings, scene units: what the
    regulariser L_dev has the mean of, for faces of even shape."""
    cubes: SurfaceCubes


def flexicubes(
    sdf: Float[Tensor, "nx ny nz"],
    *,
    lower: Float[Tensor, " 3"],
    upper: Float[Tensor, " 3"],
    offsets: Float[Tensor, "nx ny nz 3"] | None = None,
    weights: CubeWeights | None = None,
    cubes: SurfaceCubes | None = None,
    centres: bool = False,
) -> IsoSurface:
    """The surface of ``sdf`` (negative inside), between the corners ``lower`` and ``upper``.

    Differentiable, once, in ``sdf``, ``offsets`` and ``weights``; on the CPU, wherever they are.
    ``offsets`` moves the corners, in edges of a cube: below 0.5 each, so that cubes stay whole.
    ``cubes`` are :func:`surface_cubes` of ``sdf``, which whoever makes ``weights`` has. With
    ``centres`` quadrilaterals become four triangles, for training; their centres come after the
    ``num_dual`` vertices of cubes.

    Raises ValueError for what is not finite, weights of 0 or less, and shapes that do not fit.
    """
    cubes = surface_cubes(sdf) if cubes is None else cubes
    device, dtype = sdf.device, sdf.dtype
    _check(sdf, offsets, weights, cubes)
    if weights is None:
        one = torch.ones(len(cubes.places), 21, dtype=dtype)
        weights = CubeWeights(alpha=one[:, :8], beta=one[:, 8:20], gamma=one[:, 20])
    low = np.asarray(lower.detach().cpu(), dtype=np.float64)
    size = (np.asarray(upper.detach().cpu(), dtype=np.float64) - low) / (np.array(sdf.shape) - 1)
    moved = sdf.new_empty(0, 0, 0, 3) if offsets is None else offsets
    vertices, deviations = _DualVertices.apply(
        sdf.cpu(), moved.cpu(), weights.alpha.cpu(), weights.beta.cpu(), cubes, low, size
    )
    if not np.isfinite(_array(vertices)).all():
        raise ValueError("vertices that are not finite, by offsets or bounds that are not")
    gamma = weights.gamma.cpu()[torch.from_numpy(cubes.cube_of_vertex)]
    if centres:
        middles = _Centres.apply(vertices, gamma, cubes.quads)
        triangles = _around_centres(cubes.quads, len(vertices))
        vertices = torch.cat([vertices, middles])
    else:
        triangles = _split(cubes.quads, _array(vertices), _array(gamma))
    return IsoSurface(
        vertices=vertices.to(device),
        triangles=triangles,
        deviations=deviations.to(device),
        cubes=cubes,
    )


def sign_changes(sdf: Float[Tensor, "nx ny nz"]) -> Float[Tensor, ""]:
    """How far the distances at both ends of crossed edges are from changing sign: a regulariser
    against surfaces that nobody sees (Munkberg et al. 2022, arXiv 2111.12503).

    The mean cross entropy, both ways, of the sigmoid of one end with the sign of the other; 0 where
    no edge is crossed.
    """
    inside = (sdf.detach() < 0).cpu().numpy()
    ends = []
    for axis, step in enumerate((inside.shape[1] * inside.shape[2], inside.shape[2], 1)):
        crossed = np.zeros(inside.shape, dtype=bool)
        first, second = (np.moveaxis(a, axis, 0) for a in (crossed, inside))
        np.not_equal(second[:-1], second[1:], out=first[:-1])
        at = np.flatnonzero(crossed)
        ends += [at, at + step]
    sizes = sdf.reshape(-1)[torch.from_numpy(np.concatenate(ends)).to(sdf.device)].abs()
    return 2 * torch.nn.functional.softplus(sizes).mean() if len(sizes) else sdf.sum() * 0


def _check(
    sdf: Tensor, offsets: Tensor | None, weights: CubeWeights | None, cubes: SurfaceCubes
) -> None:
    if len(cubes.places) and (cubes.places.max(axis=0) + 1 >= sdf.shape).any():
        raise ValueError(f"cubes of a larger grid than the {list(sdf.shape)} corners given")
    if offsets is not None and offsets.shape != (*sdf.shape, 3):
        raise ValueError(f"offsets {list(offsets.shape)} of corners {list(sdf.shape)}")
    if weights is None:
        return
    count = len(cubes.places)
    wanted = {"alpha": (count, 8), "beta": (count, 12), "gamma": (count,)}
    for name, shape in wanted.items():
        given = getattr(weights, name).detach().cpu().numpy()
        if given.shape != shape:
            raise ValueError(f"{name} {list(given.shape)} for {count} cubes: expected {shape}")
        if not ((given > 0) & np.isfinite(given)).all():
            raise ValueError(f"{name} has numbers that are not above 0, or not finite")


def _around_centres(quads: np.ndarray, first: int) -> Int[np.ndarray, "num_triangles 3"]:
    """Four triangles for each quadrilateral, around vertex ``first`` + its row."""
    middle = np.repeat(first + np.arange(len(quads)), 4)
    return np.stack([quads.ravel(), np.roll(quads, -1, axis=1).ravel(), middle], axis=1)


def _split(
    quads: np.ndarray, vertices: np.ndarray, gamma: np.ndarray
) -> Int[np.ndarray, "num_triangles 3"]:
    """Two triangles for each quadrilateral; along the shorter diagonal where gammas say nothing."""
    a, b, c, d = quads.T
    first, second = gamma[a] * gamma[c], gamma[b] * gamma[d]
    shorter = np.square(vertices[a] - vertices[c]).sum(1) <= np.square(
        vertices[b] - vertices[d]
    ).sum(1)
    along = np.where(first == second, shorter, first > second)[:, None]
    turned = np.where(along, quads, np.roll(quads, -1, axis=1))
    return turned[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


class _DualVertices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sdf, offsets, alpha, beta, cubes, lower, size):
        inputs = [_array(t) for t in (sdf, offsets, alpha, beta)]
        vertices = np.empty((len(cubes.cube_of_vertex), 3), inputs[0].dtype)
        deviations = np.empty(len(vertices), inputs[0].dtype)
        where = cubes.places, cubes.firsts, cubes.edges, cubes.cube_of_vertex
        kernels.dual_vertices(*where, *inputs, lower, size, vertices, deviations)
        ctx.kept = where, inputs, lower, size
        return torch.from_numpy(vertices), torch.from_numpy(deviations)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_vertices, g_deviations):
        where, inputs, lower, size = ctx.kept
        grads = [np.zeros_like(array) for array in inputs]
        kernels.dual_vertices_backward(
            *where, *inputs, lower, size, _array(g_vertices), _array(g_deviations), *grads
        )  # fmt: skip
        return *(torch.from_numpy(g) for g in grads), None, None, None


class _Centres(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vertices, gamma, quads):
        ctx.kept = _array(vertices), _array(gamma), quads
        out = np.empty((len(quads), 3), ctx.kept[0].dtype)
        kernels.centres(*ctx.kept, out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        vertices, gamma, quads = ctx.kept
        grads = np.zeros_like(vertices), np.zeros_like(gamma)
        kernels.centres_backward(vertices, gamma, quads, _array(g_out), *grads)
        return *(torch.from_numpy(g) for g in grads), None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
