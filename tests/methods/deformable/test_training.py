"""Deformable splats in training: what they start from, each term of the loss, and a whole one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_planes import CARD, FOCAL, HEIGHT, WALL, WIDTH, Planes, planes
from optional_packages import import_or_skip
from torch.nn.functional import max_pool2d

from scene4d.data.fusion import fuse_depth
from scene4d.data.images import ImageCache
from scene4d.data.scene import Scene, at_size_of
from scene4d.errors import DataError
from scene4d.methods.deformable.along_ray import AlongRay
from scene4d.methods.deformable.apart import Apart
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.flow import FlowTerm
from scene4d.methods.deformable.lifted import lift
from scene4d.methods.deformable.masks import refined_masks
from scene4d.methods.deformable.method import (
    AlongRayOptions,
    ApartOptions,
    DeformableMethod,
    FlowOptions,
    TrackOptions,
)
from scene4d.methods.deformable.observed import observed
from scene4d.methods.deformable.tracks import TrackTerm
from scene4d.methods.splat.method import McmcOptions
from scene4d.representations.task import Task, World
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.options import TrainOptions
from scene4d.training.step import Step
from scene4d.training.trainer import Trainer

import_or_skip("cv2")
FRAMES = 10
CARDS = [(-0.7 + 0.15 * i, 0.2 - 0.02 * i) for i in range(FRAMES)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planes:
    """A camera that moves to the left past a card that moves to the right, with depth."""
    cameras = [(0.3 - 0.06 * i, 0.05 * i) for i in range(FRAMES)]
    return planes(tmp_path_factory.mktemp("planes"), cameras, CARDS, depth=True)


@pytest.fixture(scope="module")
def task(made: Planes) -> Task:
    """Of these pictures."""
    images = ImageCache(made.scene)
    scene = at_size_of(made.scene, images)
    scene = replace(scene, points=fuse_depth(scene, images, max_points=4000))
    return Task(world=World.of(scene), capture=scene)


def small(**changes) -> DeformableMethod:
    settings = {"max_num_gaussians": 4000, "max_num_moving": 1000, "num_nodes": 24, "steps": 60}
    return DeformableMethod(**{**settings, **changes})


@pytest.fixture(scope="module")
def started(task: Task) -> DeformableSplats:
    return small().build(task, generator=torch.Generator().manual_seed(0))


def test_what_moves_starts_on_the_card_and_goes_with_it(started: DeformableSplats) -> None:
    moving = started.moving_ones
    assert 100 < moving.num_gaussians <= 1000 and 4 <= len(started.nodes) <= 24
    for at in (0, 5, 9):
        means = started.moving().at(0.1 * at).means[: moving.num_gaussians]
        off = np.abs(means[:, :2] - np.array(CARDS[at]))
        # 0.9 from the card's centre to its edges; masks are grown by a pixel or two, and flow by
        # the edges is the wall's here and there
        assert np.quantile(off.max(axis=1), 0.8) < 1.0
        assert np.quantile(np.abs(means[:, 2] + CARD), 0.7) < 0.1
    still = started.static.means.detach()
    on_card = (still[:, 2] + CARD).abs() < 0.5
    assert float(on_card.float().mean()) < 0.05  # they were left out of what stands still


def test_depth_tells_what_stands_still_inside_of_the_masks(task: Task, made: Planes) -> None:
    scene = task.scene
    truth = {i: torch.from_numpy(card) for i, card in enumerate(made.cards)}
    grown = {i: max_pool2d(c[None].float(), 21, 1, 10)[0] > 0 for i, c in truth.items()}
    depths = {i: torch.where(c, CARD, WALL) for i, c in truth.items()}
    assert _agreement(grown, truth) < 0.6
    tracks = lift(observed(scene, task.images).tracks, task.images, depths, grown)
    # the middle of its way is never empty, so there tracks have to tell, whose edges are not sure
    assert _agreement(refined_masks(scene, task.images, grown, depths, tracks), truth) > 0.8


def _agreement(masks: dict[int, torch.Tensor], truth: dict[int, torch.Tensor]) -> float:
    """Intersection over union of all frames."""
    both = sum(int((masks[i] & truth[i]).sum()) for i in truth)
    return both / sum(int((masks[i] | truth[i]).sum()) for i in truth)


def test_pictures_do_not_lead_nodes_that_have_not_settled(task: Task) -> None:
    splats = small().build(task, generator=torch.Generator().manual_seed(0))
    camera = task.scene.frames[4].camera
    splats.render(camera).rgb.sum().backward()
    assert splats.nodes.places.grad is None
    assert float(splats.moving_ones.gaussians["sh0"].grad.abs().sum()) > 0
    splats.settle()
    splats.render(camera).rgb.square().sum().backward()
    assert float(splats.nodes.places.grad.abs().sum()) > 0


def test_what_moves_is_there_about_when_it_was_seen(started: DeformableSplats) -> None:
    moving = started.moving_ones
    rise, fall = moving.gaussians["window_edges"].detach().unbind(dim=1)
    seen = 0.5 * (rise + fall)
    assert float((fall - rise).max()) == pytest.approx(12 * 0.1)  # six frames to each side
    for k in (0, -1):
        times = [seen[k] + 0.1 * frames for frames in (0, 6, -6, 12)]
        with torch.no_grad():
            share = [float(moving.alphas_at(t)[k] / moving.alphas[k]) for t in times]
        edge = 1 / (1 + np.exp(-12.0))  # the other edge is twelve widths away
        assert share[0] == pytest.approx((1 / (1 + np.exp(-6.0))) ** 2, rel=1e-3)
        assert share[1] == share[2] == pytest.approx(0.5 * edge, rel=1e-3)
        assert share[3] < 0.003  # six widths after the edge


def test_nothing_depends_on_the_unit_of_time(task: Task, started: DeformableSplats) -> None:
    """A motion that takes a minute in place of a second starts the same, and learns as fast."""
    scene = task.scene
    frames = [replace(f, camera=replace(f.camera, time=60 * f.camera.time)) for f in scene.frames]
    later = replace(scene, frames=frames)
    later = replace(later, pictures=ImageCache(later))
    slow = small().build(replace(task, capture=later), generator=torch.Generator().manual_seed(0))
    rates = [{g.name: g.learning_rate for g in s.parameter_groups()} for s in (started, slow)]
    assert rates[1].pop("moving.window_edges") == pytest.approx(
        60 * rates[0].pop("moving.window_edges")
    )
    assert rates[0] == pytest.approx(rates[1])
    camera = scene.frames[4].camera
    renders = [
        s.render(replace(camera, time=unit * camera.time)).rgb.detach()
        for s, unit in ((started, 1.0), (slow, 60.0))
    ]
    # float32 times of some seconds, in splines and windows
    torch.testing.assert_close(renders[0], renders[1], atol=2e-3, rtol=0)


def test_captures_in_which_nothing_can_move_are_refused(task: Task) -> None:
    scene = task.scene
    for time, told in ((None, "have no time"), (torch.tensor(2.0), "all of one time")):
        frames = [replace(f, camera=replace(f.camera, time=time)) for f in scene.frames]
        wrong = replace(task, capture=replace(scene, frames=frames))
        with pytest.raises(DataError, match=told):
            small().build(wrong, generator=torch.Generator())


def test_of_a_still_world_nothing_moves(tmp_path: Path, caplog) -> None:
    cameras = [(0.1 * i, 0.0) for i in range(4)]
    made = planes(tmp_path, cameras, [(0.0, 0.0)] * 4, depth=True)
    scene = at_size_of(made.scene, ImageCache(made.scene))
    splats = small(num_random_points=500).build(
        Task(world=World.of(scene), capture=scene), generator=torch.Generator().manual_seed(0)
    )
    assert splats.moving_ones.num_gaussians == 0
    assert "nothing was found to move" in caplog.text
    camera = scene.frames[0].camera
    assert bool(splats.render(camera).alpha.max() > 0)


def a_step(task: Task, splats: DeformableSplats, index: int = 4) -> Step:
    view = task.images.view(index)
    return Step(number=0, progress=0.5, trainable=splats, background=torch.zeros(3), views=[view])


def inputs_of(task: Task) -> ObjectiveInputs:
    generator = torch.Generator().manual_seed(3)
    return ObjectiveInputs(task=task, generator=generator, device=torch.device("cpu"))


def test_the_term_of_tracks_is_small_where_motion_is_right(
    task: Task, started: DeformableSplats
) -> None:
    def error(splats: DeformableSplats) -> torch.Tensor:
        term = TrackTerm(TrackOptions(every=1), inputs_of(task))(a_step(task, splats))
        assert term.loss is not None
        return term.loss

    right = error(started)
    moving = started.moving()
    knots = moving.knots.copy()
    knots[..., :4], knots[..., 4:] = (1, 0, 0, 0), 0.0
    stopped = DeformableSplats.of(replace(moving, knots=knots), extent=started.extent)
    wrong = error(stopped)
    # the card crosses 0.15 / 4 * 120 = 4.5 pixels a frame; tracks end within a pixel
    assert float(right.detach()) < 1.0 < float(wrong.detach())
    wrong.backward()
    assert float(stopped.nodes.places.grad.abs().sum()) > 0


def test_the_term_of_flow_is_small_where_motion_is_right(
    task: Task, started: DeformableSplats
) -> None:
    def error(splats: DeformableSplats) -> torch.Tensor:
        term = FlowTerm(FlowOptions(every=1, weight=1.0), inputs_of(task))(a_step(task, splats))
        assert term.loss is not None
        return term.loss

    moving = started.moving()
    knots = moving.knots.copy()
    knots[..., :4], knots[..., 4:] = (1, 0, 0, 0), 0.0
    stopped = DeformableSplats.of(replace(moving, knots=knots), extent=started.extent)
    right, wrong = error(started), error(stopped)
    # the card crosses 4.5 pixels a frame, 2.8 hundredths of the picture's diagonal of 160, and the
    # wall beside it, which is in the grown masks, stands still
    assert float(right.detach()) < 0.5 * float(wrong.detach())
    assert 0.5 < float(wrong.detach()) < 2.9
    wrong.backward()
    assert float(stopped.nodes.places.grad.abs().sum()) > 0


def test_only_what_moves_outside_of_the_masks_is_drawn_down(
    task: Task, started: DeformableSplats
) -> None:
    """A Gaussian over the wall loses opacity, one on the card and all that stand still do not."""
    moving = started.moving()
    cloud = moving.cloud
    means = cloud.means.copy()
    means[0] = (-1.6, 0.9, -CARD)  # far up to the left, where the card never is
    spilt = DeformableSplats.of(replace(moving, cloud=replace(cloud, means=means)))
    options = ApartOptions(every=1, static=0.0, ghost=0.0)
    term = Apart(options, inputs_of(task))(a_step(task, spilt))
    assert term.loss is not None
    term.loss.backward()
    pulled = spilt.moving_ones.gaussians["opacities"].grad
    assert float(pulled[0]) > 0
    # those by the card's edges reach over them, and over the border of the masks
    assert float(pulled[0]) > 2 * float(pulled[1:].quantile(0.9))
    # what stands still may only come before what moves: its opacity is never drawn down
    assert float(spilt.static.gaussians["opacities"].grad.max()) <= 1e-9
    later = Apart(ApartOptions(every=4), inputs_of(task))(replace(a_step(task, spilt), number=3))
    assert later.loss is not None and float(later.loss) == 0.0


def test_what_stands_still_is_drawn_down_where_depth_tells_that_something_moves(
    task: Task, started: DeformableSplats
) -> None:
    """A static Gaussian on the card loses opacity; none of the wall beside it does."""
    moving = started.moving()
    means = moving.cloud.means.copy()
    x, y = CARDS[4]
    means[-1] = (x, y, -CARD + 0.2)  # before the middle of the card at the time of that step
    ghostly = DeformableSplats.of(replace(moving, cloud=replace(moving.cloud, means=means)))
    options = ApartOptions(every=1, static=0.0, spill=0.0, ghost=1.0)
    term = Apart(options, inputs_of(task))(a_step(task, ghostly))
    assert term.loss is not None
    term.loss.backward()
    pulled = ghostly.static.gaussians["opacities"].grad
    assert float(pulled[-1]) > 0
    assert float(pulled[-1]) > 2 * float(pulled[:-1].quantile(0.99))


def test_velocity_is_measured_along_the_ray(task: Task, started: DeformableSplats) -> None:
    def error(direction: list[float]) -> float:
        moving = started.moving()
        knots = moving.knots.copy()
        knots[..., :4] = (1, 0, 0, 0)
        steps = np.arange(knots.shape[1], dtype=np.float32)[None, :, None]
        knots[..., 4:] = 0.2 * steps * np.float32(direction)
        splats = DeformableSplats.of(replace(moving, knots=knots), extent=started.extent)
        # nodes of plain arrays lie at the origin: the camera is 4 before it, looking along -z
        step = a_step(task, splats)
        pose = step.views[0].camera.c2w.clone()
        pose[:3, 3] = torch.tensor([0.0, 0.0, 4.0])
        view = replace(step.views[0], camera=step.views[0].camera.with_pose(pose))
        term = AlongRay(AlongRayOptions(), inputs_of(task))(replace(step, views=[view]))
        assert term.loss is not None
        return float(term.loss)

    assert error([0.0, 0.0, 1.0]) > 20 * error([1.0, 0.0, 0.0])
    without = without_depth(task.scene)
    assert AlongRay.applies_to(inputs_of(replace(task, capture=without)))
    assert not AlongRay.applies_to(inputs_of(task))


def without_depth(scene: Scene) -> Scene:
    return replace(scene, frames=[replace(frame, depth_path=None) for frame in scene.frames])


@pytest.fixture(scope="module")
def trained(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    growth = replace(
        small().growth,
        moving=McmcOptions(noise=0.0, refine_every=5, min_opacity=0.05),
        static=McmcOptions(refine_every=10),
    )
    method = small(coarsest_downscale=1, growth=growth)
    generator = torch.Generator().manual_seed(0)
    trainer = Trainer(
        method=method,
        options=TrainOptions(data=task.scene.root, checkpoint_every_s=1e6),
        task=task,
        trainable=method.build(task, generator=generator),
        run=tmp_path_factory.mktemp("run"),
        device=torch.device("cpu"),
        generator=generator,
        announce=False,
    )
    trainer.train()
    return trainer


@pytest.mark.unchecked_shapes
def test_a_training_settles_its_nodes_grows_and_can_be_resumed(
    task: Task, trained: Trainer, started: DeformableSplats
) -> None:
    splats = trained.trainable
    assert isinstance(splats, DeformableSplats)
    moving = splats.moving_ones
    assert len(moving.seen_times) == 0
    assert moving.num_gaussians == moving.max_num_gaussians == 1000
    assert moving.node_indices.shape == (1000, 4)
    tensors, plain = splats.state_dict(), splats.plain_data()
    again = DeformableSplats.from_saved(tensors, plain)
    camera = task.scene.frames[3].camera
    assert torch.equal(again.render(camera).rgb, splats.render(camera).rgb)
    groups = [[(g.name, g.learning_rate) for g in s.parameter_groups()] for s in (again, splats)]
    assert groups[0] == groups[1]
    trained.strategy.load_state_tensors(trained.strategy.state_tensors())


@pytest.mark.unchecked_shapes
def test_after_training_the_card_is_seen_where_it_is(task: Task, trained: Trainer) -> None:
    errors = []
    for index in (1, 4, 8):
        view = task.images.view(index)
        with torch.no_grad():
            drawn = trained.trainable.render(view.camera).rgb
        x = int(WIDTH / 2 + FOCAL * (CARDS[index][0] - float(view.camera.position[0])) / CARD)
        y = int(HEIGHT / 2 - FOCAL * (CARDS[index][1] - float(view.camera.position[1])) / CARD)
        card = (slice(max(0, y - 20), y + 20), slice(max(0, x - 20), x + 20))
        errors.append(float((drawn[card] - view.rgb[card]).square().mean()))
    psnr = -10 * np.log10(np.mean(errors))
    assert psnr > 17.0, errors
