"""One small capture, and the scene that was made of it, for all tests of the room."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from scene4d.data.process.write import write_points
from scene4d.files import read_json, write_json
from scene4d.pipeline.make import Made, make_scene
from scene4d.pipeline.options import MakeOptions

SHORT = 0.02
"""Minutes: some steps of training each, compiling kernels not counted."""


@pytest.fixture(scope="session")
def capture(tmp_path_factory) -> Path:
    from conftest import make_tiny_capture

    folder = tmp_path_factory.mktemp("inputs") / "tiny"
    folder.mkdir()
    make_tiny_capture(folder, num_views=9, size=64)  # LPIPS wants 32 pixels, half of it
    random = np.random.default_rng(0)
    points = 0.5 * random.standard_normal((300, 3))  # without them it starts from 20,000
    write_points(folder / "points.ply", points, random.integers(0, 256, (300, 3), dtype=np.uint8))
    meta = read_json(folder / "transforms.json")
    write_json(folder / "transforms.json", {**meta, "ply_file_path": "points.ply"})
    return folder


@pytest.fixture(scope="session")
def made_once(capture, tmp_path_factory) -> Made:
    out = tmp_path_factory.mktemp("made") / "out"
    return make_scene(capture, out, MakeOptions(minutes=SHORT, device="cpu"))


@pytest.fixture
def made(made_once, tmp_path) -> Path:
    """A copy of what was made, to be changed at will."""
    return Path(shutil.copytree(made_once.out, tmp_path / "out"))
