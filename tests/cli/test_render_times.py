"""``scene4d render`` of scenes that move: time runs, stands still, or the camera does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.cameras.path_files import load_path
from scene4d.cli.main import main
from scene4d.cli.render import RenderArgs, choose_cameras, first_fixed
from scene4d.errors import UsageError
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.run import LoadedRun, load_run


class Moving(GaussianSplats):
    """Splats that say that they move, from second 2 to second 4."""

    times = (2.0, 4.0)


@pytest.fixture
def moving(tiny_run) -> LoadedRun:
    """Its pictures are of one camera on its way, a quarter of a second apart."""
    run = load_run(tiny_run)
    assert isinstance(run.representation, GaussianSplats)
    train = [replace(c, time=torch.tensor(2.0 + 0.25 * i)) for i, c in enumerate(run.cameras.train)]
    test = [replace(c, time=torch.tensor(3.9)) for c in run.cameras.test]
    splats = Moving({name: p.detach() for name, p in run.representation.gaussians.items()})
    return replace(run, representation=splats, cameras=replace(run.cameras, train=train, test=test))


def cameras_of(run: LoadedRun, **options):
    args = RenderArgs(run=run.path, output_path=Path("out"), **options)
    return choose_cameras(args, run)[0]


def times_of(run: LoadedRun, **options) -> list[float]:
    return [float(c.time) for c in cameras_of(run, **options)]


@pytest.mark.parametrize("kind", ["orbit", "spiral"])
def test_time_runs_as_fast_as_it_did_and_starts_again(moving, kind):
    times = times_of(moving, cameras=kind, num_frames=9, fps=2.0)
    # 9 frames at 2 a second of a scene of 2 s
    np.testing.assert_allclose(times, [2, 2.5, 3, 3.5] * 2 + [2], atol=1e-5)
    assert len(times_of(moving, cameras=kind)) == 120


def test_a_flight_along_one_cameras_way_has_its_times_once(moving):
    times = times_of(moving, cameras="interpolate", fps=10.0)
    assert len(times) == 21 and times == sorted(times)  # 2 s, both ends
    assert times[0] == 2 and times[-1] == pytest.approx(3.5)  # the training camera's
    around = times_of(moving, cameras="interpolate", loop=True, num_frames=9, fps=2.0)
    np.testing.assert_allclose(around, [2, 2.5, 3, 3.5] * 2 + [2], atol=1e-5)


@pytest.mark.parametrize("kind", ["dataset", "orbit", "interpolate"])
def test_at_a_time_the_camera_flies_and_nothing_moves(moving, kind):
    flown = cameras_of(moving, cameras=kind, num_frames=5, at_time=3.25)
    assert {float(c.time) for c in flown} == {3.25}
    assert not torch.equal(flown[0].c2w, flown[-1].c2w)
    with pytest.raises(UsageError, match="from 2 to 4 s"):
        cameras_of(moving, cameras=kind, at_time=4.5)


@pytest.mark.parametrize(
    ("wanted", "index"), [("0", 0), ("2", 2), ("images/004.jpg", 3), ("004", 3), ("images", 0)]
)
def test_a_fixed_camera_sees_the_scene_once(moving, wanted, index):
    fixed = cameras_of(moving, fix_camera=wanted, fps=4.0)
    np.testing.assert_allclose([float(c.time) for c in fixed], 2 + np.arange(8) / 4, atol=1e-5)
    assert all(torch.equal(c.c2w, moving.cameras.train[index].c2w) for c in fixed)
    assert len(cameras_of(moving, fix_camera=wanted, num_frames=3)) == 3
    with pytest.raises(UsageError, match="give 0 to 6, or a name such as images/001"):
        cameras_of(moving, fix_camera="7")


def test_a_path_file_keeps_seconds(moving, tmp_path):
    file = tmp_path / "path.json"
    saved = times_of(moving, cameras="orbit", num_frames=4, fps=4.0, save_path=file)
    assert [float(c.time) for c in load_path(file).cameras] == pytest.approx(saved)
    assert times_of(moving, cameras="path", path_file=file) == pytest.approx(saved)
    stopped = times_of(moving, cameras="path", path_file=file, at_time=2.5)
    assert set(stopped) == {2.5}
    file.write_text(file.read_text().replace("render_time", "no_time"))
    ran = times_of(moving, cameras="path", path_file=file)  # none in the file: they run
    np.testing.assert_allclose(ran, [2, 2.25, 2.5, 2.75], atol=1e-5)


def test_what_makes_no_sense_is_told(tiny_run, tmp_path, capsys):
    argv = ["render", str(tiny_run), "--output-path", str(tmp_path / "out"), "--num-frames", "1"]
    assert main([*argv, "--fix-camera", "--at-time", "1"]) == 2
    assert "one picture" in capsys.readouterr().err
    assert main([*argv[:2], "orbit", *argv[2:], "--fix-camera", "3"]) == 2
    assert "chooses the camera" in capsys.readouterr().err
    assert main([*argv, "--at-time", "1"]) == 0
    assert "nothing in the scene moves" in capsys.readouterr().err
    assert main([*argv, "--overwrite", "--fix-camera"]) == 0
    assert "all frames will be the same" in capsys.readouterr().err


def test_a_fixed_camera_without_a_value_is_the_first():
    assert first_fixed(["RUN", "--fix-camera"]) == ["RUN", "--fix-camera", "0"]
    assert first_fixed(["--fix-camera", "--fps", "3"]) == ["--fix-camera", "0", "--fps", "3"]
    assert first_fixed(["--fix-camera", "cam02", "RUN"]) == ["--fix-camera", "cam02", "RUN"]
