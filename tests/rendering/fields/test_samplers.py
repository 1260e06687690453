"""Samplers and the occupancy grid: where rays are looked at."""

import math

import pytest
import torch

from scene4d.rendering.fields.hash_grid import contracted
from scene4d.rendering.fields.occupancy import DYNAMIC, STATIC, OccupancyGrid
from scene4d.rendering.fields.samplers import march_edges, regular


def test_marches_go_evenly_and_then_in_proportion_to_the_distance():
    edges = march_edges(0.1, 50.0, 3.0, 200).double()
    steps = edges.diff()
    assert edges[0] == pytest.approx(0.1) and edges[-1] == pytest.approx(50.0)
    even = edges[1:] < 3.0
    # float32 of distances up to 50
    torch.testing.assert_close(steps[even], steps[0].expand(int(even.sum())), rtol=1e-4, atol=0)
    ratios = (edges[1:] / edges[:-1])[~even][1:]
    torch.testing.assert_close(ratios, ratios[0].expand(len(ratios)), rtol=1e-5, atol=0)
    assert float(ratios[0]) == pytest.approx(math.exp(float(steps[0]) / 3.0), rel=1e-3)
    torch.testing.assert_close(march_edges(0, 2.0, 5.0, 4), torch.linspace(0, 2, 5))
    with pytest.raises(ValueError, match="steps"):
        march_edges(2.0, 1.0, 1.0, 4)


def test_regular_samples_lie_at_their_phase():
    edges = torch.tensor([[0.0, 1.0, 3.0], [2.0, 4.0, 8.0]])
    samples = regular(edges, phase=0.25)
    assert samples.firsts.tolist() == [0, 2, 4]
    assert samples.middles.tolist() == [0.25, 1.5, 2.5, 5.0]
    assert samples.widths.tolist() == [1.0, 2.0, 2.0, 4.0]


# The occupancy grid

EDGES = march_edges(0.0, 6.0, 6.0, 60)
ORIGIN, DIRECTION = torch.tensor([[-0.9, 0.02, 0.01]]), torch.tensor([[1.0, 0.0, 0.0]])


