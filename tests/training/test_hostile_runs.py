"""Files of a run folder from strangers: one error each, and nothing waits for a pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scene4d.cli.info import summarise
from scene4d.errors import DataError
from scene4d.files import write_json
from scene4d.toml_files import read_toml, write_toml
from scene4d.training.log import cut_after
from scene4d.training.run import read_cameras, read_config

CAMERA = {
    "name": "a.png", "c2w": [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0],
    [0.0, 0.0, 0.0, 1.0]], "K": [[9.0, 0.0, 4.0], [0.0, 9.0, 4.0], [0.0, 0.0, 1.0]],
    "width": 8, "height": 8, "time": None,
}  # fmt: skip
SCENE = {
    "dataparser": "nerfstudio", "train": [CAMERA], "test": [], "split_rule": "every 8th",
    "background": None, "bounds": None, "source_from_scene": CAMERA["c2w"],
}  # fmt: skip
CONFIG = {
    "schema_version": 1, "scene4d_version": "0", "method": "splat", "data": {"path": "x"},
    "teacher": {}, "training": {}, "method_options": {},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_json(tmp_path / "scene.json", SCENE)
    write_toml(tmp_path / "config.toml", CONFIG)
    return tmp_path


def test_what_we_write_is_read(run: Path) -> None:
    assert read_cameras(run).train[0].width == 8
    assert read_config(run)[0].name == "splat"


CAMERAS = [
    ("train", [{**CAMERA, "width": 10**9}]), ("train", [{**CAMERA, "width": 0}]),
    ("train", [{**CAMERA, "width": 60_000, "height": 60_000}]),
    ("train", [{**CAMERA, "c2w": [[1.0]]}]), ("train", [{**CAMERA, "K": "x"}]),
    ("train", [{**CAMERA, "time": 1e400}]), ("train", [{**CAMERA, "name": 3}]),
    ("train", {"a": 1}), ("train", None), ("bounds", [1]),
    ("source_from_scene", [[10**400] * 4] * 4),
    ("background", [0, 0]), ("split_rule", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CAMERAS)
def test_scene_json_is_typed(run: Path, name: str, value: object) -> None:
    (run / "scene.json").write_text(json.dumps({**SCENE, name: value}))
    with pytest.raises(DataError, match=r"scene\.json"):
        read_cameras(run)


CONFIGS = [
    ("data", {"path": "a\0b"}), ("data", {"path": "x" * 5000}), ("data", {"absolute": "/"}),
    ("data", 3), ("method", 3), ("method_options", {"steps": -1}), ("training", {"seed": 2**70}),
    ("training", {"max_minutes": float("nan")}), ("training", []),
    ("method_options", {"photometric": {"weight": -1.0}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CONFIGS)
def test_config_toml_is_typed(run: Path, name: str, value: object) -> None:
    write_toml(run / "config.toml", {**CONFIG, name: value})
    with pytest.raises(DataError, match=r"config\.toml"):
        read_config(run)


@pytest.mark.parametrize(
    "text", [b"a = " + b"[" * 100_000, b"a = " + b"9" * 9000, b"a = \0", b"\xff\xfe\xff", b"{"]
)
def test_toml_that_is_none_is_one_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"config\.toml"):
        read_toml(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("make", [pipe, circle])
def test_pipes_and_circles_do_not_wait(run: Path, make: Callable[[Path], None]) -> None:
    readers: dict[str, Callable[[], object]] = {
        "config.toml": lambda: read_toml(run / "config.toml"),
        "scene.json": lambda: read_cameras(run),
    }
    if make is pipe:  # a circle leads nowhere, as a file that is not there
        readers["metrics.jsonl"] = lambda: cut_after(run / "metrics.jsonl", 3)
    for name, read in readers.items():
        (run / name).unlink(missing_ok=True)
        make(run / name)
        with pytest.raises(DataError, match=name):
            read()


def test_lines_of_metrics_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1}\n'
    bad = ["[" * 100_000, '{"step": 1e999}', '{"step": ' + "9" * 9000 + "}", "3", "\0"]
    path.write_text(good + "".join(f"{line}\n" for line in bad))
    cut_after(path, 5)
    assert path.read_text() == good


@pytest.mark.parametrize("header", [b"[" * 90_000, b"{}", b'{"representation/a":{"shape":"x"}}'])
def test_info_names_a_checkpoint_that_is_damaged(run: Path, header: bytes) -> None:
    (run / "checkpoints").mkdir()
    path = run / "checkpoints" / "step-000000001.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    (entry,) = summarise(run)["checkpoints"]
    assert entry["readable"] is (header == b"{}")


def test_a_training_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    import torch

    from scene4d.errors import Scene4dError
    from scene4d.representations.gaussians import GaussianSplats, gaussians_from_points
    from scene4d.training.trainer import check_content

    points = torch.randn(3, 3), torch.zeros(3, 3, dtype=torch.uint8)
    some = gaussians_from_points(*points, sh_degree=0)
    check_content(GaussianSplats(some), step=7, where=tmp_path)
    none = GaussianSplats({name: value[:0] for name, value in some.items()})
    with pytest.raises(Scene4dError, match="no Gaussian is left at step 7"):
        check_content(none, step=7, where=tmp_path)
