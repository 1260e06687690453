"""A small capture, and a run as a training leaves it behind."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

NUM_IMAGES, WIDTH, HEIGHT = 9, 40, 30


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory) -> Path:
    """Nine pictures of 40x30 around the origin, in nerfstudio's layout."""
    folder = tmp_path_factory.mktemp("captures") / "tiny"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    frames = []
    for i in range(NUM_IMAGES):
        angle = 2 * math.pi * i / NUM_IMAGES
        c, s = math.cos(angle), math.sin(angle)
        # x right, y up, z back: 3 units away from the origin, looking at it
        pose = [[-s, 0, c, 3 * c], [c, 0, s, 3 * s], [0, 1, 0, 0], [0, 0, 0, 1]]
        name = f"images/{i:03d}.jpg"
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": pose})
    intrinsics = {"fl_x": 40.0, "fl_y": 40.0, "cx": 20.0, "cy": 15.0, "w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))
    return folder


@pytest.fixture(scope="session")
def built_run(tiny_capture, tmp_path_factory) -> Path:
    """A run folder of that capture with 200 random splats at step 12."""
    from scene4d.data.images import ImageCache
    from scene4d.data.load import load_scene
    from scene4d.data.scene import at_size_of
    from scene4d.methods.splat.method import SplatMethod
    from scene4d.representations.task import Task, World
    from scene4d.training.checkpoint import Checkpoint, save_checkpoint
    from scene4d.training.options import TrainOptions
    from scene4d.training.run import create_run, write_config, write_scene

    scene = load_scene(tiny_capture)
    method = SplatMethod(init="random", num_random_points=200, sh_degree=1)
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path_factory.mktemp("outputs"))
    capture = at_size_of(scene, ImageCache(scene))
    task = Task(world=World.of(scene), capture=capture)
    splats = method.build(task, generator=torch.Generator().manual_seed(0))
    run = create_run(method, options, experiment_name="tiny")
    write_config(run, method, options)
    write_scene(run, task)
    tensors = {f"representation/{k}": v for k, v in splats.state_dict().items()}
    plain = {
        "method": "splat",
        "elapsed_s": 3.5,
        "representation": dict(splats.plain_data()),
    }
    save_checkpoint(run / "checkpoints", Checkpoint(step=12, plain=plain, tensors=tensors), keep=2)
    return run


@pytest.fixture
def tiny_run(built_run, tmp_path) -> Path:
    """A copy of that run, to be changed at will."""
    return Path(
        shutil.copytree(built_run, tmp_path / "outputs" / "tiny" / "splat" / built_run.name)
    )
