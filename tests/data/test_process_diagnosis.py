"""What process-data measures and says, on exact numbers: motion, reasons, advice, frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from optional_packages import import_or_skip
from PIL import Image, ImageFilter
from process_cases import MOTIONS, facts, model_seen_from, moving, picture, result_with

from scene4d.data.process import VideoOptions
from scene4d.data.process.consistency import explained_views
from scene4d.data.process.diagnosis import LeftOut, camera_spread, diagnose
from scene4d.data.process.matches import PairFacts, parallax_deg, stands_still, well_matched
from scene4d.data.process.names import unused_name
from scene4d.data.process.pairs import similarity
from scene4d.data.process.sfm import (
    pictures_elsewhere,
    plain_camera,
)
from scene4d.data.process.video import (
    VideoTrack,
    displacement,
    relative_sharpness,
    select_frames,
)
from scene4d.data.process.write import transforms_of
from scene4d.errors import DataError

pycolmap = import_or_skip("pycolmap")


# Diagnosis of camera motion


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_cameras_motion_is_recognised(motion: str) -> None:
    model = model_seen_from(moving(MOTIONS[motion]))
    spread = camera_spread(model)
    assert spread.motion == motion
    if motion == "sideways":
        assert spread.travel_over_depth == pytest.approx(1.1 / 4, rel=0.05)  # 100 random points
        exact = np.degrees(2 * np.arctan(1.1 / 2 / 4))  # for a point at the middle
        assert spread.triangulation_angle_deg == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(
    ("fields", "details", "reason"),
    [
        ({"width": 99, "height": 55}, {}, "different resolution"),
        ({}, {"pairs": {("0.png", "x.png"): facts(12)}}, "no overlap"),
        ({}, {"pairs": {("x.png", "0.png"): facts(80)}}, "inconsistent matches"),
        ({}, {"other_models": [["x.png", "y.png", "z.png"]]}, "separate group"),
        ({"brightness": 0.99}, {}, "too dark or too bright"),
    ],
)
def test_reasons_for_missing_pictures(fields: dict, details: dict, reason: str) -> None:
    model = model_seen_from(moving(MOTIONS["around"]))
    pictures = [*(picture(f"{i}.png") for i in range(12)), picture("x.png", **fields)]
    features = {p.name: 1000 for p in pictures}
    found = diagnose(pictures, result_with(model, num_features=features, **details))
    assert [(left.name, left.reason) for left in found.left_out] == [("x.png", reason)]
    features["x.png"] = 20
    found = diagnose(pictures, result_with(model, num_features=features))
    expected = reason if reason == "too dark or too bright" else "too few features"
    assert found.left_out[0].reason == expected


@pytest.mark.parametrize(
    ("motion", "verdict", "advice"),
    [
        ("around", "good", "scene4d train"),
        ("turning only", "poor", "walk around"),
        ("none", "poor", "walk around"),
        ("forward", "good", "sideways"),
    ],
)
def test_verdict_and_advice_follow_the_motion(motion: str, verdict: str, advice: str) -> None:
    model = model_seen_from(moving(MOTIONS[motion]))
    found = diagnose([picture(f"{i}.png") for i in range(12)], result_with(model))
    assert found.verdict == verdict
    assert any(advice in line for line in found.advice)
    assert found.as_json()["spread"]["motion"] == motion


def test_several_groups_are_told() -> None:
    model = model_seen_from(moving(MOTIONS["around"]))
    names = [f"{i}.png" for i in range(12)] + ["a.png", "b.png", "c.png"]
    result = result_with(model, other_models=[["a.png", "b.png", "c.png"]])
    found = diagnose([picture(name) for name in names], result)
    assert found.num_models == 2
    assert "2 groups" in found.text()
    assert found.verdict == "usable"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"fl_y": 330.0}, "focal lengths differ by 10 %"),
        ({"p1": 0.05}, "tangential distortion is 0.05"),
        ({"p2": -0.5}, "tangential distortion is 0.5"),
        ({"fl_y": 303.0, "p1": 0.004, "k1": -0.3}, None),
    ],
)
def test_a_lens_that_cannot_be_is_told(params: dict[str, float], told: str | None) -> None:
    """A turntable before a still background came out so, with every picture placed."""
    model = model_seen_from(moving(MOTIONS["around"]))
    lens = model.cameras[1]
    model = replace(model, cameras={1: replace(lens, params={**lens.params, **params})})
    found = diagnose([picture(f"{i}.png") for i in range(12)], result_with(model))
    assert found.verdict == ("good" if told is None else "poor")
    assert ("implausible" in found.text()) == (told is not None)
    assert told is None or (told in found.text() and "contradict each other" in found.text())


@pytest.mark.parametrize("lens", [{}, {"p1": 0.05}])
def test_a_scene_that_moves_is_never_called_good(lens: dict[str, float]) -> None:
    """A toy that moves gave 15 dB, and was called good with the lens that the advice named."""
    model = model_seen_from(moving(MOTIONS["around"]))
    camera = replace(model.cameras[1], params={**model.cameras[1].params, **lens})
    result = result_with(replace(model, cameras={1: camera}), unexplained=0.32)
    found = diagnose([picture(f"{i}.png") for i in range(12)], result)
    assert found.verdict == "poor"
    assert "32% of what was followed" in found.reason
    assert found.as_json()["unexplained_share"] == 0.32
    assert not any("simple_radial" in line for line in found.advice)
    assert any("moving" in line for line in found.advice)
    still = diagnose([picture(f"{i}.png") for i in range(12)], replace(result, unexplained=0.19))
    assert still.verdict == ("poor" if lens else "good")


def test_what_one_point_explains_and_what_moves() -> None:
    rng = np.random.default_rng(0)
    flip = np.diag([1.0, -1, -1, 1])
    poses = np.stack([np.linalg.inv(pose @ flip)[:3] for pose in moving(MOTIONS["around"])[:6]])
    still = moved = 0
    for _ in range(40):
        start, step = rng.uniform(-0.5, 0.5, 3), rng.normal(0, 0.05, 3)
        for speed in (0.0, 1.0):
            points = start + speed * step * np.arange(6)[:, None]
            local = np.einsum("nij,nj->ni", poses[:, :, :3], points) + poses[:, :, 3]
            xy = local[:, :2] / local[:, 2:] + rng.normal(0, 2e-4, (6, 2))
            count = explained_views(poses, xy, np.ones(6))
            still, moved = (still + count, moved) if speed == 0 else (still, moved + count)
    assert still >= 0.95 * 240  # noise of a sixth of the tolerance
    assert moved < 0.75 * 240  # 5 % of the scene's size from picture to picture


def test_a_picture_that_colmap_did_not_read_is_not_blamed_for_its_features() -> None:
    model = model_seen_from(moving(MOTIONS["around"]))
    pictures = [*(picture(f"{i}.png") for i in range(12)), picture("x.jpg", source="x.webp")]
    features = {f"{i}.png": 1000 for i in range(12)}
    found = diagnose(pictures, result_with(model, num_features=features))
    assert [(o.name, o.reason) for o in found.left_out] == [("x.webp", "unreadable")]
    assert "COLMAP could not read it" in found.left_out[0].detail


def test_many_left_out_pictures_are_told_in_a_few_lines() -> None:
    excluded = [LeftOut(name=f"{i}.cr3", reason="unreadable", detail="raw") for i in range(40)]
    excluded += [LeftOut(name=f"{i}.xmp", reason="not a picture", detail="x") for i in range(40)]
    found = diagnose([], None, excluded=excluded)
    assert found.num_images == 40
    assert found.verdict == "failed" and "at least three" in found.reason
    text = found.text()
    assert len(text.splitlines()) < 20
    assert "and 32 more: unreadable" in text
    assert "Other files left alone: 40 (40 .xmp)" in text
    assert len(found.as_json()["left_out"]) == 80


def test_a_second_model_of_the_same_pictures_is_no_group_of_its_own() -> None:
    largest = model_seen_from(moving(MOTIONS["around"]))
    inside = replace(largest, images=largest.images[:2])
    elsewhere = replace(largest, images=[replace(largest.images[0], name="a.png")])
    assert pictures_elsewhere([largest, inside, elsewhere]) == [["a.png"]]
    assert pictures_elsewhere([largest]) == [] == pictures_elsewhere([])


@pytest.mark.parametrize(
    ("pair", "advice"),
    [
        (facts(500, displacement=0.004), "hardly moves"),
        (facts(500, turned_only=True), "only turns"),
        (None, "overlap"),
    ],
)
def test_advice_when_nothing_was_found(pair: PairFacts | None, advice: str) -> None:
    pairs = {} if pair is None else {("0.png", "1.png"): pair}
    found = diagnose([picture(f"{i}.png") for i in range(5)], result_with(None, pairs=pairs))
    assert found.verdict == "failed"
    assert advice in "\n".join(found.advice)


def test_what_the_pairs_say_together() -> None:
    pairs = {(str(i), "x"): facts(200, angle_deg=float(i)) for i in range(101)}
    pairs["few", "x"] = facts(20, angle_deg=170.0)
    assert parallax_deg(pairs) == pytest.approx(95)
    assert parallax_deg({}) == 0.0
    still = {(str(i), "x"): facts(200, displacement=0.001) for i in range(9)}
    assert stands_still(still)
    assert not stands_still({**still, ("a", "b"): facts(200), ("b", "c"): facts(200)})
    assert not stands_still({})
    assert well_matched({("a", "b"): facts(200)}, 2)
    assert not well_matched({("a", "b"): facts(200)}, 3)


# transforms.json


def test_lenses_that_differ_are_written_with_each_frame() -> None:
    model = model_seen_from(moving(MOTIONS["around"])[:2])
    fisheye = pycolmap.Camera.create_from_model_name(2, "OPENCV_FISHEYE", 200.0, 400, 300)
    fisheye.params = [201, 202, 203, 204, 0.1, 0.2, 0.3, 0.4]
    cameras = {**model.cameras, 2: plain_camera(fisheye)}
    images = [model.images[0], replace(model.images[1], camera_id=2)]
    table = transforms_of(replace(model, cameras=cameras, images=images), {"1.png": 2.5})
    assert "camera_model" not in table
    first, second = table["frames"]
    assert first["camera_model"] == "PINHOLE"
    assert "time" not in first
    expected = {"fl_x": 201, "fl_y": 202, "cx": 203, "cy": 204}
    expected |= {"k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4, "time": 2.5, "w": 400, "h": 300}
    assert {key: second[key] for key in expected} == expected
    c2w = np.array(second["transform_matrix"])
    np.testing.assert_allclose(c2w, moving(MOTIONS["around"])[1], atol=1e-12)


# Frames, pairs, names


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -5), (4, 3)])
def test_displacement_is_measured_in_pixels(shift: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    wide = np.asarray(
        Image.fromarray(rng.integers(0, 255, (260, 360), dtype=np.uint8)).filter(
            ImageFilter.GaussianBlur(1.5)
        )
    )
    before = wide[10:250, 20:340]
    after = wide[10 + shift[0] : 250 + shift[0], 20 + shift[1] : 340 + shift[1]]
    assert displacement(before, after) == pytest.approx(np.hypot(*shift), abs=0.25)


def test_displacement_of_nothing_is_nothing() -> None:
    flat = np.full((240, 320), 9.0)
    assert displacement(flat, flat) == 0.0
    assert displacement(flat[:4], flat[:4]) == 0.0


def test_relative_sharpness_ignores_what_is_in_the_picture() -> None:
    values = np.r_[np.full(20, 0.1), np.full(20, 10.0)]
    values[[5, 30]] *= 0.2
    relative = relative_sharpness(values)
    assert set(np.flatnonzero(relative < 0.5)) >= {5, 30}
    assert relative[10] == pytest.approx(1.0)
    assert relative[35] == pytest.approx(1.0)
    assert np.isfinite(relative_sharpness(np.zeros(3))).all()


def test_a_still_video_is_spread_over_time() -> None:
    track = VideoTrack(
        times=np.arange(100) / 10, sharpness=np.ones(100), displacement=np.full(100, 0.01)
    )
    chosen = select_frames(track, 10)
    assert len(chosen) == 10
    assert set(np.diff(chosen)) <= {9, 10, 11}


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="--num-frames-target"):
        VideoOptions(num_frames_target=2)


def test_pictures_that_share_features_are_the_similar_ones() -> None:
    rng = np.random.default_rng(0)
    shared, other = rng.normal(size=(60, 32)), rng.normal(size=(60, 32))
    near = shared + 0.05 * rng.normal(size=shared.shape)
    votes = similarity([shared, near[::-1], other, np.empty((0, 32))])
    assert votes[0, 1] == votes[1, 0] == 60
    assert votes[0, 2] < 6
    assert votes[3].sum() == votes.trace() == 0


def test_names_without_white_space_stay_unique() -> None:
    taken: set[str] = set()
    for name, expected in (("a b.png", "a_b.png"), ("a_b.png", "a_b-2.png"), ("c", "c")):
        assert unused_name(name, taken) == expected
        taken.add(expected)
