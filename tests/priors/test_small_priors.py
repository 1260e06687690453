"""FFDNet and patch memory: what they answer, where they are valid, and bad files."""

import math
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scene4d.errors import DataError, UsageError
from scene4d.priors.ffdnet import FfdnetPrior, load_ffdnet, weight_shapes
from scene4d.priors.patch_memory import PatchMemory, patches_of
from scene4d.priors.recipes import sds
from scene4d.priors.scores import Asked, score_gradient


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_weights(scale=0.02):
    generator = seeded()
    return {n: scale * torch.randn(s, generator=generator) for n, s in weight_shapes().items()}


def levels(sigma, count=1):
    return torch.ones(count), torch.full((count,), sigma)


# FFDNet


def test_ffdnet_is_the_network_that_its_authors_describe():
    """Against the layers written out: unshuffle, a plane of noise, 12 convolutions, shuffle."""
    weights = random_weights()
    x = torch.rand(2, 3, 6, 8, generator=seeded(1)) * 2 - 1
    got = FfdnetPrior(weights).denoise(x, *levels(0.3, 2))
    net = torch.nn.functional.pixel_unshuffle(x / 2 + 0.5, 2)
    net = torch.cat([net, torch.full_like(net[:, :1], 0.15)], dim=1)
    for layer in range(12):
        kernel, bias = (weights[f"model.{2 * layer}.{part}"] for part in ("weight", "bias"))
        net = torch.nn.functional.conv2d(net, kernel, bias, padding=1)
        net = net.relu() if layer < 11 else net
    torch.testing.assert_close(got, 2 * torch.nn.functional.pixel_shuffle(net, 2) - 1)


def test_ffdnet_takes_odd_sides_and_knows_only_the_ratio_of_the_levels():
    prior = FfdnetPrior(random_weights())
    x = torch.rand(1, 3, 7, 5, generator=seeded(1))
    got = prior.denoise(x, *levels(0.3))
    assert got.shape == x.shape
    half = prior.denoise(0.5 * x, torch.tensor([0.5]), torch.tensor([0.15]))
    torch.testing.assert_close(got, half)


def test_a_loss_stays_where_ffdnet_is_valid():
    prior, x = FfdnetPrior(random_weights()), torch.zeros(64, 3, 4, 4)
    score = score_gradient(sds(), Asked(prior=prior), x, generator=seeded())
    ratios = (score.times * math.pi / 2).tan()
    assert 0.4 < float(ratios.max()) <= 2 * 75 / 255


def write_npz(path, weights):
    np.savez(path, **{name: value.numpy() for name, value in weights.items()})


