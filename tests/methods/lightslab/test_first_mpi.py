"""MPIs before training: drawn from Gaussians, within a number of blocks, in slabs at clusters of
cameras."""

import math

import numpy as np
import pytest
import torch
from methods.lightslab.light_slab_scenes import (
    WALL,
    camera,
    cameras_around,
    directions,
    facing_cameras,
    front_slabs,
    splats_at,
)

from scene4d.cameras.rays import camera_rays
from scene4d.errors import DataError
from scene4d.methods.lightslab.block_transform import steps_for
from scene4d.methods.lightslab.first_mpi import (
    COARSER,
    MpiLimits,
    fewest_slabs_near_best,
    first_mpi,
    gaussians_of,
)
from scene4d.methods.lightslab.mpi import BLOCK
from scene4d.methods.lightslab.placement import clusters, numbers_of_slabs, place_slabs
from scene4d.methods.lightslab.stored_mpi import (
    FINEST,
    FREQUENCIES,
    estimated_bytes,
    fitting_steps,
)
from scene4d.rendering.render import DEPTH, RGB, Render
from scene4d.representations.base import Representation
from scene4d.representations.content import Content
from scene4d.representations.gaussians import NAMES, GaussianSplats

pytestmark = pytest.mark.unchecked_shapes

SIZE = 64
DEPTHS = [5.3, 4.6, 4.0, 3.5, 3.1, 2.8]
SPLATS = splats_at((0.0, 0.0, -4.0), radius=1.3, size=0.12)
ROOMY = MpiLimits(bytes=1e9, blocks=100_000)


def within(blocks, scale=1.0):
    """Room for as many blocks, however many bytes they take."""
    return MpiLimits(bytes=1e9, blocks=blocks, scale=scale)


def aligned():
    """A slab at the origin and the camera there whose pixels are the MPIs' texels."""
    half = 0.6
    one = camera(size=SIZE, focal=(SIZE - 1) / SIZE / (2 * half))
    return front_slabs(DEPTHS, half=half), one


def seen_on(mpi, slabs, one):
    """Colour, alpha and depth of the MPIs alone, along the pixels' rays."""
    rays = camera_rays(one)
    found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    values = mpi(found.coordinates, found.slab, 1 / slabs.disparities).detach()
    empty = torch.zeros(one.height * one.width, 5)
    blended = empty.index_add(0, found.ray, values * found.weight[:, None])
    return blended.view(one.height, one.width, 5)


def error_of(values, render):
    wanted = torch.cat([render.rgb, render.alpha[..., None]], dim=-1)
    return float((values[..., :4] - wanted).square().mean())


def psnr_of(values, render):
    return -10 * math.log10(error_of(values, render))


# From the slab's own viewpoint


def test_from_its_viewpoint_mpis_show_what_the_rasteriser_does():
    slabs, one = aligned()
    mpi = first_mpi(SPLATS, slabs, [one], ROOMY)
    assert (mpi.columns, mpi.rows) == (SIZE, SIZE)
    with torch.no_grad():
        render = SPLATS.render(one, want=DEPTH)
    assert render.alpha.mean() > 0.2  # the ball fills much of the picture
    values = seen_on(mpi, slabs, one)
    wanted = torch.cat([render.rgb, render.alpha[..., None]], dim=-1)
    # Blocks with no more than LEAST_ALPHA (0.05) are left out: a pixel lacks that of a plane or two
    # at most, and most lack nothing.
    off = (values[..., :4] - wanted).abs()
    assert off.max() < 0.15
    assert off.mean() < 0.001
    assert psnr_of(values, render) > 50
    # Depths are those of the planes: half the widest gap (0.7) away at most; less, blended.
    solid = render.alpha > 0.9
    off = (values[..., 4] / values[..., 3].clamp_min(1e-6) - render.depth)[solid].abs()
    assert off.max() < 0.35 and off.mean() < 0.1


