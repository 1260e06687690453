"""The verb compress: sizes that are met, targets that contradict, nothing left half-written."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scene4d.bundle.splat_file import read_s4d
from scene4d.cli import main as command
from scene4d.errors import UsageError
from scene4d.exporters.bundle import LANDING
from scene4d.formats.ply import write_ply
from scene4d.formats.registry import write_splats
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lpgs import compress as module
from scene4d.methods.lpgs.compress import Compressed, _next_size, _preferred
from scene4d.training import rendered_capture
from scene4d.training.trainer import Trainer

pytestmark = pytest.mark.unchecked_shapes

QUICK = ["--steps", "30", "--device", "cpu"]


def cloud_of(count: int) -> SplatCloud:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return SplatCloud(
        means=normal(count, 3), quats=normal(count, 4), log_scales=0.4 * normal(count, 3) - 3,
        logit_opacities=normal(count) + 1, sh=0.4 * normal(count, 4, 3),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def few_small_renders(monkeypatch) -> None:
    """Of a splat file: enough to see that they are used."""
    monkeypatch.setattr(rendered_capture, "NUM_CAMERAS", 24)
    monkeypatch.setattr(rendered_capture, "IMAGE_SIZE", 64)


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    write_ply(tmp_path / "in" / "scene.ply", cloud_of(2000))
    return tmp_path / "in" / "scene.ply"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "small.s4d"


def test_a_run_becomes_a_bundle_of_the_size_asked_for(tiny_run, out: Path, capsys) -> None:
    assert command.main(["compress", str(tiny_run), str(out), "--target-mb", "0.005", *QUICK]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert out.stat().st_size == pytest.approx(5000, rel=LANDING)
    assert len(read_s4d(out)) > 20
    assert "against photographs" in told.err  # the run's own capture
    assert "on 2 held-out views" in told.err
    assert [p.name for p in out.parent.iterdir()] == ["small.s4d"]


def test_a_file_becomes_a_bundle_of_the_size_asked_for(ply: Path, out: Path, capsys) -> None:
    assert command.main(["compress", str(ply), str(out), "--target-mb", "0.02", *QUICK]) == 0
    told = capsys.readouterr()
    assert out.stat().st_size == pytest.approx(20_000, rel=LANDING)
    assert "before: 2,000" in told.err
    assert "against the original's renders" in told.err
    found = read_s4d(out)
    assert len(found) > 200
    # In the file's own frame: the middle of what is kept lies where it lay (a spread of 1).
    np.testing.assert_allclose(np.median(found.means, axis=0), 0, atol=0.3)
    assert command.main(["info", str(out)]) == 0


def test_without_a_target_the_looks_choose(ply: Path, out: Path, capsys) -> None:
    assert command.main(["compress", str(ply), str(out), *QUICK]) == 0
    assert 10_000 < out.stat().st_size < 236 * 2000
    assert len(read_s4d(out)) > 500


def test_a_loss_that_is_allowed_is_met(ply: Path, out: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "scene4d")
    arguments = ["compress", str(ply), str(out), "--target-psnr-drop", "100", *QUICK]
    assert command.main(arguments) == 0
    lost = [m for m in caplog.messages if " MB loses " in m]
    assert 1 <= len(lost) <= module.ROUNDS
    # 100 dB are lost by nothing: the smallest of the rounds is what is left.
    smallest = min(float(line.split(" MB")[0]) for line in lost)
    assert out.stat().st_size / 1e6 == pytest.approx(smallest, abs=0.0006)
    assert [p.name for p in out.parent.iterdir()] == ["small.s4d"]


def test_a_loss_that_no_size_meets_is_told(ply: Path, out: Path, caplog, capsys) -> None:
    """Two steps bring no picture within 0 dB of the scene's own renders."""
    caplog.set_level(logging.INFO, "scene4d")
    arguments = ["compress", str(ply), str(out), "--target-psnr-drop", "0", "--steps", "2"]
    assert command.main(arguments) == 0
    assert "at most 0 dB were asked for: of the sizes tried this one" in caplog.text
    lost = [float(m) for m in re.findall(r"MB loses ([\d.]+) dB", caplog.text)]
    told = re.search(r"PSNR ([\d.]+) dB, before ([\d.]+) dB", capsys.readouterr().err)
    assert told is not None
    after, before = map(float, told.groups())
    assert before - after == pytest.approx(min(lost), abs=0.02)  # both are rounded to 0.01
    assert command.main([*arguments, "--strict"]) == 1
    assert "(--strict)" in capsys.readouterr().err and out.is_file()


