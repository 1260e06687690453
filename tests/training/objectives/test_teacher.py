"""Learning from a teacher, in the shared trainer: it learns, it resumes, it says what is wrong."""

import json
import logging
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene
from scene4d.errors import DataError, UsageError
from scene4d.formats.ply import write_ply
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lpgs.method import LpgsMethod
from scene4d.methods.splat.method import SparsityOptions, SplatMethod
from scene4d.rendering.render import RGB, Render
from scene4d.representations.base import Representation
from scene4d.representations.method import (
    DepthOptions,
    Method,
    ObjectiveOptions,
    PhotometricOptions,
    TeacherOptions,
)
from scene4d.representations.task import Task, World
from scene4d.training import train as train_module
from scene4d.training import trainer as trainer_module
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.teacher import Teaching
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.step import Step
from scene4d.training.teachers import held_out_but_taught, load_teacher
from scene4d.training.train import resume, start

pytestmark = pytest.mark.unchecked_shapes

SMALL = {"num_random_points": 300, "max_num_gaussians": 400, "coarsest_downscale": 1,
         "sh_degree": 1}  # fmt: skip
TAUGHT = SplatMethod(
    steps=40, init="random", photometric=PhotometricOptions(weight=0.0),
    teaching=TeacherOptions(crops=4, crop_size=24), **SMALL,
)  # fmt: skip


def options(capture, output_dir, **changes):
    settings = {"data": capture, "output_dir": output_dir, "device": "cpu", "evaluate": False}
    return TrainOptions(**{**settings, **changes})


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def logged(run, name):
    return {row["step"]: row[name] for row in rows(run) if name in row}


@pytest.fixture(scope="module")
def teacher(tiny_capture, tmp_path_factory):
    method = SplatMethod(steps=200, **SMALL)
    return start(method, options(tiny_capture, tmp_path_factory.mktemp("teacher")))


# Learning


@torch.no_grad()
def between(one, other, cameras):
    """PSNR of one run's pictures against another's."""
    errors = [
        (one.representation.render(c).rgb - other.representation.render(c).rgb).square().mean()
        for c in cameras
    ]
    return float(-10 * torch.stack(errors).mean().log10())


def test_splats_distilled_into_splats_come_near_the_teacher_where_nobody_photographed(
    tiny_capture, teacher, tmp_path
):
    method = replace(TAUGHT, steps=250)
    student = load_run(start(method, options(tiny_capture, tmp_path, teacher=teacher)))
    first = load_run(
        start(replace(TAUGHT, steps=1), options(tiny_capture, tmp_path, teacher=teacher))
    )
    taught = load_run(teacher)
    held_out = taught.cameras.test
    # Random Gaussians of the right mean colours start near 15 dB.
    assert between(student, taught, held_out) > between(first, taught, held_out) + 8
    assert between(student, taught, held_out) > 24
    psnr = logged(student.path, "teacher_psnr")
    assert psnr[250] > psnr[1] + 6
    assert all("psnr" not in row for row in rows(student.path))  # no photograph was looked at


def test_parents_and_children_learn_from_a_teacher_too(tiny_capture, teacher, tmp_path):
    method = LpgsMethod(
        steps=12, init="random", num_random_points=200, sh_degree=1,
        photometric=PhotometricOptions(start=0.5),
        teaching=TeacherOptions(crops=2, crop_size=16, end=0.5, depth_weight=0.1, loss="l1"),
    )  # fmt: skip
    run = start(method, options(tiny_capture, tmp_path, teacher=teacher))
    assert load_run(run).step == 12


def test_a_file_teaches_without_any_capture(tmp_path):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).numpy()

    cloud = SplatCloud(
        means=0.5 * normal(60, 3), quats=normal(60, 4), log_scales=0.3 * normal(60, 3) - 1.8,
        logit_opacities=normal(60) + 1, sh=0.4 * normal(60, 4, 3),
    )  # fmt: skip
    write_ply(tmp_path / "scene.ply", cloud)
    run = start(
        replace(TAUGHT, steps=3), options(None, tmp_path / "out", teacher=tmp_path / "scene.ply")
    )
    assert logged(run, "pseudo_views")[1] == 8


