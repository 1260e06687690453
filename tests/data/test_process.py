"""process-data on pictures of a room whose cameras are known exactly, and on what goes wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optional_packages import import_or_skip
from PIL import Image, ImageFilter
from process_cases import PINHOLE, frame_poses, pose_errors, write_video
from room import FOCAL, HEIGHT, WIDTH, room_cameras, room_picture

from scene4d.cli import main as command
from scene4d.data.load import load_scene
from scene4d.data.process import (
    Diagnosis,
    SfmOptions,
    VideoOptions,
    process_images,
    process_video,
)
from scene4d.data.process.files import find_pictures
from scene4d.data.process.pictures import place_picture, sharpness
from scene4d.data.process.sfm import run_sfm
from scene4d.data.process.video import (
    analyse_video,
    extract_frames,
    select_frames,
)
from scene4d.data.process.write import check_target, staged_folder
from scene4d.errors import DataError, MissingExtraError, Scene4dError, UsageError
from scene4d.files import read_json

pytestmark = pytest.mark.unchecked_shapes

pycolmap = import_or_skip("pycolmap")


def noise_picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine good photos and one of each kind of bad one."""
    folder = tmp_path_factory.mktemp("room") / "photos"
    folder.mkdir()
    for i, c2w in enumerate(room_cameras(9)):
        room_picture(c2w).save(folder / f"room {i}.png")
    shutil.copy(folder / "room 4.png", folder / "x-copy.png")
    (folder / "x-broken.png").write_bytes((folder / "room 1.png").read_bytes()[:5000])
    (folder / "x-phone.heic").write_bytes(b"0000ftypheic")
    (folder / "notes.txt").write_text("not a picture")
    Image.new("RGB", (WIDTH, HEIGHT), (3, 3, 3)).save(folder / "x-dark.png")
    noise_picture(0).save(folder / "x-elsewhere.png")
    blurred = room_picture(room_cameras(9)[3]).filter(ImageFilter.GaussianBlur(9))
    blurred.save(folder / "x-blurred.png")
    return folder


@pytest.fixture(scope="module")
def processed(capture: Path) -> tuple[Path, Diagnosis]:
    output = capture.parent / "scene"
    before = hashes(capture)
    diagnosis = process_images(capture, output, sfm=PINHOLE)
    assert hashes(capture) == before, "the originals were touched"
    return output, diagnosis


# Photos


def test_the_poses_are_found_to_a_fraction_of_a_degree(processed) -> None:
    output, diagnosis = processed
    names, found = frame_poses(output)
    assert names == [f"images/room_{i}.png" for i in range(9)]
    angle, distance = pose_errors(found, np.array(room_cameras(9)))
    # features are found to about 0.3 px of 300 px focal length: 0.06 deg
    assert angle < 0.3
    assert distance < 0.01
    assert diagnosis.verdict in ("good", "usable")


def test_intrinsics_and_points_are_right(processed) -> None:
    output, diagnosis = processed
    table = read_json(output / "transforms.json")
    assert (table["camera_model"], table["w"], table["h"]) == ("PINHOLE", WIDTH, HEIGHT)
    assert abs(table["fl_x"] / FOCAL - 1) < 0.02
    assert table["cx"] == WIDTH / 2  # pixels from the corner, not from the first centre
    scene = load_scene(output)
    assert len(scene.frames) == 9
    assert len(scene.points.xyz) == diagnosis.num_points > 200
    colour_of_points_agrees(output, scene)


