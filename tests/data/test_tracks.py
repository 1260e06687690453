"""Tracks and moving masks, on planes whose flow is known."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_planes import CARD, FOCAL, HEIGHT, WALL, WIDTH, planes
from optional_packages import import_or_skip
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.moving import known_moving_masks
from scene4d.data.tracks import TrackOptions, chain_tracks, moving_masks
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError

needs_cv2 = pytest.fixture(autouse=True)(lambda: import_or_skip("cv2"))

STILL = [(0.0, 0.0)] * 6
SLIDING = [(0.08 * i, 0.0) for i in range(6)]
"""By 0.08 units a frame: 1.2 px at the wall, 2.4 at the card."""
RISING = [(0.2, -0.2 + 0.08 * i) for i in range(6)]


def test_tracks_follow_each_plane_exactly(tmp_path):
    made = planes(tmp_path, SLIDING, [(0.2, 0.1)] * 6)
    tracks = chain_tracks(made.scene, ImageCache(made.scene))
    assert len(tracks) == 1 and tracks[0].frames == tuple(range(6))
    xy, visible = tracks[0].xy.numpy(), tracks[0].visible.numpy()
    whole = visible.all(1)
    assert whole.sum() > 300
    moved = xy[whole, 5] - xy[whole, 0]
    row, column = (xy[whole, 0, ::-1]).astype(int).T
    depth = np.where(made.cards[0][row, column], CARD, WALL)
    expected = np.stack([-FOCAL * 0.4 / depth, 0 * depth], -1)
    error = np.linalg.norm(moved - expected, axis=-1)
    # Five steps of flow that is right to 0.05 px; a few straddle the card's edge.
    assert np.median(error) < 0.15 and np.quantile(error, 0.9) < 1.0
    assert (np.abs(np.diff(visible.astype(int), axis=1)).sum(1) <= 2).all()
    assert (xy[~visible] == 0).all()


def test_tracks_end_where_hidden_and_begin_where_uncovered(tmp_path):
    cards = [(-0.6 + 0.24 * i, 0.0) for i in range(6)]
    made = planes(tmp_path, STILL, cards)
    options = TrackOptions(spacing=4.0, min_frames=2)
    tracks = chain_tracks(made.scene, ImageCache(made.scene), options=options)[0]
    at_start = tracks.xy[:, 0][tracks.visible[:, 0]].numpy()
    row, column = at_start[:, ::-1].astype(int).T
    covered = made.cards[5] & ~made.cards[0]
    hidden = covered[row, column]
    alive = tracks.visible[tracks.visible[:, 0]][:, 5].numpy()
    assert hidden.sum() > 20
    assert alive[hidden].mean() < 0.1 and alive[~hidden].mean() > 0.8
    begun = tracks.visible[:, 5] & ~tracks.visible[:, 0]
    row, column = tracks.xy[begun, 5].numpy()[:, ::-1].astype(int).T
    uncovered = made.cards[0] & ~made.cards[5]
    cells = HEIGHT * WIDTH / 16
    assert uncovered[row, column].sum() > 0.5 * uncovered.mean() * cells


def test_test_pictures_and_masked_pixels_are_not_followed(tmp_path):
    made = planes(tmp_path, STILL, STILL)
    masked = np.full((HEIGHT, WIDTH), 255, np.uint8)
    masked[:, :40] = 0
    from PIL import Image

    Image.fromarray(masked).save(tmp_path / "mask.png")
    frames = [replace(f, mask_path=tmp_path / "mask.png") for f in made.scene.frames]
    scene = replace(made.scene, frames=frames, train_indices=(0, 2, 4), test_indices=(1, 3, 5))
    tracks = chain_tracks(scene, ImageCache(scene))[0]
    assert tracks.frames == (0, 2, 4)
    assert float(tracks.xy[..., 0][tracks.visible].min()) >= 39.5


def test_a_camera_has_its_own_tracks(tmp_path):
    times = [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    names = [f"images/{side}_{i}.png" for i in range(3) for side in ("left", "right")]
    made = planes(tmp_path, STILL, STILL, names=names, times=times)
    tracks = chain_tracks(made.scene, ImageCache(made.scene))
    assert [t.frames for t in tracks] == [(0, 2, 4), (1, 3, 5)]


def test_without_time_nothing_is_followed(tmp_path):
    made = planes(tmp_path, STILL, STILL)
    frames = [replace(f, camera=replace(f.camera, time=None)) for f in made.scene.frames]
    scene = replace(made.scene, frames=frames)
    with pytest.raises(DataError, match=r"no frame has a time.*\n.*'time'"):
        chain_tracks(scene, ImageCache(scene))
    assert moving_masks(scene, ImageCache(scene)) == {}


@pytest.mark.parametrize(("cameras", "depth"), [(STILL, False), (SLIDING, False), (SLIDING, True)])
def test_what_moves_is_masked(tmp_path, cameras, depth):
    """Across the epipolar lines, of a camera that moves; in any way, of one that stands still."""
    made = planes(tmp_path, cameras, RISING, depth=depth)
    masks = moving_masks(made.scene, ImageCache(made.scene))
    both = either = 0
    for index, mask in masks.items():
        truth = torch.from_numpy(made.cards[index])
        assert bool(mask[truth].float().mean() > 0.9)
        both += int((mask & truth).sum())
        either += int((mask | truth).sum())
    # The rim of the mask is a few pixels wide, of a card of 54 (it is grown).
    assert both / either > 0.7


def test_masks_that_a_capture_brings_are_taken_before_those_of_flow(tmp_path, monkeypatch):
    made = planes(tmp_path, SLIDING, RISING)
    stated = np.zeros((HEIGHT, WIDTH), dtype=bool)
    stated[:10] = True
    Image.fromarray(stated).save(tmp_path / "moves.png")
    frames = [replace(f, moving_path=tmp_path / "moves.png") for f in made.scene.frames]
    some = replace(made.scene, frames=[*made.scene.frames[:-1], frames[-1]])
    by_flow = moving_masks(some, ImageCache(some))
    masks = known_moving_masks(some, ImageCache(some))
    assert sorted(masks) == list(range(6))
    assert np.array_equal(masks[5].numpy(), stated)
    assert all(torch.equal(masks[i], by_flow[i]) for i in range(5))
    # as large as the views are; and where all are there, no flow is taken, so no OpenCV needed
    monkeypatch.setitem(sys.modules, "cv2", None)
    every = replace(made.scene, frames=frames)
    small = known_moving_masks(every, ImageCache(every, downscale_factor=2), indices=[1, 3])
    assert sorted(small) == [1, 3]
    assert np.array_equal(small[3].numpy(), stated[::2, ::2])


def test_motion_along_the_epipolar_lines_shows_when_it_is_uneven_or_depth_is_known(tmp_path):
    steps = np.cumsum([0.0, 0.2, -0.2, 0.2, -0.2, 0.2])
    cards = [(x, 0.0) for x in steps]
    for depth in (False, True):
        made = planes(tmp_path / str(depth), SLIDING, cards, depth=depth)
        masks = moving_masks(made.scene, ImageCache(made.scene))
        found = [float(masks[i][torch.from_numpy(made.cards[i])].float().mean()) for i in masks]
        assert min(found[1:-1]) > 0.85


@pytest.mark.parametrize("cameras", [STILL, SLIDING, [(0.05 * i, 0.04 * i) for i in range(6)]])
def test_a_static_scene_has_empty_masks(tmp_path, cameras):
    made = planes(tmp_path, cameras, [(0.1, 0.0)] * 6)
    masks = moving_masks(made.scene, ImageCache(made.scene))
    assert len(masks) == 6
    assert float(np.mean([float(m.float().mean()) for m in masks.values()])) < 0.01


def test_one_picture_of_a_camera_has_an_empty_mask(tmp_path):
    made = planes(tmp_path, STILL[:1], STILL[:1])
    masks = moving_masks(made.scene, ImageCache(made.scene))
    assert not masks[0].any() and masks[0].shape == (HEIGHT, WIDTH)
    assert chain_tracks(made.scene, ImageCache(made.scene)) == []


@pytest.mark.parametrize(
    ("names", "times", "expected"),
    [
        # Of one camera, named by what counts up.
        (["f_1.png", "f_2.png", "f_10.png"], [0.0, 0.1, 0.2], [[0, 1, 2]]),
        (["1305.1.png", "1305.25.png", "1306.0.png"], [0.0, 0.1, 0.2], [[0, 1, 2]]),
        # The order is time's, not the names'.
        (["a_2.png", "a_1.png", "a_3.png"], [0.0, 0.1, 0.2], [[0, 1, 2]]),
        # Two cameras, whose stamps are 3 ms apart.
        (["c1_0.png", "c2_0.png", "c1_1.png", "c2_1.png", "c1_2.png", "c2_2.png"],
         [0.0, 0.003, 0.1, 0.103, 0.2, 0.203], [[0, 2, 4], [1, 3, 5]]),
        (["0_c1.png", "0_c2.png", "1_c1.png", "1_c2.png", "2_c1.png", "2_c2.png"],
         [0.0, 0.0, 0.1, 0.1, 0.2, 0.2], [[0, 2, 4], [1, 3, 5]]),
        (["a/0.png", "b/0.png", "a/1.png", "b/1.png"], [0.0, 0.0, 0.1, 0.1], [[0, 2], [1, 3]]),
    ],
)  # fmt: skip
def test_cameras_are_told_apart_by_names(tmp_path, names, times, expected):
    made = planes(tmp_path, [(0.0, 0.0)] * len(names), [(0.0, 0.0)] * len(names),
                  names=names, times=times)  # fmt: skip
    assert trajectories(made.scene) == expected


def test_cameras_are_told_apart_by_what_the_capture_says_and_by_their_places(tmp_path):
    places = [(0.0, 0.0), (1.0, 0.0)] * 3
    names = [f"{i}.png" for i in range(6)]
    times = [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]
    made = planes(tmp_path, places, STILL, names=names, times=times)
    assert trajectories(made.scene) == [[0, 2, 4], [1, 3, 5]]
    frames = [replace(f, camera_id="ab"[i // 3]) for i, f in enumerate(made.scene.frames)]
    said = replace(made.scene, frames=frames)
    assert trajectories(said) == [[0, 1, 2], [3, 4, 5]]
    assert trajectories(said, [0, 2, 5]) == [[0, 2], [5]]
