"""From rays to slabs: coordinates as geometry, costs, weights and coverage."""

import math

import pytest
import torch
from methods.lightslab.light_slab_scenes import (
    BALL,
    FRONT,
    WALL,
    cameras_around,
    directions,
    facing_cameras,
)
from torch.nn.functional import normalize

from scene4d.cameras.rays import camera_rays
from scene4d.methods.lightslab.placement import place_slabs
from scene4d.methods.lightslab.slabs import (
    ASKEW,
    FADE,
    LEAST_COST,
    LEAST_INSIDE,
    MAX_SLABS,
    MIN_COSINE,
    Slabs,
    local_rays,
    plane_points,
    slab_weights,
)

OVERLAP = math.radians(12.0)
"""Of costs that are angles."""


def rotation(seed):
    q, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()
    )
    return q * torch.linalg.det(q)


def met(origins, dirs, *, turn, viewpoint, disparities):
    local = local_rays(origins, dirs, turn, viewpoint)
    return plane_points(local, disparities.expand(len(origins), -1)), local


# Coordinates


def test_rays_through_the_same_two_points_have_the_same_coordinates():
    turn, viewpoint = (
        rotation(1),
        torch.randn(3, generator=torch.Generator().manual_seed(2)).double(),
    )
    disparities = torch.tensor([0.2, 0.35, 0.5], dtype=torch.float64)
    points = torch.tensor([[0.3, -0.4, 5.0], [-0.1, 0.2, 2.0]], dtype=torch.float64)
    far, near = points @ turn + viewpoint  # on the planes z = 5 and z = 2
    origins = torch.stack([near + t * (far - near) for t in (-3.0, 0.0, 0.4, 1.0, 7.0)])
    dirs = normalize(far - near, dim=0).expand(5, 3)
    q, local = met(origins, dirs, turn=turn, viewpoint=viewpoint, disparities=disparities)
    assert not local.parallel.any()
    expected = torch.stack([points[0, :2] / 5, points[1, :2] / 2])
    # Rounding of float64, over the few divisions.
    assert torch.allclose(q[:, [0, 2]], expected.expand(5, 2, 2), atol=1e-12)


def test_the_plane_at_infinity_gives_tangents_wherever_the_camera_stands():
    dirs = normalize(torch.tensor([[0.3, -0.2, 1.0], [0.0, 0.7, 2.0]], dtype=torch.float64), dim=1)
    origins = torch.tensor([[5.0, -3.0, 2.0], [0.0, 1.0, -7.0]], dtype=torch.float64)
    identity, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    s = torch.tensor([0.0, 1.0], dtype=torch.float64)
    q, _ = met(origins, dirs, turn=identity, viewpoint=zero, disparities=s)
    assert torch.allclose(q[:, 0], dirs[:, :2] / dirs[:, 2:], atol=1e-12)


def test_planes_between_are_linear_in_the_outer_two():
    dirs, origins = directions(50).double(), directions(50, seed=1).double()
    dirs[:, 2] = dirs[:, 2].abs() + 0.3
    identity, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    s = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    q, _ = met(origins, dirs, turn=identity, viewpoint=zero, disparities=s)
    for k in range(5):
        mix = q[:, 0] * (1 - k / 4) + q[:, 4] * (k / 4)
        assert torch.allclose(q[:, k], mix, atol=1e-12)  # rounding of float64


def test_moving_rays_and_slab_together_changes_nothing():
    dirs, origins = directions(40).double(), directions(40, seed=1).double() * 3
    turn, viewpoint = rotation(4), directions(1, seed=5)[0].double()
    s = torch.tensor([0.0, 0.4], dtype=torch.float64)
    before, _ = met(origins, dirs, turn=turn, viewpoint=viewpoint, disparities=s)
    move, shift = rotation(6), torch.tensor([4.0, -2.0, 1.0], dtype=torch.float64)
    after, _ = met(
        origins @ move.T + shift, dirs @ move.T,
        turn=turn @ move.T, viewpoint=move @ viewpoint + shift, disparities=s,
    )  # fmt: skip
    # Rounding of float64, times 1 / MIN_COSINE and the shift's length.
    assert torch.allclose(before, after, atol=1e-11)


def test_gradients_of_coordinates():
    g = torch.Generator().manual_seed(0)
    origins = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    dirs = torch.randn(4, 3, generator=g, dtype=torch.float64)
    dirs[:, 2] = 1.0
    dirs.requires_grad_(True)
    turn, viewpoint = torch.eye(3).double(), torch.zeros(3).double()
    s = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda o, d: met(o, d, turn=turn, viewpoint=viewpoint, disparities=s)[0], (origins, dirs)
    )


