"""The captures that our networks learn from: exact depth of a drawn room, stretches of others."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.cameras.rays import unproject
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from drawn_scenes import DEPTH_UNIT, PICTURES, write_capture, write_stretch
from dynamic_capture.scene import Room, build

SIZE = 32


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "room"
    stage = build([], Room(texels=64), folder)
    write_capture(folder, stage, True, np.random.default_rng(0), size=SIZE, depth=True)
    return folder


def test_depth_of_a_drawn_room_lies_on_its_walls(room):
    scene = read_scene(room)
    assert len(scene.frames) == PICTURES and all(f.has_measured_depth for f in scene.frames)
    images = ImageCache(scene)
    for index in range(0, PICTURES, 6):
        view = images.view(index)
        seen = view.depth > 0
        x, y, z = unproject(view.camera, view.depth.double())[seen].unbind(-1)
        apart = torch.stack([y.abs(), (z + 3).abs(), (x.abs() - 3).abs()]).amin(dim=0)
        assert seen.float().mean() > 0.5
        # half a step of depth, seen at up to 45 degrees from the axis, and float32 poses
        assert float(apart.max()) < DEPTH_UNIT


def test_a_stretch_is_a_smaller_capture_of_the_first_share(room, tmp_path):
    out = tmp_path / "stretch"
    write_stretch(out, room, np.random.default_rng(0), size=SIZE // 2, depth=True, share=0.5)
    old, new = (json.loads((f / "transforms.json").read_text()) for f in (room, out))
    poses = [f["transform_matrix"] for f in old["frames"][: PICTURES // 2]]
    assert [f["transform_matrix"] for f in new["frames"]] == poses
    assert (new["w"], new["fl_x"], new["cx"]) == (old["w"] // 2, old["fl_x"] / 2, old["cx"] / 2)
    one, other = ImageCache(read_scene(room)).view(0, 2), ImageCache(read_scene(out)).view(0)
    assert torch.allclose(one.rgb, other.rgb, atol=1.01 / 255)  # rounded to bytes once more
    held = np.unique(ImageCache(read_scene(room)).view(0).depth.numpy())
    assert np.isin(other.depth.numpy(), held).all()  # never between two surfaces