def test_beside_the_viewpoint_mpis_move_as_their_planes_do():
    slabs, one = aligned()
    around = [camera(size=SIZE, position=(x, 0.0, 0.0), focal=1.2) for x in (-0.3, 0.0, 0.3)]
    mpi = first_mpi(SPLATS, slabs, [one, *around], ROOMY)
    beside = camera(size=SIZE, position=(0.2, 0.1, 0.0), focal=1.2)
    with torch.no_grad():
        render, unmoved = SPLATS.render(beside), SPLATS.render(around[1])
    values = seen_on(mpi, slabs, beside)
    # What stands half way between two planes is off by 0.2 * 76 pixels * half a gap in disparity
    # (0.014): a fifth of a pixel, where the picture moves by four (measured: 43 dB against 14).
    assert psnr_of(values, render) > 38
    assert psnr_of(values, unmoved) < 20


def test_a_slice_has_the_gaussians_of_its_depth():
    slabs, one = aligned()
    mpi = first_mpi(splats_at((0.0, 0.0, -4.0), size=0.05, radius=0.02), slabs, [one], ROOMY)
    # All of them are within 0.03 of the third plane (of depth 4); the next are 0.5 away.
    assert mpi.stored.sum(dim=(0, 2, 3)).nonzero()[:, 0].tolist() == [2]


def test_what_lies_behind_a_slab_is_on_none_of_its_mpi_planes():
    slabs, one = aligned()
    mpi = first_mpi(splats_at((0.0, 0.0, 4.0)), slabs, [one], ROOMY)
    assert mpi.num_blocks == 0


# Limits


@pytest.mark.parametrize("blocks", [100, 60, 12])
def test_there_are_no_more_blocks_than_the_limit(blocks):
    slabs, one = aligned()
    mpi = first_mpi(SPLATS, slabs, [one], within(blocks))
    assert 0.4 * blocks <= mpi.num_blocks <= blocks  # the coarser steps do not waste most of it
    assert int(mpi.stored.sum()) == mpi.num_blocks
    assert mpi.columns % BLOCK == mpi.rows % BLOCK == 0
    full = first_mpi(SPLATS, slabs, [one], ROOMY)
    assert mpi.columns <= full.columns
    if mpi.columns == full.columns:  # then the blocks that are left out show least
        assert mpi.num_blocks <= full.num_blocks


