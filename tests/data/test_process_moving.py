"""process-data of a video of something that moves: what moves, poses without it, what is said."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_room import card_at, moving_room_picture
from optional_packages import import_or_skip
from PIL import Image
from process_cases import (
    MOTIONS,
    PINHOLE,
    facts,
    frame_poses,
    model_seen_from,
    moving,
    picture,
    pose_errors,
    result_with,
    write_video,
)
from room import HEIGHT, WIDTH, room_cameras, room_picture

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.cameras.undistortion import undistorted_camera, undistortion_grid
from scene4d.cli import main as command
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene, read_scene
from scene4d.data.process import Diagnosis, VideoOptions, process_video
from scene4d.data.process.diagnosis import diagnose
from scene4d.data.process.moving import (
    Moving,
    _places,
    better_poses,
    without_moving,
    write_sfm_masks,
)
from scene4d.data.process.moving_facts import MovingFacts
from scene4d.data.process.sfm import (
    _FIRST,
    SfmResult,
    _extract,
    _extraction_options,
    _reader_options,
)
from scene4d.data.process.video import VideoTrack, select_frames
from scene4d.errors import DataError, MissingExtraError
from scene4d.evaluation.regions import regions_of
from scene4d.files import read_json

pytestmark = pytest.mark.unchecked_shapes

pycolmap = import_or_skip("pycolmap")

NUM_FRAMES = 8
CAMERAS = room_cameras(100)[40 : 40 + NUM_FRAMES]
FEW_FEATURES = replace(PINHOLE, max_num_features=500)


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Diagnosis, list[np.ndarray]]:
    """A capture of a card that moves in a room; with the truth: where the card is."""
    import_or_skip("cv2")
    folder = tmp_path_factory.mktemp("moving")
    made = [moving_room_picture(c2w, card_at(i / 150)) for i, c2w in enumerate(CAMERAS)]
    write_video(folder / "card.mp4", [p for p, _ in made])
    diagnosis = process_video(
        folder / "card.mp4", folder / "out", video=VideoOptions(moving=True), sfm=FEW_FEATURES
    )
    return folder / "out", diagnosis, [card for _, card in made]


def frame_masks(output: Path) -> list[tuple[int, np.ndarray]]:
    """The index of each frame in the video, and its mask."""
    frames = read_json(output / "transforms.json")["frames"]
    return [
        (round(10 * f["time"]), np.asarray(Image.open(output / f["dynamic_mask_path"])) > 0)
        for f in frames
    ]


def test_what_moves_is_masked_beside_the_pictures(processed) -> None:
    output, diagnosis, cards = processed
    masks = frame_masks(output)
    assert len(masks) == diagnosis.num_registered == NUM_FRAMES
    found = np.stack([mask for _, mask in masks])
    true = np.stack([cards[i] for i, _ in masks])
    assert found.shape == (NUM_FRAMES, HEIGHT, WIDTH)
    # grown, and flow is smooth across borders; what matters is that the card is covered
    assert (found & true).sum() / true.sum() > 0.9
    assert (found & true).sum() / (found | true).sum() > 0.6
    assert diagnosis.moving is not None
    assert diagnosis.moving.share == pytest.approx(found.mean())
    names = {p.name for p in output.iterdir()}
    assert names == {"images", "dynamic", "transforms.json", "sparse_pc.ply", "diagnosis.json"}
    for frame in read_json(output / "transforms.json")["frames"]:
        assert "mask_path" not in frame  # which would say: ignore these pixels
    assert read_json(output / "diagnosis.json")["moving"]["share"] == diagnosis.moving.share


def test_the_poses_are_those_of_the_background(processed) -> None:
    output, diagnosis, _ = processed
    _, found = frame_poses(output)
    angle, distance = pose_errors(found, np.array(CAMERAS))
    assert angle < 0.5  # after video compression
    assert distance < 0.05  # of the extent of an arc of 6 degrees
    assert "without features on what moves" in diagnosis.moving.poses
    assert any(line.startswith("train: scene4d train deformable") for line in diagnosis.advice)


def test_the_points_are_those_of_the_background(processed) -> None:
    """A point of the card would lie on it in most pictures; one of the walls is hidden at times."""
    output, _, cards = processed
    scene = load_scene(output)
    inside = torch.zeros(len(scene.points.xyz))
    for frame in scene.frames:
        local = scene.points.xyz @ frame.camera.viewmat[:3, :3].T + frame.camera.viewmat[:3, 3]
        pixels = (local @ frame.camera.K.T)[:, :2] / local[:, 2:]
        x, y = pixels[:, 0].clamp(0, WIDTH - 1).long(), pixels[:, 1].clamp(0, HEIGHT - 1).long()
        inside += torch.from_numpy(cards[round(10 * float(frame.camera.time))])[y, x]
    assert len(inside) > 100
    assert int((inside > NUM_FRAMES / 2).sum()) == 0


def test_evaluation_takes_the_masks_for_those_of_the_capture(processed) -> None:
    output, _, _ = processed
    scene = read_scene(output)
    regions = regions_of(scene, ImageCache(scene, indices=[]), compute=False)
    assert set(regions) == set(scene.test_indices)
    assert all(float(r.moving.float().mean()) > 0.02 for r in regions.values())


# Frames


def test_frames_are_no_more_than_twice_as_far_apart_as_even_ones() -> None:
    """The camera rests for 90 of 100 frames, in which what is filmed may move."""
    displacement = np.where(np.arange(100) < 90, 0.0, 5.0)
    track = VideoTrack(times=np.arange(100) / 10, sharpness=np.ones(100), displacement=displacement)
    still, moves = select_frames(track, 20), select_frames(track, 20, moving=True)
    assert np.diff(still).max() > 15
    assert np.diff(moves).max() <= 2 * 100 / 20
    assert len(moves) > len(still)  # of a resting camera, too


@pytest.mark.parametrize(
    ("options", "seconds", "frames"),
    [
        ({}, 20.0, 150),
        ({"moving": True}, 2.0, 60),
        ({"moving": True}, 12.0, 120),
        ({"moving": True}, 600.0, 300),
        ({"moving": True, "num_frames_target": 40}, 12.0, 40),
    ],
)
def test_how_many_frames_are_taken(options: dict, seconds: float, frames: int) -> None:
    assert VideoOptions(**options).frames_of(seconds) == frames


# Masks of pictures with a lens


def test_masks_come_out_as_the_lens_shows_them() -> None:
    """A mask of the distorted file, undistorted as the trainer does, is the mask that went in."""
    distortion = Distortion(model="opencv", coefficients=(0.4, -0.1, 0.004, -0.003))
    K = torch.tensor([[150.0, 0, 81.0], [0, 152.0, 58.0], [0, 0, 1]], dtype=torch.float64)
    stored = Camera(c2w=torch.eye(4), K=K, width=160, height=120, distortion=distortion)
    y, x = np.mgrid[:120, :160]
    disc = np.hypot(x - 120, y - 90) < 20
    seen = undistorted_camera(stored)
    for factor, least in ((1, 0.97), (2, 0.9)):
        small = disc[: 120 // factor * factor : factor, ::factor]
        file = np.append(small.ravel(), False)[_places(stored, seen.downscaled(factor))]
        grid, inside = undistortion_grid(stored)
        back = torch.nn.functional.grid_sample(
            torch.from_numpy(file)[None, None].float(), grid[None], mode="nearest",
            align_corners=False,
        )[0, 0].numpy() > 0  # fmt: skip
        back &= inside.numpy()
        assert (back & disc).sum() / (back | disc).sum() > least
    assert (file & disc).sum() / (file | disc).sum() < least  # the lens moves it


def test_features_under_masks_are_left_out_and_pictures_without_a_mask_keep_theirs(
    tmp_path: Path,
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = ["a.jpg", "b.jpg"]
    for name, c2w in zip(names, CAMERAS[:2], strict=True):
        room_picture(c2w).save(images / name)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, :150] = True
    pictures = [picture(name, width=WIDTH, height=HEIGHT) for name in names]
    moves = Moving(masks={"a.jpg": mask}, omega_deg_per_s=None)
    write_sfm_masks(moves, pictures, tmp_path / "masks")
    extraction = _extraction_options(pycolmap, FEW_FEATURES, _FIRST, 300)
    reader = _reader_options(pycolmap, FEW_FEATURES, tmp_path / "masks")
    _extract(pycolmap, tmp_path / "a.db", images, pictures, extraction, reader)
    database = pycolmap.Database.open(tmp_path / "a.db")
    columns = {
        i.name: database.read_keypoints(i.image_id)[:, 0] for i in database.read_all_images()
    }
    database.close()
    assert len(columns["a.jpg"]) > 50 and columns["a.jpg"].min() >= 150 + 3  # grown by 1 %
    assert len(columns["b.jpg"]) > 50 and columns["b.jpg"].min() < 100


# Which poses are kept


def two_models(pictures: int, error: float, *, second: int, second_error: float) -> Any:
    def result(count: int, px: float) -> SfmResult:
        model = model_seen_from(moving(MOTIONS["around"])[:count])
        return result_with(replace(model, errors_px=np.full(100, px)))

    return result(pictures, error), result(second, second_error)


@pytest.mark.parametrize(
    ("second", "error", "kept", "words"),
    [
        (12, 0.5, True, "12 pictures, 0.50 px"),
        (12, 0.8, True, "0.80 px"),
        (12, 1.2, False, "reprojection error is 1.20 px, with them 0.60"),
        (11, 0.1, False, "11 pictures have a pose, with them 12"),
    ],
)
def test_poses_without_what_moves_are_kept_unless_worse(
    second: int, error: float, kept: bool, words: str
) -> None:
    first, other = two_models(12, 0.6, second=second, second_error=error)
    chosen, why = better_poses(first, other)
    assert chosen is (other if kept else first)
    assert words in why


def test_without_any_second_poses_the_first_are_kept() -> None:
    first, _ = two_models(12, 0.6, second=12, second_error=1)
    chosen, why = better_poses(first, result_with(None))
    assert chosen is first and "no poses" in why


def test_points_that_are_seen_on_what_moves_are_left_out() -> None:
    model = model_seen_from(moving(MOTIONS["around"])[:4])
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, :100] = True
    xy = np.tile([200.0, 50.0], (100, 1))
    images = [replace(image, xy=xy.copy()) for image in model.images]
    for image in images:
        image.xy[0] = [40, 50]  # always on what moves
    images[0].xy[1] = [40, 50]  # once of four times: the mask is wrong, or grown
    masks = {image.name: mask for image in images}
    result = replace(result_with(model), sightings=images)
    found = without_moving(result, Moving(masks=masks, omega_deg_per_s=None))
    np.testing.assert_array_equal(found.xyz, model.xyz[1:])
    assert len(found.rgb) == 99


# What is said

USUAL = MovingFacts(share=0.12, largest_share=0.3, omega_deg_per_s=20.0, poses="kept")


@pytest.mark.parametrize(
    ("fields", "verdict", "finding", "advice"),
    [
        ({}, "good", None, "train: scene4d train deformable"),
        ({"omega_deg_per_s": 0.4}, "usable", "a relief", "walking around what moves"),
        ({"share": 0.7}, "poor", "relative to what moves", "farther away"),
        ({"share": 0.001}, "good", "hardly anything moves", "train: scene4d train splat"),
    ],
)
def test_how_much_moves_and_how_much_the_camera_does(
    fields: dict, verdict: str, finding: str | None, advice: str
) -> None:
    model = model_seen_from(moving(MOTIONS["around"]))
    told = replace(USUAL, **fields)
    pictures = [picture(image.name) for image in model.images]
    found = diagnose(pictures, result_with(model), source="moving video", moving=told)
    assert found.verdict == verdict
    assert any(advice in line for line in found.advice)
    assert found.findings == () if finding is None else finding in found.findings[0]
    assert f"{told.share:.1%} of the pixels" in found.text()
    assert json.loads(json.dumps(found.as_json()))["moving"]["share"] == told.share


def test_a_camera_that_stands_still_is_told_what_can_be_had() -> None:
    pairs = {("a", "b"): facts(500, displacement=0.001)}
    result = replace(result_with(None), pairs=pairs)
    pictures = [picture(name) for name in "abc"]
    usual = diagnose(pictures, result, source="video")
    told = diagnose(pictures, result, source="moving video")
    assert told.reason == usual.reason and "hardly moves" in told.reason
    assert "a relief" in told.text() and "--relief" in usual.text()


def test_a_video_in_which_something_moves_is_told_of_the_option() -> None:
    model = model_seen_from(moving(MOTIONS["around"]))
    pictures = [picture(image.name) for image in model.images]
    result = result_with(model, unexplained=0.4)
    assert any("--moving" in a for a in diagnose(pictures, result, source="video").advice)
    assert not any("--moving" in a for a in diagnose(pictures, result).advice)
    moves = diagnose(pictures, result, source="moving video", moving=USUAL)
    assert not any("keep the scene still" in a for a in moves.advice)


# Wrong input


def test_opencv_is_missed_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(MissingExtraError, match=r"scene4d\[motion\]"):
        process_video(tmp_path / "a.mp4", tmp_path / "out", video=VideoOptions(moving=True))


def test_photos_have_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["process-data", "images", "--data", str(tmp_path), "--moving"]
    assert command.main([*arguments, "--output-dir", str(tmp_path / "out")]) == 2
    assert "process-data video --moving" in capsys.readouterr().err


def test_a_camera_on_a_stand_is_refused_with_its_reason(tmp_path: Path) -> None:
    import_or_skip("cv2")
    c2w = room_cameras(3)[1]
    pictures = [moving_room_picture(c2w, card_at(i / 8))[0] for i in range(4)]
    write_video(tmp_path / "still.mp4", pictures)
    with pytest.raises(DataError, match="hardly moves") as caught:
        process_video(
            tmp_path / "still.mp4", tmp_path / "out", video=VideoOptions(moving=True),
            sfm=FEW_FEATURES,
        )  # fmt: skip
    assert "a relief" in str(caught.value)
    assert not (tmp_path / "out" / "dynamic").exists()


def test_a_still_room_needs_no_second_poses(tmp_path: Path) -> None:
    import_or_skip("cv2")
    write_video(tmp_path / "room.mp4", [room_picture(c2w) for c2w in CAMERAS[::2] + CAMERAS[-1:]])
    said: list[str] = []
    diagnosis = process_video(
        tmp_path / "room.mp4", tmp_path / "out", video=VideoOptions(moving=True),
        sfm=FEW_FEATURES, say=said.append,
    )  # fmt: skip
    assert diagnosis.moving.share < 0.005
    assert sum(line.startswith("finding features") for line in said) == 1
    assert math.isfinite(diagnosis.moving.omega_deg_per_s)