def test_parallel_and_opposed_rays_are_finite_also_in_their_gradients():
    dirs = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0.6, 0, 0.8]], requires_grad=True)
    origins = torch.ones(3, 3, requires_grad=True)
    s = torch.tensor([0.0, 0.5])
    q, local = met(origins, dirs, turn=torch.eye(3), viewpoint=torch.zeros(3), disparities=s)
    assert local.parallel.tolist() == [True, True, False]
    q.sum().backward()
    for value in (q, dirs.grad, origins.grad):
        assert torch.isfinite(value).all()
    assert (dirs.grad[:2] == 0).all() and (dirs.grad[2] != 0).any()


def test_depths_along_the_axis_are_those_of_the_rays_points():
    dirs, origins = directions(60).double(), directions(60, seed=1).double() * 3
    turn, viewpoint = rotation(4), directions(1, seed=5)[0].double()
    local = local_rays(origins, dirs, turn, viewpoint)
    ahead = dirs @ turn[2] > MIN_COSINE
    assert torch.equal(local.parallel, ~ahead) and ahead.any() and not ahead.all()
    at = origins + 1.7 * dirs
    depth = (at - viewpoint) @ turn[2]
    assert torch.allclose((local.start + 1.7 * local.climb)[ahead], depth[ahead], atol=1e-12)
    assert (local.climb[~ahead] == 1).all() and (local.tangent[~ahead] == 0).all()


def test_one_slab_for_all_rays_is_as_one_for_each():
    dirs, origins = directions(20), directions(20, seed=1)
    turn, viewpoint = rotation(4).float(), directions(1, seed=5)[0]
    one = local_rays(origins, dirs, turn, viewpoint)
    each = local_rays(origins, dirs, turn.expand(20, 3, 3), viewpoint.expand(20, 3))
    for a, b in zip(vars(one).values(), vars(each).values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5)  # float32, over MIN_COSINE


# What a slab costs


def around():
    """Slabs at clusters of cameras, and the rays of cameras between those, too."""
    slabs = place_slabs(cameras_around(), BALL, kind="cameras", num_planes=5, count=5)
    rays = [camera_rays(c) for c in cameras_around(90)]
    origins = torch.cat([r.origins.reshape(-1, 3) for r in rays])[::29]
    return slabs, origins, torch.cat([r.directions.reshape(-1, 3) for r in rays])[::29]


def test_a_cost_is_how_far_apart_a_rays_points_are_and_how_askew_it_is():
    slabs, origins, dirs = around()
    costs = slabs.costs(origins, dirs)
    least = slabs.least_parallax(origins, dirs)
    parallaxes = []
    for slab in range(slabs.num_slabs):
        cosine = dirs @ slabs.rotations[slab, 2]
        local = local_rays(origins, dirs, slabs.rotations[slab], slabs.viewpoints[slab])
        q = plane_points(local, slabs.disparities[slab].expand(len(dirs), -1))
        parallax = (q[:, -1] - q[:, 0]).norm(dim=1)
        expected = parallax + ASKEW * cosine.clamp(-1, 1).acos().tan() + LEAST_COST
        met = cosine > MIN_COSINE
        # float32: a difference of tangents up to 5.
        assert torch.allclose(costs[met, slab], expected[met], atol=2e-5, rtol=1e-4)
        assert (costs[~met, slab] > LEAST_COST / LEAST_INSIDE * 0.99).all()  # as none inside
        parallaxes.append(parallax.masked_fill(~met, torch.inf))
    assert torch.allclose(least, torch.stack(parallaxes).amin(dim=0), atol=2e-5)  # as above


def test_a_ray_through_the_viewpoint_along_the_axis_costs_least():
    slabs = place_slabs(facing_cameras(), WALL)
    along = slabs.costs(slabs.viewpoints, slabs.rotations[:, 2])
    assert along.item() == pytest.approx(LEAST_COST, rel=1e-3)  # float32 of positions
    other = slabs.costs(slabs.viewpoints + directions(50), directions(50, seed=1))
    assert (other > along).all()


