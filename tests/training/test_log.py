import io
import json
import os
import pty
import subprocess
import sys

import pytest

from scene4d.training.log import TrainingLog, cut_after, duration, peak_memory_gb


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_log(run, **options):
    defaults = {"total_steps": 100, "max_minutes": None, "plain": True}
    return TrainingLog(run, **{**defaults, **options})


def test_every_step_is_one_line_that_is_there_at_once(tmp_path):
    with make_log(tmp_path) as log:
        log.log_step(1, {"loss": 0.5, "num_gaussians": 10})
        assert rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5, "num_gaussians": 10}]
        log.log_step(2, {"loss": 0.25})
        assert len(rows(tmp_path / "metrics.jsonl")) == 2


def test_not_a_number_is_null_so_that_every_reader_can_parse_it(tmp_path):
    with make_log(tmp_path) as log:
        log.log_step(1, {"loss": 0.5, "psnr": float("nan"), "num_gaussians": float("inf")})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert rows(tmp_path / "metrics.jsonl")[0]["psnr"] is None


def test_resuming_cuts_later_lines_and_a_half_written_one(tmp_path):
    with make_log(tmp_path) as log:
        for step in (10, 20, 30):
            log.log_step(step, {"loss": 1 / step})
    path = tmp_path / "metrics.jsonl"
    with open(path, "a") as file:
        file.write('{"step": 40, "lo')
    with make_log(tmp_path, first_step=20) as log:
        assert [row["step"] for row in rows(path)] == [10, 20]
        log.log_step(30, {"loss": 0.9})
    assert [row["step"] for row in rows(path)] == [10, 20, 30]
    assert rows(path)[-1]["loss"] == 0.9


@pytest.mark.parametrize("tail", ['{"step": 40, "loss"', '{"step": 40}', "\x00\x00\x00", "[]\n"])
def test_a_damaged_tail_is_dropped(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n' + tail)
    cut_after(path, 100)
    assert path.read_text() == '{"step": 10}\n'


def test_a_whole_file_is_not_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n')
    before = path.stat().st_ino
    cut_after(path, 20)
    assert path.stat().st_ino == before
    cut_after(tmp_path / "absent.jsonl", 5)
    assert not (tmp_path / "absent.jsonl").exists()


def test_plain_lines_are_few_and_on_stderr(tmp_path, capsys):
    with make_log(tmp_path) as log:
        for step in range(1, 51):
            log.log_step(
                step, {"loss": 0.125, "psnr": 20.0, "num_gaussians": 12345.0, "seconds": 1}
            )
        log.event("checkpoint: here")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    # the first step at once, the event, the state at the end; ten seconds have not passed
    assert len(lines) == 3 and lines[1] == "checkpoint: here"
    for expected in ("step 50", "done 50%", "loss 0.1250", "PSNR 20.00 dB", "gaussians 12,345"):
        assert expected in lines[2]


@pytest.mark.parametrize(
    ("budget", "step", "seconds", "done"),
    [
        ({"total_steps": 200}, 50, 10.0, 0.25),
        ({"total_steps": None, "max_minutes": 2.0}, 50, 30.0, 0.25),
        ({"total_steps": 100, "max_minutes": 2.0}, 10, 60.0, 0.5),
        ({"total_steps": 10}, 50, 10.0, 1.0),
        ({"total_steps": None}, 50, 10.0, 0.0),
    ],
)
def test_share_done_follows_steps_or_the_clock(tmp_path, budget, step, seconds, done):
    with make_log(tmp_path, **budget) as log:
        log.log_step(step, {"loss": 1.0, "seconds": seconds})
        assert log.done == pytest.approx(done)
        # what is left takes as long as what is done did, in proportion
        expected = duration(seconds * (1 - done) / done) if done else "-"
        assert log.cells()["ETA"] == expected


def test_table_shows_the_same_cells(tmp_path):
    from rich.console import Console

    with make_log(tmp_path) as log:
        log.log_step(25, {"loss": 0.5, "psnr": 21.5, "num_gaussians": 1000.0})
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(log._table(160))
        text = console.export_text()
        for name, value in log.cells().items():
            # it/s has moved on in the meantime
            assert name in text and (value in text or name == "it/s")


def test_on_a_terminal_there_is_a_live_table(tmp_path):
    """A real pseudo-terminal: the table redraws itself, and only on stderr."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from scene4d.training.log import TrainingLog\n"
        f"log = TrainingLog(Path({str(tmp_path)!r}), total_steps=10, max_minutes=None)\n"
        "with log:\n"
        "    log.log_step(5, {'loss': 0.5}); log.event('saved'); time.sleep(0.6)\n"
        "    log.log_step(10, {'loss': 0.25})\n"
    )
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal here ({error}): a chroot without /dev/pts has none")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0 and done.stdout == b""
    assert "50%" in shown and "100%" in shown and "saved" in shown
    assert "\x1b[" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (60.0, "1m00s"), (3599.0, "59m59s"), (3725.0, "1h02m")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_peak_memory_is_that_of_this_process():
    before = peak_memory_gb()
    if before is None:
        pytest.skip("this system does not say")
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    after = peak_memory_gb()
    # a process with torch takes 0.1 to 20 GB; and the block is in it unless more was freed before
    assert 0.05 < before <= after < 100
    assert after >= 0.2


def test_tensorboard_that_is_not_installed_is_said(tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.warns(UserWarning, match="pip install tensorboard"):
            make_log(tmp_path, tensorboard=True).close()
    else:
        with make_log(tmp_path, tensorboard=True) as log:
            log.log_step(1, {"loss": 0.5})
        assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("width", [30, 60, 80])
def test_a_narrow_terminal_shows_every_cell_whole(tmp_path, width):
    """Tables were cut at 60 columns, lpgs' at 80."""
    from rich.console import Console

    metrics = {
        "seconds": 3600.0, "loss": 0.25, "psnr": 24.25, "image_width": 1080, "image_height": 1920,
        "num_parents": 100_000, "num_children": 400_000, "num_gaussians": 500_000,
    }  # fmt: skip
    with make_log(tmp_path, plain=True) as log:
        log.log_step(7, metrics)
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(log._table(width))
        lines = console.export_text().splitlines()
        assert max(len(line.rstrip()) for line in lines) <= width
        text = "\n".join(lines)
        assert log.cells()["pictures"] == "1080x1920"
        for name, value in log.cells().items():
            assert name in text and (value in text or name == "it/s")
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
