"""Training of our own prior: what it is shown, what it learns, and how it goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from methods.picture_prior.stopped import check_goes_on
from PIL import Image

from scene4d.cli.main import main
from scene4d.data.frame import in_working_frame
from scene4d.data.load import read_scene
from scene4d.errors import DataError, UsageError
from scene4d.methods.picture_prior.method import AveragingOptions, DenoisingOptions, UnetMethod
from scene4d.methods.picture_prior.objective import Denoising
from scene4d.methods.picture_prior.pictures import (
    Group,
    Pictures,
    read_pictures,
    write_pictures,
)
from scene4d.methods.picture_prior.trainable import Averaging, UnetTraining
from scene4d.priors.prior import Condition
from scene4d.priors.unet import load_unet
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.prior_check import halves_of

pytestmark = pytest.mark.unchecked_shapes

SMALL = ["--widths", "8", "16", "--down", "c", "c", "--up", "", "c", "--word-width", "8"]
LIGHT = 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Light and dark pictures of one colour, with captions."""
    place = tmp_path_factory.mktemp("pictures")
    rgb = torch.full((2, 3, 8, 8), LIGHT)
    rgb[1] = -LIGHT
    write_pictures({"rgb": rgb}, place / "one.safetensors", ["a light picture", "a dark picture"])
    return place


def test_it_learns_the_posterior_mean_with_a_text_and_without(folder, tmp_path, capsys):
    command = ["prior", "train", "unet", "--denoising.pictures", str(folder), *SMALL]
    quick = ["--steps", "250", "--lr", "0.01", "--averaging.decay", "0.95",
             "--denoising.forget-text", "0.5", "--denoising.noise-mean", "0"]  # fmt: skip
    assert main([*command, *quick, "--output-dir", str(tmp_path)]) == 0
    told = capsys.readouterr()
    weights = tmp_path / told.out.strip()
    assert f"--prior {weights}" in told.err
    prior = load_unet(weights)
    assert prior.info.size == (8, 8) and prior.info.conditions == {"text"}
    sheet = Image.open(weights.parent / "samples.png")
    assert sheet.size == (8 * 8, 8)
    noise = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    one, much = torch.ones(64), torch.full((64,), 8.0)
    for text, wanted in (("light", LIGHT), ("dark", -LIGHT)):
        found = prior.denoise(8 * noise, one, much, Condition(text=text))
        assert float(found.mean()) == pytest.approx(wanted, abs=0.1)  # 250 steps of a small network
    # of +-m with equal chances: m tanh(m sum(x) / s^2); s = 8 leaves |m sum / s^2| about 0.13
    nothing = prior.denoise(8 * noise, one, much)
    assert abs(float(nothing.mean())) < 0.2
    little = prior.denoise(LIGHT + 0.3 * noise, one, 0.3 * one)
    assert float((little - LIGHT).abs().mean()) < 0.1  # the noise has 0.24


def test_a_trained_one_is_trained_further(folder, tmp_path):
    first = UnetMethod(denoising=DenoisingOptions(pictures=folder), widths=(8, 16), up=("", "c"),
                       down=("", "c")).build(None, generator=torch.Generator())  # fmt: skip
    assert isinstance(first, UnetTraining)
    for parameter in first.averaged.parameters():
        torch.nn.init.constant_(parameter, 0.125)  # which half precision holds
    start = first.write(tmp_path)
    options = DenoisingOptions(pictures=folder)
    again = UnetMethod(denoising=options, start=start).build(None, generator=torch.Generator())
    assert again.prior.shape == first.prior.shape
    assert all(bool((p == 0.125).all()) and p.requires_grad for p in again.prior.parameters())
    assert not any(p.requires_grad for p in again.averaged.parameters())


def objective_of(options, generator):
    inputs = ObjectiveInputs(task=None, generator=generator, device=torch.device("cpu"))
    return Denoising(options, inputs)


