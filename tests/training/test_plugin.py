"""Adding a representation costs one module and one entry point: the example proves it."""

import json
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from scene4d.bundle import kinds
from scene4d.bundle.container import open_bundle
from scene4d.cameras.camera import Camera
from scene4d.cli.main import main
from scene4d.errors import DataError, UsageError
from scene4d.exporters.bundle import export
from scene4d.files import read_json
from scene4d.player import player_files
from scene4d.toml_files import read_toml
from scene4d.training import methods
from scene4d.training.evaluate import evaluate_run
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import resume, start
from scene4d.training.trainer import Interrupted, Trainer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def voxels(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    entry = EntryPoint("voxels", "voxel_grid:VoxelMethod", methods.GROUP)
    monkeypatch.setattr(methods, "entry_points", lambda group: [entry])
    yield methods.load_method("voxels")
    sys.modules.pop("voxel_grid", None)


@pytest.fixture
def voxel_bundles(voxels, monkeypatch):
    """With the kind of bundle that an entry point of the plugin would bring."""
    installed = kinds.entry_points
    entry = EntryPoint("voxels", "voxel_bundle:VoxelKind", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [*installed(group=group), entry])
    kinds.bundle_kinds.cache_clear()
    yield voxels
    kinds.bundle_kinds.cache_clear()
    sys.modules.pop("voxel_bundle", None)


def test_a_plugin_trains_saves_and_loads_without_a_change_elsewhere(voxels, tiny_capture, tmp_path):
    run = start(
        voxels(steps=120, resolution=32, coarsest_downscale=2),
        TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False),
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    psnrs = [row["psnr"] for row in rows if "psnr" in row]
    # Fog learns at least the outline and mean colours within 120 steps.
    assert sum(psnrs[-4:]) / 4 > psnrs[0] + 4.0
    loaded = load_run(run)
    assert type(loaded.representation).__name__ == "VoxelGrid"
    assert loaded.representation.render(loaded.cameras.test[0]).rgb.shape == (48, 48, 3)


def test_a_method_names_the_sample_scene_that_it_is_trained_on(
    voxels, monkeypatch, tmp_path, capsys
):
    (tmp_path / "dancing.py").write_text(
        "from dataclasses import dataclass\n"
        "from voxel_grid import VoxelMethod\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Dancing(VoxelMethod):\n"
        "    name = 'dancing'\n"
        "    sample_scene = 'dance_room'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("dancing", "dancing:Dancing", methods.GROUP)
    monkeypatch.setattr(methods, "entry_points", lambda group: [entry])
    method = methods.load_method("dancing")(steps=1, resolution=4)
    out = tmp_path / "out"
    run = start(
        method, TrainOptions(downscale_factor=8, max_frames=12, output_dir=out, device="cpu")
    )
    assert run.parent.parent == out / "dance_room"
    # named, not by a path: packages move
    assert read_toml(run / "config.toml")["data"] == {"sample": "dance_room"}
    assert main(["info", str(run)]) == 0
    assert "the built-in sample scene dance_room" in capsys.readouterr().out
    result = evaluate_run(run, lpips=False, device="cpu")
    # its pictures and masks are found again
    assert len(result.images) == 6 and {"mpsnr", "mpsnr_moving"} <= set(result.results())
    words = read_json(run / "eval.json")["metrics"]
    assert words["covisible_masks"] == words["moving_masks"] == "the capture's own"
    assert "mPSNR, covisible" in (run / "report.html").read_text()
    config = run / "config.toml"
    config.write_text(config.read_text().replace('"dance_room"', '"nowhere"'))
    with pytest.raises(DataError, match="no sample scene 'nowhere'"):
        load_run(run)
    sys.modules.pop("dancing", None)


def test_a_kind_of_bundle_comes_by_an_entry_point_alone(
    voxel_bundles, tiny_capture, tmp_path, capsys, monkeypatch
):
    run = start(
        voxel_bundles(steps=30, resolution=16),
        TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False),
    )
    path = tmp_path / "fog.s4d"
    assert main(["export", str(run), "bundle", "--output-path", str(path)]) == 0
    told = capsys.readouterr().err
    assert "fog on a grid of 16 x 16 x 16" in told and "kind voxels" in told
    assert "held-out photographs" in told  # what it loses was measured
    assert main(["validate", str(path)]) == 0
    assert main(["info", str(path)]) == 0
    assert "fog on a grid of 16 x 16 x 16" in capsys.readouterr().out
    ours, theirs = open_scene(run), open_scene(path)
    assert len(theirs.cameras.train) == len(ours.cameras.train)
    with torch.no_grad():
        pictures = [s.representation.render(s.cameras.train[0]).rgb for s in (ours, theirs)]
    assert pictures[0].std() > 0.01
    # 255 levels of a range of some 10 before a softplus and a sigmoid
    assert torch.allclose(*pictures, atol=0.05)
    manifest = open_bundle(path).manifest
    (kind,) = (k for k in kinds.bundle_kinds().values() if k.name == "voxels")
    assert kind.faults(manifest) == []
    wrong = {**manifest, "voxels": {**manifest["voxels"], "sides": [16, 16, 15]}}
    assert "16, 16, 15" in kind.faults(wrong)[0]
    # The player has no code for it, and its page says what it has code for.
    player = tmp_path / "build"
    player.mkdir()
    (player / "index.html").write_text('<meta name="scene4d-kinds" content="splats lpgs" />')
    monkeypatch.setattr(player_files, "_PACKAGED", player)
    site = tmp_path / "site"
    for scene in (str(run), str(path)):
        for command in (["export", scene, "player", "--output-path", str(site)], ["view", scene]):
            assert main(command) == 1
            assert "'voxels', which the player does not draw; it draws lpgs, splats" in (
                capsys.readouterr().err
            )
    assert not site.exists()


def test_a_bundle_of_a_kind_that_is_not_there_says_which_are(voxel_bundles, tmp_path):
    from voxel_grid import VoxelGrid

    low, high = torch.full((3,), -1.0), torch.ones(3)
    camera = Camera(
        c2w=torch.eye(4), K=torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), width=16, height=16
    )
    scene = OpenedScene(
        path=tmp_path,
        representation=VoxelGrid(torch.zeros(4, 3, 4, 5), low, high),
        cameras=SceneCameras(train=[camera]),
    )
    export(scene, tmp_path / "fog.s4d")
    kinds.bundle_kinds.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "entry_points", entry_points)
        with pytest.raises(DataError, match="of kind 'voxels'; this reader knows lightslab, lpgs"):
            open_bundle(tmp_path / "fog.s4d")


