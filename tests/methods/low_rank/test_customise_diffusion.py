"""Low-rank layers fitted to a capture: what is trained, what is kept, and what comes out."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from priors.test_diffusion import FAMILIES
from tiny_diffusion import diffusers

from scene4d.cli.main import main
from scene4d.data.load import read_scene
from scene4d.errors import DataError, UsageError
from scene4d.methods.low_rank.method import CustomDiffusionMethod
from scene4d.methods.low_rank.objectives import (
    FarPictures,
    Fitting,
    Noised,
    Preserving,
    read_pictures,
    write_pictures,
)
from scene4d.methods.low_rank.trainable import LowRank
from scene4d.priors.diffusion import LORA, DiffusersKind
from scene4d.priors.lora import capture_of
from scene4d.priors.prior import CaptureMark
from scene4d.priors.prompts import Prompts
from scene4d.training.fixers import mark_of, warn_of_other_capture
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.optimiser import GroupedAdam

pytestmark = pytest.mark.unchecked_shapes
NAME = "a card"


def pixels():
    """A model of pixels that reads no text."""
    network = diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet=network, scheduler=diffusers.DDPMScheduler())


READING_TEXTS = ("sd", "sd3", "flux", "pixart", "sana")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models, tiny and untrained, with the embeddings of two texts beside those that read them."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    pixels().save_pretrained(root / "pixels")
    for name in READING_TEXTS:
        torch.manual_seed(0)
        made = FAMILIES[name]()
        made.pipeline.save_pretrained(root / name)
        again = {part: value.clone() for part, value in made.text.items()}
        Prompts({"": made.text, NAME: again}).save(root / name / "prompts.safetensors")
    return root


@pytest.fixture
def method(folders, tmp_path):
    """For the model of pixels, of pictures of grey stripes."""
    for number, name in enumerate(("learned", "drawn", "far")):
        stripes = torch.linspace(-1, 1, 16).roll(number).expand(4, 3, 16, 16)
        write_pictures(stripes, tmp_path / name)
    made = CustomDiffusionMethod(original=folders / "pixels")
    return replace(
        made,
        fitting=replace(made.fitting, pictures=tmp_path / "learned"),
        preserving=replace(made.preserving, pictures=tmp_path / "drawn"),
        early_stop=replace(made.early_stop, far=tmp_path / "far", every=1, patience=2),
    )


def built(method):
    return LowRank.starting(method, torch.Generator().manual_seed(0))


def inputs():
    return ObjectiveInputs(
        task=None, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )


def asked(model):
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    half = torch.full((1,), 0.5**0.5)
    return model.denoise(x, half, half)


def moved(trained):
    """With layers that change something."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for up in trained.trained.up:
            up += 0.3 * torch.randn(up.shape, generator=generator)
    return trained


def test_layers_change_nothing_at_first_and_nothing_where_they_are_left_out(method):
    trained = built(method)
    original = DiffusersKind().load(method.original, None)
    wanted = asked(original)
    assert torch.equal(asked(trained.model), wanted)
    moved(trained)
    assert float((asked(trained.model) - wanted).detach().abs().max()) > 0.01
    with trained.left_out():
        assert torch.equal(asked(trained.model), wanted)


def test_only_the_layers_learn(method):
    trained = built(method)
    step = SimpleNamespace(trainable=trained)
    Fitting(method.fitting, inputs())(step).loss.backward()
    (group,) = trained.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in trained.trained.parameters()}
    assert all(p.grad is not None for p in group.parameters)
    assert any(float(p.grad.abs().max()) > 0 for p in trained.trained.up)
    assert all(p.grad is None for p in trained.model.parameters())
    with pytest.raises(UsageError, match="no linear layers to_nothing"):
        built(replace(method, layers=("to_nothing",)))


def test_the_loss_is_that_of_the_networks_own_answer(method):
    trained = built(method)
    noised = Noised.drawn(
        trained.model, read_pictures(method.fitting.pictures), 3,
        torch.Generator().manual_seed(4), torch.device("cpu"),
    )  # fmt: skip
    a, s = (v.reshape(-1, 1, 1, 1) for v in (noised.alpha, noised.sigma))
    noise = (noised.x_t - a * noised.clean) / s
    told = (noised.x_t - a * noised.answer(trained.model, "")) / s
    found = noised.error(trained.model, noised.clean, "")
    # float32, divided by sigma of 0.03 and more
    torch.testing.assert_close(found, (told - noise).square().mean(), rtol=1e-3, atol=1e-5)


def test_what_the_original_makes_of_its_own_pictures_is_kept(method):
    trained = built(method)
    term = Preserving(method.preserving, inputs())
    step = SimpleNamespace(trainable=trained)
    assert float(term(step).loss.detach()) == 0.0  # it is the original
    moved(trained)
    loss = term(step).loss
    loss.backward()
    assert float(loss.detach()) > 0 and float(trained.trained.up[0].grad.abs().max()) > 0