def colour_of_points_agrees(output: Path, scene: Any) -> None:
    """Points projected into a picture meet pixels of their own colour."""
    frame = scene.frames[4]
    viewmat, K = frame.camera.viewmat, frame.camera.K
    local = scene.points.xyz @ viewmat[:3, :3].T + viewmat[:3, 3]
    pixel = (local @ K.T)[:, :2] / local[:, 2:]
    column, row = pixel.floor().long().unbind(-1)
    seen = (local[:, 2] > 0) & (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    picture = np.asarray(Image.open(frame.image_path)).astype(float)
    there = picture[row[seen].numpy(), column[seen].numpy()]
    mirrored = picture[:, ::-1][row[seen].numpy(), column[seen].numpy()]
    own = scene.points.rgb[seen].numpy()
    # a texture of small blobs: neighbouring pixels differ by some 10 of 255
    assert np.median(abs(there - own)) < 12
    assert np.median(abs(there - own)) < 0.4 * np.median(abs(mirrored - own))


def test_every_picture_left_out_has_its_reason(processed) -> None:
    _, diagnosis = processed
    reasons = {left.name: left.reason for left in diagnosis.left_out}
    assert reasons == {
        "x-copy.png": "duplicate",
        "x-broken.png": "unreadable",
        "x-phone.heic": "unreadable",
        "notes.txt": "not a picture",
        "x-dark.png": "too dark or too bright",
        "x-elsewhere.png": "no overlap",
        "x-blurred.png": "too blurry",
    }
    assert (diagnosis.num_registered, diagnosis.num_images) == (9, 15)
    text = diagnosis.text()
    assert "9 of 15 pictures" in text
    assert "x-copy.png: duplicate (the same picture as room 4.png)" in text
    assert "JPEG" in text
    assert diagnosis.mean_reprojection_error_px < 1
    assert diagnosis.spread.motion == "around"


def test_the_folder_holds_what_it_should_and_nothing_else(processed, capture: Path) -> None:
    output, diagnosis = processed
    names = {p.name for p in output.iterdir()}
    assert names == {"images", "transforms.json", "sparse_pc.ply", "diagnosis.json"}
    assert {p.name for p in capture.parent.iterdir()} == {"photos", "scene"}
    written = read_json(output / "diagnosis.json")
    assert written["verdict"] == diagnosis.verdict
    assert len(written["left_out"]) == 7
    copied = (output / "images" / "room_2.png").read_bytes()
    assert copied == (capture / "room 2.png").read_bytes()


def test_a_failed_run_leaves_an_earlier_result_as_it_was(processed, tmp_path: Path) -> None:
    output = tmp_path / "scene"
    shutil.copytree(processed[0], output)
    before = hashes(output)
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for i in range(3):
        noise_picture(10 + i).save(strangers / f"{i}.png")
    with pytest.raises(DataError) as caught:
        process_images(strangers, output, sfm=PINHOLE, overwrite=True)
    message = str(caught.value)
    assert "0 of 3 pictures" in message
    assert "verdict: failed" in message
    assert "overlap" in message
    assert hashes(output) == before
    assert message.splitlines()[0].endswith("they must overlap by 60 % or more")
    assert {p.name for p in tmp_path.iterdir()} == {"scene", "strangers", "scene.failed.json"}
    assert str(tmp_path / "scene.failed.json") in message
    assert read_json(tmp_path / "scene.failed.json")["verdict"] == "failed"


def test_the_command_takes_options_in_any_order(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for i in range(3, 7):
        shutil.copy(capture / f"room {i}.png", few)
    arguments = ["--data", str(few), "--camera-model", "simple_radial", "images"]
    arguments = ["process-data", *arguments, "--output-dir", str(tmp_path / "out")]
    assert command.main([*arguments, "--num-frames-target", "20"]) == 0
    told = capsys.readouterr()
    assert "4 of 4 pictures have a camera pose" in told.out
    assert "ignored" in told.err
    table = read_json(tmp_path / "out" / "transforms.json")
    assert table["camera_model"] == "OPENCV"
    assert table["k2"] == table["p1"] == 0.0
    assert command.main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert command.main([*arguments, "--overwrite"]) == 0


def test_fern_agrees_with_its_published_poses(shared_data: Path, tmp_path: Path) -> None:
    subset = tmp_path / "fern"
    subset.mkdir()
    for i in range(0, 20, 2):
        shutil.copy(shared_data / "llff_fern" / "images" / f"{i:03}.png", subset)
    process_images(subset, tmp_path / "out", sfm=SfmOptions(camera_model="simple_radial"))
    names, found = frame_poses(tmp_path / "out")
    theirs = read_json(shared_data / "llff_fern" / "transforms.json")["frames"]
    true = {f["file_path"]: np.array(f["transform_matrix"]) for f in theirs}
    assert len(names) == 10
    angle, distance = pose_errors(found, np.array([true[n] for n in names]))
    assert angle < 1.0  # both are estimates; each is good to some tenths of a degree
    assert distance < 0.03


# What is refused before any work


def test_folders_that_must_not_be_overwritten(tmp_path: Path, processed) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="thesis.tex"):
        check_target(foreign, overwrite=True)
    ours_and_more = tmp_path / "scene"
    shutil.copytree(processed[0], ours_and_more)
    (ours_and_more / "masks").mkdir()
    with pytest.raises(UsageError, match="masks"):
        check_target(ours_and_more, overwrite=True)
    (ours_and_more / "masks").rmdir()
    check_target(ours_and_more, overwrite=True)
    with pytest.raises(UsageError, match="--overwrite"):
        check_target(ours_and_more, overwrite=False)
    only_images = tmp_path / "only"
    (only_images / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="not the result"):
        check_target(only_images, overwrite=True)


@pytest.mark.parametrize("where", [".", "sub/.."])
def test_an_output_around_the_input_is_refused(tmp_path: Path, where: str) -> None:
    photos = tmp_path / "images"
    photos.mkdir()
    noise_picture(0).save(photos / "a.png")
    with pytest.raises(UsageError, match="contains the input"):
        process_images(photos, tmp_path / where, overwrite=True)
    assert (photos / "a.png").is_file()


def test_empty_and_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        process_images(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        process_images(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="not found"):
        process_video(tmp_path / "nothing.mp4", tmp_path / "out")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataError, match="cannot be decoded"):
        process_video(tmp_path / "text.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("package", "extra"), [("pycolmap", "recon"), ("av", "video")])
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=rf"scene4d\[{extra}\]"):
        process_video(tmp_path / "a.mp4", tmp_path / "out")


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "scene"
    with staged_folder(target, overwrite=False) as staging:
        (staging / "transforms.json").write_text("{}")
        (staging / "diagnosis.json").write_text("{}")
        assert not target.exists()
    assert {p.name for p in target.iterdir()} == {"transforms.json", "diagnosis.json"}
    for error in (KeyboardInterrupt, DataError("x"), OSError(28, "No space left on device")):
        with (
            pytest.raises((KeyboardInterrupt, Scene4dError)),
            staged_folder(target, overwrite=True) as staging,
        ):
            (staging / "transforms.json").write_text("new")
            raise error
        assert (target / "transforms.json").read_text() == "{}"
        assert list(target.parent.iterdir()) == [target]
    with staged_folder(target, overwrite=True) as staging:
        (staging / "transforms.json").write_text("new")
    assert {p.name for p in target.iterdir()} == {"transforms.json"}


# Pictures as files


def test_pictures_stored_on_their_side_are_turned_upright(tmp_path: Path) -> None:
    image = room_picture(room_cameras(3)[1])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    exif[0x010F] = "Maker"
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    before = (tmp_path / "a.jpg").read_bytes()
    picture = place_picture(tmp_path / "a.jpg", tmp_path, "b.jpg")
    assert (picture.width, picture.height) == (HEIGHT, WIDTH)
    assert picture.lens == "Maker"
    with Image.open(tmp_path / "b.jpg") as turned:
        assert turned.getexif().get(0x0112, 1) == 1
        upright = np.asarray(turned).astype(float)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(float)
    assert abs(upright - expected).mean() < 10  # twice through JPEG; unturned it is about 40
    assert (tmp_path / "a.jpg").read_bytes() == before


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    grey = np.asarray(room_picture(room_cameras(3)[1]).convert("L"))
    blurred = Image.fromarray(grey).filter(ImageFilter.GaussianBlur(3))
    assert sharpness(np.asarray(blurred)) < 0.2 * sharpness(grey)
    assert sharpness(0.3 * grey + 100) == pytest.approx(sharpness(grey), rel=1e-4)  # float32
    assert sharpness(np.full((20, 20), 7)) == 0.0
    assert sharpness(np.zeros((2, 9))) == 0.0


def test_pictures_are_found_in_subfolders_but_not_in_the_output(tmp_path: Path) -> None:
    for name in ("b.JPG", "sub/a.png", ".hidden/c.png", "out/images/d.png", "e.txt", "f.DNG"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = find_pictures(tmp_path, skip=tmp_path / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in found.pictures] == ["b.JPG", "sub/a.png"]
    assert list(found.unreadable) == ["f.DNG"]
    assert list(found.others) == ["e.txt"]


# Pairs


def test_likely_pairs_of_a_row_of_cameras_are_its_neighbours(tmp_path: Path) -> None:
    """More pictures than are matched exhaustively; the mapping still works."""
    images = tmp_path / "images"
    images.mkdir()
    pictures = []
    for i, c2w in enumerate(room_cameras(10)):
        room_picture(c2w).save(images / f"{i:02}.png")
        pictures.append(place_picture(images / f"{i:02}.png", tmp_path, f"{i:02}.png"))
    from scene4d.data.process import sfm

    work = tmp_path / "work"
    work.mkdir()
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sfm, "_EXHAUSTIVE_UP_TO", 5)
        result = run_sfm(
            images, pictures, options=PINHOLE, work_dir=work, in_order=True, say=said.append
        )
    assert any("most likely pairs" in line for line in said)
    assert result.model is not None
    assert len(result.model.images) == 10


# Video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Rests for 15 frames, then moves for 30, every fifth of them blurred."""
    path = tmp_path_factory.mktemp("video") / "room.mp4"
    moving = [room_picture(c2w) for c2w in room_cameras(30)]
    blurred = [
        p.filter(ImageFilter.GaussianBlur(2)) if i % 5 == 2 else p for i, p in enumerate(moving)
    ]
    write_video(path, [moving[0]] * 15 + blurred)
    yield path


def test_a_video_becomes_a_posed_capture_with_times(video: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    diagnosis = process_video(video, output, video=VideoOptions(num_frames_target=14), sfm=PINHOLE)
    frames = read_json(output / "transforms.json")["frames"]
    assert diagnosis.num_registered == len(frames) >= 10
    for frame in frames:
        index = int(frame["file_path"].removeprefix("images/frame_").removesuffix(".jpg"))
        assert frame["time"] == pytest.approx(index / 10, abs=1e-3)
    cameras = np.array(room_cameras(30))
    indices = [max(0, round(10 * f["time"]) - 15) for f in frames]
    found = np.array([f["transform_matrix"] for f in frames])
    angle, distance = pose_errors(found, cameras[indices])
    assert angle < 1.0  # after video compression
    assert distance < 0.03


def test_frames_are_sharp_and_spread_over_the_motion(video: Path) -> None:
    track = analyse_video(video)
    assert len(track.times) == 45
    np.testing.assert_allclose(track.times, np.arange(45) / 10, atol=1e-3)
    chosen = select_frames(track, 12)
    assert len(chosen) <= 12
    assert sum(i < 15 for i in chosen) <= 3  # a third of the time, but no motion
    assert sum(i >= 15 and (i - 15) % 5 == 2 for i in chosen) == 0
    assert np.diff(chosen).max() <= 15


def test_a_short_video_gives_all_of_its_sharp_frames(video: Path) -> None:
    track = analyse_video(video)
    chosen = select_frames(track, 100)
    assert set(chosen) == set(range(45)) - set(range(17, 45, 5))


def test_a_phones_upright_video_comes_out_upright(tmp_path: Path) -> None:
    """Phones store the sensor's picture and a matrix that says to turn it clockwise."""
    picture = room_picture(room_cameras(3)[1])
    path = tmp_path / "phone.mp4"
    write_video(path, [picture] * 4)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: version 0
    assert struct.unpack(">2i", content[matrix : matrix + 8]) == (65536, 0)
    turned = (0, 65536, 0, -65536, 0, 0, HEIGHT << 16, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *turned)
    path.write_bytes(bytes(content))
    track = analyse_video(path)
    found = extract_frames(path, [2], track, tmp_path / "images", lambda line: None)
    assert (found[0].width, found[0].height) == (HEIGHT, WIDTH)
    upright = np.asarray(Image.open(tmp_path / "images" / found[0].name)).astype(float)
    clockwise = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)).astype(float)
    assert abs(upright - clockwise).mean() < 10  # two lossy codings
    assert abs(upright - clockwise[::-1, ::-1]).mean() > 20