def test_rays_have_the_weights_of_the_specification():
    """mobile_export/SPEC.md, section 8: every cost is divided by how far a ray is inside."""
    slabs, origins, dirs = around()
    slabs, origins, dirs = slabs.double(), origins.double(), dirs.double()
    found = slabs(origins, dirs)
    costs, inside = slabs.costs(origins, dirs), []
    for slab in range(slabs.num_slabs):
        local = local_rays(origins, dirs, slabs.rotations[slab], slabs.viewpoints[slab])
        q = plane_points(local, slabs.disparities[slab].expand(len(dirs), -1))
        c = (q - slabs.low[slab]) / (slabs.high[slab] - slabs.low[slab]) * 2 - 1
        within = (1 - (c.abs().amax(dim=(1, 2)) - 1) / FADE).clamp(0, 1)
        inside.append(within.masked_fill(local.parallel, 0))
    inside = torch.stack(inside, dim=1)
    # Rays that are parallel to a slab are dear already.
    dear = torch.where(inside > 0, costs / inside.clamp_min(LEAST_INSIDE), torch.inf)
    known = (inside > 0).any(dim=1)  # the others show the background, whatever their slab
    assert 0.2 < known.double().mean() < 1
    expected = slab_weights(dear[known], slabs.overlap)
    weights = torch.zeros_like(inside)
    weights[found.ray, found.slab] = found.weight
    assert (found.weight > 0).all() and (weights > 0).sum(dim=1).max() > 1
    assert torch.allclose(weights[known], expected, atol=1e-9)  # float64
    coverage = (expected * inside[known]).sum(dim=1)
    assert torch.allclose(found.coverage[known], coverage, atol=1e-9)
    assert (found.coverage[~known] == 0).all()


def test_the_compiled_pass_agrees_with_torch():
    many, origins, dirs = around()
    crowded = Slabs(  # every ray is in all of five, as cheap as each other or nearly
        rotations=FRONT.expand(5, 3, 3).contiguous(), viewpoints=directions(5) * 0.1,
        disparities=torch.tensor([0.1, 0.3, 0.5]).expand(5, 3).contiguous(),
        low=torch.full((5, 3, 2), -2.0), high=torch.full((5, 3, 2), 2.0), overlap=0.2,
    )  # fmt: skip
    one = place_slabs(facing_cameras(), WALL)
    for slabs, o, d in (
        (many, origins, dirs),
        (crowded, directions(3000, seed=1) * 0.2, directions(3000)),
        (one, directions(500, seed=1) * 0.5, directions(500)),
    ):
        found, expected = slabs(o, d), slabs.reference(o, d)
        # Where a ray is inside a hundredth only, its costs are a hundred times less exact.
        known = expected.coverage > 0.01
        dense = torch.zeros(2, len(d), slabs.num_slabs, 3 + 2 * slabs.num_planes)
        for into, from_ in zip(dense, (found, expected), strict=True):
            parts = [from_.weight[:, None], from_.start[:, None], from_.climb[:, None]]
            into[from_.ray, from_.slab] = torch.cat([*parts, from_.coordinates], dim=1)
        assert known.sum() > 50
        assert torch.allclose(dense[0, known, :, 0], dense[1, known, :, 0], atol=1e-3)  # as above
        both = (dense[..., 0] > 0).all(dim=0)
        # float32, of tangents up to 5 over ranges down to 0.1.
        assert torch.allclose(dense[0][both], dense[1][both], atol=1e-3, rtol=1e-4)
        assert torch.allclose(found.coverage, expected.coverage, atol=1e-3)
        assert (found.ray.bincount(minlength=len(d)) >= 1).all()


def test_pairs_lie_ray_by_ray_and_sum_to_one():
    slabs, origins, dirs = around()
    found = slabs(origins, dirs)
    counts = found.ray.bincount(minlength=len(dirs))
    assert counts.min() >= 1 and counts.max() <= MAX_SLABS
    sums = torch.zeros(len(dirs)).index_add(0, found.ray, found.weight)
    assert torch.allclose(sums, torch.ones(len(dirs)), atol=1e-6)  # float32
    assert (found.ray.diff() >= 0).all()


def test_rays_that_move_change_their_slabs_continuously():
    """With 8 times smaller steps the largest change is smaller, too: a jump would stay."""
    slabs = place_slabs(cameras_around(), BALL, kind="cameras", num_planes=5, count=5).double()

    def largest_change(steps):
        t = torch.linspace(0, 2 * math.pi, steps, dtype=torch.float64)
        origins = 4 * torch.stack([t.sin(), 0.1 + 0 * t, t.cos()], dim=1)
        to = torch.stack([0.2 * (3 * t).cos(), 0.2 * (2 * t).sin(), 0 * t], dim=1)
        found = slabs(origins, normalize(to - origins, dim=1))
        weights = torch.zeros(steps, slabs.num_slabs, dtype=torch.float64)
        weights[found.ray, found.slab] = found.weight
        assert len(found.slab.unique()) == slabs.num_slabs
        return float(weights.diff(dim=0).abs().max())

    coarse, fine = largest_change(40_000), largest_change(320_000)
    assert fine < coarse / 4


