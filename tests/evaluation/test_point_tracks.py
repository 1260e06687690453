"""PCK-T and 3D errors in closed form: a plane that slides in front of a camera."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import unproject
from scene4d.data.scene import Frame, Scene
from scene4d.errors import DataError
from scene4d.evaluation.point_tracks import (
    PointTracks,
    carried,
    read_point_tracks,
    strided,
    track_figures,
)

WIDTH, HEIGHT, FOCAL, DISTANCE = 80, 60, 60.0, 3.0
VELOCITY = torch.tensor([0.42, 0.0, 0.0])
TIMES = [0.0, 0.25, 0.5, 0.75]


def camera(time):
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return Camera(c2w=torch.eye(4), K=K, width=WIDTH, height=HEIGHT, time=torch.tensor(time))


def follow(velocity):
    """Of a plane that moves with ``velocity``."""

    def positions(camera, times):
        now = unproject(camera, torch.full((camera.height, camera.width), DISTANCE))
        return torch.stack([now + (t - float(camera.time)) * velocity for t in times])

    return positions


def sliding():
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(30, 2, generator=generator) - 0.5
    start = torch.cat([xy, torch.full((30, 1), -DISTANCE)], dim=1)
    points = torch.stack([start + t * VELOCITY for t in TIMES])
    return PointTracks(frames=range(4), points=points, visible=torch.ones(4, 30, dtype=torch.bool))


def test_a_scene_that_moves_as_the_truth_is_right_everywhere():
    found = track_figures(sliding(), [camera(t) for t in TIMES], follow(VELOCITY))
    assert found["pck_t"] == 1.0
    assert found["epe_median"] == pytest.approx(0.0, abs=1e-5)  # float32 of 3


def test_errors_are_those_of_the_missing_motion():
    tracks, cameras = sliding(), [camera(t) for t in TIMES]
    found = track_figures(tracks, cameras, follow(torch.zeros(3)), unit=10.0)
    # a point moves 2.1 px a quarter second at this focal length and distance, and 0.05 of 80 px is
    # 4: pairs of one frame or of neighbours are right, those of 2 steps or 3 are not
    assert found["pck_t"] == pytest.approx((4 + 6) / 16)
    # ordered pairs of different frames: 6 of 0.105, 4 of 0.21, 2 of 0.315, and of the two middle
    # values the lower one
    assert found["epe_median"] == pytest.approx(10 * 0.105, abs=1e-4)
    box = (tracks.points[0].amax(0) - tracks.points[0].amin(0)).norm()
    assert found["epe_share"] == pytest.approx(found["epe_median"] / 10 / float(box), rel=1e-4)


def test_hidden_points_do_not_count():
    tracks, cameras = sliding(), [camera(t) for t in TIMES]
    hidden = tracks.visible.clone()
    hidden[:, 10:] = False
    wrong = tracks.points.clone()
    wrong[:, 10:] += 100.0
    only = replace(tracks, points=tracks.points[:, :10], visible=tracks.visible[:, :10])
    ours = track_figures(replace(tracks, points=wrong, visible=hidden), cameras, follow(VELOCITY))
    theirs = track_figures(only, cameras, follow(VELOCITY))
    assert ours["pck_t"] == theirs["pck_t"]
    assert ours["epe_median"] == pytest.approx(theirs["epe_median"], abs=1e-6)


def test_positions_between_pixels_are_not_mixed_across_edges():
    positions = unproject(camera(0.0), torch.full((HEIGHT, WIDTH), DISTANCE))[None].clone()
    pixel = torch.tensor([[20.2, 30.3]])
    x, y = (pixel[0] - torch.tensor([WIDTH / 2, HEIGHT / 2])) / FOCAL * DISTANCE
    # linear in the pixel, so bilinear interpolation is exact
    assert torch.allclose(carried(positions, camera(0.0), pixel)[0, 0],
                          torch.stack([x, -y, torch.tensor(-DISTANCE)]), atol=1e-5)  # fmt: skip
    positions[0, :, 20:] *= 2  # another surface, twice as far, from the next column on
    near = carried(positions, camera(0.0), torch.tensor([[19.9, 30.5]]))[0, 0]
    assert torch.equal(near, positions[0, 30, 19])


@pytest.mark.parametrize(("count", "places"), [
    (48, [0, 4, 9, 14, 19, 24, 28, 33, 38, 43]), (10, list(range(10))), (3, [0, 1, 2]),
])  # fmt: skip
def test_ten_frames_at_even_steps(count, places):
    assert strided(count, 10) == places


def scene(folder: Path, times=TIMES, **more):
    frames = [Frame(name=f"{i}", camera=camera(t), image_path=folder / f"{i}.png")
              for i, t in enumerate(times)]  # fmt: skip
    split = {"train_indices": range(len(times)), "test_indices": (), "split_rule": ""}
    return Scene(root=folder, dataparser="nerfstudio", frames=frames, **split, **more)


def test_tracks_are_read_into_the_scenes_coordinates(tmp_path):
    tracks = sliding()
    np.savez(tmp_path / "tracks.npz", points=2 * tracks.points.numpy() + [0, 0, 5],
             visible=tracks.visible.numpy())  # fmt: skip
    home = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    home[2, 3] = 5
    found = read_point_tracks(scene(tmp_path, source_from_scene=home))
    assert torch.allclose(found.points, tracks.points, atol=1e-6) and found.frames == [0, 1, 2, 3]
    assert read_point_tracks(scene(tmp_path, times=TIMES[:2])) is None  # of other frames
    (tmp_path / "nothing").mkdir()
    assert read_point_tracks(scene(tmp_path / "nothing")) is None


@pytest.mark.parametrize("bad", ["text", "pickled", "names", "shape", "type"])
def test_other_files_are_refused(tmp_path, bad):
    path = tmp_path / "tracks.npz"
    visible = np.ones((4, 30), dtype=bool)
    if bad == "text":
        path.write_text("not an archive")
    elif bad == "pickled":
        np.savez(path, points=np.array([{}], dtype=object), visible=visible)
    elif bad == "names":
        np.savez(path, positions=np.zeros((4, 30, 3)))
    elif bad == "shape":
        np.savez(path, points=np.zeros((4, 30, 2)), visible=visible)
    else:
        np.savez(path, points=np.zeros((4, 30, 3)), visible=visible.astype(float))
    with pytest.raises(DataError, match=r"tracks\.npz"):
        read_point_tracks(scene(tmp_path))
