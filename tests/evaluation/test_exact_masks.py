"""The protocol's figures of a capture with exact masks, against plain numpy on the capture's files.

What is measured is each held-out camera shown the training picture nearest in time.
"""

import json

import numpy as np
import pytest
import torch
from evaluation.test_masked import numpy_mssim
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.sample import sample_scene_path
from scene4d.evaluation.protocol import DynamicFigures, evaluate
from scene4d.evaluation.regions import regions_of
from scene4d.rendering.render import RGB, Render

EVERY = 16
"""Of the held-out pictures."""


class NearestPicture:
    """Shows the training picture whose time is nearest."""

    def __init__(self, scene, images):
        self.scene, self.images = scene, images

    def render(self, camera, *, background=None, want=RGB):
        train = list(self.scene.train_indices)
        times = [float(self.scene.frames[i].camera.time) for i in train]
        nearest = train[int(np.abs(np.asarray(times) - float(camera.time)).argmin())]
        rgb = self.images.view(nearest).rgb
        return Render(rgb=rgb, alpha=torch.ones(rgb.shape[:2]))


def independent(root):
    """mPSNR, in what moves and in the rest, and mSSIM: means over pictures."""
    table = json.loads((root / "transforms.json").read_text())
    held_out = set(table["test_filenames"])
    test = [f for f in table["frames"] if f["file_path"] in held_out][::EVERY]
    train = [f for f in table["frames"] if f["file_path"] not in held_out]

    def read(name):
        return np.asarray(Image.open(root / name))

    rows = []
    for frame in test:
        nearest = min(train, key=lambda f: abs(f["time"] - frame["time"]))
        pred, truth = (read(f["file_path"]).astype(np.float64) / 255 for f in (nearest, frame))
        covisible, moves = (read(frame[key]) > 0 for key in ("covisible_mask_path",
                                                             "dynamic_mask_path"))  # fmt: skip
        squared = ((pred - truth) ** 2).mean(-1)
        parts = (covisible, covisible & moves, covisible & ~moves)
        rows.append([*(-10 * np.log10(squared[part].mean()) for part in parts),
                     numpy_mssim(pred, truth, covisible), covisible.mean()])  # fmt: skip
    return np.mean(rows, axis=0)


def test_figures_are_those_of_plain_numpy_on_exact_masks():
    root = sample_scene_path("dance_room")
    scene = read_scene(root)
    images = ImageCache(scene, indices=[])
    some = list(scene.test_indices)[::EVERY]
    regions = regions_of(scene, images, compute=False)
    found = evaluate(
        NearestPicture(scene, images), [images.view(i) for i in some], lpips=False,
        dynamic=DynamicFigures(regions={i: regions[i] for i in some}),
    ).results()  # fmt: skip
    names = ("mpsnr", "mpsnr_moving", "mpsnr_still", "mssim", "covisible_share")
    # float32 against float64; for SSIM differences of squares
    assert [found[name] for name in names] == pytest.approx(independent(root), abs=2e-4)
    assert 10 < found["mpsnr_moving"] < found["mpsnr_still"] < 40
