"""Time is seconds, whatever the capture says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scene4d.data.frame import in_working_frame
from scene4d.data.load import read_scene
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError
from scene4d.training.notices import notices


def times_of(scene) -> list[float]:
    return [float(frame.camera.time) for frame in scene.frames]


def with_times(times, **meta):
    """Changes a capture so that its frames have these times."""

    def change(made):
        for frame, time in zip(made["frames"], times, strict=True):
            frame["time"] = time
        made.update(meta)

    return change


def test_the_unit_is_what_the_capture_says_or_what_fits(make_capture):
    n = 9
    share = [i / (n - 1) for i in range(n)]
    frames = list(range(n))
    seconds = [0.04 * i for i in range(n)]
    epoch = [1.7e9 + t for t in seconds]
    cases = [
        (share, {"fps": 20}, 8 / 20, "shares"),
        (share, {"duration_s": 3.0}, 3.0, "shares"),
        (share, {}, 8 / 30, "30 pictures a second assumed"),
        (share, {"time_unit": "seconds"}, 1.0, "seconds"),
        (share, {"fps": 8}, 1.0, "seconds"),
        (share, {"duration_s": 1.0}, 1.0, "seconds"),
        (frames, {"fps": 10}, 0.8, "numbers of frames"),
        (frames, {}, 8 / 30, "30 pictures a second assumed"),
        (frames, {"time_unit": "seconds"}, 8.0, "seconds"),
        (frames, {"fps": 1}, 8.0, "seconds"),
        (seconds, {"fps": 25}, 0.32, "seconds"),
        (seconds, {"time_unit": "s"}, 0.32, "s"),
        ([10 + 0.37 * i for i in range(n)], {}, 2.96, "seconds"),
        ([1000 * t for t in seconds], {"fps": 25}, 0.32, "milliseconds"),
        ([1000 * t for t in seconds], {"time_unit": "ms"}, 0.32, "ms"),
        (epoch, {}, 0.32, "a clock's stamps (s), counted from the first picture"),
        ([round(1e9 * t) for t in epoch], {}, 0.32, "a clock's stamps (ns)"),
        ([int(1e6 * t) for t in epoch], {"time_unit": "us"}, 0.32, "us"),
    ]
    for k, (times, meta, span, words) in enumerate(cases):
        scene = read_scene(make_capture(n, with_times(times, **meta), folder=f"c{k}"))
        found = times_of(scene)
        # Stamps of 1.7e9 s are doubles in steps of 0.2 microseconds.
        assert found[-1] - found[0] == pytest.approx(span, abs=1e-6), (times, meta)
        assert words in scene.metadata["times"], (times, meta)
        single = times_of(in_working_frame(scene))
        assert np.diff(single) == pytest.approx(np.diff(found), abs=1e-6)


def test_cameras_whose_stamps_differ_by_milliseconds_keep_them(make_capture):
    """Two cameras at 25 pictures a second, one 7 ms late: the step is the cameras' own."""
    times = [0.04 * (i // 2) + 0.007 * (i % 2) for i in range(10)]

    def change(meta):
        with_times(times, fps=25)(meta)
        for i, frame in enumerate(meta["frames"]):
            frame["camera"] = i % 2

    scene = read_scene(make_capture(10, change))
    assert times_of(scene) == pytest.approx(times)
    assert trajectories(scene) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_left_out_frames_change_no_time(make_capture):
    from scene4d.data.options import SceneOptions

    root = make_capture(9, with_times([i / 8 for i in range(9)]))
    whole = dict(
        zip([f.name for f in read_scene(root).frames], times_of(read_scene(root)), strict=True)
    )
    part = read_scene(root, SceneOptions(max_frames=4))
    assert {f.name: float(f.camera.time) for f in part.frames}.items() <= whole.items()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"time_unit": "fortnights"}, r"time_unit 'fortnights' is not known\n.*seconds"),
        ({"time_unit": 3}, r"time_unit should be a text, not 3"),
        ({"fps": 0}, r"fps should be positive"),
        ({"duration_s": -1.0}, r"duration_s should be positive"),
        ({"fps": "fast"}, r"fps should be a finite number"),
    ],
)
def test_what_a_capture_says_of_its_times_is_checked(make_capture, meta, message):
    root = make_capture(9, with_times([i / 8 for i in range(9)], **meta))
    with pytest.raises(DataError, match=message):
        read_scene(root)


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"soon"', "true", "[1]"])
def test_a_time_that_is_no_number_is_an_error(make_capture, value):
    root = make_capture(3, with_times([0.0, 0.5, 1.0]))
    path = root / "transforms.json"
    text = path.read_text()
    path.write_text(text.replace('"time": 0.5', f'"time": {value}'))
    with pytest.raises(DataError, match=r"number|NaN|Infinity|JSON"):
        read_scene(root)


class Dynamic:
    name, uses_time, refine_poses = "motion", True, False

    def terms(self) -> list:
        return []