# Schedules


def test_terms_count_from_their_start_to_their_end(tiny_capture, teacher, tmp_path):
    method = replace(
        TAUGHT, steps=40, photometric=PhotometricOptions(start=0.5),
        teaching=replace(TAUGHT.teaching, end=0.5),
    )  # fmt: skip
    run = start(method, options(tiny_capture, tmp_path, teacher=teacher))
    # Step 20 is the last one of the first half (its progress is 19/40).
    assert sorted(logged(run, "teacher")) == [1, 10, 20]
    assert sorted(logged(run, "photometric")) == [30, 40]
    assert sorted(logged(run, "image_width")) == [30, 40]


def test_a_gap_in_the_schedule_is_refused_before_training(tiny_capture, teacher, tmp_path):
    quiet = SparsityOptions(weight=0.0)
    method = replace(
        TAUGHT, photometric=PhotometricOptions(start=0.9), sparsity=quiet,
        teaching=replace(TAUGHT.teaching, end=0.8),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"no term of the loss counts from 0\.8"):
        start(method, options(tiny_capture, tmp_path, teacher=teacher))
    nothing = replace(method, photometric=PhotometricOptions(weight=0.0),
                      teaching=TeacherOptions(weight=0.0))  # fmt: skip
    with pytest.raises(UsageError, match="no term of the loss counts from 0 of"):
        start(nothing, options(tiny_capture, tmp_path))


@pytest.mark.parametrize(
    "wrong", [{"start": 0.5, "end": 0.5}, {"start": -0.1}, {"end": 1.1}, {"start": float("nan")}]
)
def test_a_schedule_lies_within_the_training(wrong):
    with pytest.raises(UsageError, match="0 <= start < end <= 1"):
        DepthOptions(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"crops": 0}, {"hard": 1.5}, {"refresh_every": 0}, {"cache_mb": -1.0},
              {"alpha_weight": float("nan")}],
)  # fmt: skip
def test_options_beyond_their_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TeacherOptions(**wrong)


def test_the_last_moment_of_a_training_by_the_clock_still_counts():
    assert DepthOptions().counts_at(1.0) and not DepthOptions(end=0.9).counts_at(1.0)
    assert not DepthOptions(end=0.5).counts_at(0.5) and DepthOptions(start=0.5).counts_at(0.5)


# The loss


class Constant(Representation):
    """A picture of one colour; remembers what it was asked for."""

    def __init__(self, rgb, alpha, depth) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([*rgb, alpha, depth]))
        self.asked = []

    def render(self, camera, *, background=None, want=RGB):
        self.asked.append(camera)
        shape = (*camera.c2w.shape[:-2], camera.height, camera.width)
        alpha = self.value[3].expand(shape)
        rgb = self.value[:3] * alpha[..., None]
        if background is not None:
            rgb = rgb + (1 - alpha)[..., None] * background
        return Render(
            rgb=rgb, alpha=alpha, depth=self.value[4].expand(shape) if want.depth else None
        )

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {}

    @classmethod
    def from_saved(cls, tensors, plain):
        raise AssertionError("is not saved")


