"""What training says of its capture, and which run a folder of runs stands for."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene4d.cli.main import main
from scene4d.data.load import load_scene
from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.methods.splat.method import SplatMethod
from scene4d.training.notices import notices
from scene4d.training.run import load_run, newest_run, run_path


@pytest.fixture
def scene(tiny_capture, tmp_path) -> Scene:
    return load_scene(Path(shutil.copytree(tiny_capture, tmp_path / "capture")))


def at_times(scene: Scene, times) -> Scene:
    frames = [
        replace(f, camera=replace(f.camera, time=torch.tensor(float(t))))
        for f, t in zip(scene.frames, times, strict=True)
    ]
    return replace(scene, frames=frames)


def test_an_ordinary_capture_needs_no_words(scene):
    assert notices(scene, SplatMethod()) == []


def test_few_photographs_are_told(scene):
    few = replace(scene, train_indices=scene.train_indices[:6])
    (line,) = notices(few, SplatMethod())
    assert "6 training photographs" in line and "--fixer built-in" in line
    assert not any("few" in said for said in notices(at_times(few, range(16)), SplatMethod()))


def test_weights_that_a_method_does_not_read_are_told(scene):
    first = scene.train_indices[0]
    frames = [replace(f, weight=0.5 if i == first else 1.0) for i, f in enumerate(scene.frames)]
    weighed = replace(scene, frames=frames)
    assert notices(weighed, SplatMethod()) == []
    without = SplatMethod()
    without = replace(without, photometric=replace(without.photometric, weight=0.0))
    (line,) = notices(weighed, without)
    assert "weights" in line and "splat" in line
    assert notices(scene, without) == []


def test_a_poor_capture_is_told_with_its_advice(scene):
    path = scene.root / "diagnosis.json"
    path.write_text(json.dumps({"verdict": "poor", "advice": ["walk around it", "more light"]}))
    (line,) = notices(scene, SplatMethod())
    assert "poor" in line and "walk around it" in line and str(path) in line
    for content in ('{"verdict": "good"}', "[1]", "{", '{"verdict": 3, "advice": 4}'):
        path.write_text(content)
        assert notices(scene, SplatMethod()) == []
    path.write_text('{"verdict": "poor", "advice": [4]}')
    assert len(notices(scene, SplatMethod())) == 1


def test_time_that_is_ignored_is_told_once(scene):
    class Moving(SplatMethod):
        uses_time = True

    timed = at_times(scene, range(len(scene.frames)))
    (line,) = notices(timed, SplatMethod())
    assert "time is ignored" in line and f"{len(scene.frames)} times" in line
    assert not any("ignored" in line for line in notices(timed, Moving()))
    assert notices(at_times(scene, [0.5] * len(scene.frames)), SplatMethod()) == []


def test_held_out_poses_are_not_refined_and_it_is_said(scene):
    (line,) = notices(scene, SplatMethod(refine_poses=True))
    assert "held-out" in line and "--refine-poses" in line
    assert notices(replace(scene, test_indices=[]), SplatMethod(refine_poses=True)) == []


# The newest run


def made_run(folder: Path, *, trained: bool = True) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.toml").write_text("")
    if trained:
        (folder / "checkpoints" / "step-000000001.safetensors").write_bytes(b"")
    return folder


def test_an_experiment_stands_for_its_newest_run(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="scene4d")
    first = made_run(tmp_path / "room" / "splat" / "2026-01-01_100000")
    second = made_run(tmp_path / "room" / "lpgs" / "2026-01-02_100000")
    made_run(tmp_path / "room" / "lpgs" / "2026-01-03_100000", trained=False)
    assert run_path(tmp_path / "room") == second.resolve()
    assert str(second) in caplog.text
    assert run_path(tmp_path / "room" / "splat") == first.resolve()
    assert run_path(first / "config.toml") == first.resolve()
    assert newest_run(tmp_path / "nothing") is None
    with pytest.raises(DataError, match="outputs/EXPERIMENT"):
        run_path(tmp_path / "nothing")


def test_a_training_from_the_command_line_says_all_of_it(tiny_capture, tmp_path, capfd, caplog):
    """With next commands that run as they are printed, and an experiment in place of a run."""
    capture = Path(shutil.copytree(tiny_capture, tmp_path / "my capture"))
    (capture / "diagnosis.json").write_text('{"verdict": "poor", "advice": ["take more"]}')
    outputs = tmp_path / "outputs"
    train = ["train", "splat", "--data", str(capture), "--output-dir", str(outputs), "--steps", "1",
             "--num-random-points", "50", "--device", "cpu", "--no-evaluate"]  # fmt: skip
    assert main(train) == 0
    printed = capfd.readouterr()
    run = printed.out.strip()
    assert caplog.text.count("take more") == 1
    after = printed.err.split("next:\n")[1]
    assert after.count(f"'{run}'" if " " in run else run) >= 3
    assert "scene4d view" in after and "--phone" in after and "scene.ply" in after
    assert main(["info", str(outputs / "my capture")]) == 0
    assert run in capfd.readouterr().out
    target = tmp_path / "a.ply"
    export = ["export", str(outputs / "my capture"), "ply", "--output-path", str(target)]
    assert main(export) == 0 and target.is_file()
    assert load_run(outputs / "my capture").step == 1
