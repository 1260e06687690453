"""Crops and rays: cameras of the pixels that they bring."""

from dataclasses import replace

import pytest
import torch

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.rays import camera_rays
from scene4d.data.scene import Frame, Scene, View
from scene4d.methods.splat.method import SplatMethod
from scene4d.representations.base import Sampling
from scene4d.representations.method import PhotometricOptions
from scene4d.representations.task import Task, World
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.fused_ssim import fused_l1_ssim
from scene4d.training.objectives.photometric import Photometric
from scene4d.training.sampling import ViewSampler, parts_of

CAMERAS = CamerasOnSphere(distance=4.0, view_angle=0.8, size=30, times=(0.0, 2.0))


def views(count=3, **extra):
    """Pictures whose colours are the directions of their pixels' rays."""
    cameras = CAMERAS.draw(torch.Generator().manual_seed(0), count)
    return [
        View(index=10 + i, camera=camera, rgb=camera_rays(camera).directions, **extra)
        for i, camera in enumerate(cameras)
    ]


@pytest.mark.parametrize(
    ("sampling", "size"),
    [(Sampling(of="rays", count=200), 1), (Sampling(of="crops", count=9, size=8), 8)],
)
def test_each_part_is_the_camera_of_its_pixels(sampling, size):
    whole = views()
    part = parts_of(whole, sampling, torch.Generator().manual_seed(3))
    assert part.rgb.shape == (sampling.count, size, size, 3)
    torch.testing.assert_close(camera_rays(part.camera).directions, part.rgb)
    assert set(part.index.tolist()) <= {10, 11, 12}
    times = torch.stack([view.camera.time for view in whole])
    torch.testing.assert_close(part.camera.time, times[part.index - 10])
    assert part.alpha is None and part.mask is None and part.depth is None


def test_places_are_drawn_evenly_up_to_the_edges():
    column = torch.arange(30.0).expand(30, 30)[..., None].expand(-1, -1, 3)
    whole = [replace(view, rgb=column) for view in views(2)]
    part = parts_of(whole, Sampling(of="rays", count=30_000), torch.Generator().manual_seed(0))
    counts = part.rgb[:, 0, 0, 0].long().bincount(minlength=30)
    assert counts.shape == (30,)
    assert float(counts.float().std()) < 4 * 1000**0.5  # 1,000 each; Poisson, but for luck


def test_what_some_views_lack_is_filled():
    one, two = views(2)
    flat = torch.ones(30, 30)
    whole = [replace(one, alpha=0.5 * flat), replace(two, depth=3.0 * flat)]
    part = parts_of(whole, Sampling(of="rays", count=50), torch.Generator())
    first = part.index == 10
    assert bool((part.alpha[first] == 0.5).all()) and bool((part.alpha[~first] == 1.0).all())
    assert bool((part.depth[first] == 0.0).all()) and bool((part.depth[~first] == 3.0).all())


def test_a_crop_is_no_larger_than_the_smallest_picture():
    part = parts_of(views(), Sampling(of="crops", count=2, size=64), torch.Generator())
    assert part.rgb.shape == (2, 30, 30, 3)