def test_mpis_are_as_fine_as_the_pictures_times_the_scale_and_not_finer_than_asked():
    slabs, one = aligned()
    for limits, columns in (
        (within(100_000, scale=0.5), SIZE // 2),
        (within(100_000, scale=1e-3), 2 * BLOCK),  # the least
    ):
        mpi = first_mpi(SPLATS, slabs, [one], limits)
        assert (mpi.columns, mpi.rows) == (columns, columns)


def test_there_are_no_more_places_than_a_bundle_may_have(monkeypatch):
    """However few of them have a block."""
    slabs, one = aligned()
    few = splats_at((0.0, 0.0, -4.0), size=0.05, radius=0.02)
    assert first_mpi(few, slabs, [one], ROOMY).stored.numel() == 6 * 64
    monkeypatch.setattr("scene4d.methods.lightslab.first_mpi.MAX_PLACES", 200)
    mpi = first_mpi(few, slabs, [one], ROOMY)
    assert 6 * 16 <= mpi.stored.numel() <= 200
    assert mpi.num_blocks > 0


def test_more_blocks_look_more_like_the_teacher():
    slabs, one = aligned()
    with torch.no_grad():
        render = SPLATS.render(one)
    errors = [
        error_of(seen_on(first_mpi(SPLATS, slabs, [one], within(n)), slabs, one),
                 render)
        for n in (12, 60, 200)
    ]  # fmt: skip
    # The last with every block.
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_finer_mpis_are_as_sharp_as_the_pictures_and_not_sharper():
    """Gaussians are at least as wide as a pixel in any picture; drawn finer without that, thin ones
    are lost."""
    slabs, one = aligned()
    thin = splats_at((0.0, 0.0, -4.0), radius=1.3, size=0.01)  # a fifth of a pixel
    with torch.no_grad():
        render = thin.render(one)
    fine = first_mpi(thin, slabs, [one], within(100_000, scale=2.0))
    assert fine.columns == 2 * SIZE
    assert psnr_of(seen_on(fine, slabs, one), render) > 35


def test_what_is_seen_less_is_coarser_and_what_no_camera_sees_is_kept():
    slabs, one = aligned()
    hidden = splats_at((0.0, 0.0, -5.3), radius=0.05, size=0.05)
    both = {n: torch.cat([SPLATS.gaussians[n], hidden.gaussians[n]]) for n in NAMES}
    mpi = first_mpi(GaussianSplats(both), slabs, [one], ROOMY)
    last = mpi.levels[mpi.place[0, 0][mpi.stored[0, 0]].long()]
    assert last.max() >= 2  # behind the ball
    front = mpi.place[0, -1][mpi.stored[0, -1]].long()
    assert (mpi.levels[front] == 0).any()
    share = mpi.most_seen(*at_pixels(slabs, one))
    for level in range(1, len(COARSER)):  # of rays between those that the levels were told by
        assert share[mpi.levels == level].max() <= 1.5 * COARSER[level - 1]


def at_pixels(slabs, one):
    """Where a camera's rays are in its slabs, and in which."""
    rays = camera_rays(one)
    found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    return found.coordinates, found.slab


def test_the_step_is_such_that_the_blocks_fit():
    slabs, one = aligned()
    mpi = first_mpi(SPLATS, slabs, [one], ROOMY)
    sizes = [estimated_bytes(mpi, steps_for(step)) for step in (3.0, 12.0, 48.0)]
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2] > 0
    finest = steps_for(FINEST, FREQUENCIES)
    assert (fitting_steps(mpi, 1e9) == finest).all()
    steps = fitting_steps(mpi, sizes[1])
    assert estimated_bytes(mpi, steps) <= sizes[1]
    assert estimated_bytes(mpi, (0.9 * steps).astype(np.int64)) > sizes[1]
    few = fewest_slabs_near_best(SPLATS, [one], MpiLimits(bytes=sizes[1], blocks=100_000), [slabs])
    assert (few.steps == steps).all() and (steps > finest).all()


# Choosing, and teachers of other kinds


def test_the_most_alike_of_the_choices_is_taken():
    one, limits = aligned()[1], ROOMY
    cameras = [camera(size=SIZE, position=(x, 0.0, 0.0)) for x in (-0.3, 0.0, 0.3)]
    good = front_slabs(DEPTHS)
    wrong_depths = front_slabs([80.0, 40.0, 20.0])  # shows no parallax
    behind = front_slabs(DEPTHS, position=(0.0, 0.0, -9.0))  # sees nothing
    for choices in ([wrong_depths, good, behind], [good, behind], [behind, wrong_depths, good]):
        found = fewest_slabs_near_best(SPLATS, cameras, limits, choices)
        mpi = found.mpi
        assert found.slabs is good
        assert torch.equal(
            mpi.texels, first_mpi(SPLATS, good, cameras, limits).texels
        )  # those of the choice, not of the last one tried
    assert psnr_of(seen_on(mpi, good, one), SPLATS.render(one)) > 30


def test_choosing_ends_after_two_that_are_worse():
    cameras = [camera(size=32)]
    tried = []

    def choices():
        for i in range(6):
            tried.append(i)
            yield front_slabs(DEPTHS if i == 0 else [80.0, 40.0], half=0.6 if i == 0 else 0.1)

    fewest_slabs_near_best(SPLATS, cameras, ROOMY, choices())
    assert tried == [0, 1, 2]


def test_of_slabs_that_are_about_as_alike_the_fewest_are_taken():
    cameras = [camera(size=SIZE, position=(x, 0.0, 0.0)) for x in (-0.3, 0.0, 0.3)]
    rough, good = front_slabs([80.0, 40.0, 20.0]), front_slabs(DEPTHS)
    same = front_slabs([d * 1.0001 for d in DEPTHS])
    assert fewest_slabs_near_best(SPLATS, cameras, ROOMY, [rough, good, same]).slabs is good
    assert fewest_slabs_near_best(SPLATS, cameras, ROOMY, [rough, same, good]).slabs is same


