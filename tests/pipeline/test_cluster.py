"""A batch on two nodes of a Ray cluster, one of which is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from optional_packages import import_or_skip
from pipeline import held_training

from scene4d.files import read_json
from scene4d.pipeline.batch import BatchWatch, State, make_batch
from scene4d.pipeline.batch_options import BatchOptions
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.scenes import Scene, read_scenes
from scene4d.pipeline.store import Store

ray = import_or_skip("ray")
pytestmark = [pytest.mark.unchecked_shapes, pytest.mark.slow]

MINUTES = 0.2


@pytest.fixture(scope="module")
def go(tmp_path_factory) -> Path:
    """The file that :mod:`held_training` waits for."""
    return tmp_path_factory.mktemp("go") / "go"


@pytest.fixture(scope="module")
def cluster(go):
    """A head on which nothing runs, and two nodes of a core."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # a busy machine gives the nice ones nothing
        patch.setenv(held_training.GO, str(go))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        nodes = [made.add_node(num_cpus=1, **small) for _ in range(2)]
        ray.init(address=made.address, log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    with contextlib.suppress(Exception):
        made.shutdown()


class Killer(BatchWatch):
    """Ends a node once the training on each of the two is held; lets them go on when the lost one
    is tried again."""

    def __init__(self, made, node, out: Path, go: Path) -> None:
        self.made, self.node, self.out, self.go = made, node, out, go
        self.thread = threading.Thread(target=self.kill, daemon=True)
        self.killed = False

    def begins(self, states) -> None:
        self.thread.start()

    def changed(self, state) -> None:
        if state.tries.get("train", 0) > 1:
            self.go.touch()

    def kill(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if len(list(self.out.glob(f"*/.train-*/{held_training.HELD}"))) == 2:
                self.made.remove_node(self.node, allow_graceful=False)
                self.killed = True
                return
            time.sleep(0.1)


def test_results_go_through_a_url_and_stages_read_each_other_there(cluster, made_once, tmp_path):
    """``file://`` would be a folder that all nodes see: fsspec's wrapper of it is not known to be
    one, and is gone through as a bucket is."""
    source = tmp_path / "in"
    source.mkdir()
    shutil.copyfile(made_once.bundle, source / "a.s4d")
    scenes, _ = read_scenes(source, MakeOptions(minutes=0.02, device="cpu", target_mb=None))
    store = Store(f"local://{tmp_path}/out")
    assert store.folder is None
    states = make_batch(scenes, store, BatchOptions(cpus=1))
    assert [state.error for state in states] == [""]
    out = tmp_path / "out" / "a"
    assert (out / "bundle" / "scene.s4d").read_bytes() == made_once.bundle.read_bytes()
    assert (out / "report.html").is_file() and (tmp_path / "out" / "index.html").is_file()
    assert not any(p.name.startswith(".") for p in out.iterdir())


def held(scene: Scene) -> Scene:
    """With a training that waits for the killer."""
    stages = (replace(s, run="pipeline.held_training:train") if s.name == "train" else s
              for s in scene.plan.stages)  # fmt: skip
    return replace(scene, plan=replace(scene.plan, stages=tuple(stages)))


def test_all_scenes_are_made_though_a_node_is_lost_and_a_bad_one_is_told(
    cluster, go, capture, made_once, tmp_path
):
    made, nodes = cluster
    scenes_file, out = tmp_path / "scenes.jsonl", tmp_path / "out"
    broken = tmp_path / "broken.s4d"
    broken.write_bytes(made_once.bundle.read_bytes()[:-400])
    for name in ("one", "two"):
        shutil.copytree(capture, tmp_path / name)
    rows = [{"input": "one"}, {"input": "two"}, {"input": "broken.s4d"}]
    scenes_file.write_text("\n".join(map(json.dumps, rows)))
    read, _ = read_scenes(scenes_file, MakeOptions(minutes=MINUTES, device="cpu"))
    scenes = [held(scene) for scene in read]
    killer = Killer(made, nodes[1], out, go)
    states = make_batch(scenes, Store(str(out)), BatchOptions(cpus=1, retries=2), watch=killer)
    killer.thread.join()
    assert killer.killed
    by_name: dict[str, State] = {state.scene.name: state for state in states}
    assert "bundle" in by_name["broken"].error and not by_name["broken"].done
    assert sorted(by_name[n].tries["train"] for n in ("one", "two")) == [1, 2]
    for name in ("one", "two"):
        assert not by_name[name].error
        assert (out / name / "bundle" / "scene.s4d").is_file()
        assert (out / name / "report.html").is_file()
        configs = list((out / name / "train").rglob("config.toml"))
        assert len(configs) == 1  # gone on with, not begun anew
        lines = (configs[0].parent / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(set(steps))
    page = (out / "index.html").read_text()
    assert page.count("poster.webp") == 2 and "broken" in page
    assert read_json(out / "one" / "make.json")["input"] == str(tmp_path / "one")

    start = time.monotonic()
    again = make_batch(scenes[:2], Store(str(out)), BatchOptions(cpus=1))
    assert not any(state.new for state in again) and time.monotonic() - start < 5.0
