"""DpDy as a method of defaults: the field's own frames guide it where no prior is named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from training.test_every_capture import SMALL, with_times

from scene4d.data.scene import at_size_of
from scene4d.methods.dynamic_field.dpdy_method import DpdyMethod
from scene4d.methods.dynamic_field.method import DynamicFieldMethod
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.patch_memory import PatchMemory
from scene4d.representations.task import Task, World
from scene4d.training.options import TrainOptions
from scene4d.training.priors import with_prior
from scene4d.training.run import read_config
from scene4d.training.train import load_capture, resume, start

pytestmark = pytest.mark.unchecked_shapes


@pytest.fixture(scope="module")
def capture(tiny_capture, tmp_path_factory):
    """A picture a second, each with depth."""
    folder = shutil.copytree(tiny_capture, tmp_path_factory.mktemp("timed") / "capture")
    path = with_times(folder)
    table = json.loads(path.read_text())
    Image.fromarray(np.full((48, 48), 3000, np.uint16)).save(folder / "depth.png")
    for frame in table["frames"]:
        frame["depth_file_path"] = "depth.png"
    path.write_text(json.dumps(table))
    return path


def method(steps=4, **changes):
    made = DpdyMethod(steps=steps, **{**SMALL["dynamic-field"], **changes})
    return replace(made, guidance=replace(made.guidance, start=0.0, every=1, size=16))


def guided(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "guidance" in line]


def test_it_is_guided_by_its_own_frames_and_goes_on_so(capture, tmp_path):
    options = TrainOptions(data=capture, output_dir=tmp_path, device="cpu", evaluate=False,
                           downscale_factor=1)  # fmt: skip
    run = start(method(), options, announce=False)
    assert guided(run) and read_config(run)[1].prior is None
    before = len(guided(run))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 4\n", "steps = 14\n"))
    resume(run)
    assert len(guided(run)) > before


def test_the_default_prior_is_one_of_colour_and_depth_that_others_replace(capture):
    scene, images = load_capture(TrainOptions(data=capture, downscale_factor=1))
    task = Task(world=World.of(scene), capture=at_size_of(scene, images))
    own = with_prior(task, method(), TrainOptions(), None).prior
    assert isinstance(own, PatchMemory) and own.info.channels == ("rgb", "depth")
    given = GaussianPrior(lambda condition: torch.zeros(()), 1.0)
    assert with_prior(task, method(), TrainOptions(), given).prior is given
    off = replace(method(), guidance=replace(method().guidance, weight=0.0))
    assert with_prior(task, off, TrainOptions(), None).prior is None
    assert with_prior(task, DynamicFieldMethod(), TrainOptions(), None).prior is None
