"""Planes: the Numba look-up against grid_sample, and what bilinear interpolation must keep."""

import math

import pytest
import torch

from scene4d.rendering.fields.plane_lookup import (
    LIGHT_SLAB_AXES,
    TRIPLANE_AXES,
    FeaturePlanes,
    Plane,
    lookup_planes,
    reference_lookup,
)

SETS = {
    "light slab": FeaturePlanes.of_levels(
        LIGHT_SLAB_AXES, [(5, 6, 3, 4), (16, 17, 8, 9)], features=4, slabs=3
    ),
    "triplane": FeaturePlanes.of_levels(TRIPLANE_AXES, [(7, 9, 4)], features=5),
    # One texel, one row, one column, and a pair of axes in falling order.
    "degenerate": FeaturePlanes(
        planes=(
            Plane(axes=(0, 1), columns=1, rows=1),
            Plane(axes=(1, 2), columns=6, rows=1),
            Plane(axes=(2, 0), columns=1, rows=5),
            Plane(axes=(1, 0), columns=2, rows=2),
        ),
        features=5,  # as the triplane: kernels are compiled for each number
        slabs=2,
    ),
}


def inputs(planes, *, count=500, seed=0, dtype=torch.float32):
    """Rays inside and outside [-1, 1], some on the border and in the middle; a table; slabs."""
    generator = torch.Generator().manual_seed(seed)
    axes = 1 + max(max(p.axes) for p in planes.planes)
    coordinates = torch.rand(count, axes, generator=generator, dtype=dtype) * 2.6 - 1.3
    if count > 3:
        coordinates[0], coordinates[1] = -1.0, 1.0
    table = torch.randn(planes.texels, planes.features, generator=generator, dtype=dtype)
    slab = torch.randint(planes.slabs, (count,), generator=generator)
    return coordinates, table, slab


def looked_up(look_up, planes, coordinates, table, slab):
    coordinates, table = coordinates.clone().requires_grad_(), table.clone().requires_grad_()
    out = look_up(coordinates, table, planes, slab)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights).sum().backward()
    return out.detach(), coordinates.grad, table.grad


