"""Captures without depth: what stands still, where it is, and how far away what moves is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_planes import HEIGHT, WALL, WIDTH, Planes, planes
from optional_packages import import_or_skip

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.data.images import ImageCache
from scene4d.data.scene import Frame, Scene, at_size_of
from scene4d.data.tracks import chain_tracks
from scene4d.data.triangulated import triangulated
from scene4d.methods.deformable.depths import depths_of
from scene4d.methods.deformable.hull import hull_depths
from scene4d.methods.deformable.method import DeformableMethod
from scene4d.methods.deformable.observed import observed
from scene4d.methods.deformable.still import Sighted, told_by_tracks
from scene4d.representations.task import Task, World

import_or_skip("cv2")
FRAMES = 10
TURNING = 0.9
"""rad between the cameras that look at the ball."""
RADIUS, AWAY = 1.0, 6.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planes:
    """A camera that moves to the left past a card that rises."""
    cameras = [(0.4 - 0.08 * i, 0.0) for i in range(FRAMES)]
    cards = [(0.1, -0.4 + 0.08 * i) for i in range(FRAMES)]
    return planes(tmp_path_factory.mktemp("planes"), cameras, cards)


@pytest.fixture(scope="module")
def scene(made: Planes) -> Scene:
    return at_size_of(made.scene, ImageCache(made.scene))


def on_card(made: Planes, xy: torch.Tensor, frame: int) -> torch.Tensor:
    x, y = xy.long().unbind(-1)
    return torch.from_numpy(made.cards[frame])[y.clamp(0, HEIGHT - 1), x.clamp(0, WIDTH - 1)]


def test_tracks_of_what_stands_still_are_points(made: Planes, scene: Scene) -> None:
    tracks = chain_tracks(scene, scene.pictures)[0]
    found = triangulated(tracks, scene.pictures)
    whole = tracks.visible.all(1)
    card = on_card(made, tracks.xy[:, 0], 0)
    still, moving = whole & ~card, whole & card
    assert int(still.sum()) > 200 and int(moving.sum()) > 10
    # the wall goes by 10.8 px; flow that is 0.4 px off after nine steps is 0.3 off in depth
    assert float((found.places[still][:, 2] + WALL).abs().median()) < 0.3
    assert float(found.angle[still].median()) == pytest.approx(0.72 / WALL, rel=0.2)
    # the card rises by 2.4 px a frame, which no point that stands still explains: the root mean
    # square of ten such steps about their mean
    assert float(found.off[still].median()) < 0.3
    assert float(found.off[moving].median()) == pytest.approx(2.4 * math.sqrt(99 / 12), rel=0.1)


def test_what_tracks_explain_is_taken_out_of_the_masks(made: Planes, scene: Scene) -> None:
    everything = {i: torch.ones(HEIGHT, WIDTH, dtype=torch.bool) for i in range(FRAMES)}
    told = told_by_tracks(scene.pictures, chain_tracks(scene, scene.pictures), everything)
    both = either = 0
    for i, mask in told.masks.items():
        truth = torch.from_numpy(made.cards[i])
        both += int((mask & truth).sum())
        either += int((mask | truth).sum())
    # flow slips along the card's edges, and the picture's borders have no tracks
    assert both / either > 0.6
    assert told.points is not None
    assert float((told.points.xyz[:, 2] + WALL).abs().quantile(0.9)) < 0.5


def test_a_camera_that_stands_still_tells_nothing(tmp_path: Path) -> None:
    still = planes(tmp_path, [(0.0, 0.0)] * 4, [(0.1 * i, 0.0) for i in range(4)])
    everything = {i: torch.ones(HEIGHT, WIDTH, dtype=torch.bool) for i in range(4)}
    images = ImageCache(still.scene)
    told = told_by_tracks(images, chain_tracks(still.scene, images), everything)
    assert told.points is None
    assert all(bool(mask.all()) for mask in told.masks.values())


def test_what_moves_starts_where_it_is_seen_before(scene: Scene) -> None:
    seen = observed(scene, scene.pictures)
    depth = torch.cat([seen.depths[i][seen.masks[i]] for i in range(FRAMES)])
    # of the wall beside the card: without depth nothing says how far before the wall it is; a
    # quarter of the points around is nearer than the guess, of those that flow put too near
    assert float((depth - WALL).abs().quantile(0.9)) < 1.0
    task = Task(world=World.of(scene), capture=scene)
    method = DeformableMethod(max_num_gaussians=4000, max_num_moving=1000, num_random_points=10)
    splats = method.build(task, generator=torch.Generator().manual_seed(0))
    few = replace(method, max_num_gaussians=300, max_num_moving=50_000)
    assert few.build(task, generator=torch.Generator()).static.num_gaussians == 150
    z = splats.static.means.detach()[:, 2]
    assert splats.static.num_gaussians > 500
    assert float(((z + WALL).abs() < 0.5).float().mean()) > 0.8


@pytest.fixture
def ball(tmp_path: Path) -> tuple[Scene, dict[int, torch.Tensor]]:
    """Three cameras around a ball at the origin, two moments each; and where they see it."""
    frames, masks = [], {}
    for side in range(3):
        angle = TURNING * (side - 1)
        c, s = math.cos(angle), math.sin(angle)
        c2w = torch.eye(4)
        c2w[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        c2w[:3, 3] = AWAY * c2w[:3, 2]
        K = torch.tensor([[60.0, 0, 32], [0, 60.0, 32], [0, 0, 1]])
        for k in range(2):
            camera = Camera(c2w=c2w, K=K, width=64, height=64, time=torch.tensor(0.1 * k))
            rays = camera_rays(camera)
            along = -(rays.origins * rays.directions).sum(-1, keepdim=True)
            masks[len(frames)] = (rays.origins + along * rays.directions).norm(dim=-1) < RADIUS
            name = f"cam{side}_{k}.png"
            frames.append(
                Frame(name=name, camera=camera, image_path=tmp_path / name, camera_id=f"{side}")
            )
    scene = Scene(
        root=tmp_path, dataparser="nerfstudio", frames=frames, train_indices=range(6),
        test_indices=(), split_rule="none",
    )  # fmt: skip
    return scene, masks


def test_cameras_that_run_together_tell_how_far_what_moves_is(
    ball: tuple[Scene, dict[int, torch.Tensor]],
) -> None:
    scene, masks = ball
    for index, depth in hull_depths(scene, masks).items():
        assert bool((depth[~masks[index]] == 0).all())
        # the stretch of the hull is at most 2 / sin(0.9) long, from 0.28 before the ball on: a
        # quarter of it is 0.36 behind its surface, and 0.64 where it begins at the ball; samples
        # are 0.2 apart
        middle = depth[28:36, 28:36]
        assert float((middle - (AWAY - RADIUS)).abs().max()) < 0.85 * RADIUS


def test_where_other_cameras_do_not_tell_depth_is_that_of_the_pixels_beside(
    ball: tuple[Scene, dict[int, torch.Tensor]],
) -> None:
    scene, masks = ball
    assert not bool(masks[0][14:18, 30:34].any())
    masks[0][14:18, 30:34] = True  # above the ball, where no other camera sees anything
    assert bool((hull_depths(scene, masks)[0][14:18, 30:34] == 0).all())
    depths = depths_of(scene, ImageCache(scene, indices=[]), masks)
    # that of the ball's edge, where hulls are longer than it
    assert float((depths[0][14:18, 30:34] - AWAY).abs().max()) < RADIUS


def test_other_moments_tell_nothing(ball: tuple[Scene, dict[int, torch.Tensor]]) -> None:
    scene, masks = ball
    frames = [
        replace(f, camera=replace(f.camera, time=f.camera.time + float(f.camera_id or 0)))
        for f in scene.frames
    ]
    assert hull_depths(replace(scene, frames=frames), masks) == {}


def test_a_thing_that_moves_is_as_far_as_the_floor_that_it_stands_on(tmp_path: Path) -> None:
    """A camera one unit above a floor, a wall 10 away, and a mask that stands 4 away."""
    K = torch.tensor([[100.0, 0, 50], [0, 100.0, 50], [0, 0, 1]])
    camera = Camera(c2w=torch.eye(4), K=K, width=100, height=100, time=torch.tensor(0.0))
    frame = Frame(name="a.png", camera=camera, image_path=tmp_path / "a.png")
    scene = Scene(
        root=tmp_path, dataparser="nerfstudio", frames=[frame], train_indices=[0],
        test_indices=(), split_rule="none",
    )  # fmt: skip
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[35:75, 40:60] = True  # down to where the floor is 4 away: row 50 + 100 / 4
    y, x = (~mask).nonzero(as_tuple=True)
    xy = torch.stack([x, y], -1) + 0.5
    below = xy[:, 1] - 50
    z = torch.where(below > 10, 100 / below.clamp_min(1), 10.0)
    local = torch.stack([(xy[:, 0] - 50) / 100, -below / 100, -torch.ones(len(xy))], -1)
    sighted = {0: Sighted(xy=xy, xyz=local * z[:, None])}
    depth = depths_of(scene, ImageCache(scene, indices=[]), {0: mask}, sighted)[0]
    assert bool((depth[~mask] == 0).all())
    # the floor beside it is looked at for 7 pixels, up to 3.1 away
    assert float(depth[mask].min()) > 3.1 and float(depth[mask].max()) < 4.1
