"""FlexiCubes against closed forms: shapes whose area, volume and topology are known."""

from __future__ import annotations

import math

import pytest
import torch
from rendering.isosurface.shapes import (
    LOWER,
    UPPER,
    area,
    ball,
    euler_number,
    is_closed_manifold,
    noise,
    on_grid,
    torus,
    volume,
)  # fmt: skip

from scene4d.cubes import CORNERS, pinched_face
from scene4d.rendering.isosurface.cubes import surface_cubes
from scene4d.rendering.isosurface.flexicubes import CubeWeights, flexicubes, sign_changes
from scene4d.rendering.mesh.edges import edges_of


def surface_of(sdf, **more):
    return flexicubes(sdf, lower=LOWER.to(sdf), upper=UPPER.to(sdf), **more)


def some_weights(sdf, seed: int = 0) -> CubeWeights:
    count = len(surface_cubes(sdf).places)
    free = torch.randn(count, 21, generator=torch.Generator().manual_seed(seed))
    return CubeWeights.of(free.to(sdf))


def some_offsets(sdf, seed: int = 1):
    free = torch.randn(*sdf.shape, 3, generator=torch.Generator().manual_seed(seed))
    return 0.45 * free.to(sdf).tanh()


@pytest.mark.parametrize("centres", [False, True])
def test_a_ball_has_the_area_and_volume_of_a_ball(centres: bool) -> None:
    errors = []
    for cells in (16, 32):
        found = surface_of(on_grid(ball, cells), centres=centres)
        assert euler_number(found) == 2 and is_closed_manifold(found)
        exact = torch.tensor([4 * math.pi * 0.7**2, 4 / 3 * math.pi * 0.7**3])
        errors.append((torch.stack([area(found), volume(found)]) / exact - 1).abs())
    # The mean of crossings of a sphere lies below it by a share of h^2 / r, for h = 1 / 16 some
    # 0.8% of the radius times 1/3; and halving the cubes takes a quarter of it.
    assert errors[1].max() < 0.01 and (errors[0] / errors[1]).min() > 3


def test_a_torus_has_a_hole() -> None:
    found = surface_of(on_grid(torus, 32))
    assert euler_number(found) == 0 and is_closed_manifold(found)
    exact = 2 * math.pi**2 * 0.6 * 0.25**2
    assert float(volume(found)) == pytest.approx(exact, rel=0.03)  # as above, of a tube of 4 cubes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("centres", [False, True])
def test_any_signs_make_a_closed_manifold(seed: int, centres: bool) -> None:
    sdf = noise(14, seed)
    found = surface_of(sdf, weights=some_weights(sdf), offsets=some_offsets(sdf), centres=centres)
    assert len(found.triangles) > 5000 and is_closed_manifold(found)
    assert volume(surface_of(sdf)) > 0


def test_cubes_pinched_in_the_face_between_them_do_not_touch() -> None:
    """Each such cube and its mirror image, as the inner corners of a grid."""
    cases = [case for case in range(256) if pinched_face(case) == 1]
    assert len(cases) == 6
    for case in cases:
        sdf = torch.ones(5, 4, 4, dtype=torch.float64)
        for corner, (x, y, z) in enumerate(CORNERS.tolist()):
            if case >> corner & 1:
                sdf[1 + x, 1 + y, 1 + z] = sdf[3 - x, 1 + y, 1 + z] = -1
        assert is_closed_manifold(surface_of(sdf))


def test_a_surface_that_leaves_the_grid_is_open_at_its_border_alone() -> None:
    found = surface_of(on_grid(lambda at: ball(at) - 0.6, 16))
    edges = edges_of(found.triangles)
    faces = torch.from_numpy(edges.starts).diff()
    assert set(faces.tolist()) == {1, 2}
    outline = torch.from_numpy(edges.ends)[faces == 1].unique()
    from_border = (1 - found.vertices[outline].abs()).amin(dim=1)
    assert float(from_border.max()) < 2 / 16  # within the outermost cubes


@pytest.mark.parametrize("normal", [(0.0, 0, 1), (0.6, 0, 0.8), (0.48, -0.6, 0.64)])
def test_a_plane_is_exact(normal) -> None:
    normal = torch.tensor(normal, dtype=torch.float64)
    flat = lambda at: at @ normal - 0.117  # noqa: E731
    sdf = on_grid(flat, 8)
    # Alpha moves crossings off a plane whose distances are true; the others keep them on it.
    weights = some_weights(sdf)
    weights = CubeWeights(
        alpha=torch.ones_like(weights.alpha), beta=weights.beta, gamma=weights.gamma
    )
    offsets = some_offsets(sdf)
    moved = sdf + 0.25 * offsets @ normal  # cubes are 0.25 wide
    for found in (
        surface_of(sdf),
        surface_of(sdf, weights=weights, centres=True),
        surface_of(moved, offsets=offsets),
    ):
        assert len(found.triangles) >= 2 * 7**2 // 2
        assert float(flat(found.vertices).abs().max()) < 1e-14  # rounding


def test_a_plane_along_the_grid_has_even_crossings() -> None:
    found = surface_of(on_grid(lambda at: at[..., 2] - 0.1, 4))
    assert float(found.deviations.abs().max()) < 1e-15
    curved = surface_of(on_grid(ball, 8))
    assert float(curved.deviations.mean()) > 1e-3


