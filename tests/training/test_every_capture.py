"""Every method trains on every kind of capture, at its size and downscaled."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from capture_methods import CAPTURE_METHODS
from optional_packages import import_or_skip
from PIL import Image

from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start

WIDTH, HEIGHT, VIEWS, DISTANCE = 64, 48, 5, 3.0
LENS = {"camera_model": "OPENCV", "k1": 0.05, "k2": 0.01, "p1": 0.001, "p2": -0.001}

SMALL = {
    "splat": {"num_random_points": 200, "sh_degree": 1},
    "lpgs": {"num_random_points": 200, "hidden": 8, "sh_degree": 1},
    "lightslab": {"max_slabs": 1, "depths": 4, "resolutions": (8,), "width": 16, "blocks": 1},
    "mobile-r2l": {"width": 16, "blocks": 2},
    "mesh": {"start": "sphere", "max_triangles": 80, "texture_size": 32},
    "triplane-mesh": {
        "grid": 8,
        "resolutions": (4,),
        "channels": 2,
        "neurons": 8,
        "rays": 32,
        "march_steps": 8,
    },
    "deformable": {"num_random_points": 200, "sh_degree": 1, "num_nodes": 8},
    "four-real": {"num_random_points": 200, "sh_degree": 1, "num_nodes": 8, "own_cells": 3},
    "dynamic-field": {
        "rays": 32,
        "levels": 2,
        "dynamic_levels": 2,
        "features": 2,
        "finest": 32,
        "dynamic_finest": 16,
        "log2_rows": 8,
        "dynamic_log2_rows": 8,
        "neurons": 8,
        "march_steps": 16,
        "cells": 8,
    },
}
"""What makes a method cheap; one that is not named here is trained as it is."""
SMALL |= {"few-views": {"num_random_points": 200}, "dpdy": SMALL["dynamic-field"]}
WANTED = {"mesh": "xatlas"}
"""Optional packages that a method cannot do without."""


def points(folder: Path) -> dict:
    random = np.random.default_rng(1)
    lines = [f"{x:.4f} {y:.4f} {z:.4f} 200 120 40" for x, y, z in random.normal(0, 0.4, (300, 3))]
    names = ["float x", "float y", "float z", "uchar red", "uchar green", "uchar blue"]
    header = ["ply", "format ascii 1.0", f"element vertex {len(lines)}"]
    header += [f"property {name}" for name in names] + ["end_header"]
    (folder / "points.ply").write_text("\n".join([*header, *lines]) + "\n")
    return {"ply_file_path": "points.ply"}


def per_frame(folder: Path, key: str, picture: np.ndarray) -> dict:
    Image.fromarray(picture).save(folder / f"{key}.png")
    return {key: f"{key}.png"}


def depth(folder: Path) -> dict:
    millimetres = np.full((HEIGHT, WIDTH), 1000 * DISTANCE)
    millimetres += np.linspace(-200, 200, WIDTH)
    return per_frame(folder, "depth_file_path", millimetres.astype(np.uint16))


def mask(folder: Path) -> dict:
    used = np.full((HEIGHT, WIDTH), 255, np.uint8)
    used[:, : WIDTH // 4] = 0
    return per_frame(folder, "mask_path", used)


KINDS = {
    "points": points,
    "no points": lambda folder: {},
    "depth": depth,
    "masks": mask,
    "a lens": lambda folder: LENS,
}
OF_FRAMES = {"depth_file_path", "mask_path"}


def with_times(capture: Path) -> Path:
    """The capture with a picture a second, as a file beside its own."""
    table = json.loads((capture / "transforms.json").read_text())
    for second, frame in enumerate(table["frames"]):
        frame["time"] = float(second)
    path = capture / "timed.json"
    path.write_text(json.dumps({**table, "time_unit": "seconds"}))
    return path


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> dict[str, Path]:
    """One capture of each kind: pictures of a smooth pattern from a circle."""
    made = {}
    for kind, add in KINDS.items():
        folder = made[kind] = tmp_path_factory.mktemp("captures") / kind.replace(" ", "_")
        folder.mkdir()
        more = add(folder)
        frames = []
        for i in range(VIEWS):
            angle = 2 * math.pi * i / VIEWS
            c, s = math.cos(angle), math.sin(angle)
            pose = [[-s, 0, c, DISTANCE * c], [c, 0, s, DISTANCE * s], [0, 1, 0, 0], [0, 0, 0, 1]]
            y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
            rgb = np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x + angle)], -1)
            Image.fromarray((255 * rgb).astype(np.uint8)).save(folder / f"{i}.png")
            of_frame = {k: v for k, v in more.items() if k in OF_FRAMES}
            frames.append({"file_path": f"{i}.png", "transform_matrix": pose, **of_frame})
        meta = {"w": WIDTH, "h": HEIGHT, "fl_x": 60.0, "fl_y": 60.0, "cx": 32.0, "cy": 24.0}
        meta |= {k: v for k, v in more.items() if k not in OF_FRAMES}
        (folder / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))
    return made


@pytest.fixture(scope="module")
def teachers(captures, tmp_path_factory) -> dict[tuple[str, int], Path]:
    """Runs of splats that the other methods learn from, filled as they are wanted."""
    return {}


def trained(method: str, capture: Path, downscale: int, output_dir: Path, teacher=None) -> Path:
    options = TrainOptions(
        data=capture, downscale_factor=downscale, output_dir=output_dir, device="cpu",
        teacher=teacher, evaluate=False,
    )  # fmt: skip
    made = load_method(method)(steps=3, **SMALL.get(method, {}))
    if made.uses_time:
        options = replace(options, data=with_times(capture))
    if any(f.name == "teaching" for f in fields(made)):
        smaller = replace(made.teaching, first_views=2, crops=2, crop_size=32)
        made = replace(made, teaching=smaller)
    return start(made, options)


@pytest.mark.parametrize("downscale", [1, pytest.param(2, marks=pytest.mark.unchecked_shapes)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(CAPTURE_METHODS, key=lambda name: name != "splat"))
def test_it_trains(method, kind, downscale, captures, teachers, tmp_path_factory, tmp_path):
    if method in WANTED:
        import_or_skip(WANTED[method])
    if (kind, downscale) not in teachers:
        kept = tmp_path_factory.mktemp("outputs")
        teachers[kind, downscale] = trained("splat", captures[kind], downscale, kept)
    run = teachers[kind, downscale]
    if method != "splat":
        run = trained(method, captures[kind], downscale, tmp_path, teacher=run)
    loaded = load_run(run)
    assert loaded.method.name == method and loaded.step == 3
    camera = loaded.cameras.train[0]
    assert (camera.width, camera.height) == (WIDTH // downscale, HEIGHT // downscale)
    assert loaded.representation.render(camera).rgb.shape == (camera.height, camera.width, 3)