def camera_at(x, size=(32, 24)):
    c2w = torch.eye(4)
    c2w[0, 3] = x
    K = torch.tensor([[30.0, 0, size[0] / 2], [0, 30.0, size[1] / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=K, width=size[0], height=size[1])


def taught_by(constant, cameras, **changes):
    scene = Scene(
        root=Path("made"), dataparser="made", split_rule="none", test_indices=[],
        frames=[Frame(name=str(i), camera=c, image_path=Path("none"))
                for i, c in enumerate(cameras)],
        train_indices=list(range(len(cameras))),
    )  # fmt: skip
    task = Task(world=World.of(scene), capture=scene, teacher=constant)
    inputs = ObjectiveInputs(
        task=task, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    return Teaching(TeacherOptions(**changes), inputs), scene


def step_of(student, scene, background, number=0):
    adjustments = CameraAdjustments(len(scene.frames), SplatMethod(), extent=scene.extent)
    return Step(
        number=number, progress=0.0, trainable=student, background=background,
        adjustments=adjustments,
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_loss_in_closed_form(loss):
    teacher, student = Constant((1.0, 0.4, 0.0), 0.6, 2.0), Constant((0.5, 0.4, 0.2), 1.0, 4.0)
    objective, scene = taught_by(
        teacher, [camera_at(0.0), camera_at(0.5)], crops=3, crop_size=16, loss=loss,
        alpha_weight=0.5, depth_weight=0.25,
    )  # fmt: skip
    background = torch.tensor([0.0, 1.0, 0.5])
    term = objective(step_of(student, scene, background))
    target = torch.tensor([1.0, 0.4, 0.0]) * 0.6 + 0.4 * background
    colour = torch.tensor([0.5, 0.4, 0.2]) - target
    power = 1 if loss == "l1" else 2
    wanted = colour.abs().pow(power).mean() + 0.5 * 0.4**power + 0.25 * abs(1 / 4 - 1 / 2) / (1 / 2)
    # Bytes: 0.002 of colours and of alpha; half precision of depth: 0.0005
    assert float(term.loss.detach()) == pytest.approx(float(wanted), abs=3e-3)
    assert float(term.log["teacher_psnr"]) == pytest.approx(
        float(-10 * colour.square().mean().log10()), abs=0.1
    )
    (asked,) = student.asked  # one batch
    assert asked.c2w.shape == (3, 4, 4) and (asked.width, asked.height) == (16, 16)
    term.loss.backward()
    assert bool((student.value.grad != 0).all()) and teacher.value.grad is None


def test_crops_are_no_larger_than_the_smallest_picture():
    teacher, student = Constant((1.0, 0.4, 0.0), 0.6, 2.0), Constant((0.5, 0.4, 0.2), 1.0, 4.0)
    cameras = [camera_at(0.0, (32, 24)), camera_at(0.5, (20, 40))]
    objective, scene = taught_by(teacher, cameras, crops=6)
    objective(step_of(student, scene, torch.zeros(3)))
    assert (student.asked[0].width, student.asked[0].height) == (20, 24)


def test_no_more_pictures_are_rendered_than_the_rate_says():
    teacher, student = Constant((1.0, 0.4, 0.0), 0.6, 2.0), Constant((0.5, 0.4, 0.2), 1.0, 4.0)
    objective, scene = taught_by(
        teacher, [camera_at(0.0), camera_at(0.5)], crops=8, crop_size=8, first_views=3,
        refresh_every=4,
    )  # fmt: skip
    counts = []
    for number in range(17):
        objective(step_of(student, scene, torch.zeros(3), number))
        counts.append(len(objective.views))
    assert counts == [3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7]
    assert len(teacher.asked) <= 7


# Going on


@pytest.mark.parametrize("at", [1, 27])
def test_resuming_gives_the_numbers_it_would_have_had(
    tiny_capture, teacher, tmp_path, monkeypatch, at
):
    """Straight through, against stopped and resumed: the pictures are rendered again, and the
    losses are bit-identical. The ring (six pictures) has wrapped around at step 27."""
    small = replace(TAUGHT.teaching, cache_mb=6.5 * 48 * 48 * 4 / 1e6)
    method = replace(TAUGHT, teaching=small)
    given = options(tiny_capture, tmp_path / "a", teacher=teacher)
    straight = start(method, given)
    original = trainer_module.Trainer._step

    def stopping(self):
        metrics = original(self)
        if self.step == at:
            self.interrupted_by = "SIGTERM"
        return metrics

    monkeypatch.setattr(trainer_module.Trainer, "_step", stopping)
    with pytest.raises(trainer_module.Interrupted):
        start(method, replace(given, output_dir=tmp_path / "b"))
    monkeypatch.setattr(trainer_module.Trainer, "_step", original)
    stopped = next((tmp_path / "b").glob("*/splat/*"))
    resume(stopped)
    assert logged(stopped, "loss") == logged(straight, "loss")
    ends = [load_checkpoint(list_checkpoints(r / "checkpoints")[-1]) for r in (stopped, straight)]
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    for name, tensor in ends[0].tensors.items():
        # NaN: the time of a camera without one
        assert torch.equal(tensor.nan_to_num(), ends[1].tensors[name].nan_to_num()), name


def test_a_teacher_that_moved_is_named_again(tiny_capture, teacher, tmp_path):
    elsewhere = shutil.copytree(teacher, tmp_path / "teacher")
    run = start(replace(TAUGHT, steps=4), options(tiny_capture, tmp_path, teacher=elsewhere))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 4", "steps = 8"))
    moved = elsewhere.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="teacher was not found") as error:
        resume(run)
    assert f"scene4d train --resume {run} --teacher" in str(error.value)
    resume(run, teacher=moved)
    assert load_run(run).step == 8


# The default teacher


@dataclass(frozen=True, kw_only=True)
class PupilMethod(SplatMethod):
    """Splats that will not start without a teacher."""

    default_teacher: ClassVar[str | None] = "splat"
    default_teacher_share: ClassVar[float] = 0.25
    photometric: PhotometricOptions = field(default_factory=lambda: PhotometricOptions(weight=0.0))
    teaching: TeacherOptions = field(
        default_factory=lambda: TeacherOptions(crops=2, crop_size=16)
    )  # fmt: skip


def test_a_method_without_its_teacher_trains_one_first_and_keeps_it(tiny_capture, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="scene4d")
    pupil = PupilMethod(steps=8, num_random_points=100, sh_degree=1)
    run = start(pupil, options(tiny_capture, tmp_path))
    runs = sorted(tmp_path.glob("*/splat/*"))
    assert len(runs) == 2 and run in runs
    (taught,) = [load_run(r) for r in runs if r != run]
    student = load_run(run)
    assert taught.step == 2  # a quarter of the steps
    assert student.options.teacher.resolve() == taught.path
    assert student.cameras.test_names == taught.cameras.test_names
    assert "learns from a teacher and none is given" in caplog.text
    assert str(taught.path) in caplog.text
    # The run does not need a new one to go on.
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 8", "steps = 10"))
    resume(run)
    assert load_run(run).step == 10
    assert sorted(tmp_path.glob("*/splat/*")) == runs


def test_the_default_teacher_takes_its_share_of_the_minutes(tiny_capture, tmp_path):
    pupil = PupilMethod(num_random_points=50, sh_degree=0, max_num_gaussians=60)
    begun = time.monotonic()
    run = start(pupil, options(tiny_capture, tmp_path, max_minutes=0.06))
    assert time.monotonic() - begun > 3.6
    student = load_run(run)
    taught = load_run(student.options.teacher)
    assert student.options.max_minutes == pytest.approx(0.045)
    assert 0.9 <= taught.elapsed_s < 1.9  # one step and the last checkpoint may run over
    assert 2.7 <= student.elapsed_s < 3.7


def test_stopped_while_the_teacher_trains(tiny_capture, tmp_path, monkeypatch):
    original = trainer_module.Trainer._step

    def stopping(self):
        self.interrupted_by = "SIGINT"
        return original(self)

    monkeypatch.setattr(trainer_module.Trainer, "_step", stopping)
    with pytest.raises(trainer_module.Interrupted) as error:
        start(PupilMethod(steps=8, num_random_points=50), options(tiny_capture, tmp_path))
    (taught,) = tmp_path.glob("*/splat/*")
    assert f"--resume {taught} and then: scene4d train splat --teacher {taught}" in str(error.value)


def test_a_term_that_needs_a_teacher_says_so_where_there_is_none(tiny_capture, tmp_path):
    with pytest.raises(UsageError, match="there is none") as error:
        start(TAUGHT, options(tiny_capture, tmp_path))
    assert "--teacher" in str(error.value)
    assert not list(tmp_path.glob("**/config.toml"))


# Bad input


def far_away(capture, folder, offset):
    """The capture from elsewhere: the same photographs, cameras moved."""
    copy = shutil.copytree(capture, folder)
    document = json.loads((copy / "transforms.json").read_text())
    for frame in document["frames"]:
        for axis in range(3):
            frame["transform_matrix"][axis][3] += offset
    (copy / "transforms.json").write_text(json.dumps(document))
    return copy


def test_a_teacher_that_no_camera_sees_is_refused(tiny_capture, teacher, tmp_path):
    capture = far_away(tiny_capture, tmp_path / "capture", 500.0)
    with pytest.raises(DataError, match="none of the training cameras sees anything") as error:
        start(TAUGHT, options(capture, tmp_path / "out", teacher=teacher))
    assert str(teacher) in str(error.value)
    assert not list((tmp_path / "out").glob("**/config.toml"))


def test_a_teacher_of_another_scene_is_warned_of(tiny_capture, teacher, tmp_path, caplog):
    from PIL import Image

    capture = shutil.copytree(tiny_capture, tmp_path / "capture")
    for path in sorted((capture / "images").glob("*.png")):
        # Bright where the teacher's scene is dark, and opaque.
        Image.new("RGB", (48, 48), (255, 255, 255)).save(path)
    start(replace(TAUGHT, steps=1), options(capture, tmp_path / "out", teacher=teacher))
    assert "unlike the photographs" in caplog.text


def test_pictures_held_out_that_the_teacher_was_trained_on_are_named(
    tiny_capture, teacher, tmp_path, caplog
):
    given = options(tiny_capture, tmp_path, teacher=teacher)
    start(replace(TAUGHT, steps=1), given)
    assert "held out" not in caplog.text  # the same split
    start(replace(TAUGHT, steps=1), replace(given, test_every=5))
    # every fifth of 16 is 0, 5, 10, 15; the teacher held out 0 and 8
    assert "trained on 3 pictures that are held out here (images/005.png" in caplog.text


def test_pictures_of_the_same_name_elsewhere_are_others(tiny_capture, teacher, tmp_path):
    capture = far_away(tiny_capture, tmp_path / "capture", 0.5)
    scene, _ = train_module.load_capture(TrainOptions(data=capture, test_every=5))
    assert held_out_but_taught(load_teacher(teacher), scene) == []
    scene, _ = train_module.load_capture(TrainOptions(data=tiny_capture, test_every=5))
    assert len(held_out_but_taught(load_teacher(teacher), scene)) == 3


@pytest.mark.parametrize("missing", ["checkpoints", "scene.json"])
def test_an_incomplete_teacher_is_refused(tiny_capture, teacher, tmp_path, missing):
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    path = copy / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(DataError) as error:
        start(TAUGHT, options(tiny_capture, tmp_path / "out", teacher=copy))
    assert str(copy) in str(error.value)


@pytest.mark.parametrize("count", [1, 2])
def test_captures_with_few_cameras_still_learn(tiny_capture, teacher, tmp_path, count, caplog):
    capture = shutil.copytree(tiny_capture, tmp_path / "capture")
    document = json.loads((capture / "transforms.json").read_text())
    document["frames"] = document["frames"][1 : 1 + count]
    (capture / "transforms.json").write_text(json.dumps(document))
    run = start(
        replace(TAUGHT, steps=3), options(capture, tmp_path / "out", teacher=teacher, test_every=0)
    )
    assert load_run(run).step == 3
    assert ("nothing but turned views" in caplog.text) == (count == 1)


def test_a_budget_below_one_picture_is_refused(tiny_capture, teacher, tmp_path):
    method = replace(TAUGHT, teaching=replace(TAUGHT.teaching, cache_mb=0.001))
    with pytest.raises(UsageError, match="one picture takes 0.01 MB"):
        start(method, options(tiny_capture, tmp_path, teacher=teacher))


def test_the_trainer_asks_options_and_names_no_term():
    assert ObjectiveOptions.needs_teacher is False and TeacherOptions.needs_teacher is True
    assert Method.default_teacher is None
