"""Pseudo-views: their pixels, their budget, and which crops are drawn."""

import math

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.rendering.render import DEPTH, RGB, Render
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.pseudo_views import Places, PseudoViews, draw_cells


def camera_at(x=0.0, size=(64, 48)) -> Camera:
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, 0.0, 4.0])
    K = torch.tensor([[60.0, 0, size[0] / 2], [0, 60.0, size[1] / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=K, width=size[0], height=size[1])


def splats(count=80, seed=0, size=-2.5) -> GaussianSplats:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return GaussianSplats(
        {
            "means": 0.7 * normal(count, 3), "quats": normal(count, 4),
            "scales": 0.3 * normal(count, 3) + size, "opacities": normal(count) + 1.0,
            "sh0": normal(count, 1, 3), "shN": 0.2 * normal(count, 3, 3),
        }
    )  # fmt: skip


class Gradient(Representation):
    """Colours in closed form: red the ray's slope to the right, green the slope down."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def render(self, camera, *, background=None, want=RGB):
        assert camera.c2w.ndim == 2
        assert not torch.is_grad_enabled()
        self.asked += 1
        x = (torch.arange(camera.width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
        y = (torch.arange(camera.height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
        shape = (camera.height, camera.width)
        red, green = (0.5 + x).expand(shape), (0.5 + y)[:, None].expand(shape)
        blue = torch.full(shape, float(camera.position[0]))
        rgb = torch.stack([red, green, blue], dim=-1)
        return Render(rgb=rgb, alpha=torch.ones(shape), depth=1.0 + red if want.depth else None)

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {}

    @classmethod
    def from_saved(cls, tensors, plain):
        return cls()


def views(teacher, cameras, *, mb=1.0, cell=16, **more) -> PseudoViews:
    made = PseudoViews(teacher, cameras, budget_bytes=mb * 1e6, cell=cell, **more)
    for camera in cameras:
        made.add(camera)
    return made


def places(slots, x, y, size):
    return Places(
        slots=torch.tensor(slots), x=torch.tensor(x), y=torch.tensor(y), size=size
    )  # fmt: skip


# Pixels


@pytest.mark.parametrize("size", [-2.5, -1.2])
def test_crops_of_a_pseudo_view_are_pseudo_views_of_the_crops(size):
    """A batch of crop cameras, rendered by splats, against crops of whole pictures."""
    teacher = splats(size=size)
    cameras = [camera_at(0.0), camera_at(0.3)]
    crops = views(teacher, cameras, depth=True).crops(
        places([0, 1, 1], [0, 9, 40], [5, 0, 24], (24, 24))
    )
    assert crops.camera.c2w.shape == (3, 4, 4)
    background = torch.tensor([0.2, 0.6, 1.0])
    with torch.no_grad():
        found = teacher.render(crops.camera, background=background, want=DEPTH)
    wanted = crops.on(background)
    error = (found.rgb - wanted).abs()
    inside = crops.rgb.amax(dim=-1) < 1  # bytes do not hold more than white
    assert inside.float().mean() > 0.9
    # Half a byte of colour and half of alpha; large Gaussians outside a crop are approximated
    # there with the Jacobian at the crop's border (FOV_MARGIN), which moves them a little.
    assert error[inside].max() < (1.1 / 255 if size < -2 else 0.05)
    assert error[inside].mean() < (0.5 if size < -2 else 1.0) / 255
    seen = crops.alpha > 0.5
    assert seen.float().mean() > 0.1
    if size < -2:  # half precision: 11 bits of a value near 4
        assert (found.depth - crops.depth)[seen].abs().max() < 4e-3


def test_crops_in_closed_form():
    cameras = [camera_at(0.1), camera_at(0.4, size=(40, 40))]
    crops = views(Gradient(), cameras, depth=True, unit=0.01).crops(
        places([1, 0], [8, 30], [16, 7], (20, 18))
    )
    for i, (x, y, blue, size) in enumerate([(8, 16, 0.4, (40, 40)), (30, 7, 0.1, (64, 48))]):
        red = 0.5 + (x + torch.arange(20) + 0.5 - size[0] / 2) / 60
        green = 0.5 + (y + torch.arange(18) + 0.5 - size[1] / 2) / 60
        wanted = torch.stack(
            [red.expand(18, 20), green[:, None].expand(18, 20), torch.full((18, 20), blue)], -1
        )
        torch.testing.assert_close(crops.rgb[i], wanted, rtol=0, atol=0.501 / 255)  # bytes
        # float16 keeps 11 bits
        torch.testing.assert_close(crops.depth[i], 1 + wanted[..., 0], rtol=5e-4, atol=0)
    assert bool((crops.alpha == 1).all())
    same_rays = cameras[1].cropped(8, 16, 20, 18)
    assert torch.equal(crops.camera.K[0], same_rays.K)
    assert torch.equal(crops.camera.c2w[1], cameras[0].c2w)


# Budget


def test_the_ring_keeps_to_its_budget_and_replaces_the_oldest():
    teacher = Gradient()
    per_picture = 64 * 48 * 4
    ring = PseudoViews(teacher, [camera_at()], budget_bytes=5.5 * per_picture, cell=16)
    for i in range(12):
        ring.add(camera_at(i / 16))
        ring.crops(places([i % 5] * 3, [0, 1, 2], [0, 1, 2], (8, 8)))
        assert len(ring) == min(i + 1, 5)
        assert ring.nbytes <= 5.5 * per_picture
    kept = sorted(round(float(c.position[0]) * 16) for c in ring.cameras)
    assert kept == [7, 8, 9, 10, 11]
    assert ring.nbytes == 5 * per_picture
    assert teacher.asked == ring.rendered == 12  # each once, though three crops were drawn
    for slot, camera in enumerate(ring.cameras):  # pixels belong to their camera
        blue = ring.crops(places([slot], [0], [0], (4, 4))).rgb[0, 0, 0, 2]
        assert float(blue) == pytest.approx(float(camera.position[0]), abs=0.501 / 255)


def test_pictures_are_rendered_only_when_they_are_drawn():
    teacher = Gradient()
    ring = views(teacher, [camera_at(i / 8) for i in range(4)])
    assert teacher.asked == 0 and ring.nbytes == 0
    ring.crops(places([2, 2], [0, 5], [0, 5], (8, 8)))
    assert teacher.asked == 1


def test_depth_counts_and_a_budget_below_one_picture_is_refused():
    camera = camera_at()
    exact = 64 * 48 * 6
    ring = PseudoViews(Gradient(), [camera], budget_bytes=exact, cell=16, depth=True)
    ring.add(camera)
    ring.crops(places([0], [0], [0], (8, 8)))
    assert ring.nbytes == exact and ring.capacity == 1
    with pytest.raises(UsageError, match=r"one picture takes 0\.02 MB"):
        PseudoViews(Gradient(), [camera], budget_bytes=exact - 1, cell=16, depth=True)


# Which crops


def chi_square(counts, expected):
    return float(((counts - expected).square() / expected).sum())


def test_cells_are_drawn_in_proportion_to_their_errors():
    errors = torch.tensor([[[1.0, 2.0], [0.0, 3.0]], [[0.5, 0.0], [1.5, 4.0]]])
    generator = torch.Generator().manual_seed(0)
    slots, cells = draw_cells(errors, 6000, generator)
    counts = torch.zeros_like(errors)
    for slot, (column, row) in zip(slots.tolist(), cells.tolist(), strict=True):
        counts[slot, row, column] += 1
    assert bool((counts[errors == 0] == 0).all())
    expected = 6000 * errors / errors.sum()
    some = errors > 0
    # 5 degrees of freedom: chi-square is above 25.7 once in 10,000 seeds.
    assert chi_square(counts[some], expected[some]) < 25.7


def test_hard_crops_lie_over_the_cells_that_were_wrong():
    ring = views(Gradient(), [camera_at(), camera_at(0.5)])
    ring.errors.zero_()
    ring.errors[1, 2, 3] = 1.0  # rows 32 to 47, columns 48 to 63
    generator = torch.Generator().manual_seed(0)
    drawn = ring.draw(200, hard=1.0, size=(16, 16), generator=generator)
    assert bool((drawn.slots == 1).all())
    assert bool((drawn.x >= 40).all()) and bool((drawn.x <= 48).all())
    assert bool((drawn.y >= 24).all()) and bool((drawn.y <= 32).all())
    half = ring.draw(200, hard=0.5, size=(16, 16), generator=generator)
    assert bool((half.slots[:100] == 1).all())
    assert 25 < int((half.slots[100:] == 0).sum()) < 75  # binomial: 50 +- 5, five of them


def test_even_crops_cover_the_pictures_evenly_and_stay_inside():
    ring = views(Gradient(), [camera_at(), camera_at(0.5, size=(40, 40))])
    generator = torch.Generator().manual_seed(0)
    drawn = ring.draw(8000, hard=0.0, size=(8, 8), generator=generator)
    counts = torch.bincount(drawn.slots, minlength=2)
    assert (counts - 4000).abs().max() < 224  # five deviations of sqrt(8000) / 2
    for slot, (width, height) in enumerate([(64, 48), (40, 40)]):
        x, y = drawn.x[drawn.slots == slot], drawn.y[drawn.slots == slot]
        assert int(x.min()) == 0 and int(x.max()) == width - 8
        assert int(y.min()) == 0 and int(y.max()) == height - 8
        covered = torch.zeros(width)
        for first in x.tolist():
            covered[first : first + 8] += 1
        inner = covered[8:-8] / len(x) * width / 8
        assert (inner - 1).abs().max() < 0.25  # counts of about 500 a column: 22, five of them
        assert covered[0] > 0.4 * covered[20]  # the border's pixels are not forgotten


def test_a_ring_without_errors_is_drawn_evenly():
    ring = views(Gradient(), [camera_at()])
    ring.errors.zero_()
    generator = torch.Generator().manual_seed(0)
    drawn = ring.draw(50, hard=1.0, size=(8, 8), generator=generator)
    assert len(set(drawn.x.tolist())) > 20


def test_reports_become_the_cells_means():
    ring = views(Gradient(), [camera_at(), camera_at(0.5, size=(40, 40))])
    ring.errors.fill_(7.0)
    pixels = torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    errors = pixels.mean(dim=-1)
    ring.report(places([0, 1], [16, 8], [8, 16], (32, 24)), pixels)
    # Slot 0: columns 16..48 are cells 1 and 2; rows 8..32 are half of cell 0 and cell 1.
    whole = errors[0, 8:24, :16].mean()
    half = errors[0, :8, 16:].mean()
    torch.testing.assert_close(ring.errors[0, 1, 1], whole)
    torch.testing.assert_close(ring.errors[0, 0, 2], (7 + half) / 2)
    assert bool((ring.errors[0, 2] == 7).all()) and bool((ring.errors[0, :, 3] == 7).all())
    # Slot 1 is 40 pixels wide: of its last column of cells 8 pixels exist, all covered.
    torch.testing.assert_close(ring.errors[1, 1, 2], errors[1, :16, 24:].mean())
    torch.testing.assert_close(ring.errors[1, 1, 0], (7 + errors[1, :16, :8].mean()) / 2)
    torch.testing.assert_close(ring.errors[1, 2, 2], errors[1, 16:, 24:].mean())


def test_a_diverged_students_errors_leave_the_draws_alive():
    ring = views(Gradient(), [camera_at()])
    ring.report(places([0], [0], [0], (32, 32)), torch.full((1, 32, 32, 3), torch.nan))
    assert bool(ring.errors.isfinite().all())
    ring.draw(4, hard=1.0, size=(8, 8), generator=torch.Generator().manual_seed(0))


def test_a_new_view_counts_as_the_others_on_average():
    ring = views(Gradient(), [camera_at()])
    assert bool((ring.errors[0] == 1).all())  # nothing is known yet
    ring.errors[0].fill_(0.5)
    ring.add(camera_at(0.2, size=(40, 40)))
    assert float(ring.errors[1].max()) == 0.5
    assert bool((ring.errors[1, :, 3] == 0).all())  # no such cell in the smaller picture


# Going on


def stepped(ring, steps, generator):
    """Draws, reports and refreshes like a training; the pixels that were drawn."""
    pixels = []
    for number in range(steps):
        ring.add(camera_at(float(torch.rand(1, generator=generator))))
        drawn = ring.draw(4, hard=0.5, size=(16, 16), generator=generator)
        crops = ring.crops(drawn)
        ring.report(drawn, crops.rgb * (number + 1))
        pixels.append(crops.rgb)
    return torch.stack(pixels)


def test_a_ring_that_is_restored_goes_on_with_the_same_numbers():
    straight, generator = views(Gradient(), [camera_at()], mb=0.075), torch.Generator()
    generator.manual_seed(5)
    stepped(straight, 9, generator)
    assert len(straight) == straight.capacity == 6  # it has wrapped around
    restored = PseudoViews(Gradient(), [camera_at()], budget_bytes=0.075e6, cell=16)
    restored.load_state_tensors(straight.state_tensors())
    again = torch.Generator()
    again.set_state(generator.get_state())
    assert restored.nbytes == 0
    assert torch.equal(stepped(straight, 9, generator), stepped(restored, 9, again))
    assert torch.equal(straight.errors, restored.errors)


@pytest.mark.parametrize("capacity", [4, 9])
def test_a_ring_restored_to_another_budget_keeps_the_newest(capacity):
    ring = PseudoViews(Gradient(), [camera_at()], budget_bytes=6.5 * 64 * 48 * 4, cell=16)
    for i in range(8):
        ring.add(camera_at(i / 16))
    other = PseudoViews(
        Gradient(), [camera_at()], budget_bytes=(capacity + 0.5) * 64 * 48 * 4, cell=16
    )
    other.load_state_tensors(ring.state_tensors())
    for i in range(8, 11):
        other.add(camera_at(i / 16))
    kept = sorted(round(float(c.position[0]) * 16) for c in other.cameras)
    assert kept == list(range(11 - capacity, 11))


def test_times_are_kept():
    timed = Camera(**{**vars(camera_at()), "time": torch.tensor(0.25)})
    ring = views(Gradient(), [timed, camera_at()])
    other = PseudoViews(Gradient(), [timed], budget_bytes=1e6, cell=16)
    other.load_state_tensors(ring.state_tensors())
    assert float(other.cameras[0].time) == 0.25 and other.cameras[1].time is None
    assert not math.isnan(float(ring.crops(places([0], [0], [0], (8, 8))).camera.time[0]))