def test_growing_by_a_length_adds_its_area_to_the_volume() -> None:
    """dV/dc of the surface sdf = c is the area, whatever the mesh."""
    sdf = on_grid(ball, 24).requires_grad_()
    found = surface_of(sdf)
    (slope,) = torch.autograd.grad(volume(found), sdf)
    # Both to second order in the cubes: 1% at 24 cells.
    assert -float(slope.sum()) == pytest.approx(area(found).item(), rel=0.01)


def test_moving_all_corners_moves_all_vertices() -> None:
    sdf = on_grid(ball, 8)
    offsets = torch.zeros(*sdf.shape, 3, dtype=torch.float64).requires_grad_()
    found = surface_of(sdf, offsets=offsets, weights=some_weights(sdf), centres=True)
    (slope,) = torch.autograd.grad(found.vertices.sum(), offsets)
    # By a cube's edge, 0.25, each.
    expected = torch.full((3,), 0.25 * len(found.vertices), dtype=torch.float64)
    torch.testing.assert_close(slope.sum((0, 1, 2)), expected)


def test_zero_weights_are_dual_marching_cubes() -> None:
    sdf = on_grid(torus, 12)
    none = CubeWeights.of(torch.zeros(len(surface_cubes(sdf).places), 21, dtype=torch.float64))
    torch.testing.assert_close(surface_of(sdf, weights=none).vertices, surface_of(sdf).vertices)


def test_gamma_chooses_the_diagonal() -> None:
    sdf = on_grid(lambda at: at[..., 2] - 0.1, 4)
    quads = surface_cubes(sdf).quads
    ones = torch.ones(len(surface_cubes(sdf).places), 21, dtype=torch.float64)
    gamma = ones[:, 20].clone()
    gamma[quads[0, [0, 2]]] = 2.0
    gamma[quads[0, [1, 3]]] = 0.5
    for swapped in (False, True):
        given = 1 / gamma if swapped else gamma
        weights = CubeWeights(alpha=ones[:, :8], beta=ones[:, 8:20], gamma=given)
        edges = {
            tuple(e) for e in edges_of(surface_of(sdf, weights=weights).triangles).ends.tolist()
        }
        diagonals = [tuple(sorted(quads[0, k].tolist())) for k in ([0, 2], [1, 3])]
        assert [d in edges for d in diagonals] == [not swapped, swapped]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_grid_without_a_surface_is_no_mesh(sign: float) -> None:
    sdf = torch.full((5, 4, 3), sign, requires_grad=True)
    found = surface_of(sdf, centres=True)
    assert found.vertices.shape == (0, 3) and found.triangles.shape == (0, 3)
    loss = found.vertices.sum() + found.deviations.sum() + sign_changes(sdf)
    loss.backward()
    assert loss.item() == 0 and not sdf.grad.any()


def test_corners_on_the_surface_are_outside() -> None:
    sdf = on_grid(lambda at: at[..., 2], 4)
    found = surface_of(sdf)
    assert len(found.triangles) == 2 * 3**2
    assert not found.vertices[:, 2].any()


def test_what_is_not_finite_is_refused() -> None:
    sdf = on_grid(ball, 4)
    broken = sdf.clone()
    broken[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="1 of 125 distances are not finite"):
        surface_of(broken)
    offsets = torch.zeros(5, 5, 5, 3)
    offsets[2, 2] = math.inf
    with pytest.raises(ValueError, match="offsets"):
        surface_of(sdf, offsets=offsets)
    for name in ("alpha", "beta", "gamma"):
        for wrong in (0.0, -1.0, math.nan, math.inf):
            weights = some_weights(sdf)
            getattr(weights, name)[0] = wrong
            with pytest.raises(ValueError, match=name):
                surface_of(sdf, weights=weights)


@pytest.mark.unchecked_shapes
def test_shapes_that_do_not_fit_are_refused() -> None:
    sdf = on_grid(ball, 4)
    with pytest.raises(ValueError, match="3 axes"):
        surface_of(sdf[0])
    with pytest.raises(ValueError, match="3 axes"):
        surface_of(sdf[:1])
    with pytest.raises(ValueError, match="offsets"):
        surface_of(sdf, offsets=torch.zeros(5, 5, 5))
    with pytest.raises(ValueError, match="alpha"):
        surface_of(sdf, weights=some_weights(on_grid(ball, 8)))
    with pytest.raises(ValueError, match="larger grid"):
        surface_of(sdf, cubes=surface_cubes(on_grid(ball, 8)))


def test_sign_changes_are_dear_where_signs_are_sure() -> None:
    sdf = torch.full((3, 3, 3), 0.4, dtype=torch.float64)
    sdf[1, 1, 1] = -1.5
    sdf.requires_grad_()
    loss = sign_changes(sdf)
    expected = math.log1p(math.exp(0.4)) + math.log1p(math.exp(1.5))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (slope,) = torch.autograd.grad(loss, sdf)
    assert slope[1, 1, 1] < 0 < slope[0, 1, 1]  # each toward 0
    assert slope[0, 0, 0] == 0