def test_half_precision_is_the_same_term_within_its_rounding(folder):
    pictures = {"pictures": folder, "batch": 4}
    drawn = torch.Generator().manual_seed(3)
    trained = UnetMethod(
        denoising=DenoisingOptions(**pictures), widths=(8, 16), down=("", "c"), up=("", "c")
    ).build(None, generator=drawn)
    for parameter in trained.prior.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=drawn)
    step = SimpleNamespace(trainable=trained)
    full, half = (
        objective_of(
            DenoisingOptions(**pictures, half_precision=half), torch.Generator().manual_seed(5)
        )(step).loss
        for half in (False, True)
    )
    # bfloat16 has 8 bits: each layer rounds to 0.4%
    assert float(half) == pytest.approx(float(full), rel=0.05) and float(half) != float(full)
    half.backward()
    gradients = [p.grad for p in trained.prior.parameters() if p.grad is not None]
    assert gradients and all(g.dtype == torch.float32 for g in gradients)


def test_with_a_teacher_its_guided_answers_are_learned(folder, tmp_path):
    sizes = {"widths": (8, 16), "down": ("", "c"), "up": ("", "c")}
    pictures = {"pictures": folder, "forget_text": 0.0, "batch": 4}
    teacher = UnetMethod(denoising=DenoisingOptions(**pictures), **sizes).build(
        None, generator=torch.Generator()
    )
    drawn = torch.Generator().manual_seed(3)
    for parameter in teacher.averaged.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=drawn)
    start = teacher.write(tmp_path)
    student = UnetMethod(denoising=DenoisingOptions(**pictures), start=start).build(
        None, generator=torch.Generator()
    )
    step = SimpleNamespace(trainable=student)
    losses = [
        float(objective_of(
            DenoisingOptions(**pictures, teacher=start, scale=scale),
            torch.Generator().manual_seed(5),
        )(step).loss)
        for scale in (1.0, 2.0, 3.0)
    ]  # fmt: skip
    # the student is the teacher: what is left is (k - 1)^2 times the difference of its answers
    assert losses[0] == pytest.approx(0.0, abs=1e-9) and losses[1] > 1e-4
    assert losses[2] == pytest.approx(4 * losses[1], rel=1e-4)
    without = DenoisingOptions(**{**pictures, "forget_text": 1.0}, teacher=start, scale=3.0)
    assert float(objective_of(without, torch.Generator())(step).loss) == pytest.approx(0, abs=1e-9)
    silent = tmp_path / "silent"
    silent.mkdir()
    write_pictures({"rgb": torch.zeros(1, 3, 8, 8)}, silent / "a.safetensors")
    deaf = UnetMethod(denoising=DenoisingOptions(pictures=silent), **sizes).build(
        None, generator=torch.Generator()
    )
    with pytest.raises(UsageError, match="reads no texts"):
        objective_of(DenoisingOptions(**pictures, teacher=deaf.write(silent)), torch.Generator())


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(folder, tmp_path):
    command = ["prior", "train", "unet", "--denoising.pictures", str(folder), *SMALL]
    check_goes_on(command, tmp_path)


