"""A batch on a Ray cluster: a task for each stage, with what it needs of a machine.

The tasks are :func:`make_stage` and :func:`make_page`, called with plain data. In a folder that all
nodes see they work where the results are to lie; with results in an object store each has a
temporary folder, to which it copies the stages that it reads, and from which checkpoints and
results are copied back. Either way a stage whose node was lost goes on from its last checkpoint.
"""

from __future__ import annotations

import platform
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scene4d.errors import Scene4dError
from scene4d.optional import import_optional
from scene4d.pipeline.make import finished, reported, standing, work_of
from scene4d.pipeline.plan import Plan, allowance
from scene4d.pipeline.report import REPORT
from scene4d.pipeline.stage import RECORD, Done, Stage, done_of, make, read_done
from scene4d.pipeline.stages import NoPosesError
from scene4d.pipeline.store import Store
from scene4d.training.run import locked

LOCK_SECONDS = 60.0
"""A node that is lost takes some time until its processes end and let go of their folders."""
ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a node is told."""

    store: Store
    scene: str
    plan: Plan
    keys: Mapping[str, str]
    stage: str = ""
    cpus: int = 1
    gpu: bool = False
    """Whether it has one to itself; without, none is used, whatever the node has."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a node answers."""

    done: Done | None = None
    error: str = ""
    """What is wrong with the input, where that is why: trying again is of no use."""
    node: str = ""


def make_stage(task: Task) -> Outcome:
    """Makes one stage of a scene whose stages before it stand in the store."""
    _use_cores(task.cpus)
    stage = next(s for s in task.plan.stages if s.name == task.stage)
    try:
        if (folder := task.store.folder) is not None:
            done = _made_in(folder / task.scene, stage, task)
        else:
            with tempfile.TemporaryDirectory(prefix="scene4d-batch-") as scratch:
                done = _made_through(Path(scratch) / task.scene, stage, task)
    except Scene4dError as error:
        if isinstance(error.__cause__, OSError) or "disk is full" in str(error):
            raise  # of this node, perhaps: another try is worth it
        return Outcome(error=str(error), node=_node())
    return Outcome(done=done, node=_node())


def _node() -> str:
    """Where this runs: the machine's name and the beginning of Ray's."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return platform.node()
    return f"{platform.node()} ({ray.get_runtime_context().get_node_id()[:6]})"


def make_page(task: Task) -> None:
    """Writes the scene's page."""
    if (folder := task.store.folder) is not None:
        finished(task.plan, _standing(folder / task.scene, task), folder / task.scene)
        return
    with tempfile.TemporaryDirectory(prefix="scene4d-batch-") as scratch:
        out = Path(scratch) / task.scene
        for stage in task.plan.stages:
            task.store.get(f"{task.scene}/{stage.name}", out / stage.name)
        page = finished(task.plan, _standing(out, task), out).report
        task.store.write(f"{task.scene}/{REPORT}", page.read_bytes())


def _standing(out: Path, task: Task) -> dict[str, Done]:
    """As if it were made now, so that the page is written anew."""
    found = standing(task.plan, task.keys, out)
    return {name: replace(done, reused=False) for name, done in found.items()}


def _use_cores(count: int) -> None:
    """Ray says how many; kernels would take all of the machine."""
    import numba
    import torch

    numba.set_num_threads(max(1, min(count, numba.config.NUMBA_NUM_THREADS)))
    torch.set_num_threads(max(1, count))


def _made_in(out: Path, stage: Stage, task: Task) -> Done:
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with locked(out, what="another process is making this scene", fix="wait for it"):
                return _made(out, stage, task)
        except Scene4dError as error:
            if error.what != "another process is making this scene" or time.monotonic() > until:
                raise
        time.sleep(0.5)


def _made(out: Path, stage: Stage, task: Task) -> Done:
    key = task.keys[stage.name]
    standing = read_done(out / stage.name, stage, key)
    if standing is not None:  # by a task that was thought lost
        return standing
    done = _standing(out, task)
    seconds = allowance(stage, task.plan, done)
    work = work_of(stage, task.plan, done, seconds=seconds, out=out, say=lambda line: None)
    if not task.gpu and "device" in work.options:
        work = replace(work, options={**work.options, "device": "cpu"})
    try:
        return make(stage, key, out, work)
    except NoPosesError as error:
        elsewhere = f"{task.store.url.rstrip('/')}/{task.scene}/{REPORT}"
        found_at = elsewhere if task.store.folder is None else None
        raise reported(error, task.plan, out, found_at=found_at) from error


def _made_through(out: Path, stage: Stage, task: Task) -> Done:
    """In a temporary folder, from the store and back into it."""
    store, name = task.store, task.scene
    # Of what a stage does not read itself, the time that it took is wanted.
    needed = {*stage.needs, *(s.name for s in task.plan.stages[: task.plan.stages.index(stage)])}
    for other in sorted(needed):
        store.get(f"{name}/{other}", out / other)
    begun = f".{stage.name}-{task.keys[stage.name]}"
    if stage.resumes:
        store.get(f"{name}/{begun}", out / begun)
    (out / begun).mkdir(parents=True, exist_ok=True)
    try:
        if stage.resumes:
            with store.following(out / begun, f"{name}/{begun}"):
                done = _made(out, stage, task)
        else:
            done = _made(out, stage, task)
    except NoPosesError:
        store.write(f"{name}/{REPORT}", (out / REPORT).read_bytes())
        raise
    store.put(out / stage.name, f"{name}/{stage.name}", last=RECORD)
    for left in store.names(name):
        if left.startswith(f".{stage.name}-"):
            store.remove(f"{name}/{left}")
    return done


def standing_in(store: Store, scene: str, plan: Plan, keys: Mapping[str, str]) -> dict[str, Done]:
    """Which stages of a scene stand in the store, whole."""
    found: dict[str, Done] = {}
    for stage in plan.stages:
        key = keys[stage.name]
        if store.folder is not None:
            done = read_done(store.folder / scene / stage.name, stage, key)
        else:
            record = store.read(f"{scene}/{stage.name}/{RECORD}")
            done = None if record is None else done_of(record, Path(stage.name), stage, key)
            if any(not store.exists(f"{scene}/{stage.name}/{o}") for o in stage.outputs):
                done = None
        if done is not None:
            found[stage.name] = done
    return found


def connected(address: str) -> Any:
    """Ray, connected to the cluster at ``address`` (auto: the one of this machine, or one that is
    started here). Raises :class:`MissingExtraError` without it, :class:`Scene4dError` where the
    cluster does not answer."""
    ray = import_optional("ray", extra="cluster", needed_for="scene4d batch")
    if ray.is_initialized():
        return ray
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "auto":
            ray.init(include_dashboard=False, **settings)
        else:
            _ask(address)
            ray.init(address=address, **settings)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        told = str(error).strip().split("\n")[0] or type(error).__name__
        raise Scene4dError(
            f"the cluster cannot be reached ({told})",
            where=address,
            fix="start it ('ray start --head'), see that its port is open from here, or leave"
            " --address out to use this machine alone",
        ) from error
    return ray


def _ask(address: str) -> None:
    """Raises :class:`OSError` where nobody answers: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("is no address such as 10.0.0.1:6379 or ray://10.0.0.1:10001")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