def test_a_kind_that_cannot_be_imported_is_named_and_left_out(monkeypatch, caplog):
    broken = EntryPoint("broken", "no_such_module:Kind", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [*entry_points(group=group), broken])
    kinds.bundle_kinds.cache_clear()
    assert "splats" in kinds.bundle_kinds() and "broken" not in kinds.bundle_kinds()
    assert "no_such_module" in caplog.text
    kinds.bundle_kinds.cache_clear()


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    entry = EntryPoint("text-to-splats", "text_to_splats:TextToSplatsMethod", methods.GROUP)
    monkeypatch.setattr(methods, "entry_points", lambda group: [entry])
    yield methods.load_method("text-to-splats")
    sys.modules.pop("text_to_splats", None)


def test_a_generator_is_trained_without_any_capture(texts, tmp_path, capsys):
    from text_to_splats import TEXTS, UNSEEN, ball

    method = texts(steps=400)
    run = start(method, TrainOptions(output_dir=tmp_path, device="cpu"))
    assert run.parent.parent.name == "text-to-splats"  # no sample scene took part
    loaded = load_run(run)
    assert loaded.condition == TEXTS[0] and not loaded.cameras.train

    def error(drawn, meant):
        """Mean squared, of the scene of a text against what another means, from five sides."""
        scene = load_run(run, condition=drawn).representation
        camera = Camera.stack(method.poses().draw(torch.Generator().manual_seed(7), 5))
        with torch.no_grad():
            shown = scene.render(camera, background=torch.zeros(3)).rgb
        return float((shown - ball(meant, camera, torch.zeros(3))).square().mean())

    def likest(text):
        errors = {meant: error(text, meant) for meant in TEXTS}
        return min(errors, key=errors.get)

    assert [likest(text) for text in (TEXTS[0], TEXTS[7])] == [TEXTS[0], TEXTS[7]]
    assert "blue" in likest(UNSEEN)  # words that it knows, in a text that it never saw
    with pytest.raises(UsageError, match="no word"):
        load_run(run, condition="a purple cow")
    path = tmp_path / "ball.ply"
    assert main(["export", str(run), "ply", "--output-path", str(path)]) == 0
    assert main(["eval", str(run)]) == 2
    assert "without photographs" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--data means nothing"):
        start(method, TrainOptions(data=tmp_path, output_dir=tmp_path))


def test_a_generators_training_goes_on_where_it_stopped(texts, tmp_path, monkeypatch):
    options = TrainOptions(output_dir=tmp_path, device="cpu")
    straight = load_run(start(texts(steps=40), options))
    original = Trainer._step

    def stopping(self):
        metrics = original(self)
        if self.step == 20:
            self.interrupted_by = "SIGINT"
        return metrics

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(Interrupted) as stopped:
        start(texts(steps=40), options)
    resumed = load_run(resume(stopped.value.run))
    assert resumed.step == straight.step == 40
    for name, value in straight.generator.state_dict().items():
        assert torch.equal(resumed.generator.state_dict()[name], value), name