@pytest.fixture(scope="module")
def with_depth(tmp_path_factory, tiny_capture):
    """The tiny capture, with depth that half of every picture lacks."""
    place = tmp_path_factory.mktemp("rgbd")
    table = json.loads((tiny_capture / "transforms.json").read_text())
    (place / "images").symlink_to(tiny_capture / "images")
    for number, frame in enumerate(table["frames"]):
        width, height = Image.open(tiny_capture / frame["file_path"]).size
        depth = np.full((height, width), 2000 + number, np.uint16)
        depth[:, : width // 2] = 0
        Image.fromarray(depth).save(place / f"{number}.png")
        frame["depth_file_path"] = f"{number}.png"
    (place / "transforms.json").write_text(json.dumps(table))
    return place


def test_captures_give_crops_of_the_pictures_that_may_be_learned_from(with_depth):
    scene = in_working_frame(read_scene(with_depth))
    options = DenoisingOptions(captures=(with_depth,), longest_side=24, crop_size=16)
    every, near = (
        read_pictures(DenoisingOptions(**{**vars(options), "near_half": half}))
        for half in (False, True)
    )
    assert every.channels == ("rgb", "depth") and every.longest_side == 24
    assert len(every) == len(scene.train_indices)
    assert len(near) == len(set(scene.train_indices) & set(halves_of(scene).memory)) < len(every)
    crops = every.crops(40, 16, torch.Generator().manual_seed(0), mirrored=0.5)
    assert crops.pictures.shape == (40, 4, 16, 16) == crops.known.shape
    assert bool(crops.known[:, :3].all()) and not bool(crops.known[:, 3].all())
    # where there is no depth its code is -1; both are cut and mirrored alike
    assert torch.equal(crops.pictures[:, 3] > -1, crops.known[:, 3] > 0)
    assert every.whole(64) is None and every.vocabulary() == ()


def test_captures_are_mirrored_and_prepared_pictures_are_not():
    ramp = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    for of_capture, both in ((True, {-1.0, 1.0}), (False, {-1.0})):
        group = Group(pictures={"rgb": ramp}, captions=[""], of_capture=of_capture)
        crops = Pictures(("rgb",), [group], 8).crops(
            20, 8, torch.Generator().manual_seed(0), mirrored=0.5
        )
        assert set(crops.pictures[:, 0, 0, 0].tolist()) == both


def test_bytes_and_both_kinds_of_files_are_read(tmp_path):
    rgb = np.array([0, 255], np.uint8)[:, None, None, None].repeat(3, 1).repeat(4, 2).repeat(6, 3)
    np.savez(tmp_path / "a.npz", rgb=rgb, captions=np.array(["nothing", "all"]))
    write_pictures({"rgb": torch.zeros(1, 3, 4, 6)}, tmp_path / "b.safetensors")
    found = read_pictures(DenoisingOptions(pictures=tmp_path))
    assert len(found) == 3 and found.whole(64) == (6, 4) and found.whole(5) is None
    assert found.vocabulary() == ("all", "nothing")
    crops = found.crops(60, 64, torch.Generator().manual_seed(0))
    said = dict(zip(crops.captions, crops.pictures[:, 0, 0, 0].tolist(), strict=True))
    assert said == {"nothing": -1.0, "all": 1.0, "": 0.0}


def arrays(**made):
    return lambda place: np.savez(place / "a.npz", **made)


RGB = np.zeros((2, 3, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda place: None, "holds no file"),
        (lambda place: (place / "a.npz").write_bytes(b"PK"), "is damaged"),
        (lambda place: (place / "a.safetensors").write_bytes(b"12345678"), "is damaged"),
        (arrays(rgb=np.array([{}], object)), "is damaged"),
        (arrays(smell=RGB), "expected arrays named"),
        (arrays(rgb=RGB, depth=RGB), "expected n x channels"),
        (arrays(rgb=RGB, depth=np.zeros((2, 1, 4, 5), np.uint8)), "of one size"),
        (arrays(rgb=RGB.astype(np.int64)), "bytes or real"),
        (arrays(rgb=RGB[:0]), "expected n x channels"),
        (arrays(rgb=RGB.astype(np.float32) + np.nan), "outside of -1..1"),
        (arrays(rgb=RGB + np.float32(2)), "outside of -1..1"),
        (arrays(rgb=RGB, captions=np.array(["one"])), "2 pictures and 1 captions"),
        (arrays(rgb=RGB, captions=np.array([1, 2])), "no list of texts"),
    ],
)
def test_what_are_no_pictures_is_told(tmp_path, write, told):
    write(tmp_path)
    with pytest.raises(DataError, match=told):
        read_pictures(DenoisingOptions(pictures=tmp_path))


