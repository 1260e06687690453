"""What benchmarks/compress.py says of curves: rate differences, pictures, and equal CPU time."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from benchmark_scripts import benchmark
from training.test_every_capture import SMALL

from scene4d.cli import main as command
from scene4d.training.budget import Budget
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.train import start

curves = benchmark("rate_curves")


def line(first: float, growth: float, qualities=(24.0, 27.0, 31.0)) -> list[tuple[float, float]]:
    """A size that grows by a factor with each dB: straight in its logarithm, which PCHIP keeps."""
    return [(first * growth ** (quality - qualities[0]), quality) for quality in qualities]


def test_half_the_size_at_every_quality_is_half_the_rate() -> None:
    anchor = [(0.1, 25.0), (0.2, 27.5), (0.5, 29.0), (1.1, 29.7)]
    half = [(size / 2, quality) for size, quality in anchor]
    found = curves.rate_difference(anchor, half)
    assert found.share == pytest.approx(-0.5, abs=1e-12)  # rounding
    assert (found.low, found.high) == (25.0, 29.7)
    assert curves.rate_difference(anchor, anchor).share == pytest.approx(0, abs=1e-12)
    back = curves.rate_difference(half, anchor).share
    assert (1 + found.share) * (1 + back) == pytest.approx(1, abs=1e-12)


def test_lines_of_other_slopes_differ_by_their_mean_over_the_common_range() -> None:
    """log sizes a + b q and c + d q differ in the mean by what they differ by in the middle."""
    anchor, tested = line(0.2, 1.3), line(0.1, 1.5, qualities=(26.0, 28.0, 33.0))
    middle = (26.0 + 31.0) / 2
    expected = 0.1 * 1.5 ** (middle - 26) / (0.2 * 1.3 ** (middle - 24)) - 1
    found = curves.rate_difference(anchor, tested)
    assert (found.low, found.high) == (26.0, 31.0)
    assert found.share == pytest.approx(expected, abs=1e-12)


def test_points_that_a_smaller_one_is_as_good_as_are_left_out() -> None:
    anchor = line(0.1, 1.4)
    worse = [(0.5, 23.0), (0.6, anchor[1][1])]
    assert curves.front([*worse, *anchor]) == anchor
    assert curves.rate_difference([*worse, *anchor], line(0.05, 1.4)).share == pytest.approx(-0.5)


def test_curves_without_a_common_quality_are_refused() -> None:
    with pytest.raises(ValueError, match="no quality is on both"):
        curves.rate_difference(line(0.1, 1.4), line(0.1, 1.4, qualities=(31.0, 32.0)))
    with pytest.raises(ValueError, match="two points"):
        curves.rate_difference(line(0.1, 1.4), [(0.1, 25.0), (0.2, 24.0)])


def test_the_picture_shows_every_curve_at_its_place() -> None:
    """A point that is twice as good and one that is as large lie above, and right of, the first."""
    picture = curves.picture({"a": {"one": line(0.1, 1.4)}, "b": {"one": line(1, 1.2), "two": [
        (0.1, 24.0), (1.0, 31.0)]}}, size=(200, 160))  # fmt: skip
    assert picture.width == 400
    pixels = np.asarray(picture)
    for number, name in enumerate(("one", "two")):
        colour = tuple(int(curves.COLOURS[number][i : i + 2], 16) for i in (1, 3, 5))
        rows, columns = np.nonzero((pixels[:160] == colour).all(axis=2))
        assert len(rows), name
        if name == "two":
            assert columns.min() > 200  # its panel alone
            assert rows[columns.argmin()] > rows[columns.argmax()]


def test_lengths_of_trainings_are_curves_where_there_are_several() -> None:
    rivals = benchmark("compress").rivals
    rows = [
        {"scene": scene, "options": options, "minutes": minutes, "psnr": 20.0 + minutes / 10}
        for scene, options, minutes in (
            ("room", "", 20), ("room", "", 10), ("room", "--grid", 10), ("head", "", 10),
        )
    ]  # fmt: skip
    found = rivals.over_minutes(rows)
    assert found == {"room": {"default": [(10, 21.0), (20, 22.0)]}}
    assert curves.picture(found, across_in="minutes").size == curves.picture(found).size


def test_time_is_that_of_the_process(monkeypatch) -> None:
    """Waiting, as for other work on the machine, does not count."""
    elapsed = []

    def training() -> int:
        budget = Budget(max_steps=None, max_seconds=60.0)
        time.sleep(0.3)
        elapsed.append(budget.elapsed)
        return 0

    monkeypatch.setattr(command, "main", training)
    assert benchmark("cpu_time").main() == 0
    assert training() == 0
    assert elapsed[0] < 0.1 < 0.3 <= elapsed[1]  # a sleep takes microseconds of CPU


def in_this_process(words: list[str]) -> subprocess.CompletedProcess[str]:
    """In place of a process of its own for each command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert command.main([str(word) for word in words]) == 0
    return subprocess.CompletedProcess(words, 0, out.getvalue(), err.getvalue())


@pytest.mark.unchecked_shapes
def test_rivals_of_a_run_become_rows_of_files_as_they_are_read(
    tiny_capture, tmp_path, monkeypatch, capsys
) -> None:
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    run = start(load_method("splat")(steps=11, **SMALL["splat"]), options)
    script = benchmark("compress")
    monkeypatch.setattr(script.rivals, "by_cpu_time", in_this_process)
    monkeypatch.delenv("SPLAT_TRANSFORM", raising=False)
    written, picture, files = tmp_path / "results.json", tmp_path / "curve.png", tmp_path / "files"
    arguments = ["--minutes", "0.01", "--rivals", "40", "80", "--write", str(written)]
    arguments += ["--curve", str(picture), "--keep", str(files)]
    monkeypatch.setattr(sys, "argv", ["compress.py", str(run), *arguments])
    script.main()
    assert "| spz |" in capsys.readouterr().out
    assert picture.stat().st_size < 20_000  # a drawing, not a photograph
    rows = json.loads(written.read_text())["curves"]
    assert [(r["kind"], r["asked"]) for r in rows] == [
        (kind, count) for kind in ("ply", "sog", "spz") for count in (40, 80)
    ]
    contest = script.rivals.contest(run, 0.01, files)
    rows += script.rivals.bundle_rows(contest, [0.008], "--steps=2 --hidden=8")
    (labelled,) = script.rivals.bundle_rows(contest, [0.008], "--steps=2 --hidden=8", "small")
    assert labelled["kind"] == "s4d, small"
    for row in rows:
        assert row["steps"] > 0 and math.isfinite(row["psnr"])
        of_bundle, suffix = row["asked"] == 0.008, row["kind"].split()[0]
        assert of_bundle or row["num_gaussians"] <= row["asked"]
        (path,) = files.glob(f"*[!l]-{'0.008' if of_bundle else row['asked']}.{suffix}")
        assert row["mb"] == pytest.approx(path.stat().st_size / 1e6, abs=1e-4)  # as it is rounded


def test_what_is_saved_is_told_for_each_rival() -> None:
    rivals = benchmark("compress").rivals
    table = rivals.savings({"fox": {"s4d": line(0.1, 1.4), "spz": line(0.2, 1.4),
                                    "sog": [(1.0, 50.0)]}})  # fmt: skip
    assert "| fox | spz | -50% | 24.00 to 31.00 |" in table
    assert "| fox | sog | - | a curve needs two points" in table