def test_the_photometric_loss_of_a_batch_is_the_mean_over_it():
    term = Photometric.__new__(Photometric)
    term.options = PhotometricOptions()
    a, b = torch.rand(2, 4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    each = [fused_l1_ssim(x, y, ssim_weight=0.2) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(term._loss(a, b, None), torch.stack(each).mean())
    rays = term._loss(a.reshape(-1, 1, 1, 3), b.reshape(-1, 1, 1, 3), None)
    torch.testing.assert_close(rays, (a - b).abs().mean())


def test_poses_and_colours_are_adjusted_each_by_its_picture():
    method = SplatMethod(refine_poses=True, fit_exposure=True)
    adjustments = CameraAdjustments(13, method, extent=2.0)
    with torch.no_grad():
        adjustments.pose.copy_(0.1 * torch.randn(13, 6, generator=torch.Generator().manual_seed(0)))
        adjustments.exposure += 0.1 * torch.randn(13, 3, 4, generator=torch.Generator())
    part = parts_of(views(), Sampling(of="crops", count=4, size=5), torch.Generator())
    camera = adjustments.refined(part.camera, part.index)
    colours = adjustments.exposed(part.rgb, part.index)
    for i, index in enumerate(part.index.tolist()):
        alone = replace(part.camera, c2w=part.camera.c2w[i], K=part.camera.K[i], time=None)
        torch.testing.assert_close(camera.c2w[i], adjustments.refined(alone, index).c2w)
        torch.testing.assert_close(colours[i], adjustments.exposed(part.rgb[i], index))


def test_among_leaves_the_others_out_and_a_round_shows_each_once():
    sampler = ViewSampler([0, 1, 2, 3, 4], torch.Generator().manual_seed(0))
    some = [sampler.next(2, among={1, 3}) for _ in range(4)]
    assert all(sorted(pair) == [1, 3] for pair in some)
    assert sampler.next(9, among={4}) == [4]
    sampler.pending = []
    assert sorted(i for _ in range(5) for i in sampler.next(1)) == [0, 1, 2, 3, 4]


def test_a_pictures_weight_multiplies_its_part_of_the_loss():
    whole = views(3)
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor([1.0] * 10 + [0.5, 0.0, 3.0])
    term = Photometric.__new__(Photometric)
    term.options, term.weights = PhotometricOptions(), weights
    for view in whole:
        noisy = torch.rand(view.rgb.shape, generator=random)
        usual = term._loss(noisy, view.rgb, None)
        weighed = term._loss(noisy, view.rgb, None, term._weights(view))
        torch.testing.assert_close(weighed, weights[view.index] * usual)
    for sampling in (Sampling(of="crops", count=5, size=16), Sampling(of="rays", count=7)):
        part = parts_of(whole, sampling, random)
        noisy = torch.rand(part.rgb.shape, generator=random)
        each = [term._loss(a[None], b[None], None) for a, b in zip(noisy, part.rgb, strict=True)]
        wanted = (weights[part.index] * torch.stack(each)).mean()
        torch.testing.assert_close(term._loss(noisy, part.rgb, None, term._weights(part)), wanted)


def test_the_capture_says_what_its_pictures_weigh(tmp_path):
    def weights(*of):
        frames = [Frame(name=str(i), camera=CAMERAS.draw(torch.Generator(), 1)[0],
                        image_path=tmp_path, weight=w) for i, w in enumerate(of)]  # fmt: skip
        scene = Scene(root=tmp_path, dataparser="", frames=frames, train_indices=[0],
                      test_indices=[], split_rule="")  # fmt: skip
        task = Task(world=World(), capture=scene)
        inputs = ObjectiveInputs(task=task, generator=torch.Generator(), device=torch.device("cpu"))
        return Photometric(PhotometricOptions(), inputs).weights

    assert weights(1.0, 1.0) is None
    assert weights(0.5, 1.0).tolist() == [0.5, 1.0]


def test_pictures_that_are_certain_are_not_corrected():
    method = SplatMethod(refine_poses=True, fit_exposure=True)
    plain = CameraAdjustments(13, method, extent=2.0)
    some = CameraAdjustments(13, method, extent=2.0, certain={11})
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in ("pose", "exposure"):
            moved = getattr(plain, name) + 0.1 * torch.randn(
                getattr(plain, name).shape, generator=random
            )
            for each in (plain, some):
                getattr(each, name).copy_(moved)
    whole = views()
    for view in whole:
        known = view.index == 11
        camera, rgb = some.refined(view.camera, view.index), some.exposed(view.rgb, view.index)
        wanted = view.camera if known else plain.refined(view.camera, view.index)
        torch.testing.assert_close(camera.c2w, wanted.c2w)
        wanted = view.rgb if known else plain.exposed(view.rgb, view.index)
        torch.testing.assert_close(rgb, wanted)
    part = parts_of(whole, Sampling(of="crops", count=6, size=5), random)
    each = [some.exposed(r, int(i)) for r, i in zip(part.rgb, part.index, strict=True)]
    torch.testing.assert_close(some.exposed(part.rgb, part.index), torch.stack(each))