def test_nothing_to_learn_from_and_what_does_not_go_together_are_told(
    folder, with_depth, tmp_path, capsys
):
    assert main(["prior", "train", "unet", "--output-dir", str(tmp_path)]) == 2
    assert "nothing to learn from" in capsys.readouterr().err
    with pytest.raises(DataError, match="no folder of pictures"):
        read_pictures(DenoisingOptions(pictures=tmp_path / "none"))
    with pytest.raises(DataError, match="do not go together"):
        read_pictures(DenoisingOptions(pictures=folder, captures=(with_depth,)))
    method = UnetMethod(denoising=DenoisingOptions(pictures=folder), widths=(8, 16),
                        down=("", "c"), up=("", "c"))  # fmt: skip
    trained = method.build(None, generator=torch.Generator())
    inputs = ObjectiveInputs(task=None, generator=torch.Generator(), device=torch.device("cpu"))
    term = Denoising(DenoisingOptions(captures=(with_depth,), batch=2), inputs)
    with pytest.raises(UsageError, match="rgb\\+depth now"):
        term(SimpleNamespace(trainable=trained))


def test_the_loss_is_that_of_edm_and_noise_has_its_distribution(folder):
    options = DenoisingOptions(pictures=folder, batch=1000, noise_mean=-0.5, noise_spread=0.8)
    method = UnetMethod(denoising=options, widths=(8, 16), down=("", ""), up=("", ""),
                        deviation=LIGHT)  # fmt: skip
    inputs = ObjectiveInputs(task=None, generator=torch.Generator(), device=torch.device("cpu"))
    term = Denoising(options, inputs)
    trained = method.build(None, generator=torch.Generator())
    seen, clean = [], trained.prior.cleaned
    trained.prior.cleaned = lambda noisy, ratios, texts: (
        seen.append(ratios.log()) or clean(noisy, ratios, texts)
    )
    found = term(SimpleNamespace(trainable=trained))
    assert float(seen[0].mean()) == pytest.approx(-0.5, abs=2e-3)  # 1000 strata
    assert float(seen[0].std()) == pytest.approx(0.8, abs=5e-3)
    # of pictures whose square is the deviation's, what is left of the shrunk ones is
    # (s d)^2 / (s^2 + d^2): weighted it is 1 at every level. Standard errors of 192,000 values and
    # a third of them: 0.003, 0.006
    assert float(found.loss.detach()) == pytest.approx(1.0, abs=0.015)
    assert len(found.log) == 3
    assert all(float(third) == pytest.approx(1.0, abs=0.03) for third in found.log.values())


def test_the_average_follows_the_weights(folder):
    method = UnetMethod(denoising=DenoisingOptions(pictures=folder), widths=(8, 16),
                        down=("", "c"), up=("", "c"))  # fmt: skip
    trained = method.build(None, generator=torch.Generator())
    assert isinstance(trained, UnetTraining)
    optimiser = GroupedAdam(trained.parameter_groups())
    average = Averaging(AveragingOptions(decay=0.5), trained, optimiser, torch.Generator())
    weight, kept = trained.prior.noise[0].bias, trained.averaged.noise[0].bias
    with torch.no_grad():
        before = float(weight[0])
        weight[0] = before + 1
    expected = before
    for number in range(12):
        average.after_step(SimpleNamespace(number=number))
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * (before + 1)
    assert float(kept[0]) == pytest.approx(expected, abs=1e-6)
    again = UnetTraining.from_saved(trained.state_dict(), trained.plain_data())
    assert torch.equal(again.averaged.noise[0].bias, kept)
    assert set(UnetTraining.saved_forms(trained.plain_data())) == set(trained.state_dict())


def test_check_and_sample_ask_it(with_depth, tmp_path, capsys):
    command = ["prior", "train", "unet", "--denoising.captures", str(with_depth), *SMALL]
    few = ["--steps", "2", "--denoising.longest-side", "24", "--denoising.batch", "2"]
    assert main([*command, *few, "--output-dir", str(tmp_path)]) == 0
    weights = capsys.readouterr().out.strip()
    assert main(["prior", "check", f"unet:{weights}", "--data", str(with_depth)]) == 0
    assert f"unet:{weights}, far:" in capsys.readouterr().out
    out = ["--output-path", str(tmp_path / "out"), "--count", "1", "--steps", "2"]
    assert main(["prior", "sample", weights, *out, "--size", "16", "12"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0000.png", "0000_depth.png"]
