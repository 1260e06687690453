"""``scene4d batch``: tables that are checked first, and a store that is elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from optional_packages import import_or_skip

from scene4d.cli.main import main
from scene4d.errors import UsageError
from scene4d.files import read_json
from scene4d.pipeline.cluster import Task, make_stage, standing_in
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.scenes import read_scenes
from scene4d.pipeline.store import Store

pytestmark = pytest.mark.unchecked_shapes

SHORT = 0.02


@pytest.fixture(scope="module")
def inputs(made_once, tmp_path_factory) -> Path:
    """A folder with three bundles, and a letter that is no scene."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("a", "b", "c"):
        shutil.copyfile(made_once.bundle, folder / f"{name}.s4d")
    (folder / "README.md").write_text("a letter")
    return folder


def test_a_folder_is_a_scene_for_each_entry_that_is_one(inputs):
    scenes, left = read_scenes(inputs, MakeOptions())
    assert [scene.name for scene in scenes] == ["a", "b", "c"]
    assert len(left) == 1 and left[0].startswith("README.md: is none of what")


def test_rows_have_options_of_their_own_before_those_for_all(inputs):
    table = inputs / "scenes.csv"
    table.write_text("input,name,target-mb,quality\na.s4d,first,0.5,\nb.s4d,,,draft\n")
    lines = inputs / "scenes.jsonl"
    lines.write_text(
        '{"input": "a.s4d", "name": "first", "target_mb": 0.5}\n\n'
        '{"input": "b.s4d", "quality": "draft"}\n'
    )
    try:
        for path in (table, lines):
            scenes, _ = read_scenes(path, MakeOptions(minutes=3))
            assert [scene.name for scene in scenes] == ["first", "b"]
            first, second = (scene.plan.options for scene in scenes)
            assert (first.target_mb, first.quality, first.minutes) == (0.5, "good", 3)
            assert (second.target_mb, second.quality) == (None, "draft")
    finally:
        table.unlink()
        lines.unlink()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"input": "a.s4d", "minuts": 3}, "has unknown options: minuts"),
        ({"input": "a.s4d", "minutes": "soon"}, "minutes"),
        ({"input": "a.s4d", "minutes": -1}, "minutes"),
        ({"input": "a.s4d", "quality": "superb"}, "quality"),
        ({"input": "nowhere"}, "there is no such file"),
        ({"name": "x"}, "has no input"),
        ({"input": "a.s4d", "name": "../x"}, "cannot be the name of a folder"),
        ({"input": "a.s4d", "method": "splat"}, "--method means nothing"),
        ({"input": "a.s4d", "name": "B"}, "the name 'B' is that of"),
        ([1], "is no object"),
        ("{", "is no JSON"),
    ],
)
def test_a_wrong_row_is_named_with_its_line_before_anything_starts(
    inputs, tmp_path, row, told, capfd
):
    table = inputs / "wrong.jsonl"
    text = row if isinstance(row, str) else json.dumps(row)
    table.write_text(f'{{"input": "b.s4d"}}\n{text}\n')
    try:
        out = tmp_path / "out"
        assert main(["batch", str(table), "--output-dir", str(out)]) in (1, 2)
    finally:
        table.unlink()
    err = capfd.readouterr().err
    assert f"{table}, line 2" in err and told in err and "Traceback" not in err
    assert not out.exists()


def test_a_wrong_cell_of_a_csv_is_named_with_its_line(inputs):
    table = inputs / "wrong.csv"
    table.write_text("input,resolution\na.s4d,\nb.s4d,wide\n")
    try:
        with pytest.raises(UsageError, match=r"wrong.csv, line 3: resolution"):
            read_scenes(table, MakeOptions())
    finally:
        table.unlink()


@pytest.mark.parametrize("scheme", ["memory://scenes-{}", "file://{}/scenes"])
def test_a_store_keeps_folders_whole(tmp_path, scheme):
    """fsspec's own file systems; buckets go through the same calls."""
    store = Store(scheme.format(tmp_path))
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.bin").write_bytes(b"1")
    (source / "stage.json").write_text("{}")
    store.put(source, "x/stage", last="stage.json")
    assert store.get("x/stage", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "a.bin").read_bytes() == b"1"
    (source / "deep" / "a.bin").unlink()
    store.put(source, "x/stage", last="stage.json")
    assert not store.exists("x/stage/deep/a.bin") and store.read("x/stage/stage.json") == b"{}"
    assert store.read("x/nothing") is None and not store.get("x/nothing", tmp_path / "none")
    store.write("x/index.html", b"page")
    assert sorted(store.names("x")) == ["index.html", "stage"]


def test_checkpoints_are_in_the_store_while_a_stage_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("scene4d.pipeline.store.SYNC_SECONDS", 0.01)
    store = Store(f"memory://follow-{tmp_path.name}")
    (tmp_path / "work").mkdir()
    with store.following(tmp_path / "work", "x/.train-key"):
        (tmp_path / "work" / "step-1").write_bytes(b"1")
        for _ in range(500):
            if store.read("x/.train-key/step-1") == b"1":
                break
            time.sleep(0.01)
    assert store.read("x/.train-key/step-1") == b"1"


def test_a_training_goes_on_from_the_checkpoint_that_is_in_the_store(made_once, capture, tmp_path):
    """As another node finds it after the first was lost."""
    options = MakeOptions(minutes=SHORT, device="cpu")
    (tmp_path / "scenes.jsonl").write_text(json.dumps({"input": str(capture), "name": "x"}))
    (scene,), _ = read_scenes(tmp_path / "scenes.jsonl", options)
    left = Path(shutil.copytree(made_once.out / "train", tmp_path / "left"))
    run = read_json(left / "stage.json")["results"]["run"]
    (left / "stage.json").unlink()
    store = Store(f"memory://resumed-{tmp_path.name}")
    begun = f"x/.train-{scene.keys['train']}"
    store.put(left, begun)
    task = Task(store=store, scene="x", plan=scene.plan, keys=scene.keys, stage="train")
    outcome = make_stage(task)
    assert outcome.error == "" and outcome.done is not None
    assert outcome.done.results["run"] == run
    assert store.exists(f"x/train/{run}/eval.json") and not store.exists(begun)
    assert list(standing_in(store, "x", scene.plan, scene.keys)) == ["train"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://nobody.invalid:10001", "nonsense"])
def test_a_cluster_that_does_not_answer_is_told_soon(inputs, tmp_path, capfd, address):
    import_or_skip("ray")
    start = time.monotonic()
    command = ["batch", str(inputs), "--output-dir", str(tmp_path / "out"), "--address", address]
    assert main(command) == 1
    err = capfd.readouterr().err
    assert f"{address}: the cluster cannot be reached" in err and "ray start --head" in err
    assert time.monotonic() - start < 30.0


def test_without_ray_it_is_told_how_to_get_it(inputs, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", str(inputs), "--output-dir", str(tmp_path / "out")]) == 1
    err = capfd.readouterr().err
    assert "needs the package 'ray'" in err and "scene4d[cluster]" in err