def test_both_kinds_of_files_are_read(tmp_path):
    weights = random_weights()
    x = torch.rand(1, 3, 4, 4, generator=seeded(1))
    write_npz(tmp_path / "ffdnet_color.npz", weights)
    (tmp_path / "other").mkdir()
    save_file(weights, tmp_path / "other" / "ffdnet_color.safetensors")
    expected = FfdnetPrior(weights).denoise(x, *levels(0.2))
    for place in (tmp_path, tmp_path / "ffdnet_color.npz", tmp_path / "other"):
        assert torch.equal(load_ffdnet(place).denoise(x, *levels(0.2)), expected)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda w: w.pop("model.4.bias"), "no tensor 'model.4.bias'"),
        (lambda w: w.update({"model.0.weight": torch.zeros(96, 5, 3, 3)}), "96, 5, 3, 3"),
        (lambda w: w["model.2.bias"].fill_(math.nan), "not finite"),
        (lambda w: w.update({"model.2.bias": torch.zeros(96, dtype=torch.int64)}), "int64"),
    ],
)
def test_weights_that_are_not_ffdnets_are_refused(damage, words, tmp_path):
    weights = random_weights()
    damage(weights)
    write_npz(tmp_path / "ffdnet_color.npz", weights)
    with pytest.raises(DataError, match=words):
        load_ffdnet(tmp_path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(DataError, match="not found"):
        load_ffdnet(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no weights of FFDNet"):
        load_ffdnet(tmp_path)
    for name in ("ffdnet_color.npz", "ffdnet_color.safetensors"):
        folder = tmp_path / name.split(".")[1]
        folder.mkdir()
        (folder / name).write_bytes(b"PK\x03\x04 no archive")
        with pytest.raises(DataError, match="is damaged"):
            load_ffdnet(folder)
    with zipfile.ZipFile(tmp_path / "ffdnet_color.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.0.weight.npy", bytes(20 << 20))
    with pytest.raises(DataError, match="declares 21 MB"):
        load_ffdnet(tmp_path)


def test_the_published_weights_denoise_a_photograph(shared_data):
    from PIL import Image

    folder = shared_data / "pretrained" / "ffdnet"
    photos = sorted((shared_data / "fox").rglob("*.jpg"))
    if not folder.is_dir() or not photos:
        pytest.skip("the weights or the photographs are not there")
    photo = Image.open(photos[0]).resize((96, 96), Image.Resampling.BOX).convert("RGB")
    x = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    noisy = x + 0.4 * torch.randn(x.shape, generator=seeded())
    clean = load_ffdnet(folder).denoise(noisy, *levels(0.4))
    before, after = ((v - x).square().mean() for v in (noisy, clean))
    assert float(10 * (before / after).log10()) > 8  # 14.1 -> 30.5 dB at full size (its README)


# Patch memory


def test_one_patch_size_of_picture_has_the_exact_posterior_mean():
    patches = torch.rand(50, 3, 4, 4, generator=seeded(), dtype=torch.float64) * 2 - 1
    memory = PatchMemory(patches)
    alpha, sigma = torch.tensor([0.6]).double(), torch.tensor([0.8]).double()
    x_t = torch.randn(1, 3, 4, 4, generator=seeded(1), dtype=torch.float64)
    logs = -(x_t - 0.6 * patches).square().flatten(1).sum(1) / (2 * 0.8**2)
    expected = (logs.softmax(0)[:, None, None, None] * patches).sum(0)
    torch.testing.assert_close(memory.denoise(x_t, alpha, sigma)[0], expected)


@pytest.mark.parametrize("channels", [("rgb",), ("rgb", "depth")])
def test_it_finds_its_own_picture_again_and_averages_what_overlaps(channels):
    count = 3 if channels == ("rgb",) else 4
    picture = torch.rand(count, 13, 18, generator=seeded()) * 2 - 1
    memory = PatchMemory(patches_of([picture], side=4), channels=channels, stride=1)
    noisy = picture + 0.2 * torch.randn(picture.shape, generator=seeded(1))
    clean = memory.denoise(noisy[None], *levels(0.2))[0]
    # its patches are far apart at this noise: every one is recognised
    torch.testing.assert_close(clean, picture, rtol=0, atol=1e-3)
    at_zero = memory.denoise(picture[None], *levels(0.0))[0]
    torch.testing.assert_close(at_zero, picture, rtol=0, atol=1e-6)


def test_at_much_noise_it_says_the_mean_of_all_patches():
    patches = torch.rand(20, 3, 4, 4, generator=seeded())
    got = PatchMemory(patches).denoise(torch.zeros(1, 3, 4, 4), *levels(1e4))[0]
    torch.testing.assert_close(got, patches.mean(0), rtol=0, atol=1e-5)


def test_patches_are_whole_valid_and_no_more_than_asked_for():
    picture = torch.arange(100.0).reshape(1, 10, 10)
    valid = torch.ones(10, 10, dtype=torch.bool)
    valid[:, 5:] = False
    found = patches_of([picture, picture[:, :3]], side=4, valid=[valid, valid[:3]])
    assert found.shape[1:] == (1, 4, 4)
    assert bool((found % 10 < 5).all())
    assert len(patches_of([picture], side=4, most=5, generator=seeded())) == 5
    with pytest.raises(UsageError, match="no picture has a whole patch"):
        patches_of([picture], side=11)
    with pytest.raises(UsageError, match="smaller than a patch"):
        PatchMemory(torch.zeros(1, 3, 8, 8)).denoise(torch.zeros(1, 3, 8, 7), *levels(1.0))
    with pytest.raises(UsageError, match="was given patches"):
        PatchMemory(torch.zeros(0, 3, 8, 8))
