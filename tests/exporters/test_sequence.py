"""Scenes that move, in files without time: a moment, or a file for each picture."""

from dataclasses import replace

import numpy as np
import pytest
from formats.splat_files import random_cloud

from scene4d.cli import export as verb
from scene4d.errors import UsageError
from scene4d.exporters import bundle, sequence
from scene4d.exporters.options import SequenceOptions
from scene4d.formats.registry import read_splats
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training import open_scene
from scene4d.training.opened import OpenedScene

CLOUD = random_cloud(20)


class Rising(GaussianSplats):
    """Goes up by 2 a second, from second 1 to second 3."""

    times = (1.0, 3.0)

    def splats(self, time=None):
        cloud = super().splats()
        height = np.float32(2 * ((1.0 if time is None else time) - 1.0))
        return replace(cloud, means=cloud.means + np.array([0, 0, height], dtype=np.float32))


@pytest.fixture
def scene(tmp_path):
    still = GaussianSplats.of(CLOUD)
    tensors = {name: p.detach() for name, p in still.gaussians.items()}
    return OpenedScene(path=tmp_path / "run", representation=Rising(tensors))


def heights(path):
    return read_splats(path).means[:, 2] - CLOUD.means[:, 2]


def test_a_sequence_has_a_file_for_each_moment(scene, tmp_path):
    told = sequence.export(scene, tmp_path / "flight", SequenceOptions(sequence_fps=2.0))
    files = sorted(path.name for path in (tmp_path / "flight").iterdir())
    assert files == [f"frame_{i:05d}.ply" for i in range(5)]
    for number, name in enumerate(files):
        # float32 coordinates of a few units
        np.testing.assert_allclose(heights(tmp_path / "flight" / name), number, atol=1e-5)
    assert "5 PLY files of 20 splats" in told and "1 to 3 s" in told
    sequence.export(scene, tmp_path / "flight", SequenceOptions(sequence_fps=1.0))  # replaced
    assert len(list((tmp_path / "flight").iterdir())) == 3


def test_what_lies_in_the_folder_is_not_lost(scene, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="other things"):
        sequence.export(scene, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_does_not_move_has_no_sequence_and_no_time(tmp_path):
    still = OpenedScene(path=tmp_path, representation=GaussianSplats.of(CLOUD))
    with pytest.raises(UsageError, match="nothing in it moves"):
        sequence.export(still, tmp_path / "a")
    with pytest.raises(UsageError, match="nothing in it moves"):
        still.at_time(1.0)


def test_the_verb_writes_a_moment_and_says_which(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(open_scene, "open_scene", lambda *args, **kwargs: scene)
    path = tmp_path / "a.ply"
    verb.main(["run", "ply", "--output-path", str(path), "--at-time", "2.5"])
    np.testing.assert_allclose(heights(path), 3.0, atol=1e-5)
    verb.main(["run", "ply", "--output-path", str(path)])
    np.testing.assert_allclose(heights(path), 0.0, atol=1e-5)
    assert "it moves from 1 to 3 s; this is 1 s" in capsys.readouterr().err
    line = bundle.export(scene, tmp_path / "a.s4d")  # as scene4d view does
    assert line.endswith("as it stands at 1 s, without motion")
    with pytest.raises(UsageError, match="lasts from 1 to 3 s"):
        verb.main(["run", "ply", "--output-path", str(path), "--at-time", "9"])
    with pytest.raises(UsageError, match="--at-time is not for ply-sequence"):
        verb.main(["run", "ply-sequence", "--output-path", str(tmp_path / "b"), "--at-time", "2"])
