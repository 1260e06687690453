"""Splats from a grid of frames: which cells tell what, and what pictures may disagree in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods.deformable.test_deformable import camera_at, compact
from moving_planes import CARD, WALL, Planes, planes
from optional_packages import import_or_skip
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.scene import Points, Scene, at_size_of
from scene4d.errors import DataError, UsageError
from scene4d.methods.deformable.carried import with_carried
from scene4d.methods.deformable.cells import cells_of
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.disagreement import Disagreement
from scene4d.methods.deformable.four_real import FourRealSplats, Stages
from scene4d.methods.deformable.four_real_method import DisagreementOptions, FourRealMethod
from scene4d.priors.prior import NOTHING, Prior, PriorInfo
from scene4d.representations.contract import check_representation
from scene4d.representations.task import Task, World
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.options import TrainOptions
from scene4d.training.step import Step
from scene4d.training.trainer import Trainer

import_or_skip("cv2")
VIEWS, FRAMES = 4, 6
PLACES = [(-0.9 + 0.6 * i, 0.1 * i) for i in range(VIEWS)]
"""Of the cameras of the freeze-time video; the reference video is that of the second."""
CARDS = [(-0.6 + 0.2 * i, 0.1) for i in range(FRAMES)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planes:
    """A column (frames 0 to 3, of the first moment) and a row (1 and 4 to 8) of a grid."""
    cameras = PLACES + [PLACES[1]] * (FRAMES - 1)
    cards = [CARDS[0]] * VIEWS + CARDS[1:]
    times = [0.0] * VIEWS + [0.1 * i for i in range(1, FRAMES)]
    found = planes(tmp_path_factory.mktemp("grid"), cameras, cards, times=times)
    ids = [*map(str, range(VIEWS)), *["1"] * (FRAMES - 1)]
    frames = [replace(f, camera_id=i) for f, i in zip(found.scene.frames, ids, strict=True)]
    return replace(found, scene=replace(found.scene, frames=frames, points=points()))


def points() -> Points:
    """Of the wall and, before it, of the card as it is at the first moment."""
    across, up = torch.meshgrid(torch.linspace(-4, 4, 41), torch.linspace(-3, 3, 31), indexing="xy")
    wall = torch.stack([across, up, torch.full_like(up, -WALL)], dim=-1).reshape(-1, 3)
    half = torch.linspace(-0.85, 0.85, 12)
    card = torch.stack([*torch.meshgrid(half, half, indexing="xy"), torch.zeros(12, 12)], dim=-1)
    card = card.reshape(-1, 3) + torch.tensor([*CARDS[0], -CARD])
    xyz = torch.cat([wall, card])
    return Points(xyz=xyz, rgb=torch.full((len(xyz), 3), 128, dtype=torch.uint8))


@pytest.fixture(scope="module")
def task(made: Planes) -> Task:
    images = ImageCache(made.scene)
    scene = at_size_of(made.scene, images)
    return Task(world=World.of(scene), capture=scene)


def small(**changes) -> FourRealMethod:
    settings = {"max_num_gaussians": 3000, "max_num_moving": 600, "num_nodes": 16, "own_cells": 4}
    return FourRealMethod(**{**settings, **changes})


def stages(**changes) -> Stages:
    told = {
        "shape": (0, 1, 2), "motion": (1, 3, 4), "own": (0, 2), "shape_until": 0.3,
        "motion_until": 0.5, "centre": (0.0, 0.0, 0.0), "half": 1.0, "own_lr": 1e-3,
    }  # fmt: skip
    return Stages(**{**told, **changes})


def splats(own: torch.Tensor | None = None) -> FourRealSplats:
    own = torch.zeros(2, 6, 3, 3, 3) if own is None else own
    return FourRealSplats._of(DeformableSplats.of(compact()), own, stages())


def test_columns_tell_the_shape_and_rows_the_motion(made: Planes) -> None:
    cells = cells_of(made.scene)
    assert cells.shape == (0, 1, 2, 3) and cells.motion == (1, 4, 5, 6, 7, 8)
    assert cells.own == (0, 2, 3)  # the video's own picture disagrees with nothing
    full = []
    for i, frame in enumerate(made.scene.frames):
        camera = replace(frame.camera, time=torch.tensor(0.1 * (i // 3)))
        full.append(replace(frame, camera_id=str(i % 3), camera=camera))
    whole = cells_of(replace(made.scene, frames=full))
    assert whole.shape == whole.motion == whole.own == tuple(range(9))
    alone = cells_of(replace(made.scene, train_indices=(1, 4, 5)))
    assert alone.shape == () and alone.motion == (1, 4, 5)


def test_shape_comes_first_then_motion_then_both() -> None:
    found = [stages().among(progress) for progress in (0.0, 0.29, 0.3, 0.49, 0.5, 1.0)]
    shape, motion = frozenset({0, 1, 2}), frozenset({1, 3, 4})
    assert found == [shape, shape, motion, motion, None, None]
    assert stages(shape=(), motion=(1,)).among(0.0) is None
    # videos are what they are, and keep the colours of the others from drifting
    assert stages().certain == {1, 3, 4} == splats().certain
    assert stages(shape=(), motion=(1,)).certain == frozenset()
    scene = splats()
    for progress, resting in ((0.1, False), (0.4, True), (0.6, False)):
        scene.on_progress(progress)
        assert scene.sampling.among == stages().among(progress)
        assert scene.shape_rests is resting and scene.own.requires_grad
        assert scene.static.means.requires_grad is not resting
    with pytest.raises(UsageError, match="shape until"):
        FourRealMethod(shape_until=0.6, motion_until=0.5)


def test_what_others_say_moves_is_carried_by_points(made: Planes, task: Task) -> None:
    images = task.images
    masks = {i: torch.from_numpy(card) for i, card in enumerate(made.cards)}
    empty = torch.zeros_like(masks[0])
    given = {i: empty if i in (0, 2, 3) else mask for i, mask in masks.items()}
    found = with_carried(task.scene, images, given)
    for index in (0, 2, 3):
        both = (found[index] & masks[index]).sum() / (found[index] | masks[index]).sum()
        # points of the card lie 4.6 pixels apart, its sides are 54 pixels long: a border of half
        # that and of the wall's points on all sides leaves two thirds
        assert both > 0.67, index
    assert torch.equal(found[4], masks[4])
    without = with_carried(replace(task.scene, points=None), images, given)
    assert not without[0].any()


def test_a_pictures_deformation_is_its_alone() -> None:
    own = torch.zeros(2, 6, 3, 3, 3)
    own[0, 0], own[1, 0] = -0.03, 0.07  # in scene extents, everywhere; 0.02 of it is of both
    scene = splats(own)
    camera = camera_at(0.9)
    plain, first, other, second = (
        s.render(camera).rgb for s in (scene, scene.as_in(0), scene.as_in(7), scene.as_in(2))
    )
    assert torch.equal(other, plain)
    assert float((first - plain).detach().abs().max()) > 0.05
    assert float((second - plain).detach().abs().max()) > 0.05
    moved = torch.eye(4)
    moved[0, 3] = -0.05 * scene.extent
    behind = replace(camera, c2w=moved @ camera.c2w)
    # the same but for float32 and, of harmonics, the direction, which is that to the camera
    torch.testing.assert_close(second, scene.render(behind).rgb, atol=2e-5, rtol=0)
    assert scene.picture is None  # and nothing of it stays
    moved_away = scene.as_in(2)
    for field in ("means", "quats"):  # what leaves the machine has none of it
        one, other = (getattr(s.splats(0.9), field) for s in (scene, moved_away))
        assert (one == other).all()


def test_a_turn_of_the_whole_is_that_of_all_gaussians() -> None:
    own = torch.zeros(2, 6, 2, 2, 2)
    own[:, 5] = torch.tensor([0.3, -0.3])[:, None, None, None]  # radians about z
    scene = splats(own)
    time = torch.tensor(0.9)
    drawn = scene.moving_ones.drawn_at(time)
    plain, turned = (s._tensors_at(time, drawn) for s in (scene, scene.as_in(0)))
    assert torch.equal(plain["means"], turned["means"])
    before, after = (functional.normalize(t["quats"], dim=-1) for t in (plain, turned))
    # q . (r q) is the cosine of half the angle of r, where both are unit quaternions
    cosine = (before * after).sum(-1)
    torch.testing.assert_close(cosine, torch.tensor(0.15).cos().expand_as(cosine))


def test_the_contract_holds_for_it_and_a_checkpoint_brings_it_back() -> None:
    scene = splats(0.01 * torch.randn(2, 6, 3, 3, 3, generator=torch.Generator().manual_seed(1)))
    scene.on_progress(0.9)
    check_representation(scene, camera_at(0.9, 64), distance=4.0, atol=0.02, pose_rtol=0.2)
    again = FourRealSplats.from_saved(scene.state_dict(), scene.plain_data())
    again.on_progress(0.9)
    camera = camera_at(0.9)
    assert torch.equal(again.as_in(2).render(camera).rgb, scene.as_in(2).render(camera).rgb)
    plain = dict(scene.plain_data())
    short = {**plain, "stages": {**plain["stages"], "own": [0]}}
    with pytest.raises(DataError, match="2 deformations of 1 pictures"):
        FourRealSplats.from_saved(scene.state_dict(), short)
    with pytest.raises(DataError, match="stages"):
        FourRealSplats.from_saved(scene.state_dict(), {k: v for k, v in plain.items()
                                                       if k != "stages"})  # fmt: skip


def test_disagreement_is_the_mean_of_what_the_steps_pictures_have(task: Task) -> None:
    own = torch.zeros(2, 6, 3, 3, 3)
    own[0], own[1] = 0.02, -0.02
    scene = splats(own)
    inputs = ObjectiveInputs(task=task, generator=torch.Generator(), device=torch.device("cpu"))
    term = Disagreement(DisagreementOptions(colour=0.5), inputs)
    adjustments = CameraAdjustments(9, FourRealMethod(), extent=1.0)
    assert adjustments.exposure is not None

    def loss(*indices: int) -> float:
        step = Step(
            number=0, progress=0.0, trainable=scene, background=torch.zeros(3),
            views=[task.images.view(i) for i in indices], adjustments=adjustments,
        )  # fmt: skip
        found = term(step).loss
        assert found is not None
        return float(found)

    assert loss(0) == pytest.approx(2.0) == loss(2) and loss(5) == 0.0
    assert loss(0, 5) == pytest.approx(1.0)
    with torch.no_grad():
        adjustments.exposure[5, 0, 3] += 0.24
    assert loss(5) == pytest.approx(1.0)  # half of 0.24 in one of twelve numbers, in hundredths


@pytest.fixture(scope="module")
def trained(task: Task, tmp_path_factory: pytest.TempPathFactory) -> FourRealSplats:
    """Twenty steps, whose last ones look at all pictures."""
    method = small(steps=20)
    generator = torch.Generator().manual_seed(0)
    trainer = Trainer(
        method=method, options=TrainOptions(device="cpu"), task=task,
        trainable=method.build(task, generator=generator), run=tmp_path_factory.mktemp("run"),
        device=torch.device("cpu"), generator=generator,
    )  # fmt: skip
    trainer.train()
    assert isinstance(trainer.trainable, FourRealSplats)
    return trainer.trainable


def test_a_training_seeds_by_the_column_and_deforms_it_alone(trained, task: Task) -> None:
    assert trained.stages.own == (0, 2, 3) and trained.own.shape == (3, 6, 4, 4, 4)
    assert all(float(own.abs().max()) > 0 for own in trained.own)
    assert trained.as_in(5) is trained
    assert trained.moving_ones.num_gaussians > 50
    assert tuple(small().seeding(task.scene)) == (0, 1, 2, 3)
    none = replace(task.scene, train_indices=(1, 4, 5))
    assert tuple(small().seeding(none)) == (1, 4, 5)


class Watches(Prior):
    """Notes the cameras of the videos that it is asked about, and likes them as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.info, self.flights = PriorInfo(frames=3, conditions=frozenset({"camera"})), []

    def denoise(self, x_t, alpha, sigma, condition=NOTHING):
        assert x_t.shape[:2] == (1, 3)
        self.flights.append(condition.camera)
        return x_t


