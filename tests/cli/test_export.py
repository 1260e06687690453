"""The verb export: a run's splats and mesh in the input's frame, formats, wrong use."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip

from scene4d.cli import main as command
from scene4d.cli.export import FORMATS, ExportArgs
from scene4d.files import read_json, write_json
from scene4d.formats.ply import read_ply
from scene4d.representations.gaussians import GaussianSplats, gaussians_from_points
from scene4d.training.run import load_run


def test_every_format_is_offered_and_leads_to_a_function() -> None:
    offered = get_args(get_args(get_type_hints(ExportArgs, include_extras=True)["format"])[0])
    assert set(offered) == set(FORMATS)
    for target in FORMATS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_runs_splats_are_written_as_they_are(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "splats.ply"
    assert command.main(["export", "--output-path", str(path), str(tiny_run), "ply"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{path}\n"
    assert "200 Gaussians" in told.err
    cloud = read_ply(path)
    trained = load_run(tiny_run).representation.gaussians
    for name, array in (
        ("means", cloud.means),
        ("quats", cloud.quats),
        ("scales", cloud.log_scales),
        ("opacities", cloud.logit_opacities),
        ("sh0", cloud.sh[:, :1]),
    ):
        np.testing.assert_array_equal(array, trained[name].detach().numpy())
    again = tmp_path / "again.ply"
    assert command.main(["export", str(path), "ply", "--output-path", str(again)]) == 0
    assert again.read_bytes() == path.read_bytes()


def test_the_inputs_frame_is_restored(tiny_run: Path, tmp_path: Path) -> None:
    table = read_json(tiny_run / "scene.json")
    table["source_from_scene"] = [
        [0.0, -2.0, 0.0, 5.0],
        [2.0, 0.0, 0.0, 6.0],
        [0.0, 0.0, 2.0, 7.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
    write_json(tiny_run / "scene.json", table)
    path = tmp_path / "splats.ply"
    assert command.main(["export", str(tiny_run), "ply", "--output-path", str(path)]) == 0
    means = load_run(tiny_run).representation.means.detach().numpy().astype(float)
    matrix = np.array(table["source_from_scene"], dtype=float)
    expected = means @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(read_ply(path).means, expected, rtol=1e-6, atol=1e-5)  # float32


def test_only_bands_in_use_are_written() -> None:
    tensors = gaussians_from_points(
        torch.rand(5, 3), torch.zeros(5, 3, dtype=torch.uint8), sh_degree=3
    )
    splats = GaussianSplats({**tensors, "shN": torch.rand(5, 15, 3)})
    assert splats.splats().sh_degree == 3
    splats.active_sh_degree = 1
    cloud = splats.splats()
    assert cloud.sh_degree == 1
    np.testing.assert_array_equal(cloud.sh[:, 1:], splats.gaussians["shN"].detach()[:, :3])


def test_a_runs_mesh_opens_in_trimesh(tiny_run: Path, tmp_path: Path, capsys) -> None:
    trimesh = import_or_skip("trimesh")
    path = tmp_path / "mesh.glb"
    arguments = ["export", str(tiny_run), "mesh", "--output-path", str(path), "--device", "cpu"]
    assert command.main([*arguments, "--max-cameras", "3"]) == 0
    mesh = trimesh.load(path, force="mesh", process=False)
    assert (
        f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles" in capsys.readouterr().err
    )
    assert len(mesh.faces) > 100


@pytest.mark.parametrize(
    ("source", "kind", "name", "status", "message"),
    [
        ("nowhere", "ply", "a.ply", 1, "not found"),
        (".", "ply", "a.ply", 1, "not a run folder"),
        ("run", "ply", "a.splat", 2, "as .ply"),
        ("run", "mesh", "a.stl", 2, ".glb"),
        ("broken.ply", "ply", "a.ply", 1, "not a PLY"),
    ],
)
def test_wrong_use_is_told_in_one_message(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    kind: str,
    name: str,
    status: int,
    message: str,
) -> None:
    (tmp_path / "broken.ply").write_text("plx")
    path = tiny_run if source == "run" else tmp_path / source
    arguments = ["export", str(path), kind, "--output-path", str(tmp_path / name)]
    assert command.main(arguments) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_options_of_another_format_are_said_to_be_ignored(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(tiny_run), "ply", "--output-path", str(tmp_path / "a.ply")]
    assert command.main([*arguments, "--voxel", "0.1"]) == 0
    assert "ignored" in capsys.readouterr().err
    assert command.main([*arguments, "--voxel", "-1"]) == 2