# Weights by costs


def angles(dirs, axes):
    """What may stand for costs: they are continuous, and nothing else is asked of them."""
    return (dirs @ axes.T).clamp(-1, 1).acos()


def cube_axes():
    return torch.cat([torch.eye(3), -torch.eye(3)])


def test_weights_sum_to_one_and_few_are_above_zero():
    weights = slab_weights(angles(directions(5000), cube_axes()), OVERLAP)
    assert torch.allclose(weights.sum(dim=1), torch.ones(5000), atol=1e-6)  # float32
    assert int((weights > 0).sum(dim=1).max()) <= MAX_SLABS
    assert (weights > 0).sum(dim=1).eq(1).float().mean() > 0.5  # most rays have one slab


def test_weights_of_many_slabs_that_are_alike():
    weights = slab_weights(torch.full((1, 6), 0.5), OVERLAP)
    assert weights.tolist() == [[1, 0, 0, 0, 0, 0]]


def test_weights_are_continuous_along_any_turn():
    g = torch.Generator().manual_seed(2)
    axes = normalize(torch.randn(9, 3, generator=g), dim=1).double()
    axes = torch.cat([axes, axes[:1] + 0.1])  # two that nearly agree
    axes = normalize(axes, dim=1)
    a, b = directions(1, seed=8)[0].double(), directions(1, seed=9)[0].double()
    b = normalize(b - (a @ b) * a, dim=0)
    steps = 200_000
    t = torch.linspace(0, 2 * math.pi, steps, dtype=torch.float64)[:, None]
    weights = slab_weights(angles(t.cos() * a + t.sin() * b, axes), OVERLAP)
    # smoothstep rises by at most 1.5 / overlap a radian; two angles change at once, and scaling to
    # a sum of 1 at most multiplies by 4: well below this, and a jump would be about 0.1 to 1.
    bound = 1.5 / OVERLAP * 2 * 4 * (2 * math.pi / steps)
    assert (weights[1:] - weights[:-1]).abs().max() < max(bound, 1e-9) * 2


def test_the_cheapest_counts_most_and_one_dearer_by_the_overlap_nothing():
    weights = slab_weights(torch.tensor([[0.3, 0.4, 0.5, 0.9]]), 0.2)
    # smoothstep(1) = 1, smoothstep(1/2) = 1/2, and 0 from the overlap on; the sum is 3/2.
    assert torch.allclose(weights, torch.tensor([[2 / 3, 1 / 3, 0, 0]]), atol=1e-6)  # float32
    assert torch.equal(slab_weights(torch.tensor([[5.0, 5.21]]), 0.2), torch.tensor([[1.0, 0.0]]))


def test_cube_faces_cover_the_sphere():
    slabs = place_slabs(cameras_around(), BALL, kind="cube")
    cosines = directions(2000) @ cube_axes().T
    weights = slab_weights(cosines.clamp(-1, 1).acos(), OVERLAP)
    # The farthest ray of a face, with its overlap, is far from parallel to it.
    assert cosines[weights > 0].min() > MIN_COSINE
    assert slabs.num_slabs == 4  # a circle of cameras looks through the sides of a cube
    assert torch.allclose(
        slabs.rotations @ slabs.rotations.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5
    )


# Coverage


def test_coverage_falls_smoothly():
    slabs = Slabs(
        rotations=FRONT[None], viewpoints=torch.zeros(1, 3), disparities=torch.tensor([[0.0, 1.0]]),
        low=-torch.ones(1, 2, 2), high=torch.ones(1, 2, 2),
    )  # fmt: skip
    x = torch.linspace(0, 1.3, 1001)
    dirs = normalize(torch.stack([x, 0 * x, -torch.ones_like(x)], dim=1), dim=1)
    coverage = slabs(torch.zeros(1001, 3), dirs).coverage
    expected = (1 - (x - 1) / FADE).clamp(0, 1)
    assert torch.allclose(coverage, expected, atol=1e-5)  # float32, times 1 / FADE
