"""Scenes that move on their way into bundles and out again, by the verbs and by Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.deformable.test_deformable import camera_at, compact

from scene4d.bundle.checks import bundle_faults, describe
from scene4d.bundle.container import open_bundle
from scene4d.bundle.scene_info import info_from
from scene4d.cli import main as command
from scene4d.errors import UsageError
from scene4d.evaluation.psnr import psnr
from scene4d.exporters import bundle as bundles
from scene4d.exporters.budgets import write_within
from scene4d.exporters.options import TARGETS, BundleOptions, TargetBudget
from scene4d.exporters.shown import shown_shares
from scene4d.formats.registry import read_splats
from scene4d.methods.deformable.bundle_kind import Splats4dKind
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.lpgs.compress import compress
from scene4d.methods.lpgs.method import LpgsMethod
from scene4d.training import open_scene as door
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.options import TrainOptions


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> OpenedScene:
    """As a run of deformable opens: cameras with times."""
    cameras = [camera_at(time) for time in (0.9, 1.7)]
    return OpenedScene(
        path=tmp_path_factory.mktemp("run"),
        representation=DeformableSplats.of(compact(windows=True)),
        cameras=SceneCameras(train=cameras, train_names=["a", "b"]),
    )


@pytest.fixture(scope="module")
def bundle(scene: OpenedScene, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "a.s4d"
    line = bundles.export(scene, path)
    assert line.endswith("kB a second") and "kind splats4d; moving for 2 s at" in line
    return path


def test_a_bundle_opens_as_a_scene_that_moves(scene: OpenedScene, bundle: Path) -> None:
    opened = open_scene(bundle)
    assert opened.representation.times == scene.representation.times == (0.25, 2.25)
    assert [float(camera.time) for camera in opened.cameras.train] == pytest.approx([0.9, 1.7])
    with torch.no_grad():
        pictures = [
            [each.render(camera).rgb for camera in scene.cameras.train]
            for each in (scene.representation, opened.representation)
        ]
    for ours, theirs in zip(*pictures, strict=True):
        assert float(psnr(theirs, ours)) > 30  # coarse steps of a hundred large splats
    assert float(psnr(pictures[0][0], pictures[0][1])) < 25  # and it has moved
    still = opened.at_time(1.7).representation
    assert still.times is None
    with torch.no_grad():
        again = still.render(scene.cameras.train[1]).rgb
    torch.testing.assert_close(again, pictures[1][1], atol=2e-3, rtol=0)  # float32 and float64
    with pytest.raises(UsageError, match=r"lasts from 0.25 to 2.25 s"):
        opened.at_time(3.0)


def test_what_a_bundle_says_of_itself(scene: OpenedScene, bundle: Path, capsys) -> None:
    assert bundle_faults(bundle) == []
    assert "kind splats4d" in describe(bundle) and "moving for 2 s at" in describe(bundle)
    assert command.main(["info", "--json", str(bundle)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["times"] == [0.25, 2.25] and told["nodes"] == 6
    opened = open_bundle(bundle)
    size = sum(len(opened.read(f"motion{i}.bin")) for i in range(told["chunks"]))
    assert told["motion_bytes"] == size
    assert told["motion_kb_per_second"] == pytest.approx(size / 2 / 1000, abs=0.006)


def test_the_poster_is_of_the_first_cameras_time(scene: OpenedScene, bundle: Path) -> None:
    opened = open_bundle(bundle)
    info = info_from(opened.manifest, {name: opened.read(name) for name in opened.names()})
    first = scene.cameras.train[0]
    assert info.poster == bundles.poster(scene.representation, first)
    assert info.poster != bundles.poster(scene.representation, replace(first, time=None))


def test_the_box_of_the_content_holds_it_at_all_times(scene: OpenedScene, tmp_path: Path) -> None:
    moving = scene.representation.moving()
    knots = moving.knots.copy()
    knots[:, :, 4] += np.linspace(0, 2, knots.shape[1])  # off to the side
    away = replace(scene, representation=DeformableSplats.of(replace(moving, knots=knots)))
    bundles.export(away, tmp_path / "a.s4d")
    (low, *_), (high, *_) = open_bundle(tmp_path / "a.s4d").manifest["limits"]["content"]
    for time in (0.25, 2.25):
        middle = np.median(away.representation.splats(time).means[: moving.num_moving, 0])
        assert low < middle < high


def test_a_size_is_met_and_what_is_cut_still_moves(scene, bundle: Path, tmp_path, monkeypatch):
    size = bundle.stat().st_size / 1e6
    bundles.export(scene, tmp_path / "a.s4d", BundleOptions(target_mb=0.9 * size))
    assert (tmp_path / "a.s4d").stat().st_size / 1e6 == pytest.approx(0.9 * size, rel=0.02)
    monkeypatch.setitem(TARGETS, "tiny", TargetBudget(splats=60, sh_degree=0, size_mb=1.0))
    told = write_within(scene, tmp_path / "b.s4d", target="tiny").summary("tiny")
    assert "cut: 40 of 100 splats, harmonics above degree 0 of 1" in told
    assert "moving for 2 s" in told
    cut = open_scene(tmp_path / "b.s4d").representation
    assert isinstance(cut, DeformableSplats) and 0 < cut.moving().num_moving < 60
    assert len(cut.splats()) == 60


def test_what_is_not_there_when_it_is_looked_at_shows_nothing_and_goes_first(scene) -> None:
    """Cameras look at 0.9 and 1.7 s."""
    moving = scene.representation.moving()
    edges = np.tile(np.float32([0.0, 2.5, 0.01, 0.01]), (moving.num_moving, 1))
    hidden = np.arange(0, moving.num_moving, 2)
    edges[hidden, :2] = [1.2, 1.4]
    representation = DeformableSplats.of(replace(moving, opacity_windows=edges))
    shown = shown_shares(replace(scene, representation=representation))
    assert len(shown) == len(moving) and shown.sum() > 0
    assert shown[hidden].max() <= 1e-6 * shown.max()
    kind = Splats4dKind().in_order(lambda: shown)
    left = kind.reduced(representation, len(moving) - len(hidden), 1).moving()
    assert left.num_moving == moving.num_moving - len(hidden)
    assert (left.opacity_windows[:, 0] == 0).all()


def test_the_verb_writes_the_motion_unless_a_time_is_asked_for(
    scene: OpenedScene, tmp_path: Path, monkeypatch, capsys
) -> None:
    real = door.open_scene
    monkeypatch.setattr(
        door, "open_scene",
        lambda path, **given: scene if str(path) == "run" else real(path, **given),
    )  # fmt: skip
    path = tmp_path / "a.s4d"
    assert command.main(["export", "run", "bundle", "--output-path", str(path)]) == 0
    told = capsys.readouterr().err
    assert "moving for 2 s at" in told and "dB to the scene's own (2 views)" in told
    assert "note: it moves" not in told
    given = ["export", "run", "bundle", "--output-path", str(path), "--at-time", "1.5"]
    assert command.main(given) == 0
    assert open_bundle(path).manifest["kind"] == "splats"
    assert "moving" not in capsys.readouterr().err
    still = read_splats(path)
    wanted = scene.representation.splats(1.5).means
    assert sorted(still.means[:, 0]) == pytest.approx(sorted(wanted[:, 0]), abs=0.05)


def test_what_cannot_keep_the_motion_says_so(bundle: Path, tmp_path: Path, capsys) -> None:
    assert command.main(["convert", str(bundle), str(tmp_path / "a.ply")]) == 0
    told = capsys.readouterr().err
    assert "this is its first moment" in told and "ply-sequence" in told
    first = open_scene(bundle).representation.splats(0.25)
    written = read_splats(tmp_path / "a.ply").means
    # of a bundle the moving ones come first, of a file in the order of the bundle
    assert sorted(written[:, 0]) == pytest.approx(sorted(first.means[:, 0]), abs=1e-5)
    with pytest.raises(UsageError, match="moves, and parent/child splats stand still"):
        compress(
            bundle, tmp_path / "b.s4d", method=LpgsMethod(), options=TrainOptions(data=None)
        )  # fmt: skip


def test_a_sequence_can_be_made_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    given = ["export", str(bundle), "ply-sequence", "--output-path", str(tmp_path / "out")]
    assert command.main(given) == 0
    files = sorted((tmp_path / "out").glob("*.ply"))
    assert len(files) > 10
    means = [read_splats(path).means for path in (files[0], files[-1])]
    assert np.abs(means[0] - means[1]).max() > 0.05
