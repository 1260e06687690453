"""export bundle says what the bundle loses, measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from formats.splat_files import random_cloud

from scene4d.bundle.container import open_bundle
from scene4d.bundle.kinds import decoded_splats
from scene4d.cli import main as command
from scene4d.formats.ply import write_ply
from scene4d.methods.lpgs.compress import mean_psnr
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.run import load_run
from scene4d.training.train import load_capture


def told_by(source: Path, out: Path, capsys, *more: str) -> str:
    arguments = ["export", str(source), "bundle", "--output-path", str(out), *more]
    assert command.main(arguments) == 0
    return capsys.readouterr().err


def test_a_runs_loss_is_that_on_its_held_out_photographs(tiny_run, tmp_path: Path, capsys) -> None:
    out = tmp_path / "a.s4d"
    told = told_by(tiny_run, out, capsys)
    found = re.search(r"PSNR ([\d.]+) dB on 2 held-out photographs, the run's own ([\d.]+)", told)
    assert found is not None, told
    run = load_run(tiny_run)
    scene, images = load_capture(run.options, split="test", source_from_scene=run.source_from_scene)
    made = GaussianSplats.of(decoded_splats(open_bundle(out)))
    figures = [mean_psnr(r, scene, images) for r in (made, run.representation)]
    assert [float(x) for x in found.groups()] == pytest.approx(figures, abs=0.006)  # two digits


def test_a_file_and_a_run_without_its_capture_are_compared_with_themselves(
    tiny_run, tmp_path: Path, capsys
) -> None:
    write_ply(tmp_path / "a.ply", random_cloud(1500, 1))
    told = told_by(tmp_path / "a.ply", tmp_path / "a.s4d", capsys)
    fine = re.search(r"at ([\d.]+) dB to the scene's own \(8 views\)", told)
    assert fine is not None, told
    coarse = re.search(
        r"at ([\d.]+) dB", told_by(tmp_path / "a.ply", tmp_path / "b.s4d", capsys, "--target-mb",
                                   str((tmp_path / "a.s4d").stat().st_size * 0.8e-6)),
    )  # fmt: skip
    assert coarse is not None and float(coarse[1]) < float(fine[1]) - 1
    config = tiny_run / "config.toml"
    moved = re.sub(r'^(path|absolute) = ".*"', r'\1 = "nowhere"', config.read_text(), flags=re.M)
    config.write_text(moved)
    assert "to the scene's own" in told_by(tiny_run, tmp_path / "c.s4d", capsys)
