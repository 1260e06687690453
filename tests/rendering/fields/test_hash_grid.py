"""The hash grid: its Numba look-up against the definition, and what interpolation must keep."""

import math

import pytest
import torch

from scene4d.rendering.fields.hash_grid import (
    GridShape,
    HashGrid,
    HashGrids,
    contracted,
    reference_lookup,
)

SHAPES = {
    "dense": GridShape.growing(levels=3, features=2, coarsest=2, finest=6, max_rows=10_000),
    "hashed": GridShape.growing(levels=3, features=4, coarsest=8, finest=64, max_rows=100),
    "both": GridShape.growing(levels=4, features=3, coarsest=2, finest=40, max_rows=300),
    "powers of two": GridShape.growing(levels=3, features=2, coarsest=8, finest=64, max_rows=128),
    "five features": GridShape.growing(levels=2, features=5, coarsest=3, finest=9, max_rows=200),
    "own last axis": GridShape.growing(
        levels=3, features=2, coarsest=4, finest=16, max_rows=500, last=(2, 5)
    ),
    "one level": GridShape.growing(levels=1, features=1, coarsest=5, finest=5, max_rows=1000),
}


def points_and_table(shape, *, count=400, seed=0):
    """Points in and around the unit cube, some on its faces and on vertices, and a random table."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator) * 1.4 - 0.2
    points[:8] = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).float()
    points[8] = 0.5
    table = torch.randn(sum(shape.rows), shape.features, generator=generator)
    return points, table


def looked_up(look_up, points, table, weights):
    points, table = points.clone().requires_grad_(), table.clone().requires_grad_()
    out = look_up(points, table)
    (out * weights).sum().backward()
    return out.detach(), points.grad, table.grad


@pytest.mark.parametrize("name", SHAPES)
def test_numba_gives_what_the_definition_gives(name):
    shape = SHAPES[name]
    points, table = points_and_table(shape)
    weights = torch.randn(len(points), shape.width, generator=torch.Generator().manual_seed(1))
    grid = HashGrid(shape)
    fast = looked_up(grid, points, table, weights)
    slow = looked_up(lambda p, t: reference_lookup(p, t, shape), points, table, weights)
    # Numba multiplies the weights in float64 and stores float32: some float32 roundings of sums
    # of eight; the points' gradient is multiplied by the resolution, the table's sums all points.
    torch.testing.assert_close(fast[0], slow[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(fast[1], slow[1], rtol=1e-4, atol=1e-6 * max(shape.resolutions) * 8)
    torch.testing.assert_close(fast[2], slow[2], rtol=1e-4, atol=1e-4)


def test_the_definition_has_its_gradients():
    """float64 finite differences, away from the faces of cells where features have a kink."""
    shape = SHAPES["both"]
    _, table = points_and_table(shape)
    points = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    cells = torch.cat([points * r for r in shape.resolutions])
    assert ((cells - cells.round()).abs() > 1e-5).all()
    assert torch.autograd.gradcheck(
        lambda p, t: reference_lookup(p, t, shape),
        (points.requires_grad_(), table.double().requires_grad_()),
    )


def test_a_table_given_takes_the_place_of_its_own():
    grid = HashGrid(SHAPES["both"])
    points, table = points_and_table(grid.shape)
    torch.testing.assert_close(grid(points), grid(points, grid.table.detach()), rtol=0, atol=0)
    assert not torch.equal(grid(points), grid(points, table))


def test_dense_levels_interpolate_linear_functions_exactly():
    shape = SHAPES["dense"]
    direction = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1]])
    rows = []
    for resolution in shape.resolutions:
        axis = torch.arange(resolution + 1) / resolution
        rows.append(torch.cartesian_prod(axis, axis, axis) @ direction.T + 3.0)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(2))
    expected = (points @ direction.T + 3.0).repeat(1, len(shape.resolutions))
    # float32 rounding of values up to 5
    torch.testing.assert_close(
        HashGrid(shape)(points, torch.cat(rows)), expected, rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("name", ["dense", "both"])
def test_points_outside_see_the_nearest_face_and_get_no_gradient_across_it(name):
    shape = SHAPES[name]
    _, table = points_and_table(shape)
    outside = torch.tensor([[-0.3, 0.37, 1.7], [0.21, -5.0, 0.83], [1.0001, 0.55, 0.13]])
    grid = HashGrid(shape)
    torch.testing.assert_close(grid(outside, table), grid(outside.clamp(0, 1), table))
    _, gradient, _ = looked_up(grid, outside, table, torch.ones(3, shape.width))
    clamped = (outside < 0) | (outside > 1)
    assert (gradient[clamped] == 0).all()
    assert (gradient[~clamped] != 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_values_that_are_no_places_read_no_foreign_memory(value):
    """NaN comes out as NaN, infinities as the faces; never another row, never a crash."""
    shape = SHAPES["both"]
    _, table = points_and_table(shape)
    points = torch.tensor([[value, 0.5, 0.5], [0.25, 0.25, value], [0.3, 0.4, 0.5]])
    grid = HashGrid(shape)
    features, _, d_table = looked_up(grid, points, table, torch.ones(3, shape.width))
    reference = reference_lookup(points, table, shape)
    torch.testing.assert_close(features, reference, rtol=0, atol=1e-5, equal_nan=True)
    assert features[:2].isnan().all() == math.isnan(value)
    assert features[2].isfinite().all()
    assert d_table.shape == table.shape


def test_an_axis_with_its_own_cells_interpolates_linear_functions_exactly():
    """Space in 4 cells, time in 7: every vertex in its place, the last axis fastest."""
    shape = GridShape(resolutions=(4,), rows=(5 * 5 * 8,), features=1, last_resolutions=(7,))
    assert shape.dense(0) and shape.sides(0) == (4, 4, 7)
    space, time = torch.arange(5) / 4, torch.arange(8) / 7
    direction = torch.tensor([1.0, -2.0, 3.0])
    table = torch.cartesian_prod(space, space, time) @ direction[:, None]
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(7))
    got = HashGrid(shape)(points, table)
    torch.testing.assert_close(got[:, 0], points @ direction, rtol=0, atol=5e-6)  # float32


def test_grids_over_chosen_coordinates_are_each_of_them_beside_the_other():
    shapes = [SHAPES["own last axis"], SHAPES["powers of two"]]
    axes = [(0, 1, 3), (3, 2, 0)]
    grids = HashGrids(shapes, axes, generator=torch.Generator().manual_seed(1))
    points, _ = points_and_table(shapes[0])
    points = torch.cat([points, points.flip(0)[:, :1]], dim=1)
    weights = torch.randn(len(points), grids.width, generator=torch.Generator().manual_seed(2))
    fast = looked_up(grids, points, grids.table.detach(), weights)
    slow = looked_up(grids.reference, points, grids.table.detach(), weights)
    for got, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # as above
    rows = sum(shapes[0].rows)
    first = HashGrid(shapes[0])(points[:, [0, 1, 3]], grids.table[:rows])
    assert torch.equal(fast[0][:, : shapes[0].width], first)


@pytest.mark.parametrize(
    ("count", "axes"), [(1, [(0, 1, 2), (0, 1, 2)]), (1, [(0, 1, -1)]), (0, [])]
)
def test_sets_of_grids_that_cannot_be_are_refused(count, axes):
    with pytest.raises(ValueError, match="grids"):
        HashGrids([SHAPES["both"]] * count, axes)


def test_no_points_have_no_features():
    grid = HashGrid(SHAPES["both"])
    features = grid(torch.zeros(0, 3))
    features.sum().backward()
    assert features.shape == (0, grid.shape.width)
    assert not grid.table.grad.any()


@pytest.mark.parametrize("levels", [1, 2, 6])
@pytest.mark.parametrize("max_rows", [64, 729, 10_000])
def test_grids_grow_from_coarsest_to_finest_within_their_rows(levels, max_rows):
    shape = GridShape.growing(levels=levels, features=4, coarsest=8, finest=128, max_rows=max_rows)
    assert len(shape.resolutions) == len(shape.rows) == levels
    assert shape.width == 4 * levels
    assert shape.resolutions[0] == 8
    assert levels == 1 or shape.resolutions[-1] == 128
    assert list(shape.resolutions) == sorted(set(shape.resolutions))
    for level, (resolution, rows) in enumerate(zip(shape.resolutions, shape.rows, strict=True)):
        assert rows == min((resolution + 1) ** 3, max_rows)
        assert shape.dense(level) == ((resolution + 1) ** 3 <= max_rows)
    layout = shape.layout()
    assert (layout[1:, 3] == layout[:-1, 3] + layout[:-1, 4]).all()  # tables follow each other
    assert layout[-1, 3] + layout[-1, 4] == sum(shape.rows)


CENTRE, RADIUS = torch.tensor([0.4, -0.2, 1.0]), 2.5


def test_contraction_maps_the_ball_to_the_middle_half():
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(100, 3, generator=generator), dim=-1)
    local = directions * torch.rand(100, 1, generator=generator)
    inside = contracted(CENTRE + RADIUS * local, CENTRE, RADIUS)
    torch.testing.assert_close(inside, 0.5 + local / 4, rtol=0, atol=1e-6)  # float32
    edge = contracted(CENTRE + RADIUS * directions, CENTRE, RADIUS)
    torch.testing.assert_close((edge - 0.5).norm(dim=-1), torch.full((100,), 0.25))


def test_contraction_is_continuous_at_the_ball_and_grows_with_distance():
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -0.5]), dim=0)
    # In float64: the shell's growth is below float32's step far out.
    distances = torch.cat([torch.linspace(0.01, 3, 500), torch.logspace(0.5, 6, 50)]).double()
    points = CENTRE.double() + RADIUS * distances[:, None] * direction
    places = contracted(points, CENTRE.double(), RADIUS)
    reach = (places - 0.5) @ direction.double()
    assert (reach.diff() > 0).all()
    assert reach[-1] < 0.5
    across = torch.tensor([1 - 1e-6, 1 + 1e-6], dtype=torch.float64)[:, None] * direction * RADIUS
    step = contracted(CENTRE.double() + across, CENTRE.double(), RADIUS).diff(dim=0).norm()
    assert float(step) == pytest.approx(2e-6 / 4, rel=1e-3)  # slope 1/4 on both sides


def test_all_of_space_lies_inside_the_cube():
    generator = torch.Generator().manual_seed(4)
    scale = torch.logspace(-3, 30, 300)[:, None]
    places = contracted(torch.randn(300, 3, generator=generator) * scale, CENTRE, RADIUS)
    assert places.isfinite().all()
    assert (places >= 0).all()
    assert (places <= 1).all()