# Odd and damaged inputs


def test_a_folder_of_odd_files_is_one_error_and_a_diagnosis(tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "out"
    (photos / "folder.jpg").mkdir(parents=True)
    noise_picture(0).save(photos / "good.png")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "noise.png").write_bytes(np.random.default_rng(0).bytes(3000))
    (photos / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (photos / "half.png").write_bytes((photos / "good.png").read_bytes()[:4000])
    (photos / "a film.mp4").write_bytes(b"x")
    os.mkfifo(photos / "pipe.png")
    for _ in range(2):  # what the first run leaves is not in the way of the second
        with pytest.raises(DataError, match="no camera poses could be found: give at least three"):
            process_images(photos, output)
        assert {path.name for path in output.iterdir()} == {"diagnosis.json"}
    found = read_json(output / "diagnosis.json")
    assert found["verdict"] == "failed" and found["num_images"] == 5
    assert {left["name"]: left["reason"] for left in found["left_out"]} == {
        **dict.fromkeys(("empty.jpg", "noise.png", "script.png", "half.png"), "unreadable"),
        **dict.fromkeys(("a film.mp4", "pipe.png"), "not a picture"),
    }


def test_videos_cut_or_changed_anywhere_are_frames_or_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, [noise_picture(i) for i in range(4)])
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for attempt in range(24):
        data = bytearray(whole[: rng.integers(0, len(whole))] if attempt % 3 else whole)
        for _ in range(30 * (attempt % 2)):
            if data:
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            track = analyse_video(path)
        except DataError as error:
            assert str(path) in str(error)
            continue
        chosen = select_frames(track, 3)
        extract_frames(path, chosen, track, tmp_path / "images", lambda line: None)


def test_a_playlist_that_is_named_as_a_video_leads_nowhere(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", [noise_picture(0)] * 3)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    (tmp_path / "b.mp4").write_text("#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(DataError, match="cannot be decoded"):
            analyse_video(tmp_path / name)
