"""Our own prior: EDM's preconditioning, texts, and its file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scene4d.errors import DataError, UsageError
from scene4d.priors.kinds import kinds_that_take, load_prior, prior_name
from scene4d.priors.prior import Condition
from scene4d.priors.recipes import hifa
from scene4d.priors.scores import Asked, score_gradient
from scene4d.priors.shown import sheet, shown
from scene4d.priors.unet import FILE, UnetPrior, UnetShape, load_unet, save_unet

SMALL = {"widths": (8, 32), "down": ("c", "ct"), "up": ("", "c")}
WORDS = ("blue", "box", "red")


def network(**changes):
    """With weights as after a training: none is zero."""
    torch.manual_seed(0)
    made = UnetPrior(UnetShape(**{**SMALL, **changes}))
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return made.eval().requires_grad_(False)


def pictures(*batch, sides=(13, 18), channels=4):
    return torch.randn(*batch, channels, *sides, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ratio", [0.01, 0.5, 80.0])
def test_an_untrained_network_shrinks_as_the_best_linear_denoiser(ratio):
    torch.manual_seed(0)
    x, alpha = pictures(2), torch.tensor([1.0, 0.25])
    made = UnetPrior(UnetShape(**SMALL, deviation=0.7))
    found = made.denoise(alpha[:, None, None, None] * x, alpha, ratio * alpha)
    # the posterior mean of a Gaussian of mean 0 and this deviation, to float32's rounding
    assert torch.allclose(found, 0.49 / (ratio**2 + 0.49) * x, atol=2e-6)


def test_without_noise_a_picture_stays_as_it_is():
    x = pictures(2)
    assert torch.equal(network().denoise(x, torch.ones(2), torch.zeros(2)), x)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 20.0])
def test_the_network_sees_unit_variance_and_little_noise_leaves_little_to_do(ratio):
    made, seen = network(deviation=0.5), []
    made.branches[0].first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    clean, noise = 0.5 * pictures(8, sides=(32, 32)), pictures(8, sides=(32, 32)).flip(0)
    noisy = clean + ratio * noise
    found = made.cleaned(noisy, torch.full((8,), ratio))
    # 24,576 values: the standard error of a deviation is 0.005
    assert float(seen[0].std()) == pytest.approx(1.0, abs=0.02)
    # |F| is of the order of 1 here, and c_out is below the noise and below the deviation
    shrunk = 0.25 / (ratio**2 + 0.25) * noisy
    assert 0 < float((found - shrunk).abs().mean()) < min(ratio, 0.5)


def test_kinds_share_the_trunk_and_each_has_its_own_ends():
    made = network(channels=("rgb", "normals"))
    x, one = pictures(1, channels=6), torch.ones(1)
    before = made.cleaned(x, one)
    with torch.no_grad():
        made.branches[1].last.weight.zero_()
    after = made.cleaned(x, one)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])
    other = torch.cat([x[:, :3], x[:, 3:].flip(2)], dim=1)  # other normals are heard by colours
    assert not torch.allclose(made.cleaned(other, one)[:, :3], after[:, :3])


def test_pictures_of_a_batch_are_told_their_own_text_and_noise():
    made = network(vocabulary=WORDS)
    x, ratios = pictures(3), torch.tensor([0.1, 1.0, 5.0])
    texts = ["red box", "", "blue box"]
    together = made.cleaned(x, ratios, texts)
    for i, text in enumerate(texts):
        alone = made.denoise(x[i : i + 1], torch.ones(1), ratios[i : i + 1], Condition(text=text))
        # the same sums, perhaps in another order
        assert torch.allclose(together[i], alone[0], atol=1e-5)
    nothing = made.denoise(x[1:2], torch.ones(1), ratios[1:2])
    assert torch.allclose(together[1], nothing[0], atol=1e-5)
    told = made.denoise(x[1:2], torch.ones(1), ratios[1:2], Condition(text="red"))
    assert not torch.allclose(told, nothing, atol=1e-4)
    with pytest.raises(UsageError, match="'green'"):
        made.cleaned(x, ratios, ["green box"] * 3)
    assert made.info.conditions == {"text"} and network().info.conditions == set()


def test_guidance_enlarges_the_difference_that_a_text_makes():
    made, x = network(vocabulary=WORDS), pictures(2)
    asked = Asked(prior=made, texts={"y": "red box"})

    def target(scale):
        generator = torch.Generator().manual_seed(3)  # the same noise and times
        return score_gradient(hifa(scale), asked, x, generator=generator, progress=0.5).target

    nothing, told = target(0.0), target(1.0)
    assert not torch.allclose(nothing, told, atol=1e-3)
    assert torch.allclose(target(4.0), nothing + 4 * (told - nothing), atol=1e-5)


def test_batches_of_batches_and_more_noise_than_it_knows():
    made, x = network(), pictures(2, 3)
    ones = torch.ones(2, 3)
    assert made.denoise(x, ones, ones).shape == x.shape
    with pytest.raises(UsageError, match="outside of where this prior is valid"):
        made.denoise(x, ones, 81 * ones)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"channels": ("rgb", "rgb")}, "each kind once"),
        ({"widths": (8,)}, "two to seven"),
        ({"widths": (8, 12)}, "multiples of 8"),
        ({"down": ("c", "cx")}, "no plan of blocks"),
        ({"up": ("c",)}, "no plan of blocks"),
        ({"up": ("t", "c")}, "attention over 8"),
    ],
)
def test_a_shape_that_cannot_be_is_told(changes, told):
    with pytest.raises(UsageError) as error:
        UnetShape(**{**SMALL, **changes})
    assert told in str(error.value)


def test_weights_come_back_in_half_precision(tmp_path):
    made = network(vocabulary=WORDS, size=(18, 13))
    save_unet(made, tmp_path / FILE)
    back = load_unet(tmp_path)
    assert back.shape == made.shape and not any(p.requires_grad for p in back.parameters())
    x, ratios = pictures(2), torch.tensor([0.2, 2.0])
    # weights of size up to 1 in steps of 2^-11, summed at random
    assert torch.allclose(back.cleaned(x, ratios), made.cleaned(x, ratios), atol=1e-2)
    assert kinds_that_take(tmp_path) == ["unet"]
    assert load_prior(prior_name(f"unet:{tmp_path}"), None).shape == made.shape


def changed(path, edit=lambda tensors: tensors, **plain):
    told = {"widths": [8, 32], "down": ["c", "ct"], "up": ["", "c"], **plain}
    save_file(edit(load_file(path)), path, metadata={"scene4d_unet": json.dumps(told)})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: p.unlink(), "no network is here"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "is damaged"),
        (lambda p: save_file({"a": torch.zeros(1)}, p), "not those of a U-Net"),
        (lambda p: changed(p, widths=[8, 64]), "other tensors"),
        (lambda p: changed(p, widths=[8, 1 << 40]), "expected 8 to 1,024"),
        (lambda p: changed(p, down=["c", "c" * 1000]), "no plan of blocks"),
        (lambda p: changed(p, channels=["smell"]), "expected"),
        (lambda p: changed(p, vocabulary=["", 3]), "expected str"),
        (lambda p: changed(p, colour="red"), "unknown settings"),
        (lambda p: changed(p, lambda t: {**t, "noise.0.bias": t["noise.0.bias"] / 0}), "finite"),
        (lambda p: changed(p, lambda t: {**t, "noise.0.bias": t["noise.0.bias"].int()}), "finite"),
    ],
)  # fmt: skip
def test_what_is_no_prior_is_told(tmp_path, spoil, told):
    save_unet(network(), tmp_path / FILE)
    spoil(tmp_path / FILE)
    with pytest.raises(DataError, match=told):
        load_unet(tmp_path / FILE)


def test_pictures_are_shown_by_kind():
    info = UnetShape(**SMALL, channels=("rgb", "depth")).info
    x = torch.zeros(2, 4, 6, 8)
    x[:, 3, :, 4:] = 0.5
    found = shown(x, info)
    assert set(found) == {"rgb", "depth"} and torch.equal(
        found["rgb"], torch.full((2, 6, 8, 3), 0.5)
    )
    blue, red = found["depth"][0, 0, 0], found["depth"][0, 0, -1]
    assert float(red[0] - blue[0]) > 0.2 and float(red[0] - red[2]) > 0.2
    assert sheet(x, info).shape == (12, 16, 3)