def test_the_best_layers_by_far_pictures_are_kept(method):
    trained = built(method)
    stop = FarPictures(method.early_stop, trained, GroupedAdam(trained.parameter_groups()),
                       torch.Generator())  # fmt: skip
    assert stop.worth() == stop.first  # the same noise at each look
    before = {name: value.clone() for name, value in trained.kept.state_dict().items()}
    moved(trained)
    for up in trained.trained.up:
        up.data *= 30  # far off: nothing is gained
    for number in range(2):
        stop.after_step(SimpleNamespace(number=number))
    assert stop.finished and trained.far == (stop.first, stop.first)
    for name, value in trained.kept.state_dict().items():
        assert torch.equal(value, before[name])
    stop.best, stop.without = -math.inf, 0
    stop.after_step(SimpleNamespace(number=2))
    assert torch.equal(trained.kept.up[0], trained.trained.up[0]) and not stop.finished


def test_the_file_gives_the_model_that_was_trained_and_says_whose_it_is(method, tmp_path):
    trained = moved(built(replace(method, capture=("a capture", "0" * 64))))
    trained.keep()
    wanted = asked(trained.model)
    again = LowRank.from_saved(trained.state_dict(), trained.plain_data())
    assert torch.equal(asked(again.model), wanted)
    assert set(LowRank.saved_forms(trained.plain_data())) == set(trained.state_dict())
    model = tmp_path / "model"
    diffusers.DDPMPipeline.from_pretrained(method.original).save_pretrained(model)
    assert again.write(model) == model / LORA
    prior = DiffusersKind().load(model, None)
    assert prior.capture == CaptureMark(name="a capture", digest="0" * 64)
    # float32: W + B A in place of two layers
    torch.testing.assert_close(asked(prior), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="cannot be"):
        LowRank.from_saved(trained.state_dict(), {**trained.plain_data(), "places": [["a", 0, 1]]})


def test_the_verb_fits_layers_to_a_capture_and_others_are_warned(
    folders, row, tmp_path, capsys, caplog
):  # fmt: skip
    model = folders / "pixels"
    command = ["prior", "customise", str(model), "--data", str(row), "--steps", "2"]
    small = ["--downscale-factor", "1", "--output-dir", str(tmp_path)]
    assert main([*command, *small, "--text", NAME]) == 0
    told = capsys.readouterr()
    assert f"--prior {model}" in told.err and "--text is ignored" in caplog.text
    weights = tmp_path / told.out.strip()
    assert weights.name == LORA
    scene, pictures = read_scene(row), tmp_path / "row/pictures/seed-0"
    learned, far = (read_pictures(pictures / part) for part in ("learned", "far"))
    assert len(learned) + len(far) == len(scene.train_indices)
    assert len(far) == len(scene.train_indices) // 4 and learned.shape[1:] == (3, 32, 48)
    assert read_pictures(pictures / "drawn").shape[1:] == (3, 16, 16)
    mark = capture_of(weights)
    assert mark == mark_of(scene)
    prior = DiffusersKind().load(model, None)
    prior.capture = mark
    caplog.clear()
    warn_of_other_capture(prior, scene)
    assert not caplog.records
    warn_of_other_capture(prior, replace(scene, frames=scene.frames[1:]))
    assert "the prior was customised for the capture row" in caplog.text


@pytest.mark.parametrize("name", READING_TEXTS)
def test_layers_of_every_family_of_pictures_learn(name, folders):
    trained = built(CustomDiffusionMethod(original=folders / name))
    channels = trained.model.info.num_channels
    latents = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    noised = Noised.drawn(trained.model, latents, 2, torch.Generator(), torch.device("cpu"))
    noised.error(trained.model, noised.clean, NAME).backward()
    learn = [float(up.grad.abs().max()) > 0 for up in trained.trained.up]
    # the last block of a transformer leaves the texts' own answers out
    assert sum(learn) >= len(learn) - 1 >= 3


def test_texts_and_models_that_are_not_there_are_told(folders, row, tmp_path, capsys):
    command = ["prior", "customise", "--data", str(row), "--output-dir", str(tmp_path)]
    assert main([*command, str(folders / "sd"), "--text", "another"]) == 2
    assert "no embedding of the text 'another'" in capsys.readouterr().err
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{}")
    assert main([*command, str(folders / "sana")]) == 2
    assert "no VAE to encode" in capsys.readouterr().err
    # 32 x 48 pixels are six latents along a side
    assert main([*command, str(folders / "sd"), "--downscale-factor", "1"]) == 2
    assert "less than 64 pixels" in capsys.readouterr().err
    assert main([*command, str(model)]) == 1
    assert "of no known family" in capsys.readouterr().err
    with pytest.raises(DataError, match="no pictures to learn from"):
        read_pictures(tmp_path)
