"""Covisible masks against exact ones: pictures of a textured wall and of a box in front of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene, View
from scene4d.evaluation.covisible import (
    chained,
    covisible_masks,
    needed_pictures,
    seen_both_ways,
    spread,
    still_flow,
)

WIDTH, HEIGHT, FOCAL = 96, 72, 80.0
WALL, BOX = 4.0, 2.0
"""Distances."""
HALF = 0.35
"""Half the side of the box."""

import_or_skip("cv2")


def camera(x):
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    c2w = torch.eye(4)
    c2w[0, 3] = x
    return Camera(c2w=c2w, K=K, width=WIDTH, height=HEIGHT, time=torch.tensor(0.0))


def rays():
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    return u / FOCAL, v / FOCAL


def depth_from(x):
    u, v = rays()
    on_box = (np.abs(u * BOX + x) < HALF) & (np.abs(v * BOX) < HALF)
    return np.where(on_box, BOX, WALL)


def texture(x, y, seed):
    """Smooth, with detail down to some pixels, of things in the world."""
    generator = np.random.default_rng(seed)
    total = np.zeros_like(x)
    for size in (0.2, 0.35, 0.6, 1.1):
        for _ in range(6):
            angle, phase = generator.uniform(0, 2 * np.pi, 2)
            total += np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / size + phase)
    return 0.5 + total / 24


def picture(x):
    u, v = rays()
    z = depth_from(x)
    wall, box = texture(u * z + x, v * z, 0), texture(u * z + x, v * z, 1)
    grey = np.where(z == BOX, 0.3 + 0.7 * box, 0.7 * wall)
    return torch.from_numpy(grey).float()[..., None].expand(HEIGHT, WIDTH, 3)


def exact(x, others):
    """Seen in more than max(5, 10 %) of the pictures from ``others``, by true geometry."""
    u, _ = rays()
    z = depth_from(x)
    count = np.zeros((HEIGHT, WIDTH), dtype=int)
    for other in others:
        column = (u * z + x - other) / z * FOCAL + WIDTH / 2
        inside = (column >= 0) & (column < WIDTH)
        there = depth_from(other)[np.arange(HEIGHT)[:, None],
                                  np.clip(column.astype(int), 0, WIDTH - 1)]  # fmt: skip
        count += inside & (np.abs(there - z) < 0.01 * z)
    return count > needed_pictures(len(others))


class Pictures:
    """The frames' pictures, with or without their depth."""

    def __init__(self, places, with_depth):
        self.places, self.with_depth = places, with_depth

    def camera(self, index, downscale=1):
        return camera(self.places[index])

    def view(self, index, downscale=1):
        x = self.places[index]
        depth = torch.from_numpy(depth_from(x)).float() if self.with_depth else None
        return View(index=index, camera=camera(x), rgb=picture(x), depth=depth)


def capture(places, tmp_path):
    frames = [Frame(name=str(i), camera=camera(x), image_path=tmp_path / f"{i}.png")
              for i, x in enumerate(places)]  # fmt: skip
    return Scene(root=tmp_path, dataparser="nerfstudio", frames=frames, test_indices=[0],
                 train_indices=range(1, len(places)), split_rule="")  # fmt: skip


@pytest.mark.parametrize(("with_depth", "least"), [(True, 0.98), (False, 0.97)])
def test_masks_agree_with_exact_ones(tmp_path, with_depth, least):
    # the training cameras stand to the right of the held-out one, so its left is not seen, nor
    # what the box hides from all of them
    places = [0.0, *np.linspace(0.15, 0.5, 8)]
    scene, images = capture(places, tmp_path), Pictures(places, with_depth)
    ((index, mask),) = covisible_masks(scene, images, [0])
    truth = exact(places[0], places[1:])
    assert index == 0 and 0.8 < truth.mean() < 0.95
    # the rest lies at the edges of surfaces, where DIS is a patch (8 pixels) coarse
    assert (mask.numpy() == truth).mean() >= least


