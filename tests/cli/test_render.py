"""``scene4d render`` on a real run: what is written, where, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from PIL import Image

from scene4d.cameras.path_files import in_frame, load_path
from scene4d.cli.main import main
from scene4d.cli.render import image_names, outputs_last, parse_colour
from scene4d.errors import UsageError
from scene4d.exporters.frames import to_bytes
from scene4d.training.run import load_run


def images_in(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(folder).as_posix(): np.asarray(Image.open(path))
        for path in sorted(folder.rglob("*.png"))
    }


def test_dataset_renders_the_held_out_views_under_their_names(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["render", str(tiny_run), "dataset", "--output-path", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(out)]  # progress is on stderr
    assert "rendering 2/2" in said.err
    run = load_run(tiny_run)
    images = images_in(out)
    assert list(images) == ["images/000.png", "images/008.png"]  # of .jpg photos
    with torch.no_grad():
        expected = run.representation.render(run.cameras.test[1]).rgb
    assert np.array_equal(images["images/008.png"], to_bytes(expected))


def test_train_split_smaller_with_several_outputs_and_background(tiny_run, tmp_path):
    out = tmp_path / "out"
    options = ["--split", "train", "--downscale-factor", "2", "--background", "#ff0000"]
    # --outputs stands before the positional arguments on purpose
    argv = ["--outputs", "alpha", "rgb", str(tiny_run), "dataset", *options]
    assert main(["render", *argv, "--output-path", str(out)]) == 0
    images = images_in(out)
    assert len(images) == 14 and {name.split("/")[0] for name in images} == {"alpha", "rgb"}
    assert {image.shape for image in images.values()} == {(15, 20, 3)}
    run = load_run(tiny_run)
    camera, red = run.cameras.train[0].resized(20, 15), torch.tensor([1.0, 0.0, 0.0])
    with torch.no_grad():
        render = run.representation.render(camera, background=red)
    assert np.array_equal(images["rgb/images/001.png"], to_bytes(render.rgb))
    alpha = to_bytes(render.alpha[..., None].expand(15, 20, 3))
    assert np.array_equal(images["alpha/images/001.png"], alpha)
    assert alpha.min() < 250  # or else the background would not show


@pytest.mark.parametrize("cameras", ["spiral", "orbit", "interpolate"])
def test_paths_come_back_from_their_file(tiny_run, tmp_path, capsys, cameras):
    saved = tmp_path / "path.json"
    argv = ["render", str(tiny_run), cameras, "--num-frames", "3", "--fps", "8"]
    first = tmp_path / "first"
    assert main([*argv, "--output-path", str(first), "--save-path", str(saved)]) == 0
    assert "warning: --fps is not used for images" in capsys.readouterr().err
    assert list(images_in(first)) == ["00000.png", "00001.png", "00002.png"]
    assert load_path(saved).fps == 8
    again = tmp_path / "again"
    argv = ["render", str(tiny_run), "path", "--path-file", str(saved)]
    assert main([*argv, "--output-path", str(again)]) == 0
    for name, image in images_in(first).items():
        # The field of view goes through degrees in the file: at most a rounding step of a byte
        assert np.abs(image.astype(int) - images_in(again)[name]).max() <= 1


def test_a_video_has_the_frames_side_by_side(tiny_run, tmp_path):
    av = import_or_skip("av")
    out = tmp_path / "orbit.mp4"
    argv = ["render", str(tiny_run), "orbit", "--num-frames", "4", "--fps", "10"]
    assert main([*argv, "--output-path", str(out), "--outputs", "rgb", "depth"]) == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 4 and frames[0].shape == (30, 80, 3)


def test_a_folder_that_is_there_is_refused_before_any_work(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["render", str(tiny_run), "orbit", "--num-frames", "1", "--output-path", str(out)]
    assert main(argv) == 0
    before = images_in(out)
    assert main([*argv, "--background", "white"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert np.array_equal(images_in(out)["00000.png"], before["00000.png"])
    assert main([*argv, "--background", "white", "--overwrite"]) == 0
    assert not np.array_equal(images_in(out)["00000.png"], before["00000.png"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["path"], "--path-file"),
        (["orbit", "--background", "reddish"], "not a colour"),
        (["orbit", "--downscale-factor", "0"], "--downscale-factor"),
        (["orbit", "--num-frames", "0"], "--num-frames"),
        (["interpolate", "--smoothing", "-1"], "--smoothing"),
        (["orbit", "--outputs", "rgb", "rgb"], "--outputs"),
    ],
)
def test_impossible_options_are_wrong_usage(tiny_run, tmp_path, capsys, argv, message):
    out = str(tmp_path / "out")
    assert main(["render", str(tiny_run), *argv, "--output-path", out]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unreadable_formats_and_runs_are_told(tmp_path, tiny_run, capsys):
    assert main(["render", str(tiny_run), "orbit", "--output-path", str(tmp_path / "a.gif")]) == 2
    assert ".mp4" in capsys.readouterr().err
    assert main(["render", str(tmp_path), "orbit", "--output-path", str(tmp_path / "a")]) == 1
    assert "not a run folder" in capsys.readouterr().err


def test_options_that_are_not_looked_at_give_a_warning(tiny_run, tmp_path, capsys):
    argv = ["render", str(tiny_run), "dataset", "--num-frames", "7"]
    assert main([*argv, "--output-path", str(tmp_path / "out")]) == 0
    assert "warning: --num-frames is not used" in capsys.readouterr().err


def test_image_names_stay_apart_and_inside():
    assert image_names(["a/1.jpg", "a/2.png"]) == ["a/1.png", "a/2.png"]
    assert image_names(["1.jpg", "1.png", "2.jpg"]) == ["1.jpg.png", "1.png.png", "2.png"]
    assert image_names(["../x/1.jpg", "/1.jpg"]) == ["x/1.png", "1.png"]


def test_colours():
    assert parse_colour("white") == (1.0, 1.0, 1.0)
    assert parse_colour("#ff8000") == pytest.approx((1.0, 128 / 255, 0.0))
    with pytest.raises(UsageError):
        parse_colour("#ff80")


def test_outputs_go_last():
    argv = ["--outputs", "rgb", "depth", "RUN", "path"]
    assert outputs_last(argv) == ["RUN", "path", "--outputs", "rgb", "depth"]
    assert outputs_last(["RUN", "path"]) == ["RUN", "path"]


def test_cameras_change_frames_with_their_scale(tiny_run):
    cameras = load_run(tiny_run).cameras.train
    similarity = torch.eye(4)
    similarity[:3, :3] = 2.5 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    similarity[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    moved = [camera.float32() for camera in in_frame(cameras, similarity)]
    expected = similarity[:3, :3] @ cameras[1].position + similarity[:3, 3]
    torch.testing.assert_close(moved[1].position, expected)
    rotation = moved[1].c2w[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-6, rtol=0)
    back = in_frame(moved, similarity.double().inverse())
    torch.testing.assert_close(back[1].c2w.float(), cameras[1].c2w, atol=1e-5, rtol=0)


def test_help_imports_no_torch():
    code = (
        "import sys; from scene4d.cli.main import main\n"
        "try: main(['render', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.replace("│", "").split())
    assert "--output-path" in told and "default: 120" in told