@pytest.mark.parametrize("name", SETS)
def test_numba_gives_what_grid_sample_gives(name):
    planes = SETS[name]
    rays = inputs(planes)
    fast = looked_up(lookup_planes, planes, *rays)
    slow = looked_up(reference_lookup, planes, *rays)
    # A few float32 roundings of values around 1; coordinates' gradients sum all planes and are
    # multiplied by half a plane's size (8); a texel's sums up to all the 500 rays.
    torch.testing.assert_close(fast[0], slow[0], rtol=0, atol=5e-6)
    torch.testing.assert_close(fast[1], slow[1], rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(fast[2], slow[2], rtol=1e-4, atol=5e-5)
    assert fast[1].abs().max() > 1.0
    assert fast[2].abs().max() > 1.0


def test_the_definition_has_its_gradients():
    """float64 finite differences, away from texels, where features have a kink."""
    planes = SETS["degenerate"]
    coordinates, table, slab = inputs(planes, count=6, seed=3, dtype=torch.float64)
    sizes = {n for p in planes.planes for n in (p.columns, p.rows)}
    for size in sizes:
        scaled = (coordinates[2:] + 1) / 2 * (size - 1)
        assert size == 1 or ((scaled - scaled.round()).abs() > 1e-5).all()
    assert torch.autograd.gradcheck(
        lambda c, t: lookup_planes(c, t, planes, slab[2:]),
        (coordinates[2:].requires_grad_(), table.requires_grad_()),
    )


def test_features_that_are_linear_in_the_coordinates_come_out_exactly():
    planes = SETS["light slab"]
    slopes = torch.tensor([[1.0, -2.0], [0.3, 0.7], [-1.1, 0.5], [0.0, 3.0]])
    table = torch.zeros(planes.texels, planes.features)
    coordinates, _, slab = inputs(planes)
    coordinates = coordinates.clamp(-1, 1)
    expected = []
    for index, plane in enumerate(planes.planes):
        x = torch.linspace(-1, 1, plane.columns)[None, None, :, None]
        y = torch.linspace(-1, 1, plane.rows)[None, :, None, None]
        offset = torch.arange(planes.slabs)[:, None, None, None]
        planes.grid(table, index)[:] = x * slopes[:, 0] + y * slopes[:, 1] + offset
        expected.append(coordinates[:, list(plane.axes)] @ slopes.T + slab[:, None])
    # float32 rounding of values up to 6
    torch.testing.assert_close(
        lookup_planes(coordinates, table, planes, slab), torch.cat(expected, 1), rtol=0, atol=5e-6
    )


def test_beyond_the_border_is_the_border_and_no_gradient_crosses_it():
    planes = SETS["triplane"]
    _, table, _ = inputs(planes)
    outside = torch.tensor([[-1.3, 0.37, 1.7], [0.21, -5.0, 0.83], [1.0, 0.55, 0.13]])
    torch.testing.assert_close(
        lookup_planes(outside, table, planes), lookup_planes(outside.clamp(-1, 1), table, planes)
    )
    _, gradient, _ = looked_up(lookup_planes, planes, outside, table, None)
    still = outside.abs() >= 1
    assert (gradient[still] == 0).all()
    assert (gradient[~still] != 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("name", SETS)
def test_values_that_are_no_places_read_no_foreign_memory(name, value):
    """As grid_sample: NaN reads the first texel and infinities the border; nothing is misread."""
    planes = SETS[name]
    coordinates, table, slab = inputs(planes, count=8)
    coordinates[2, 0] = coordinates[3, -1] = coordinates[4, 1] = value
    fast = looked_up(lookup_planes, planes, coordinates, table, slab)
    stand_in = coordinates.nan_to_num(nan=-1.0, posinf=2.0, neginf=-2.0)
    expected = reference_lookup(stand_in, table, planes, slab)
    torch.testing.assert_close(fast[0], expected, rtol=0, atol=5e-6)
    assert fast[1].isfinite().all()
    assert fast[2].isfinite().all()
    assert fast[1][2, 0] == fast[1][3, -1] == fast[1][4, 1] == 0


def test_no_rays_have_no_features():
    planes = SETS["light slab"]
    coordinates, table, slab = inputs(planes, count=0)
    out, _, d_table = looked_up(lookup_planes, planes, coordinates, table, slab)
    assert out.shape == (0, planes.width) == (0, 48)
    assert not d_table.any()


def test_without_slabs_the_first_is_read():
    planes = SETS["light slab"]
    coordinates, table, slab = inputs(planes)
    for look_up in (lookup_planes, reference_lookup):
        torch.testing.assert_close(
            look_up(coordinates, table, planes),
            look_up(coordinates, table, planes, torch.zeros_like(slab)),
            rtol=0,
            atol=0,
        )


def test_a_quantised_table_passes_gradients_on():
    """Straight-through rounding in front of the look-up, as quantisation-aware training does."""
    planes = SETS["triplane"]
    coordinates, table, _ = inputs(planes)
    table.requires_grad_()
    rounded = table + (torch.round(table * 8) / 8 - table).detach()
    lookup_planes(coordinates, rounded, planes).sum().backward()
    # All weights of a ray on a plane sum to 1, in each feature: float32 sums of 1500.
    assert table.grad.sum().item() == pytest.approx(500 * planes.width, rel=1e-5)


def test_what_does_not_fit_is_refused():
    planes = SETS["light slab"]
    coordinates, table, slab = inputs(planes)
    with pytest.raises(ValueError, match="slabs must be 0 to 2"):
        lookup_planes(coordinates, table, planes, slab + 1)
    with pytest.raises(ValueError, match="the planes need"):
        lookup_planes(coordinates, table[:-1], planes, slab)
    with pytest.raises(ValueError, match="read coordinate 3 of 3"):
        lookup_planes(coordinates[:, :3], table, planes, slab)
    with pytest.raises(ValueError, match="not a plane"):
        FeaturePlanes(planes=(Plane(axes=(0, 1), columns=0, rows=1),), features=1)


def test_planes_are_laid_out_one_after_the_other():
    planes = SETS["degenerate"]
    table = torch.arange(planes.texels * 3).float().reshape(-1, 3)
    parts = [planes.grid(table, i).reshape(-1, 3) for i in range(len(planes.planes))]
    assert torch.equal(torch.cat(parts), table)
