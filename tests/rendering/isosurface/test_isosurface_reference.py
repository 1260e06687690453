"""The kernels against the reference, and both against finite differences."""

from __future__ import annotations

import pytest
import torch
from rendering.isosurface.shapes import LOWER, UPPER, noise
from torch.autograd import gradcheck

from scene4d.rendering.isosurface import reference
from scene4d.rendering.isosurface.cubes import surface_cubes
from scene4d.rendering.isosurface.flexicubes import CubeWeights, flexicubes

CELLS = 5


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """Distances away from 0, offsets and free weights."""
    g = torch.Generator().manual_seed(0)
    sdf = noise(CELLS, 3)
    sdf = sdf + 0.2 * sdf.sign()
    free = torch.randn(len(surface_cubes(sdf).places), 21, generator=g, dtype=torch.float64)
    offsets = 0.4 * torch.randn(*sdf.shape, 3, generator=g, dtype=torch.float64).tanh()
    return [x.to(dtype).requires_grad_() for x in (sdf, offsets, free)]


def by_kernels(sdf, offsets, free):
    found = flexicubes(
        sdf, lower=LOWER, upper=UPPER, offsets=offsets, weights=CubeWeights.of(free), centres=True
    )
    return found.vertices, found.deviations


def by_reference(sdf, offsets, free):
    cubes, weights = surface_cubes(sdf), CubeWeights.of(free)
    vertices, deviations = reference.dual_vertices(
        sdf, offsets, weights, cubes, lower=LOWER.to(sdf), upper=UPPER.to(sdf)
    )
    gamma = weights.gamma[torch.from_numpy(cubes.cube_of_vertex)]
    middles = reference.centres(vertices, gamma, torch.from_numpy(cubes.quads))
    return torch.cat([vertices, middles]), deviations


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float64, 1e-11), (torch.float32, 2e-4)]
)  # of sums of some tens of terms, divided by small differences
def test_vertices_and_their_gradients(dtype: torch.dtype, rounding: float) -> None:
    def of(function, dtype):
        leaves = inputs(dtype)
        out = function(*leaves)
        g = torch.Generator().manual_seed(1)
        loss = sum((torch.rand(o.shape, generator=g).to(o) * o).sum() for o in out)
        return *out, *torch.autograd.grad(loss, leaves)

    for got, expected in zip(of(by_kernels, dtype), of(by_reference, torch.float64), strict=True):
        size = expected.abs().max().item()
        assert got.dtype == dtype and size > 0
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=rounding * size)


@pytest.mark.parametrize("function", [by_kernels, by_reference])
def test_slopes_are_slopes(function) -> None:
    leaves = inputs(torch.float64)
    assert gradcheck(function, leaves, eps=1e-7, atol=1e-5, fast_mode=True)
