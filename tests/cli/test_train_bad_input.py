"""``scene4d train`` on mistakes: one message, exit status 1 or 2, and earlier results untouched."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scene4d.cli.main import main
from scene4d.training.run import load_run, locked


def edited(change):
    """A mistake made by editing transforms.json."""

    def spoil(capture: Path) -> None:
        path = capture / "transforms.json"
        meta = json.loads(path.read_text())
        change(meta)
        path.write_text(json.dumps(meta))

    return spoil


def missing_images(capture: Path) -> None:
    """Most of them: a few are left out with a warning."""
    for path in sorted((capture / "images").iterdir())[1:]:
        path.unlink()


def truncated_image(capture: Path) -> None:
    path = capture / "images" / "004.jpg"
    path.write_bytes(path.read_bytes()[:300])


def image_of_another_shape(capture: Path) -> None:
    Image.new("RGB", (30, 40)).save(capture / "images" / "004.jpg")


def pose_entry(row: int, column: int, value: float):
    return lambda meta: meta["frames"][4]["transform_matrix"][row].__setitem__(column, value)


def empty_colmap_model(capture: Path) -> None:
    (capture / "transforms.json").unlink()
    model = capture / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 PINHOLE 40 30 40 40 20 15\n")
    for name in ("images.txt", "points3D.txt"):
        (model / name).write_text("# nothing\n")


MISTAKES = {
    "missing images": (missing_images, "images are missing"),
    "corrupt image": (truncated_image, "004.jpg"),
    "image of another size": (image_of_another_shape, "not the same shape"),
    "NaN in a pose": (edited(pose_entry(0, 3, math.nan)), "NaN"),
    "no rotation": (edited(pose_entry(0, 0, 2.0)), "not orthonormal"),
    "no cameras": (edited(lambda meta: meta["frames"].clear()), "no frame with a camera is left"),
    "path outside": (
        edited(lambda meta: meta["frames"][4].update(file_path="../../secret.jpg")),
        "points outside its folder",
    ),
    "listed twice": (
        edited(lambda meta: meta["frames"][4].update(file_path="images/003.jpg")),
        "listed 2 times",
    ),
    "empty COLMAP model": (empty_colmap_model, "COLMAP model is empty"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_one_message_and_earlier_results_intact(name, tiny_capture, tiny_run, tmp_path, capfd):
    spoil, message = MISTAKES[name]
    capture = Path(shutil.copytree(tiny_capture, tmp_path / "tiny"))
    spoil(capture)
    outputs = tmp_path / "outputs"
    before = contents(outputs)
    status = main(
        ["train", "splat", "--data", str(capture), "--output-dir", str(outputs), "--steps", "1",
         "--device", "cpu"]
    )  # fmt: skip
    printed = capfd.readouterr()
    assert status == 1
    assert message in printed.err
    assert printed.err.count("error:") == 1 and "Traceback" not in printed.err
    assert printed.out == ""
    assert contents(outputs) == before
    assert len(list(outputs.glob("*/splat/*"))) == 1  # not even an empty folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--downscale-factor", "0"], "--downscale-factor is 0"),
        (["--test-every", "1"], "--test-every is 1"),
        (["--max-frames", "0"], "--max-frames is 0"),
    ],
)
def test_impossible_options_are_wrong_usage(options, message, tiny_capture, tmp_path, capfd):
    outputs = tmp_path / "outputs"
    command = ["train", "splat", "--data", str(tiny_capture), "--output-dir", str(outputs)]
    assert main([*command, "--device", "cpu", *options]) == 2
    assert message in capfd.readouterr().err
    assert not outputs.exists()


def test_a_run_that_another_process_trains_is_left_alone(tiny_run, capfd):
    before = contents(tiny_run)
    with locked(tiny_run):  # a second descriptor is refused as another process's would be
        assert main(["train", "--resume", str(tiny_run)]) == 1
    assert "another process is training in this run folder" in capfd.readouterr().err
    assert contents(tiny_run) == before


@pytest.mark.skipif(os.name == "nt", reason="a limit on the size of files is POSIX")
def test_a_disk_that_fills_up_keeps_the_earlier_checkpoint(tiny_capture, tmp_path):
    """Files may not grow beyond 40 kB: the operating system refuses the write half-way, as a full
    disk does. A checkpoint of 300 Gaussians with their moments takes three times as much."""
    import resource

    first = ["train", "splat", "--data", str(tiny_capture), "--output-dir", str(tmp_path)]
    first += ["--num-random-points", "300", "--device", "cpu", "--steps", "3", "--no-evaluate"]
    assert main(first) == 0
    (run,) = tmp_path.glob("*/splat/*")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 3\n", "steps = 6\n"))
    checkpoints = contents(run / "checkpoints")
    again = ["train", "--resume", str(run), "--no-evaluate"]
    second = subprocess.run(
        [sys.executable, "-m", "scene4d.cli.main", *again],
        capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )  # fmt: skip
    assert second.returncode == 1
    assert "could not be written" in second.stderr and "File too large" in second.stderr
    assert "Traceback" not in second.stderr
    assert contents(run / "checkpoints") == checkpoints
    assert load_run(run).step == 3
    assert main(again) == 0
    assert load_run(run).step == 6