class Disc(Representation):
    """A sphere of one colour, traced: a scene that is not made of splats."""

    def __init__(self, centre, radius, colour):
        super().__init__()
        self.centre, self.radius, self.colour = map(torch.tensor, (centre, radius, colour))

    def render(self, camera, *, background=None, want=RGB):
        rays = camera_rays(camera)
        to = self.centre - rays.origins
        along = (to * rays.directions).sum(dim=-1)
        inside = self.radius**2 - (to.square().sum(dim=-1) - along**2)
        alpha = (inside > 0).float()
        cosine = -(rays.directions @ camera.c2w[:3, 2])
        hit = (along - inside.clamp_min(0).sqrt()) * cosine * alpha
        rgb = alpha[..., None] * self.colour
        return Render(rgb=rgb, alpha=alpha, depth=hit if want.depth else None)

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {
            "centre": self.centre.tolist(), "radius": float(self.radius),
            "colour": self.colour.tolist(),
        }  # fmt: skip

    @classmethod
    def from_saved(cls, tensors, plain):
        return cls(**plain)


def test_splats_are_their_own_gaussians():
    assert gaussians_of(SPLATS, [camera()]) is SPLATS


def test_a_teacher_that_is_no_splats_becomes_gaussians_on_its_surface():
    colour = [0.9, 0.3, 0.1]
    disc = Disc([0.0, 0.0, -4.0], 0.8, colour)
    cameras = facing_cameras()
    made = gaussians_of(disc, cameras)
    distance = (made.means - disc.centre).norm(dim=1)
    assert torch.allclose(distance, torch.tensor(0.8), atol=1e-3)  # float32 of grazing rays
    # One for each pixel of the cameras that shows the disc, as 40 x 40 pixels are few.
    assert made.num_gaussians == sum(int(disc.render(c).alpha.sum()) for c in cameras)
    for one in (cameras[2], camera(position=(0.3, 0.1, 0.0))):
        with torch.no_grad():
            seen, wanted = made.render(one), disc.render(one)
        inner = torch.nn.functional.avg_pool2d(wanted.alpha[None], 5, 1, 2)[0] > 0.999
        # Gaussians of opacity 0.9 half overlap, and colours are bytes.
        assert seen.alpha[inner].min() > 0.95
        straight = seen.rgb[inner] / seen.alpha[inner][:, None]
        assert torch.allclose(straight, torch.tensor(colour).expand_as(straight), atol=0.01)


def test_mpis_start_from_a_teacher_that_is_no_splats():
    disc = Disc([0.0, 0.0, -4.0], 0.8, [0.2, 0.8, 0.4])
    cameras = facing_cameras()
    content = Content(points=disc.centre + 0.8 * directions(500), bounded=True)
    slabs = place_slabs(cameras, content, kind="cameras", num_planes=12)
    mpi = fewest_slabs_near_best(disc, cameras, ROOMY, [slabs]).mpi
    values, wanted = seen_on(mpi, slabs, cameras[2]), disc.render(cameras[2])
    with torch.no_grad():
        made = gaussians_of(disc, cameras).render(cameras[2])
    assert psnr_of(values, made) > 38  # measured: 45; the MPIs are not aligned with its pixels
    # At the outline points are farther apart than pixels, and Gaussians reach as far beyond it.
    grown = torch.nn.functional.max_pool2d(wanted.alpha[None], 11, 1, 5)[0]
    assert (grown == 0).float().mean() > 0.4
    assert values[..., 3][grown == 0].max() < 0.05
    assert values[..., 3][wanted.alpha > 0].min() > 0.5


# Slabs at clusters of cameras


def two_clusters():
    """Cameras at two places, far from each other beside their distance from the wall."""
    near = [(x, y, 0.0) for x in (-0.1, 0.1) for y in (-0.1, 0.1)]
    return [camera(position=(x + side, y, z)) for side in (-3.0, 3.0) for x, y, z in near]


