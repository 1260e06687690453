"""``scene4d info`` on runs, captures and PLY files, good and broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from methods.mesh.meshes import globe
from safetensors import safe_open
from safetensors.torch import save_file

from scene4d.cli.info import size_text, summarise
from scene4d.cli.main import main
from scene4d.errors import DataError, UsageError
from scene4d.exporters.textured_glb import glb
from scene4d.formats.registry import read_splats

INRIA = [
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{i}" for i in range(9)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def write_ply(
    path: Path, names, rows: np.ndarray, *, form="binary_little_endian", extra=""
) -> Path:
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat {form} 1.0\ncomment c\nelement vertex {len(rows)}\n{properties}{extra}"
    if form == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in rows).encode()
    else:
        body = rows.astype("<f4" if "little" in form else ">f4").tobytes()
    path.write_bytes(f"{header}end_header\n".encode() + body)
    return path


@pytest.fixture
def rows() -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(20, len(INRIA))).astype(np.float32)
    rows[3, :3], rows[7, :3] = [-5, -6, -7], [8, 9, 10]
    return rows


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
def test_splat_ply(tmp_path, rows, form):
    path = write_ply(tmp_path / "a.ply", INRIA, rows, form=form)
    summary = summarise(path)
    assert (summary["content"], summary["format"]) == ("Gaussian splats", form)
    assert summary["num_gaussians"] == 20 and summary["sh_degree"] == 1
    assert summary["bytes"] == path.stat().st_size
    assert summary["bounding_box"] == [[-5, -6, -7], [8, 9, 10]]
    each = {a["name"]: a["bytes_each"] for a in summary["attributes"]}
    assert each == {
        **{"means": 12, "normals": 12, "sh0": 12, "shN": 36},
        **{"opacities": 4, "scales": 12, "quats": 16},
    }


def test_positions_that_are_not_finite_are_counted_and_left_out(tmp_path, rows):
    rows[3, 0], rows[4, 1] = np.nan, np.inf
    summary = summarise(write_ply(tmp_path / "a.ply", INRIA, rows))
    assert summary["positions_not_finite"] == 2
    assert summary["bounding_box"][1] == [8, 9, 10]


def test_what_nothing_can_draw_is_counted_and_what_the_file_says_is_shown(tmp_path, rows):
    """The numbers that --drop-invalid leaves out; infinite opacities and sizes of 0 are not
    among them."""
    rows[3, INRIA.index("f_dc_1")] = np.nan
    rows[5, [INRIA.index(f"rot_{i}") for i in range(4)]] = 0
    rows[6, INRIA.index("opacity")] = np.inf
    rows[7, INRIA.index("scale_2")] = -np.inf
    path = write_ply(tmp_path / "a.ply", INRIA, rows)
    summary = summarise(path)
    assert summary["splats_not_drawable"] == 2 and not summary["antialiased"]
    assert len(read_splats(path, drop_invalid=True)) == len(rows) - 2
    said = path.read_bytes().replace(b"1.0\n", b"1.0\ncomment SplatRenderMode: mip\n", 1)
    path.write_bytes(said)
    assert summarise(path)["antialiased"]


def test_points_and_meshes(tmp_path):
    corners = np.eye(3, dtype=np.float32)
    points = summarise(write_ply(tmp_path / "p.ply", ["x", "y", "z"], corners))
    assert points["content"] == "points" and points["num_vertices"] == 3
    assert "sh_degree" not in points
    faces = "element face 1\nproperty list uchar int vertex_indices\n"
    mesh = summarise(write_ply(tmp_path / "m.ply", ["x", "y", "z"], corners, extra=faces))
    assert mesh["content"] == "mesh" and mesh["bounding_box"] == [[0, 0, 0], [1, 1, 1]]


def test_a_textured_mesh(tmp_path):
    mesh = globe(8, rows=16)
    (tmp_path / "a.glb").write_bytes(glb(mesh, np.zeros(3), profile="web"))
    found = summarise(tmp_path / "a.glb")
    assert (found["kind"], found["triangles"]) == ("mesh", len(mesh.triangles))
    assert found["texture"] == "{1} x {0}".format(*mesh.texture.shape)
    assert "EXT_meshopt_compression" in found["extensions"]
    size = np.ptp(found["bounding_box"], axis=0)
    np.testing.assert_allclose(size, np.ptp(mesh.vertices, axis=0), rtol=1e-3)  # 14 bits


def test_real_splat_files(shared_data):
    packed = summarise(shared_data / "splats" / "biker.compressed.ply")
    assert packed["num_gaussians"] == 152_746 and packed["content"].endswith("compressed")
    assert all(low < high for low, high in zip(*packed["bounding_box"], strict=True))
    full = summarise(shared_data / "splats" / "inria_iteration_7000.ply")
    assert (full["num_gaussians"], full["sh_degree"]) == (9080, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"solid stl", "not a PLY"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n", "does not end"),
        (b"ply\nformat strange 1.0\nelement vertex 0\nend_header\n", "format 'strange'"),
        (b"ply\nformat ascii 1.0\nelement vertex x\nend_header\n", "element vertex x"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "property float x"),
        (b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", "no element 'vertex'"),
        (b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "vertex -1"),
    ],
)
def test_broken_headers_are_told(tmp_path, content, message):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(DataError, match=message):
        summarise(tmp_path / "a.ply")


@pytest.mark.parametrize("form", ["binary_little_endian", "ascii"])
def test_a_cut_off_ply_is_told(tmp_path, rows, form):
    path = write_ply(tmp_path / "a.ply", INRIA, rows, form=form)
    os.truncate(path, path.stat().st_size - 500)
    with pytest.raises(DataError, match=r"cut off|cannot be read"):
        summarise(path)


def test_coefficients_of_no_degree_are_told(tmp_path):
    names = [name for name in INRIA if name not in ("f_rest_7", "f_rest_8")]
    path = write_ply(tmp_path / "a.ply", names, np.zeros((1, len(names)), np.float32))
    with pytest.raises(DataError, match="7 f_rest"):
        summarise(path)


def test_run(tiny_run, capsys):
    summary = summarise(tiny_run)
    assert summary == summarise(tiny_run / "config.toml")
    assert (summary["method"], summary["steps"], summary["seconds"]) == ("splat", 12, 3.5)
    assert summary["num_gaussians"] == 200
    sizes = {t["name"]: (t["shape"], t["bytes"]) for t in summary["tensors"]}
    assert sizes["gaussians.means"] == ([200, 3], 2400)
    assert sizes["gaussians.shN"] == ([200, 3, 3], 7200)
    assert summary["bytes"] == sum(size for _, size in sizes.values())
    assert [c["path"] for c in summary["checkpoints"]] == ["step-000000012.safetensors"]
    assert main(["info", str(tiny_run)]) == 0
    text = capsys.readouterr().out
    assert "method: splat, 12 steps in 4 s, 200 Gaussians" in text
    assert "of which the scene" in text and "gaussians.means" not in text
    assert text.count("\n") <= 6
    assert main(["info", str(tiny_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary


def test_a_damaged_checkpoint_is_marked_and_the_one_before_is_shown(tiny_run):
    folder = tiny_run / "checkpoints"
    whole = folder / "step-000000012.safetensors"
    broken = folder / "step-000000024.safetensors"
    broken.write_bytes(whole.read_bytes()[:-100])
    summary = summarise(tiny_run)
    assert [c["readable"] for c in summary["checkpoints"]] == [True, False]
    assert summary["steps"] == 12
    broken.write_bytes(b"")
    whole.write_bytes(b"\xff" * 64)
    summary = summarise(tiny_run)
    assert "steps" not in summary and not any(c["readable"] for c in summary["checkpoints"])


@pytest.mark.parametrize("step", ["x", [1], {}, True, 10**400, float("nan")])
def test_a_checkpoint_whose_progress_is_no_number_is_marked(tiny_run, capsys, step):
    (path,) = (tiny_run / "checkpoints").iterdir()
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        plain = json.loads(file.metadata()["scene4d"])
    text = json.dumps({**plain, "step": step})
    save_file(tensors, path, metadata={"scene4d": text})
    assert main(["info", str(tiny_run)]) == 0
    assert "damaged: step-000000012.safetensors" in capsys.readouterr().out


def test_results_that_are_no_object_are_told(tiny_run, capsys):
    (tiny_run / "eval.json").write_text('{"psnr": 20.0, "results": true}')
    assert main(["info", str(tiny_run)]) == 1
    assert "eval.json: is not an object, or its results are not" in capsys.readouterr().err


def test_evaluation_is_shown_without_its_images(tiny_run, capsys):
    evaluation = {"psnr": 21.25, "images": [{"name": "a", "psnr": 1.0}]}
    (tiny_run / "eval.json").write_text(json.dumps(evaluation))
    assert summarise(tiny_run)["evaluation"] == {"psnr": 21.25}
    main(["info", str(tiny_run)])
    assert "psnr: 21.25" in capsys.readouterr().out


def test_capture(tiny_capture, capsys):
    summary = summarise(tiny_capture)
    assert summary["kind"] == "capture" and summary["dataparser"] == "nerfstudio"
    assert (summary["images"], summary["train"], summary["test"]) == (9, 7, 2)
    assert summary["sizes"] == {"40x30": 9} and summary["points"] == 0
    # On a ring of radius 3; without two of nine cameras its middle moves by less than the radius
    assert 1.1 * 3 <= summary["camera_extent"] < 1.1 * 6
    assert main(["info", str(tiny_capture)]) == 0
    assert "images: 9" in capsys.readouterr().out


def test_other_things_are_refused(tmp_path, capsys):
    with pytest.raises(DataError, match="no such"):
        summarise(tmp_path / "nothing.ply")
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(UsageError, match="neither"):
        summarise(tmp_path / "a.xyz")
    assert main(["info", str(tmp_path / "a.xyz")]) == 2
    assert "neither" in capsys.readouterr().err


def test_sizes_are_decimal():
    texts = [size_text(x) for x in (0.0, 999.0, 1000.0, 2_487_600.0, 5e12)]
    assert texts == ["0 B", "999 B", "1 kB", "2.488 MB", "5000 GB"]
