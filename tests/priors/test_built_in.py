"""The networks that come with the package: they load, are small, and do what they are for."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.priors import built_in
from scene4d.priors.built_in import BUILT_IN, found_in
from scene4d.priors.fixer import Fixer, FixerShape, load_fixer, save_fixer
from scene4d.priors.kinds import load_prior, prior_name
from scene4d.priors.unet import load_unet
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.prior_check import shown_to
from scene4d.training.run import read_config, write_config

DATA = Path(__file__).parents[2] / "data"
MOST_BYTES = 5_000_000


@pytest.mark.parametrize("name", ["fixer.safetensors", "unet.safetensors"])
def test_weights_come_with_the_package_and_are_small(name):
    assert 10_000 < found_in(BUILT_IN, name).stat().st_size < MOST_BYTES


def test_a_folder_of_that_name_is_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / BUILT_IN).mkdir()
    torch.manual_seed(0)
    save_fixer(Fixer(FixerShape(references=1, widths=(8, 12))), tmp_path / BUILT_IN / "f")
    assert found_in(BUILT_IN, "f") == BUILT_IN / "f"


@pytest.fixture(scope="module")
def chair():
    """A photograph of 100 pixels, its alpha, and both halved and doubled again."""
    images = ImageCache(in_working_frame(read_scene(DATA / "nerf_chair")))
    view = images.view(0, 2)
    rgb, alpha = view.rgb.permute(2, 0, 1)[None], view.alpha[None, None]
    rgb = rgb * alpha
    coarse = functional.interpolate(functional.avg_pool2d(rgb, 2), scale_factor=2, mode="bilinear")
    return rgb, alpha, coarse


def psnr(one, other):
    return float(-10 * (one.clamp(0, 1) - other).square().mean().log10())


def test_the_fixer_takes_detail_from_photographs_and_adds_nothing_without(chair):
    clean, alpha, coarse = chair
    fixer = load_fixer(BUILT_IN)
    seen = (alpha > 0.5).float()
    photograph = torch.cat([clean * seen, seen], dim=1)
    known = torch.cat([photograph] * fixer.shape.references, dim=1)
    repaired = fixer(coarse, alpha, known)
    assert psnr(repaired.rgb, clean) > psnr(coarse, clean) + 3
    assert psnr(fixer(clean, alpha, known).rgb, clean) > 40
    alone = fixer(coarse, alpha, 0 * known)
    assert psnr(alone.rgb, clean) > psnr(coarse, clean) - 0.1
    inside = seen.bool()
    assert repaired.error[inside].mean() < 0.7 * alone.error[inside].mean()


def test_a_run_tells_the_fixer_by_its_name(tmp_path):
    options = TrainOptions(fixer=BUILT_IN)
    write_config(tmp_path, load_method("splat")(), options)
    assert str(Path("built-in")) in (tmp_path / "config.toml").read_text()
    assert str(built_in.__file__) not in (tmp_path / "config.toml").read_text()
    assert read_config(tmp_path)[1].fixer == BUILT_IN


def test_the_rgbd_prior_cleans_a_picture_of_a_capture_that_it_never_saw():
    prior = load_prior(prior_name("unet"), None)
    assert prior.info.channels == ("rgb", "depth") and load_unet(BUILT_IN).info == prior.info
    scene = in_working_frame(read_scene(DATA / "dance_room"))
    first = scene.train_indices[0]
    clean = shown_to(prior, scene, ImageCache(scene, indices=[first]), first)[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for ratio, colours, depth in ((0.5, 9, 2), (1.0, 12, 6)):
        noisy = clean + ratio * noise
        errors = (prior.cleaned(noisy, torch.tensor([ratio])) - clean).square()
        gain = 10 * (ratio**2 / errors.mean(dim=(0, 2, 3))).log10()
        assert gain[:3].mean() > colours and gain[3] > depth