def test_clusters_are_those_of_groups_that_are_apart():
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    truth = torch.randint(0, 4, (200,), generator=g)
    points = centres[truth] + torch.randn(200, 3, generator=g) * 0.5
    own = clusters(points, 4)
    assert all(len(own[truth == i].unique()) == 1 for i in range(4))
    assert len(own.unique()) == 4
    assert torch.equal(own, clusters(points, 4))


def test_each_point_belongs_to_the_nearest_middle_of_a_cluster():
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(2))
    own = clusters(points, 5)
    middles = torch.stack([points[own == i].mean(dim=0) for i in range(5)])
    nearest = torch.cdist(points, middles).argmin(dim=1)
    # k-means may be stopped a few points before it has settled.
    assert (nearest == own).float().mean() > 0.97


def test_clusters_of_as_many_points_and_of_equal_points():
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(2))
    assert sorted(clusters(points, 6).tolist()) == list(range(6))
    assert len(clusters(torch.ones(5, 3), 3).unique()) == 1


def test_numbers_of_slabs_rise_to_the_most():
    cameras = [camera()] * 100
    assert numbers_of_slabs(cameras, 1) == [1]
    assert numbers_of_slabs(cameras, 8) == [1, 2, 4, 8]
    assert numbers_of_slabs(cameras, 9) == [1, 2, 4, 8, 9]
    assert numbers_of_slabs(cameras[:5], 24) == [1, 2, 4, 5]  # no more than cameras
    assert numbers_of_slabs(cameras, 100)[-2:] == [48, 100]


def test_slabs_stand_where_their_cameras_do_and_look_as_they_do():
    slabs = place_slabs(two_clusters(), WALL, kind="cameras", num_planes=4, count=2)
    order = slabs.viewpoints[:, 0].argsort()
    expected = torch.tensor([[-3.0, 0, 0], [3.0, 0, 0]])
    assert torch.allclose(slabs.viewpoints[order], expected, atol=1e-6)  # means of four positions
    ahead = torch.tensor([0.0, 0, -1]).expand(2, 3)
    assert torch.allclose(slabs.rotations[:, 2], ahead, atol=1e-5)  # a mean of many rays
    assert (slabs.disparities[:, 1:] > slabs.disparities[:, :-1]).all()


@pytest.mark.parametrize("cameras", [two_clusters(), cameras_around()], ids=["aside", "around"])
def test_rays_cost_less_in_their_own_cameras_slab_than_in_a_far_one(cameras):
    slabs = place_slabs(cameras, WALL, kind="cameras", num_planes=4, count=4)
    positions = torch.stack([c.position for c in cameras])
    distance = torch.cdist(positions, slabs.viewpoints)
    for one, near, far in zip(cameras, distance.argmin(1), distance.argmax(1), strict=True):
        rays = camera_rays(one)
        costs = slabs.costs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        assert (costs[:, near] < costs[:, far]).all()


def test_a_cameras_rays_go_to_its_cluster():
    cameras = two_clusters()
    slabs = place_slabs(cameras, WALL, kind="cameras", num_planes=4, count=2)
    for one in cameras:
        rays = camera_rays(one)
        found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        own = (slabs.viewpoints[found.slab, 0] - one.position[0]).abs() < 1
        assert own.all() and torch.equal(found.weight, torch.ones_like(found.weight))
        assert found.coverage.min() > 1 - 1e-6


def test_there_are_no_more_slabs_than_cameras_and_none_without():
    slabs = place_slabs(two_clusters()[:3], WALL, kind="cameras", num_planes=4, count=9)
    assert slabs.num_slabs == 3
    with pytest.raises(DataError, match="no training camera"):
        place_slabs([], WALL, kind="cameras")


def test_more_parallax_asks_for_more_planes():
    def planes(spread):
        cameras = [camera(size=400, position=(x, 0.0, 0.0)) for x in (-spread, 0.0, spread)]
        return place_slabs(cameras, WALL, kind="cameras").num_planes

    counts = [planes(spread) for spread in (0.001, 0.8, 5.0)]
    assert counts[0] == 8 < counts[1] < counts[2] == 32  # LEAST_PLANES and MOST_PLANES
