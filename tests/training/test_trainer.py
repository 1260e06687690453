"""The trainer: it learns, it resumes exactly, it survives being killed, it says what is wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from scene4d.errors import DataError, Scene4dError
from scene4d.methods.splat.method import AdaptiveOptions, McmcOptions, SplatMethod
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run, locked
from scene4d.training.train import resume, start

METHOD = SplatMethod(
    steps=60, num_random_points=300, max_num_gaussians=400, coarsest_downscale=2, sh_degree=1
)


def options(capture, output_dir, **changes):
    settings = {"data": capture, "output_dir": output_dir, "device": "cpu", "evaluate": False}
    return TrainOptions(**{**settings, **changes})


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines) if "loss" in row}


@pytest.fixture(scope="module")
def finished(tiny_capture, tmp_path_factory):
    return start(METHOD, options(tiny_capture, tmp_path_factory.mktemp("outputs")))


def test_training_learns_the_scene(tiny_capture, tmp_path):
    run = start(
        SplatMethod(steps=400, num_random_points=300, max_num_gaussians=500, sh_degree=0),
        options(tiny_capture, tmp_path),
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    psnrs = [row["psnr"] for row in rows if "psnr" in row]
    # The random start already has the mean colours (18 dB); unlearning would show at once. Runs
    # gained 2 to 5 dB: the last bits, which differ where kernels are compiled anew, make of one
    # training another.
    assert sum(psnrs[-10:]) / 10 > sum(psnrs[:3]) / 3 + 1.0


def test_the_run_folder_holds_what_the_design_says(finished):
    names = {p.name for p in finished.iterdir()}
    assert {"config.toml", "scene.json", "metrics.jsonl", "checkpoints"} <= names
    assert finished.parent.name == "splat"
    run = load_run(finished)
    assert run.step == 60
    assert len(run.cameras.train) == 14
    assert run.cameras.test_names == ["images/000.png", "images/008.png"]
    render = run.representation.render(run.cameras.test[0])
    assert render.rgb.shape == (48, 48, 3)


def test_same_seed_same_losses(tiny_capture, tmp_path, finished):
    again = start(METHOD, options(tiny_capture, tmp_path))
    assert losses(again) == losses(finished)


@pytest.mark.parametrize("strategy", ["mcmc", "adaptive"])
def test_resuming_gives_the_losses_it_would_have_had(tiny_capture, tmp_path, strategy, monkeypatch):
    """Straight through, against stopped after step 33 and resumed: bit-identical losses."""
    import scene4d.training.trainer as trainer_module

    method = SplatMethod(
        steps=60, num_random_points=300, max_num_gaussians=600, strategy=strategy,
        sh_degree=1, refine_poses=True, fit_exposure=True,
        mcmc=dict_options("mcmc", refine_every=10), adaptive=dict_options("adaptive"),
    )  # fmt: skip
    straight = start(method, options(tiny_capture, tmp_path / "a"))
    original = trainer_module.Trainer._step

    def stopping(self):
        metrics = original(self)
        if self.step == 33:
            self.interrupted_by = "SIGTERM"
        return metrics

    monkeypatch.setattr(trainer_module.Trainer, "_step", stopping)
    with pytest.raises(trainer_module.Interrupted, match="--resume"):
        start(method, options(tiny_capture, tmp_path / "b"))
    monkeypatch.setattr(trainer_module.Trainer, "_step", original)
    stopped = next((tmp_path / "b").glob("*/splat/*"))
    assert [p.name for p in list_checkpoints(stopped / "checkpoints")] == [
        "step-000000033.safetensors"
    ]
    resume(stopped)
    assert losses(stopped) == losses(straight)
    ends = [load_checkpoint(list_checkpoints(r / "checkpoints")[-1]) for r in (stopped, straight)]
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    for name, tensor in ends[0].tensors.items():
        assert torch.equal(tensor, ends[1].tensors[name]), name


def dict_options(strategy, **changes):
    if strategy == "mcmc":
        return McmcOptions(**changes)
    return AdaptiveOptions(refine_every=10, gradient_threshold=1e-5)


def test_a_moved_run_still_renders_and_finds_its_capture(tiny_capture, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "elsewhere" / "run")
    run = load_run(tmp_path / "elsewhere" / "run")
    assert run.options.data.resolve() == tiny_capture.resolve()
    original = load_run(finished)
    for name, value in original.representation.state_dict().items():
        assert torch.equal(run.representation.state_dict()[name], value)


def test_two_runs_never_share_a_folder(tiny_capture, tmp_path, finished):
    quick = SplatMethod(steps=1, num_random_points=10)
    runs = {start(quick, options(tiny_capture, tmp_path)) for _ in range(3)}
    assert len(runs) == 3
    code = f"from pathlib import Path; from scene4d.training.train import resume; resume(Path({str(finished)!r}))"  # noqa: E501
    before = (finished / "metrics.jsonl").read_bytes()
    with locked(finished):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode != 0
    assert "another process is training in this run folder" in other.stderr
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_damaged_newest_checkpoint_is_passed_over(tiny_capture, tmp_path, caplog):
    run = start(METHOD, options(tiny_capture, tmp_path, checkpoint_every_s=0.0))
    newest = list_checkpoints(run / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    loaded = load_run(run)
    assert loaded.step == 59
    assert newest.name in caplog.text


@pytest.mark.parametrize("large", [False, True])
def test_large_checkpoints_are_rare_and_the_newest_is_kept_alone(
    tiny_capture, tmp_path, monkeypatch, large
):
    """A minute of light slabs wrote 430 MB of them."""
    import scene4d.training.trainer as trainer_module

    if large:
        monkeypatch.setattr(trainer_module, "CHECKPOINT_MB_A_MINUTE", 1e-4)
        monkeypatch.setattr(trainer_module, "LARGE_CHECKPOINT_MB", 1e-4)
    saved = []
    save = trainer_module.Trainer.save
    monkeypatch.setattr(
        trainer_module.Trainer, "save", lambda self: saved.append(self.step) or save(self)
    )
    run = start(METHOD, options(tiny_capture, tmp_path, checkpoint_every_s=0.0))
    steps = 60
    assert len(saved) == (2 if large else steps + 1)  # the first, and the one at the end
    assert len(list_checkpoints(run / "checkpoints")) == (1 if large else 2)


def test_a_run_without_checkpoint_says_so(tiny_capture, tmp_path, finished):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(DataError, match="no readable checkpoint"):
        load_run(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.toml"):
        load_run(tmp_path / "empty")


def test_numbers_that_are_not_finite_stop_training_and_keep_the_last_checkpoint(
    tiny_capture, tmp_path, monkeypatch
):
    import scene4d.training.trainer as trainer_module

    original = trainer_module.Trainer._step

    def poisoned(self):
        metrics = original(self)
        if self.step == 25:
            with torch.no_grad():
                self.trainable.gaussians["sh0"][0] = float("nan")
        return metrics

    monkeypatch.setattr(trainer_module.Trainer, "_step", poisoned)
    with pytest.raises(Scene4dError, match="not finite"):
        start(METHOD, options(tiny_capture, tmp_path, checkpoint_every_s=0.0))
    run = next(tmp_path.glob("*/splat/*"))
    assert load_run(run).step == 24


def command(capture, output_dir, *more):
    return [
        sys.executable, "-m", "scene4d.cli.main", "train", "splat", "--data", str(capture),
        "--output-dir", str(output_dir), "--no-evaluate", "--device", "cpu",
        "--num-random-points", "300", "--max-num-gaussians", "400",
        "--checkpoint-every-s", "0.05", *more,
    ]  # fmt: skip


def wait_for_checkpoint(output_dir, process, timeout_s=90.0):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        runs = list(output_dir.glob("*/splat/*/checkpoints/step-*.safetensors"))
        if runs:
            return runs[0].parent.parent
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint: {process.communicate()}")


@pytest.mark.parametrize("delay_s", [0.0, 0.23])
def test_sigkill_at_any_moment_leaves_a_run_that_resumes(tiny_capture, tmp_path, delay_s):
    process = subprocess.Popen(
        command(tiny_capture, tmp_path, "--steps", "100000"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    run = wait_for_checkpoint(tmp_path, process)
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    loaded = load_run(run)
    assert loaded.step >= 1
    rows = [json.loads(line) for line in complete_lines(run / "metrics.jsonl")]
    logged = max((row["step"] for row in rows if "step" in row), default=0)
    # A checkpoint is due every 0.05 s: what is lost is less than the steps of the last second.
    recent = [row for row in rows if row.get("seconds", 0) > rows[-1].get("seconds", 0) - 1.0]
    assert logged - loaded.step <= 10 * (len(recent) + 1)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 100000", f"steps = {loaded.step + 12}"))
    assert resume(run) == run
    assert load_run(run).step == loaded.step + 12


def complete_lines(path):
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_training_with_a_checkpoint_and_advice(tiny_capture, tmp_path, number):
    process = subprocess.Popen(
        command(tiny_capture, tmp_path, "--steps", "100000"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run = wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"stopped by {number.name}" in stderr
    assert f"scene4d train --resume {run}" in stderr
    assert "Traceback" not in stderr
    assert load_run(run).step >= 1


def test_max_minutes_ends_on_time_with_the_schedule_run_out(tiny_capture, tmp_path):
    run = start(
        SplatMethod(num_random_points=300, max_num_gaussians=400, mcmc=McmcOptions(refine_every=5)),
        options(tiny_capture, tmp_path, max_minutes=0.05),
    )
    loaded = load_run(run)
    assert 3.0 <= loaded.elapsed_s < 4.5  # one step and the last checkpoint may run over
    assert loaded.representation.num_gaussians == 400  # growth reached its end
    assert loaded.representation.active_sh_degree == 3
