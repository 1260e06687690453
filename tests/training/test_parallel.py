"""Two processes that share every step of a training do what one does alone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from training import trained_together
from training.trained_together import STEPS, Places

from scene4d.training import trainer
from scene4d.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint

pytestmark = pytest.mark.unchecked_shapes
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Together:
    """What two processes did."""

    places: Places
    first: dict[str, Any]
    second: dict[str, Any]
    output: str
    errors: str


@pytest.fixture(scope="module")
def places(tiny_capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    return trained_together.prepared(tmp_path_factory.mktemp("alone"), tiny_capture)


@pytest.fixture(scope="module")
def together(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """One start of two processes for all tests: most of its time is importing torch."""
    try:
        socket.gethostbyname("localhost")
    except OSError as error:
        pytest.skip(f"torchrun meets at localhost, which has no address here ({error}): /etc/hosts")
    folder = tmp_path_factory.mktemp("together")
    told = json.dumps({k: str(v) for k, v in asdict(replace(places, output_dir=folder)).items()})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               trained_together.__file__, told]  # fmt: skip
    found_in = [str(ROOT / name) for name in ("src", "tests", "examples")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found_in)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((folder / f"process{i}.json").read_text()) for i in (0, 1))
    return Together(
        places=replace(places, output_dir=folder), first=first, second=second,
        output=done.stdout, errors=done.stderr,
    )  # fmt: skip


def end(run: Path) -> Checkpoint:
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("training", "shared"),
    [("rays", "rays"), ("crops", "stopped"), ("splats", "splats"), ("texts", "texts"),
     ("captions", "captions"), ("pairs", "pairs"), ("pictures", "pictures")],
)  # fmt: skip
def test_two_processes_learn_what_one_learns(
    training: str,
    shared: str,
    places: Places,
    together: Together,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where they were stopped in the middle and went on: ``stopped``."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    alone = getattr(trained_together, training)(places)
    run = Path(together.first["runs"][shared])
    rows, theirs = logged(alone), logged(run)
    assert [row["step"] for row in theirs] == [*range(1, STEPS + 1)]
    for row, other in zip(rows, theirs, strict=True):
        assert row.keys() == other.keys()
        # Sums in another order: single precision, of which a step of Adam may make more where a
        # gradient nearly vanishes. A wrong share of one process would show in the first digit.
        for name in row.keys() - {"seconds"}:
            assert other[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6), (name, row["step"])
    mine, yours = end(alone).part("representation"), end(run).part("representation")
    assert mine.keys() == yours.keys()
    for name, value in mine.items():
        off = (value.double() - yours[name].double()).norm()
        # Splats that hardly turn a pixel turn by noise: of their quaternions 1% was seen.
        most = 0.05 if name.endswith("quats") else 1e-3
        assert float(off) <= most * float(value.double().norm()), name


def test_every_process_has_the_same_parameters_to_the_bit(together: Together) -> None:
    assert len(together.first["ends"]) == 7
    assert together.first["ends"] == together.second["ends"]


def test_the_first_process_alone_writes(together: Together) -> None:
    assert together.first["runs"] == together.second["runs"]
    configs = {path.parent for path in together.places.output_dir.rglob("config.toml")}
    (trained,) = (together.places.output_dir / "by_command").rglob("eval.json")
    (lost,) = (together.places.output_dir / "lost").glob("*/*/*")
    assert configs == {*map(Path, together.first["runs"].values()), trained.parent, lost}
    assert together.output.split() == [str(trained.parent)]
    told = re.findall("^checkpoint: (.*)", together.errors, re.MULTILINE)
    assert len(set(told)) == len(told) == len(configs), "one was stopped between, one was lost"


def test_what_cannot_be_shared_is_refused_by_all_and_told_once(together: Together) -> None:
    told = together.first["refused"]
    assert told == together.second["refused"]
    reasons = {
        "strategy": "'splat' in 2 processes: primitives come and go by the gradients of renders",
        "batch": "1 photographs .--batch-size. a step cannot be shared evenly by 2 processes",
        "norm": "its network normalises by a batch's statistics",
        "teacher": "train one in one process, and name its run with --teacher",
    }
    assert told.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert re.search(reason, told[name]), told[name]
    assert together.first["statuses"] == together.second["statuses"] == [0, 2]
    assert together.errors.count("scene4d train: error: the method 'splat' in 2 processes") == 1


def test_a_process_that_fails_says_so_and_ends_the_others(together: Together) -> None:
    assert together.second["lost"] == "the second process's disk is broken"
    assert "another process of this training ended" in together.first["lost"]
    assert together.errors.count("process 1 of 2: error: the second process's disk is broken") == 1
