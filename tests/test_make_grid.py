"""A freeze-time video and reference videos become one capture that ``four-real`` reads."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene4d.data.load import read_scene
from scene4d.methods.deformable.cells import cells_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from make_grid import grid


@pytest.fixture
def parts(tmp_path):
    """A processed freeze-time video of four pictures, and a video of three."""
    freeze, video = tmp_path / "freeze", tmp_path / "video"
    for folder, count in ((freeze, 4), (video, 3)):
        folder.mkdir()
        for i in range(count):
            Image.new("RGB", (32, 24), (10 * i, 0, 0)).save(folder / f"{i}.png")
    frames = []
    for i in range(4):
        pose = np.eye(4)
        pose[0, 3] = i
        frames.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    meta = {"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0}
    (freeze / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))
    return freeze, video


def test_rows_and_columns_have_their_times_poses_and_weights(parts, tmp_path):
    freeze, video = parts
    assert grid(tmp_path / "out", freeze, [(video, "2.png")], 10.0, 1, 0.5) == 7
    scene = read_scene(tmp_path / "out")
    cells = cells_of(scene)
    names = [scene.frames[i].name for i in cells.shape]
    # the video's second picture is of the freeze-time video's moment
    assert names == [*(f"freeze/{i:04d}.png" for i in range(4)), "video0/0001.png"]
    assert {scene.frames[i].name for i in cells.motion} == {f"video0/{i:04d}.png" for i in range(3)}
    assert [scene.frames[i].name for i in cells.own] == names[:4]
    for frame in scene.frames:
        still = frame.name.startswith("freeze")
        number = int(Path(frame.name).stem)
        assert float(frame.camera.position[0]) == (number if still else 2.0)
        assert frame.weight == (0.5 if still else 1.0)
    times = sorted({round(float(f.camera.time), 6) for f in scene.frames})
    assert times == [0.0, 0.1, 0.2] and not scene.test_indices


def test_what_does_not_fit_is_told(parts, tmp_path):
    freeze, video = parts
    with pytest.raises(SystemExit, match="no picture 7"):
        grid(tmp_path / "a", freeze, [(video, "7.png")], 10.0, 0, 1.0)
    Image.new("RGB", (16, 24)).save(video / "1.png")
    with pytest.raises(SystemExit, match="32x24"):
        grid(tmp_path / "b", freeze, [(video, None)], 10.0, 0, 1.0)