def test_a_prior_of_videos_is_asked_about_the_holes_of_the_grid(task: Task, tmp_path) -> None:
    prior, method = Watches(), small(steps=6)
    guidance = replace(method.guidance, start=0.0, pictures=2, size=16, between=0.0, jitter=0.0)
    method = replace(method, guidance=guidance)
    asked = replace(task, prior=prior)
    generator = torch.Generator().manual_seed(0)
    trainer = Trainer(
        method=method, options=TrainOptions(device="cpu"), task=asked,
        trainable=method.build(asked, generator=generator), run=tmp_path,
        device=torch.device("cpu"), generator=generator,
    )  # fmt: skip
    trainer.train()
    frozen = [float(c.time.max() - c.time.min()) == 0 for c in prior.flights]
    assert len(frozen) == 12 and any(frozen) and not all(frozen)
    photographed = {(*map(float, f.camera.c2w[:2, 3]), round(float(f.camera.time), 3))
                    for f in task.scene.frames}  # fmt: skip
    shown = {(*map(float, c2w[:2, 3]), round(float(time), 3))
             for c in prior.flights for c2w, time in zip(c.c2w, c.time, strict=True)}  # fmt: skip
    assert len(shown - photographed) > len(shown) / 2


def test_weights_and_missing_poses_of_cells(tmp_path: Path) -> None:
    from PIL import Image

    frames = []
    for i in range(3):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{i}.png")
        pose = torch.eye(4)
        pose[0, 3] = i
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist(), "time": 0.0})
    frames[1]["weight"] = 0.25
    meta = {"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0}

    def written(changed: list) -> Scene:
        (tmp_path / "transforms.json").write_text(json.dumps({**meta, "frames": changed}))
        return read_scene(tmp_path)

    assert [f.weight for f in written(frames).frames] == [1.0, 0.25, 1.0]
    with pytest.raises(DataError, match="weight"):
        written([{**frames[0], "weight": -1.0}, *frames[1:]])
    del frames[2]["transform_matrix"]
    with pytest.raises(DataError, match="process-data"):
        written(frames)


def test_cameras_of_batches_are_drawn_without_any_pictures_own() -> None:
    own = torch.full((2, 6, 2, 2, 2), 0.05)
    scene = splats(own)
    cameras = Camera.stack([camera_at(0.3), camera_at(0.9)])
    step = Step(number=0, progress=0.0, trainable=scene, background=torch.zeros(3))
    batch = step.render(cameras, picture=torch.tensor([0, 2]))
    torch.testing.assert_close(batch.rgb, scene.render(cameras).rgb)
