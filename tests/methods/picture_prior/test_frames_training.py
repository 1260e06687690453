"""Training of a predictor of frames: which pairs it is shown, what it learns, how it goes on."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from methods.picture_prior.stopped import check_goes_on
from PIL import Image
from training.test_every_capture import SMALL as SMALL_METHODS
from training.test_every_capture import with_times

from scene4d.cli.main import main
from scene4d.data.load import read_scene
from scene4d.errors import DataError, UsageError
from scene4d.methods.picture_prior.frames_method import FramesMethod, PredictingOptions
from scene4d.methods.picture_prior.predicting import Predicting
from scene4d.methods.picture_prior.videos import read_videos
from scene4d.priors.frames import load_frames
from scene4d.training.next_frames import COPIED, EXTENDED, asked_of, check_next, late_of
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.options import TrainOptions
from scene4d.training.train import load_capture

pytestmark = pytest.mark.unchecked_shapes

SMALL = ["--widths", "8", "16", "--down", "c", "c", "--up", "", "c"]
FPS = 10.0
SPEED = 2
"""Pixels from a picture to the next, to the right."""


def capture(place, films, *, times=True, **more):
    """A capture of one video for each camera, [n, height, width, 3] in bytes, beside each other."""
    frames = []
    for number, film in enumerate(films):
        (place / f"cam{number}").mkdir(parents=True)
        for moment, picture in enumerate(film):
            name = f"cam{number}/{moment:03d}.png"
            Image.fromarray(picture).save(place / name)
            pose = np.eye(4)
            pose[0, 3] = number
            when = {"time": moment / FPS} if times else {}
            frames.append({"file_path": name, "transform_matrix": pose.tolist(), **when})
    height, width = films[0].shape[1:3]
    table = {"fl_x": 40, "fl_y": 40, "cx": width / 2, "cy": height / 2, "w": width, "h": height,
             "time_unit": "seconds", "fps": FPS, "frames": frames, **more}  # fmt: skip
    (place / "transforms.json").write_text(json.dumps(table))
    return place


def texture(drawn, side=16):
    """Smooth and without a border, [side, side, 3], 0..1."""
    waves = np.fft.fft2(drawn.normal(size=(side, side, 3)), axes=(0, 1))
    k = np.fft.fftfreq(side) * side
    waves *= np.exp(-(k[:, None] ** 2 + k**2) / 8)[..., None]
    made = np.fft.ifft2(waves, axes=(0, 1)).real
    return np.clip(0.5 + 0.25 * made / made.std(), 0, 1)


def moving(drawn, count):
    """A texture that moves to the right."""
    still = (255 * texture(drawn)).astype(np.uint8)
    return np.stack([np.roll(still, SPEED * n, axis=1) for n in range(count)])


def test_it_learns_where_things_move_and_backwards_the_other_way(tmp_path, capsys):
    drawn = np.random.default_rng(0)
    place = capture(tmp_path / "in", [moving(drawn, 8) for _ in range(12)])
    command = ["prior", "train", "frames", "--predicting.captures", str(place),
               "--predicting.longest-side", "16", "--predicting.crop-size", "16",
               "--predicting.apart", "1", "--widths", "16", "16", "--down", "c", "c", "--up", "c",
               "c", "--steps", "300", "--predicting.batch", "8", "--lr", "0.01",
               "--averaging.decay", "0.95",
               "--output-dir", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    told = capsys.readouterr()
    prior = load_frames(tmp_path / told.out.strip())
    assert f"--prior {told.out.strip()} --guidance.sweep 0" in told.err
    before = torch.from_numpy(2 * texture(drawn) - 1).permute(2, 0, 1).float()  # of another texture
    noise = 20 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, much = torch.ones(1), torch.full((1,), 20.0)
    for lapse in (1, -1):
        found = prior.after(before, lapse / FPS).denoise(noise, one, much)[0]
        errors = {way: float((found - before.roll(SPEED * way, 2)).square().mean())
                  for way in (-1, 0, 1)}  # fmt: skip
        copied = float((before.roll(SPEED, 2) - before).square().mean())
        # out of nothing but the picture before: nearer by far to where it moves than to where it
        # was (0), or to where it moves at the other sign; and than a copy is
        assert errors[lapse] < 0.3 * min(errors[0], errors[-lapse], copied)


def flat(count, camera):
    """Pictures of one grey each, which tells the camera and the moment."""
    greys = 20 + 100 * camera + 5 * np.arange(count)
    return np.broadcast_to(greys[:, None, None, None], (count, 12, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory):
    """Ten moments of two cameras; the pictures are flat."""
    place = tmp_path_factory.mktemp("two") / "in"
    return capture(place, [flat(10, camera) for camera in range(2)])


def moments(pictures):
    """Camera and moment of flat pictures of -1..1."""
    grey = (127.5 * (pictures[:, 0, 0, 0] + 1)).round().long() - 20
    return grey // 100, grey % 100 // 5


def test_pairs_are_of_one_camera_and_never_of_what_is_held_out(two_cameras):
    scene = read_scene(two_cameras)
    held_out, late = set(scene.test_indices), set(late_of(scene))
    assert held_out and len(late) == 4 and late == {8, 9, 18, 19}
    for earlier in (False, True):
        options = PredictingOptions(captures=(two_cameras,), apart=2, earlier=earlier)
        videos = read_videos(options)
        pairs = videos.pairs(600, 8, torch.Generator().manual_seed(0))
        assert pairs.pictures.shape == (600, 3, 8, 8) and bool((pairs.known == 1).all())
        (camera, before), (other, after) = moments(pairs.before), moments(pairs.pictures)
        assert torch.equal(camera, other)
        assert torch.allclose(pairs.seconds, (after - before) / FPS)
        assert int((after - before).abs().max()) == 2
        wanted = set(scene.train_indices) - (late if earlier else set())
        assert set((10 * camera + after).tolist()) == wanted  # 600 draws of at most 90 pairs
        back, on = (float(x.float().mean()) for x in (pairs.seconds < 0, pairs.seconds > 0))
        assert back == pytest.approx(on, abs=0.1)  # as many: twice the standard error
    shape = videos.shape()
    assert shape.longest == pytest.approx(0.2) and shape.interval == pytest.approx(0.1)
    # 5 / 127.5 a moment, and the mean square of moments of all pairs
    steps = torch.cat([(film.seconds[p[:, 1]] - film.seconds[p[:, 0]]) * FPS
                       for film in videos.films for p in [film.pairs(2)]])  # fmt: skip
    assert shape.change == pytest.approx(float(steps.square().mean().sqrt()) * 5 / 127.5, rel=1e-4)


def test_both_pictures_of_a_pair_are_cut_and_mirrored_alike(tmp_path):
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[None, :, None] * 10, (16, 24, 3))
    place = capture(tmp_path / "in", [np.stack([ramp] * 4)])
    videos = read_videos(PredictingOptions(captures=(place,)))
    pairs = videos.pairs(50, 8, torch.Generator().manual_seed(0), mirrored=0.5)
    assert torch.equal(pairs.before, pairs.pictures)
    assert {bool(x) for x in pairs.pictures[:, 0, 0, 0] < pairs.pictures[:, 0, 0, 7]} == {
        True, False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("films", "more", "words"),
    [
        ([flat(4, 0)], {"times": False}, "tells no times"),
        ([flat(1, 0), flat(1, 1)], {}, "no camera that took two training pictures"),
    ],
)
def test_what_is_no_video_is_told(tmp_path, films, more, words):
    place = capture(tmp_path / "in", films, **more)
    with pytest.raises(DataError, match=words):
        read_videos(PredictingOptions(captures=(place,)))


def test_nothing_to_learn_from_and_other_videos_are_told(two_cameras, tmp_path, capsys):
    assert main(["prior", "train", "frames", "--output-dir", str(tmp_path)]) == 2
    assert "nothing to learn from" in capsys.readouterr().err
    method = FramesMethod(predicting=PredictingOptions(captures=(two_cameras,), apart=1),
                          widths=(8, 16), down=("", "c"), up=("", "c"))  # fmt: skip
    trained = method.build(None, generator=torch.Generator())
    inputs = ObjectiveInputs(task=None, generator=torch.Generator(), device=torch.device("cpu"))
    for captures, apart, words in (((two_cameras,), 3, "0.3 s apart, and the network is of"),):
        term = Predicting(PredictingOptions(captures=captures, apart=apart), inputs)
        with pytest.raises(UsageError, match=words):
            term(SimpleNamespace(trainable=trained))
    start = trained.write(tmp_path)
    again = FramesMethod(predicting=method.predicting, start=start).build(
        None, generator=torch.Generator()
    )
    assert again.prior.shape == trained.prior.shape
    assert all(p.requires_grad for p in again.prior.parameters())


def test_the_loss_of_an_untrained_one_is_one(two_cameras):
    options = PredictingOptions(captures=(two_cameras,), batch=400, forget=0.0)
    method = FramesMethod(predicting=options, widths=(8, 16), down=("", ""), up=("", ""))
    inputs = ObjectiveInputs(task=None, generator=torch.Generator(), device=torch.device("cpu"))
    for half in (False, True):
        term = Predicting(PredictingOptions(**{**vars(options), "half_precision": half}), inputs)
        trained = method.build(None, generator=torch.Generator())
        found = term(SimpleNamespace(trainable=trained))
        # what is left of (x - before) has the variance (s d)^2 / (s^2 + d^2), weighted 1; the
        # differences of 400 flat pairs have one number each, of which a share counts: 0.1
        assert float(found.loss.detach()) == pytest.approx(1.0, abs=0.2)
        assert len(found.log) == 3


def run(main_args, capsys):
    assert main(main_args) == 0
    return capsys.readouterr()


@pytest.fixture(scope="module")
def timed(tiny_capture, tmp_path_factory):
    """The tiny capture with a picture a second."""
    return with_times(shutil.copytree(tiny_capture, tmp_path_factory.mktemp("timed") / "capture"))


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(two_cameras, tmp_path):
    command = ["prior", "train", "frames", "--predicting.captures", str(two_cameras), *SMALL]
    run = check_goes_on(command, tmp_path)
    assert Image.open(run / "samples.png").size == (8 * 16, 12)


def test_it_is_checked_drawn_from_and_guides_a_scene(timed, tmp_path, capsys):
    train = ["prior", "train", "frames", "--predicting.captures", str(timed), *SMALL, "--steps",
             "2", "--predicting.longest-side", "24", "--predicting.batch", "2",
             "--output-dir", str(tmp_path)]  # fmt: skip
    weights = run(train, capsys).out.strip()
    table = run(["prior", "check", f"frames:{weights}", "--data", str(timed), "--ratios", "0.2",
                 "80", "90"], capsys).out  # fmt: skip
    assert f"{COPIED}, late:" in table and f"frames:{weights}, held out:" in table
    row = next(line for line in table.splitlines() if f"frames:{weights}, late" in line)
    assert row.split()[-1] == "-"
    assert main(["prior", "check", weights, "patches", "--data", str(timed)]) == 2
    assert "knows no single pictures" in capsys.readouterr().err

    picture = tmp_path / "first.png"
    Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[:, None, None] * 5, (1, 48, 3))).save(
        picture
    )
    out = ["--output-path", str(tmp_path / "film"), "--count", "3", "--steps", "2"]
    run(["prior", "sample", weights, *out, "--from-picture", str(picture), "--seconds", "-1"],
        capsys)  # fmt: skip
    names = sorted(p.name for p in (tmp_path / "film").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png", "sheet.png"]
    first = np.asarray(Image.open(tmp_path / "film" / "0000.png"), dtype=float)
    assert first.shape == (24, 24, 3)
    assert np.abs(first[:, 0, 0] - (10 * np.arange(24) + 2.5)).max() <= 1  # means of two rows
    for more, words in ((["--time", "0.5"], "--time is given"), (["--seconds", "99"], "99 s from")):
        assert main(["prior", "sample", weights, *out, *more]) == 2
        assert words in capsys.readouterr().err

    guided = ["train", "deformable", "--data", str(timed), "--prior", f"frames:{weights}",
              "--steps", "3", "--guidance.start", "0", "--guidance.every", "1",
              "--guidance.sweep", "0", "--guidance.frozen", "0", "--guidance.frames", "3",
              "--device", "cpu", "--no-evaluate", "--output-dir", str(tmp_path)]  # fmt: skip
    small = [
        f"--{key.replace('_', '-')}={value}"
        for key, value in SMALL_METHODS["deformable"].items()
        if not isinstance(value, tuple)
    ]
    assert main([*guided, *small]) == 0
    told = capsys.readouterr().err
    assert "knows nothing" not in told
    (log,) = tmp_path.glob("*/deformable/*/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows[-1]["guidance_gradient"] > 0 and rows[-1]["guidance_left_out"] == 0


def test_a_copy_and_what_goes_on_evenly_are_judged(two_cameras, tmp_path):
    scene, images = load_capture(TrainOptions(data=two_cameras))
    method = FramesMethod(predicting=PredictingOptions(captures=(two_cameras,)), widths=(8, 16),
                          down=("", "c"), up=("", "c"))  # fmt: skip
    prior = load_frames(method.build(None, generator=torch.Generator()).write(tmp_path))
    assert {kind: len(asked) for kind, asked in asked_of(scene).items()} == {
        "held out": len([i for i in scene.test_indices if 2 <= i % 10 < 8]), "late": 4,
    }  # fmt: skip
    table = check_next(scene, images, {"untrained": prior}, [80.0])
    # grey goes up by 5 of 255 a picture: a copy is off by it, and what goes on is right
    off = -20 * np.log10(5 / 255)
    assert table[COPIED]["late"] == [pytest.approx(off, abs=0.01)]
    assert table["untrained"]["late"] == [pytest.approx(off, abs=0.3)]  # half-precision weights
    assert table[EXTENDED]["late"][0] > 60