def test_what_is_masked_in_the_training_pictures_is_not_seen(tmp_path):
    places = [0.0, *np.linspace(-0.1, 0.1, 8)]

    class Masked(Pictures):
        def view(self, index, downscale=1):
            view = super().view(index, downscale)
            mask = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
            if index:
                mask[: HEIGHT // 2] = False
            return View(index=index, camera=view.camera, rgb=view.rgb, mask=mask)

    ((_, mask),) = covisible_masks(capture(places, tmp_path), Masked(places, False), [0])
    assert float(mask[: HEIGHT // 2 - 2].float().mean()) < 0.01
    assert float(mask[HEIGHT // 2 + 2 :].float().mean()) > 0.9


def test_flow_after_flow_is_their_sum_where_it_stays_inside():
    first, second = np.zeros((6, 8, 2), np.float32), np.zeros((6, 8, 2), np.float32)
    first[..., 0] = 2.0
    second[..., 0] = np.arange(8)  # grows by 1 a pixel to the right
    both = chained(first, second)
    assert np.allclose(both[:, :6, 0], 2 + 2 + np.arange(6)) and np.allclose(both[:, :6, 1], 0)
    assert np.isnan(both[:, 6:]).all()  # left the picture
    first[2, 3] = np.nan
    assert np.isnan(chained(first, second)[2, 3]).all()


class MovingBox(Pictures):
    """The box goes to the right by 0.12 a second; the held-out picture is of the fifth second, from
    far beside the training camera."""

    def __init__(self, timed):
        self.shifts = 0.12 * np.asarray([4.0, *range(9)]) - 0.48
        self.timed = timed
        super().__init__([0.5, *np.linspace(-0.45, -0.35, 9)], with_depth=True)

    def camera(self, index, downscale=1):
        time = torch.tensor(4.0 if index == 0 else index - 1.0)
        return replace(super().camera(index), time=time if self.timed else None)

    def view(self, index, downscale=1):
        x, shift = self.places[index], self.shifts[index]
        u, v = rays()
        z = depth_from(x - shift)  # the box from a camera that stands further left
        box = texture(u * z + x - shift, v * z, 1)
        grey = np.where(z == BOX, 0.3 + 0.7 * box, 0.7 * texture(u * z + x, v * z, 0))
        rgb = torch.from_numpy(grey).float()[..., None].expand(HEIGHT, WIDTH, 3)
        depth = torch.from_numpy(z).float()
        return View(index=index, camera=self.camera(index), rgb=rgb, depth=depth)


def test_what_moves_is_followed_from_the_picture_of_the_same_time(tmp_path):
    shares = []
    for timed in (True, False):
        images = MovingBox(timed)
        frames = [Frame(name=f"{i}.png", camera=images.camera(i), image_path=tmp_path / f"{i}.png")
                  for i in range(10)]  # fmt: skip
        scene = Scene(root=tmp_path, dataparser="nerfstudio", frames=frames, test_indices=[0],
                      train_indices=range(1, 10), split_rule="")  # fmt: skip
        ((_, mask),) = covisible_masks(scene, images, [0])
        shares.append(float(mask[images.view(0).depth == BOX].float().mean()))
    # the whole box is in all training pictures; DIS is 8 pixels coarse at its edges (of 28)
    assert shares[0] > 0.75 and shares[0] > shares[1] + 0.2


def test_flow_and_its_way_back_agree_by_the_rule():
    forth = np.zeros((20, 30, 2), dtype=np.float32)
    forth[..., 0] = 3.0
    back = -forth
    seen = seen_both_ways(forth, back)
    assert seen[:, :27].all()
    assert not seen[:, 27:].any()  # outside the flow back is 0, and 9 > 0.01 * 9 + 0.5
    # |f + b|^2 = d^2 against 0.01 (9 + (3 - d)^2) + 0.5: they meet at 0.799
    for off, agrees in ((0.79, True), (0.81, False)):
        back[..., 0] = -3.0 + off
        assert bool(seen_both_ways(forth, back)[10, 10]) is agrees
    back[10, 12] = np.nan
    assert not seen_both_ways(forth, back)[10, 9]


def test_the_flow_of_still_surfaces_in_closed_form():
    depth = torch.from_numpy(depth_from(0.0)).float()
    flow = still_flow(camera(0.0), depth, camera(0.25))
    expected = -0.25 / depth_from(0.0) * FOCAL
    assert np.allclose(flow[..., 0], expected, atol=1e-4)  # float32 of some 100 pixels
    assert np.allclose(flow[..., 1], 0, atol=1e-4)
    depth[3, 4] = 0
    assert np.isnan(still_flow(camera(0.0), depth, camera(0.25))[3, 4]).all()


@pytest.mark.parametrize(("pictures", "needed"), [(6, 5), (59, 5), (60, 6), (480, 48)])
def test_how_many_pictures_have_to_see_a_pixel(pictures, needed):
    assert needed_pictures(pictures) == needed


@pytest.mark.parametrize("count", [3, 60, 61, 150, 480])
def test_pictures_that_are_looked_at_are_spread_evenly(count):
    # of two cameras that run together, every second picture each, and one picture of no way
    order = [*range(0, count - 1, 2), *range(1, count - 1, 2), count - 1]
    found = spread(order[:-1], count)
    assert len(found) == len(set(found)) == min(count, 60)
    gaps = np.diff([-1, *sorted(order.index(k) for k in found), count])
    assert gaps.max() <= max(1, -(-count // 60))