def told(scene) -> str:
    return "\n".join(notices(scene, Dynamic()))


@pytest.mark.parametrize("times", [None, [0.25] * 9])
def test_a_method_of_time_needs_two_times(make_capture, times):
    root = make_capture(9, None if times is None else with_times(times))
    with pytest.raises(DataError, match=r"(one time|no time).*\n.*splat"):
        notices(read_scene(root), Dynamic())


def test_one_picture_is_no_motion(make_capture):
    scene = read_scene(make_capture(2, with_times([0.0, 1.0])))
    with pytest.raises(DataError, match="one time"):
        notices(replace(scene, train_indices=[0], test_indices=[1]), Dynamic())


def test_a_training_says_which_times_it_has(make_capture):
    scene = read_scene(make_capture(9, with_times([i / 8 for i in range(9)], duration_s=2.0)))
    assert "7 times from 0.25 to 1.75 s (shares of the whole (0 to 1): 1 is 2 s)" in told(scene)


def test_times_that_go_back_or_stand_still_are_told(make_capture):
    times = [0.0, 0.3, 0.1, 0.2, 0.4, 0.5, 0.5, 0.7, 0.8]
    scene = read_scene(make_capture(9, with_times(times, time_unit="s")))
    scene = replace(scene, train_indices=range(9), test_indices=())
    text = told(scene)
    assert "do not increase" in text and "1 pictures of one camera have the time" in text
    path = trajectories(scene)[0]
    assert np.all(np.diff([times[i] for i in path]) >= 0)


def test_a_camera_that_never_moves_is_told_and_omega_of_one_that_does(make_capture):
    times = [i / 8 for i in range(9)]
    ring = read_scene(make_capture(9, with_times(times, time_unit="s")))
    # 7 of 9 places of a ring of radius 4 that look at its middle from height 1.5: chords of 40
    # degrees on the circle, an eighth of a second apart
    chord = math.degrees(2 * math.asin(math.sin(math.radians(20)) * 4 / math.hypot(4, 1.5)))
    assert f"omega {8 * chord:.3g} degrees a second: as fast the camera turns" in told(ring)

    def still(meta):
        with_times(times, time_unit="s")(meta)
        for frame in meta["frames"]:
            frame["transform_matrix"] = meta["frames"][0]["transform_matrix"]

    text = told(read_scene(make_capture(9, still, folder="still")))
    assert "never moves" in text and "relief" in text and "omega" not in text


def test_cameras_that_never_ran_together_are_told(make_capture):
    def change(meta):
        with_times([0.0, 0.1, 0.2, 5.0, 5.1, 5.2], time_unit="s")(meta)
        for i, frame in enumerate(meta["frames"]):
            frame["camera"] = "left" if i < 3 else "right"

    scene = read_scene(make_capture(6, change))
    scene = replace(scene, train_indices=range(6), test_indices=())
    assert "two cameras have no time in common: 0 to 0.2 s" in told(scene)
    beyond = replace(scene, train_indices=range(3), test_indices=range(3, 6))
    assert "3 test pictures are of times before or after" in told(beyond)


def test_an_own_number_for_each_frame_tells_no_cameras_apart(make_capture):
    def change(meta):
        with_times([i / 8 for i in range(9)])(meta)
        for i, frame in enumerate(meta["frames"]):
            frame["camera_id"] = i

    assert trajectories(read_scene(make_capture(9, change))) == [list(range(9))]


def test_a_capture_of_process_data_says_seconds():
    from scene4d.data.process.write import transforms_of

    class Model:
        cameras, images = {}, []

    assert transforms_of(Model(), {"a": 0.5})["time_unit"] == "seconds"
    assert "time_unit" not in transforms_of(Model(), {})


def test_d_nerf_shares_are_of_train_and_test_together(tmp_path, make_capture):
    """D-NeRF: train and test each have their own pictures of 0..1."""
    root = make_capture(6)
    meta = json.loads((root / "transforms.json").read_text())
    for name, part in (("train", meta["frames"][:4]), ("test", meta["frames"][4:])):
        for i, frame in enumerate(part):
            frame["time"] = i / (len(part) - 1)
            frame["file_path"] = frame["file_path"].removesuffix(".png")
        (root / f"transforms_{name}.json").write_text(
            json.dumps({"camera_angle_x": 0.8, "frames": part, "fps": 10})
        )
    (root / "transforms.json").unlink()
    scene = read_scene(root)
    assert times_of(scene) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.0, 0.3])


def test_time_is_a_double_until_it_counts_from_the_start(make_capture):
    scene = read_scene(make_capture(3, with_times([1.7e9, 1.7e9 + 0.001, 1.7e9 + 0.002])))
    assert scene.frames[0].camera.time.dtype == torch.float64
    assert times_of(scene) == pytest.approx([0, 0.001, 0.002], abs=1e-6)