def one_place(count: int) -> SplatCloud:
    cloud = cloud_of(count)
    return replace(cloud, means=np.zeros_like(cloud.means))


def transparent(count: int) -> SplatCloud:
    return replace(cloud_of(count), logit_opacities=np.full(count, -12, dtype=np.float32))


DEGENERATE = {
    "one": lambda: cloud_of(1),
    "two": lambda: cloud_of(2),
    "three": lambda: cloud_of(3),
    "at one point": lambda: one_place(30),
    "one point, one splat": lambda: one_place(1),
    "transparent": lambda: transparent(30),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_scene_of_next_to_nothing_is_a_bundle_or_told(
    tmp_path: Path, out: Path, capsys, name: str
) -> None:
    """A scene may lose every splat while it is trained; one always stays."""
    write_ply(tmp_path / "a.ply", DEGENERATE[name]())
    pressed = ["--steps", "12", "--masks-lr", "2", "--rate.weight", "10"]
    status = command.main(["compress", str(tmp_path / "a.ply"), str(out), *pressed])
    told = capsys.readouterr().err
    assert "Traceback" not in told
    if status == 0:
        assert len(read_s4d(out)) >= 1
    else:
        assert "compress: error:" in told and not out.exists()


def test_a_scene_without_splats_is_told(tmp_path: Path, out: Path, capsys) -> None:
    write_ply(tmp_path / "a.ply", cloud_of(0))
    assert command.main(["compress", str(tmp_path / "a.ply"), str(out), *QUICK]) == 1
    assert "holds no splats" in capsys.readouterr().err


def test_damaged_splats_are_left_out_on_request(tmp_path: Path, out: Path, capsys, caplog) -> None:
    cloud = cloud_of(300)
    write_ply(tmp_path / "a.ply", cloud)
    data = (tmp_path / "a.ply").read_bytes()
    value = struct.pack("<f", cloud.means[7, 0])
    (tmp_path / "a.ply").write_bytes(data.replace(value, struct.pack("<f", np.nan)))
    arguments = ["compress", str(tmp_path / "a.ply"), str(out), *QUICK]
    assert command.main(arguments) == 1
    assert "--drop-invalid" in capsys.readouterr().err
    assert command.main([*arguments, "--drop-invalid"]) == 0
    assert "left out 1 of 300 splats" in caplog.text


@pytest.mark.parametrize("suffix", [".ply", ".spz"])
def test_the_size_before_is_the_files_own(tmp_path: Path, out: Path, capsys, suffix: str) -> None:
    """2,000 splats of degree 0 are 68 bytes each as PLY, not the 236 of degree 3."""
    cloud = cloud_of(2000)
    source = tmp_path / f"a{suffix}"
    write_splats(source, replace(cloud, sh=cloud.sh[:, :1].copy()))
    assert command.main(["compress", str(source), str(out), "--steps", "2"]) == 0
    told = capsys.readouterr().err
    own = "" if suffix == ".ply" else f"{source.stat().st_size / 1e6:.3g} MB as spz, "
    assert f"before: 2,000, {own}0.136 MB as PLY of degree 0" in told


def test_no_folder_is_named_that_goes_again(ply: Path, out: Path, capsys, caplog) -> None:
    caplog.set_level(logging.INFO)
    assert command.main(["compress", str(ply), str(out), "--steps", "2"]) == 0
    told = capsys.readouterr().err + caplog.text
    assert "scene4d-compress-" not in told and "run folder" not in told


def test_an_interrupted_training_is_kept_and_named(ply: Path, out: Path, capsys) -> None:
    step = Trainer._step

    def interrupted(self):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_step", interrupted)
        assert command.main(["compress", str(ply), str(out), *QUICK]) == 1
    run = re.search(r"--resume (\S+)", capsys.readouterr().err)
    assert run is not None
    assert list((Path(run[1]) / "checkpoints").glob("step-*.safetensors"))
    shutil.rmtree(Path(run[1]).parents[2])


WRONG = {
    "both targets": (["--target-mb", "1", "--target-psnr-drop", "0.1"], "exclude each other"),
    "no size": (["--target-mb", "0"], "must be positive"),
    "negative": (["--target-mb", "-2"], "must be positive"),
    "not a size": (["--target-mb", "nan"], "must be positive"),
    "not a loss": (["--target-psnr-drop", "nan"], "--target-psnr-drop is nan"),
    "too many children": (["--num-children", "5"], "0 to 4"),
    "too wide": (["--num-children", "1", "--hidden", "1000"], "1 to 256"),
    "nothing held out": (["--target-psnr-drop", "1", "--test-every", "0"], "holds no picture out"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_told_before_training(tiny_run, out: Path, capsys, name: str) -> None:
    arguments, message = WRONG[name]
    if name == "nothing held out":
        arguments = [*arguments, "--data", str(_capture_of(tiny_run))]
    try:
        status = command.main(["compress", str(tiny_run), str(out), *arguments, *QUICK])
    except SystemExit as stopped:  # tyro's own way
        status = stopped.code
    told = capsys.readouterr().err
    assert status == 2
    assert message in told
    assert "Traceback" not in told
    assert "run folder" not in told
    assert not list(out.parent.iterdir())


def _capture_of(run: Path) -> Path:
    from scene4d.training.run import load_run

    path = load_run(run).options.data
    assert path is not None
    return path


@pytest.mark.parametrize("name", ["small.ply", "small", "small.s4d.zip"])
def test_other_suffixes_are_refused(tiny_run, tmp_path: Path, capsys, name: str) -> None:
    assert command.main(["compress", str(tiny_run), str(tmp_path / name), *QUICK]) == 2
    assert "SOMETHING.s4d" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_folder_is_not_overwritten(tiny_run, out: Path, capsys) -> None:
    out.mkdir()
    assert command.main(["compress", str(tiny_run), str(out), *QUICK]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert not list(out.iterdir())


@pytest.mark.parametrize("text", [None, "hello"])
def test_a_source_that_is_none_fails_with_one_message(tmp_path, out: Path, capsys, text) -> None:
    source = tmp_path / "scene.bin"
    if text is not None:
        source.write_text(text)
    assert command.main(["compress", str(source), str(out), *QUICK]) == 1
    told = capsys.readouterr().err
    assert "scene.bin" in told
    assert "Traceback" not in told


def test_a_size_out_of_reach_leaves_the_earlier_file_alone(tiny_run, out: Path, capsys) -> None:
    out.write_bytes(b"earlier")
    arguments = ["compress", str(tiny_run), str(out), "--target-mb", "0.001", *QUICK]
    assert command.main(arguments) == 2
    told = capsys.readouterr().err
    assert "poster, cameras and manifest alone take" in told and "step 1" not in told
    assert out.read_bytes() == b"earlier"
    assert [p.name for p in out.parent.iterdir()] == ["small.s4d"]


def test_a_machine_too_slow_for_the_training_still_gives_the_size(ply, out: Path, capsys) -> None:
    """A single step drops nothing; the least important Gaussians go at the end."""
    assert command.main(["compress", str(ply), str(out), "--steps", "20", "--device", "cpu"]) == 0
    target = f"{0.5 * out.stat().st_size / 1e6:.4f}"
    arguments = ["compress", str(ply), str(out), "--target-mb", target, "--strict"]
    assert command.main([*arguments, "--steps", "1", "--device", "cpu"]) == 0
    assert out.stat().st_size == pytest.approx(float(target) * 1e6, rel=LANDING)
    assert 400 < len(read_s4d(out)) < 1900


def test_more_than_a_scene_fills_gives_the_most(ply, out: Path, capsys, caplog) -> None:
    arguments = ["compress", str(ply), str(out), "--target-mb", "5", *QUICK]
    assert command.main(arguments) == 0
    assert "asked for 5 MB, and this scene fills no more than" in caplog.text
    assert len(read_s4d(out)) > 1000
    out.unlink()
    assert command.main([*arguments, "--strict"]) == 1
    assert "5 MB within 2% were asked for (--strict)" in capsys.readouterr().err
    assert out.is_file()


# Looking for a size by what it loses


def test_a_bundle_is_as_asked_by_its_size_or_by_its_loss() -> None:
    assert replace(made(1.0, 5.0), target_mb=1.015).on_target
    assert not replace(made(1.0, 5.0), target_mb=1.03).on_target
    assert replace(made(1.0, 0.1), target_drop=0.11).on_target
    assert not replace(made(1.0, 0.1), target_drop=0.09).on_target


def made(size_mb: float, drop: float) -> Compressed:
    return Compressed(
        path=Path("a.s4d"), size_mb=size_mb, psnr_before=30.0, psnr_after=30.0 - drop,
        num_before=1, num_after=1, views=1, against="", seconds=0.0,
    )  # fmt: skip


def test_the_smallest_that_is_allowed_is_preferred_or_the_best() -> None:
    a, b, c = made(1.0, 0.05), made(0.5, 0.09), made(0.25, 0.4)
    assert _preferred([a, b, c], 0.1) is b
    assert _preferred([c, b, a], 0.1) is b
    assert _preferred([a, b, c], 1.0) is c
    assert _preferred([b, c], 0.01) is b
    assert _preferred([a], -1.0) is a


def test_the_next_size_lies_where_the_measured_line_meets_the_loss() -> None:
    # 1 MB loses 0.2 dB and 0.5 MB 0.7 dB: 0.5 dB for halving; 0.45 dB is half-way in logarithms.
    assert _next_size([made(1.0, 0.2), made(0.5, 0.7)], 0.45) == pytest.approx(0.5 * 2**0.5)
    assert _next_size([made(0.5, 0.7), made(1.0, 0.2)], 0.45) == pytest.approx(1.0 / 2**0.5)
    # With one measurement: 0.8 dB for halving.
    assert _next_size([made(1.0, 0.2)], 0.6) == pytest.approx(1.0 / 2**0.5)
    assert _next_size([made(1.0, 0.2)], 0.2) == pytest.approx(1.0)


def test_the_next_size_is_never_more_than_four_times_away() -> None:
    assert _next_size([made(1.0, -20.0)], 0.1) == 0.25
    assert _next_size([made(1.0, 20.0)], 0.1) == 4.0
    # Two measurements that contradict (smaller is better) still lead downwards, at 0.8 dB.
    assert _next_size([made(1.0, 0.5), made(0.5, 0.4)], 0.6) == pytest.approx(0.5 / 2**0.25)
    assert _next_size([made(0.5, 0.1), made(0.5, 0.1)], 5.0) == 0.125
    assert _next_size([made(0.5, 0.4), made(0.5, 0.4)], 0.1) > 0.5


def rounds_on(loss, size: float, allowed: float) -> list[Compressed]:
    tried: list[Compressed] = []
    for _ in range(module.ROUNDS):
        tried.append(made(size, loss(size)))
        size = _next_size(tried, allowed)
    return tried


@pytest.mark.parametrize("begun", [0.6, 1.2, 4.0])
def test_rounds_come_near_the_size_of_a_known_curve(begun: float) -> None:
    """A scene that loses 0.6 dB for halving from 2 MB on: 0.3 dB are allowed, 2^0.5 MB is it."""
    found = _preferred(rounds_on(lambda mb: 0.6 * np.log2(2.0 / mb), begun, 0.3), 0.3 + 1e-9)
    assert 2.0**0.5 - 1e-9 <= found.size_mb <= 1.2 * 2.0**0.5


def test_a_curve_that_falls_ever_faster_is_not_overshot() -> None:
    """As measured on llff_fern: trained on, 0.41 MB and 0.23 MB gain, and 0.06 MB lose 0.55 dB."""
    sizes, losses = np.log2([0.057, 0.228, 0.412]), [0.55, -0.74, -0.63]
    tried = rounds_on(lambda mb: float(np.interp(np.log2(mb), sizes, losses)), 0.25, 0.05)
    assert all(t.drop <= 0.05 + 1e-6 for t in tried)
    assert _preferred(tried, 0.05 + 1e-6).size_mb < 0.12  # where the line loses 0.05 dB: 0.097


def test_a_later_round_that_cannot_land_keeps_what_was_found(tmp_path, monkeypatch) -> None:
    from scene4d.methods.lpgs.method import LpgsMethod
    from scene4d.training.options import TrainOptions

    write_ply(tmp_path / "scene.ply", cloud_of(600))
    original, sizes = module._one, []

    def second_fails(teacher, output, method, options):
        sizes.append(method.target_mb)
        if len(sizes) == 2:
            raise UsageError("cannot be made")
        return original(teacher, output, method, options)

    monkeypatch.setattr(module, "_one", second_fails)
    out = tmp_path / "out" / "small.s4d"
    method = LpgsMethod(steps=5)
    options = TrainOptions(device="cpu")
    found = module.compress(
        tmp_path / "scene.ply", out, method=method, options=options, target_psnr_drop=1.0
    )
    assert len(sizes) == 2
    assert found.path == out
    assert found.size_mb == pytest.approx(sizes[0], rel=LANDING)
    assert out.stat().st_size == pytest.approx(sizes[0] * 1e6, rel=LANDING)
    assert [p.name for p in out.parent.iterdir()] == ["small.s4d"]
