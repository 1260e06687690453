"""What is said while a scene is made: lines, and in a terminal one display below them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from scene4d.pipeline.inputs import find_input
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.plan import Plan, plan_of
from scene4d.pipeline.stage import Done
from scene4d.pipeline.watch import TerminalWatch
from scene4d.training.display import Display, shown
from scene4d.training.log import TrainingLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def plan(capture: Path) -> Plan:
    return plan_of(find_input(capture), MakeOptions(minutes=1.0))


def text_of(display: Display) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(display.drawn())
    return console.export_text()


def test_a_training_is_shown_below_the_stages_in_one_display(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    train, bundle = plan.stages[:2]
    with TerminalWatch() as watch:
        watch.planned(plan, {})
        watch.begins(train, plan, 30.0)
        with TrainingLog(tmp_path, total_steps=10, max_minutes=None) as log:
            log.log_step(5, {"loss": 0.125})
            print("said by the way", file=sys.stderr)
            with shown(lambda width: "") as display:
                seen = text_of(display)
        assert f"[1/{len(plan.stages)}] train" in seen and "0.1250" in seen
        with shown(lambda width: "") as again:
            assert again is display and "0.1250" not in text_of(again)
        results = {"method": "splat", "size": "64x64", "steps": 10}
        done = Done(folder=tmp_path, key="", seconds=40.0, results=results)
        watch.ends(train, done)
        watch.begins(bundle, plan, 20.0)
        passed, left = watch.left()
        # the training as it was, a moment of compression, the player where it is built
        assert 40.0 <= passed < 45.0 and 15.0 < left <= 25.0
    written = terminal.getvalue()
    assert "said by the way" in written and "train done in 40s" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # one display, and over


def test_elsewhere_there_are_lines_alone(plan: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    with TerminalWatch() as watch:
        watch.planned(plan, {})
        watch.begins(plan.stages[0], plan, 30.0)
    said = capfd.readouterr().err
    assert "\x1b" not in said and "[1/" in said
