"""The verbs convert, export, info and benchmark-formats on splat files of every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from methods.mesh.meshes import globe

from scene4d.cli import main as command
from scene4d.cli.info import summarise
from scene4d.exporters.edit import EditOptions, edited, matrix_of, read_matrix
from scene4d.exporters.textured_glb import glb
from scene4d.formats import registry as formats
from scene4d.formats.ply import read_ply, write_ply
from scene4d.formats.splat_cloud import SplatCloud


def cloud_of(count: int = 200, degree: int = 2) -> SplatCloud:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return SplatCloud(
        means=normal(count, 3), quats=normal(count, 4), log_scales=normal(count, 3) - 4,
        logit_opacities=normal(count), sh=0.3 * normal(count, (degree + 1) ** 2, 3),
    )  # fmt: skip


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    write_ply(tmp_path / "in.ply", cloud_of())
    return tmp_path / "in.ply"


OTHERS = ["compressed-ply", "splat", "spz", "sog", "glb"]


@pytest.mark.parametrize("name", OTHERS)
def test_there_and_back_stays_in_place(ply: Path, tmp_path: Path, capsys, name: str) -> None:
    suffix = formats.format_named(name).suffixes[0]
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.ply"
    assert command.main(["convert", str(ply), str(there)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{there}\n"
    assert ("axes" in told.err) == (name in ("spz", "glb"))  # never turned silently
    assert command.main(["convert", str(there), str(back)]) == 0
    found, cloud = read_ply(back), cloud_of()
    assert len(found) == 200
    # sums do not depend on the order that a format has; its steps are far below the spread of 1
    np.testing.assert_allclose(found.means.mean(0), cloud.means.mean(0), atol=0.005)
    np.testing.assert_allclose(found.means.std(0), cloud.means.std(0), atol=0.005)


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_is_exported_in_every_format(tiny_run, tmp_path: Path, capsys, name: str) -> None:
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    assert command.main(["export", str(tiny_run), name, "--output-path", str(path)]) == 0
    assert "200 Gaussians" in capsys.readouterr().err
    assert len(formats.read_splats(path)) == 200
    wrong = tmp_path / "a.xyz"
    assert command.main(["export", str(tiny_run), name, "--output-path", str(wrong)]) == 2
    assert "are written as" in capsys.readouterr().err


@pytest.mark.parametrize("name", OTHERS)
def test_info_tells_counts_and_bytes(ply: Path, tmp_path: Path, capsys, name: str) -> None:
    path = tmp_path / f"a{formats.format_named(name).suffixes[0]}"
    formats.write_splats(path, read_ply(ply))
    summary = summarise(path)
    assert summary["num_gaussians"] == 200
    assert summary["sh_degree"] == (0 if name == "splat" else 2)
    assert summary["bytes_per_gaussian"] == pytest.approx(path.stat().st_size / 200, abs=0.01)
    names = " ".join(str(row["name"]) for row in summary["attributes"])
    assert all(part in names for part in ("means", "scales", "quats", "sh0", "opacities"))
    low, high = np.array(summary["bounding_box"])
    np.testing.assert_allclose(low, cloud_of().means.min(0), atol=0.02)
    np.testing.assert_allclose(high, cloud_of().means.max(0), atol=0.02)
    assert command.main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_gaussians"] == 200


def test_filters_and_transforms(ply: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ply"
    arguments = ["--crop", "-1", "-1", "-1", "1", "1", "1", "--min-opacity", "0.5"]
    arguments += ["--sh-degree", "1", "--max-splats", "10"]
    arguments += ["--scale", "2", "--rotate", "0", "0", "90", "--translate", "1", "0", "0"]
    assert command.main(["convert", str(ply), str(out), *arguments]) == 0
    found, cloud = read_ply(out), cloud_of()
    keep = (np.abs(cloud.means) <= 1).all(1) & (cloud.logit_opacities >= 0)
    assert keep.sum() > 10 and len(found) == 10 and found.sh_degree == 1
    x, y, z = cloud.means[keep].T
    expected = np.stack([1 - 2 * y, 2 * x, 2 * z], 1)
    distance = np.linalg.norm(found.means[:, None] - expected[None], axis=2).min(1)
    assert distance.max() < 1e-5  # float32
    # the ten with the largest opacity times volume
    weight = cloud.log_scales.sum(1) - np.log1p(np.exp(-cloud.logit_opacities))
    best = np.sort(weight[keep])[-10:]
    kept = found.log_scales.sum(1) - 3 * np.log(2) - np.log1p(np.exp(-found.logit_opacities))
    np.testing.assert_allclose(np.sort(kept), best, atol=1e-4)


@pytest.mark.parametrize("text", ["1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1", None])
def test_a_matrix_file_comes_first(tmp_path: Path, text: str | None) -> None:
    matrix = np.eye(4)
    matrix[:3, 3] = (5, 6, 7)
    path = tmp_path / "m.txt"
    path.write_text(text or json.dumps(matrix.tolist()))
    np.testing.assert_array_equal(read_matrix(path), matrix)
    both = matrix_of(EditOptions(transform=path, scale=2.0))
    np.testing.assert_array_equal(both @ [0, 0, 0, 1], [10, 12, 14, 1])
    moved = edited(cloud_of(), EditOptions(transform=path))
    np.testing.assert_allclose(moved.means, cloud_of().means + np.float32([5, 6, 7]), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone.ply", "a.spz"], 1, "not found"),
        (["in.ply", "a.xyz"], 2, "names no splat format"),
        (["in.ply", "a.spz", "--crop", "1", "0", "0", "0", "1", "1"], 2, "--crop"),
        (["in.ply", "a.spz", "--sh-degree", "4"], 2, "--sh-degree"),
        (["in.ply", "a.spz", "--scale", "0"], 2, "--scale"),
        (["in.ply", "a.glb", "--crop", "9", "9", "9", "10", "10", "10"], 1, "no splats"),
        (["in.ply", "a.spz", "--transform", "bad.txt"], 1, "4 x 4 matrix"),
        (["in.ply", "a.spz", "--transform", "mirror.txt"], 1, "mirrors"),
        (["run", "a.spz"], 2, "scene4d export"),
        (["notes.txt", "a.spz"], 2, "not a splat file"),
        (["mesh.glb", "a.spz"], 2, "scene4d export mesh.glb"),
    ],
)
def test_wrong_use_is_told(ply, tmp_path, capsys, monkeypatch, arguments, status, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("1 2 three")
    Path("mirror.txt").write_text("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    Path("notes.txt").write_text("hello")
    Path("mesh.glb").write_bytes(glb(globe(4, rows=8), np.zeros(3)))
    Path("run").mkdir()
    Path("run/config.toml").write_text("")
    assert command.main(["convert", *arguments]) == status
    told = capsys.readouterr()
    assert message in told.err and not told.out


def test_the_table_of_formats_on_a_file(ply: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "report"
    arguments = [str(ply), "--output-path", str(out), "--views", "2", "--size", "48"]
    assert command.main(["benchmark-formats", *arguments]) == 0
    table = capsys.readouterr().out.splitlines()
    results = {row["name"]: row for row in json.loads((out / "results.json").read_text())}
    assert set(results) >= {"ply", *OTHERS} and len(table) == len(results) + 1
    assert results["ply"]["psnr_to_original"] == 100  # equal pictures
    assert results["glb"]["psnr_to_original"] > 80  # float32 rounding
    assert all(row["psnr_to_original"] > 25 for row in results.values() if row["name"] != "splat")
    assert results["splat"]["psnr_to_original"] < results["spz"]["psnr_to_original"]
    assert all((out / row["file"]).stat().st_size == row["bytes"] for row in results.values())
    page = (out / "index.html").read_text()
    assert page.count("<circle") == len(results) and "http" not in page.replace("https://", "")


def test_the_table_of_formats_on_a_run(tiny_run: Path, capsys) -> None:
    arguments = [str(tiny_run), "--views", "1", "--formats", "ply", "spz"]
    assert command.main(["benchmark-formats", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["dB", "lost"]
    assert float(lines[1].split()[-1]) == pytest.approx(0, abs=1e-3)  # the PLY loses nothing