def filled(grid, medium, density_at):
    """Every cell of a medium, looked at where ``density_at`` says what is there."""
    layers = grid.static[None] if medium == STATIC else grid.dynamic
    cells = torch.arange(layers.numel())
    side = layers.shape[1]
    places = torch.stack([cells // side**2 % side, cells // side % side, cells % side], 1)
    unit = (places + 0.5) / side
    grid.update(medium, cells, density_at(unit, cells // side**3), decay=0.5)


def march(grid, time=0.0, **options):
    return grid.march(ORIGIN, DIRECTION, torch.tensor([time]), EDGES, phase=0.5, **options)


def test_what_nobody_looked_at_is_sampled_everywhere():
    grid = OccupancyGrid(cells=8, dynamic_cells=8, layers=3, least=1.0)
    samples, which = march(grid)
    assert samples.count == 60 and (which == STATIC | DYNAMIC).all()
    assert grid.share(STATIC) == grid.share(DYNAMIC) == 1.0
    torch.testing.assert_close(samples.middles, EDGES[:-1] + 0.05, rtol=0, atol=1e-6)
    filled(grid, STATIC, lambda u, _: torch.zeros(len(u)))
    assert march(grid, media=STATIC)[0].count == 0 and grid.share(STATIC) == 0.0
    assert (march(grid)[1] == DYNAMIC).all()


def test_only_what_is_there_is_sampled_and_the_cells_around_it():
    grid = OccupancyGrid(cells=32, dynamic_cells=16, layers=4, least=1.0)
    # A wall about x = 0 in the unit cube's middle, then more of it far behind.
    filled(grid, STATIC, lambda u, _: ((u[:, 0] - 0.5).abs() < 0.05).float() * 200
                                        + (u[:, 0] > 0.8).float() * 200)  # fmt: skip
    # Something that passes in front of it in the third quarter of the time.
    filled(grid, DYNAMIC, lambda u, t: ((u[:, 0] < 0.4) & (t == 2)).float() * 50)
    samples, which = march(grid, time=0.1)
    x = ORIGIN[0, 0] + samples.middles
    assert (which == STATIC).all()
    # The wall's cells and one more at each side (a cell is an eighth), and what is far behind.
    near = x < 1.0
    assert near.sum() >= 6 and (x[near] > -0.4).all() and (x[near] < 0.4).all() and (~near).any()
    samples, which = march(grid, time=0.6)
    x = ORIGIN[0, 0] + samples.middles
    assert (x[which == DYNAMIC] < -0.3).all() and (which == DYNAMIC).sum() >= 4
    assert (which & STATIC).any()
    assert 0 < grid.share(STATIC) < 1 and 0 < grid.share(DYNAMIC) < 0.4
    # A layer before and after, too; not the first.
    assert (march(grid, time=0.3)[1] & DYNAMIC).any()


def test_cells_are_those_of_contracted_space():
    """A ray far out goes through the shell: its samples lie where the grid's cells are filled."""
    grid = OccupancyGrid(cells=16, dynamic_cells=4, layers=1, least=1e-3)
    generator = torch.Generator().manual_seed(1)
    filled(grid, STATIC, lambda u, _: (torch.rand(len(u), generator=generator) < 0.01).float())
    origins = torch.randn(50, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=1)
    samples, which = grid.march(
        origins, directions, torch.zeros(50), EDGES, phase=0.5, media=STATIC
    )
    sampled = set(zip(samples.rays().tolist(), samples.middles.tolist(), strict=True))
    static = {s for s, w in zip(sorted(sampled), which.tolist(), strict=True) if w & STATIC}
    middles = EDGES[:-1] + 0.5 * EDGES.diff()
    points = origins[:, None] + middles[:, None] * directions[:, None]
    unit = contracted(points.reshape(-1, 3), torch.zeros(3), 1.0)
    cell = (unit * 16).long().clamp(0, 15)
    value = grid.grown(STATIC)[cell[:, 0], cell[:, 1], cell[:, 2]].reshape(50, 60)
    expected = {(r, float(middles[k])) for r, k in torch.nonzero(value > 0).tolist()}
    assert 100 < len(expected) < 2900
    assert len(static ^ expected) <= 6  # rounding at the faces of cells


def test_no_occupied_cell_is_ever_left_out():
    """Over many looks, with what is there kept and what is gone fading: every sample whose own cell
    holds more than counts as there is sampled, at any time, from any side."""
    grid = OccupancyGrid(cells=12, dynamic_cells=6, layers=3, least=1.0)
    generator = torch.Generator().manual_seed(5)
    truth = {
        STATIC: (torch.rand(12**3, generator=generator) < 0.05).float() * 30,
        DYNAMIC: (torch.rand(3 * 6**3, generator=generator) < 0.05).float() * 30,
    }
    for turn in range(40):
        for medium, density in truth.items():
            cells, _ = grid.cells_to_look_at(medium, 0.25, generator, turn=turn)
            grid.update(medium, cells, density[cells], decay=0.5)
    origins = torch.randn(200, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=1)
    time = torch.rand(200, generator=generator)
    samples, which = grid.march(origins, directions, time, EDGES, phase=0.5)
    middles = EDGES[:-1] + 0.5 * EDGES.diff()
    points = origins[:, None] + middles[:, None] * directions[:, None]
    unit = contracted(points.reshape(-1, 3), torch.zeros(3), 1.0)
    found = torch.zeros(200, 60, dtype=torch.uint8)
    part = torch.searchsorted(EDGES, samples.middles) - 1
    found[samples.rays(), part] = which
    layer = (time * 3).long().repeat_interleave(60)
    for medium, side in ((STATIC, 12), (DYNAMIC, 6)):
        cell = (unit * side).long()
        index = (cell[:, 0] * side + cell[:, 1]) * side + cell[:, 2]
        # Rounding decides at the faces of cells, where either neighbour may be meant.
        off = (unit * side - (unit * side).round()).abs().amin(dim=1) > 1e-4
        index = index + (layer * side**3 if medium == DYNAMIC else 0)
        there = (truth[medium][index] > 0) & off
        assert there.sum() > 100
        assert (found.reshape(-1)[there] & medium).all()
    assert 0 < samples.count < 200 * 60


def test_looks_fade_and_cells_outside_of_space_are_left_out():
    grid = OccupancyGrid(cells=8, dynamic_cells=4, layers=2, least=10.0)
    cells, places = grid.cells_to_look_at(STATIC, 1.0, torch.Generator().manual_seed(0))
    assert 0.4 * 8**3 < len(cells) < 8**3
    assert ((places[:, :3] * 8).long() == torch.stack([cells // 64, cells // 8 % 8, cells % 8], 1)
            ).all()  # fmt: skip
    turns = [grid.cells_to_look_at(STATIC, 0.25, torch.Generator(), turn=t)[0] for t in range(4)]
    assert all(len(turn) < len(cells) / 2 for turn in turns)
    assert {*torch.cat(turns).tolist()} <= {*range(8**3)}
    assert len(set(torch.cat(turns).tolist())) == len(torch.cat(turns))  # none twice
    _, places = grid.cells_to_look_at(DYNAMIC, 1.0, torch.Generator().manual_seed(0))
    assert places[:, 3].min() < 0.5 < places[:, 3].max()
    one = torch.tensor([100, 100])
    grid.update(STATIC, one, torch.tensor([4.0, 2.0]), decay=0.5)
    assert grid.static.view(-1)[100] == 4.0  # the larger of two looks
    grid.update(STATIC, one[:1], torch.tensor([0.5]), decay=0.5)
    assert grid.static.view(-1)[100] == 2.0


def test_exploring_looks_at_one_part_in_so_many_wherever_that_is():
    grid = OccupancyGrid(cells=8, dynamic_cells=8, layers=1, least=1.0)
    for medium in (STATIC, DYNAMIC):
        filled(grid, medium, lambda u, _: torch.zeros(len(u)))
    assert march(grid)[0].count == 0
    found = set()
    for phase in (0.13, 0.5, 0.77, 0.31):
        samples, which = grid.march(
            ORIGIN, DIRECTION, torch.zeros(1), EDGES, phase=phase, explore=10
        )
        assert samples.count == 6 and (which == STATIC | DYNAMIC).all()
        found |= set((samples.middles / 0.1).long().tolist())
    assert len(found) > 12  # other parts at other phases


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rays_that_are_none_read_no_foreign_memory(value):
    grid = OccupancyGrid(cells=8, dynamic_cells=8, layers=2, least=1.0)
    filled(grid, STATIC, lambda u, _: u[:, 0])
    filled(grid, DYNAMIC, lambda u, _: u[:, 0])
    origins = torch.tensor([[value, 0.0, 0.0], [0.0, value, value]])
    samples, _ = grid.march(origins, origins, torch.tensor([value, 0.5]), EDGES, phase=0.5)
    assert samples.num_rays == 2
