"""Many scenes on a Ray cluster: what is missing is made, what fails is told and stops nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scene4d.errors import DataError, Scene4dError
from scene4d.files import printable
from scene4d.pipeline.batch_options import BatchOptions
from scene4d.pipeline.cluster import Task, connected, make_page, make_stage, standing_in
from scene4d.pipeline.gallery import write_gallery
from scene4d.pipeline.inputs import MARKER, marker_of, text_of_marker
from scene4d.pipeline.report import REPORT
from scene4d.pipeline.scenes import Scene
from scene4d.pipeline.stage import Done, Stage
from scene4d.pipeline.store import Store

_MEMORY_SHARE = 0.8
"""Of the largest node's memory a task asks for no more, whatever it would like."""


@dataclass(kw_only=True)
class State:
    """How far a scene has come."""

    scene: Scene
    done: dict[str, Done]
    error: str = ""
    stage: str = ""
    """That is with the cluster now; ``page``: the last thing."""
    tries: dict[str, int] = field(default_factory=dict)
    """How often each stage was begun."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Who made it."""
    page: bool = False
    new: bool = False

    @property
    def missing(self) -> Stage | None:
        """The next stage."""
        return next((s for s in self.scene.plan.stages if s.name not in self.done), None)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or possible."""
        return bool(self.error) or (self.missing is None and self.page)


class BatchWatch:
    """Somebody who is told how it goes; this one says nothing."""

    def begins(self, states: Sequence[State]) -> None:
        """All scenes, with what stands of them."""

    def changed(self, state: State) -> None:
        """A stage of this scene began, ended or failed."""

    def ends(self) -> None:
        """No more will be told."""


def make_batch(
    scenes: Sequence[Scene],
    store: Store,
    options: BatchOptions | None = None,
    *,
    watch: BatchWatch | None = None,
) -> list[State]:
    """Makes what is missing of ``scenes`` in ``store``, and the gallery of them all.

    Scenes that cannot be made have an ``error`` in the end; nothing else stops for them. Raises
    :class:`Scene4dError` where the store or the cluster cannot be reached.
    """
    options, watch = options or BatchOptions(), watch or BatchWatch()
    _check_places(scenes, store)
    states = [State(scene=s, done=standing_in(store, s.name, s.plan, s.keys)) for s in scenes]
    for state in states:
        state.page = state.missing is None and store.exists(f"{state.scene.name}/{REPORT}")
    if not all(state.over for state in states):
        _mark(scenes, store)
        watch.begins(states)
        try:
            _Driver(states, store, options, watch).run()
        finally:
            watch.ends()
    if any(state.new or state.error for state in states) or not store.exists("index.html"):
        write_gallery(store, states)
    return states


def marker_in(store: Store, scene: str) -> dict[str, str]:
    """What is known of the input of a scene in the store; empty where there is none."""
    return marker_of(store.read(f"{scene}/{MARKER}"))


def _check_places(scenes: Sequence[Scene], store: Store) -> None:
    """Refuses to put a scene where another input's stands."""
    taken = []
    for scene in scenes:
        marker = marker_in(store, scene.name)
        source = str(scene.plan.source.path)
        if marker and scene.fingerprint.content != marker.get("fingerprint") and (
            source != marker.get("input")
        ):  # fmt: skip
            taken.append(f"{scene.where}: {scene.name} is that of {marker.get('input')}")
    if taken:
        raise DataError("holds scenes of other inputs by the same names:\n" + "\n".join(taken),
                        where=store.url, fix="choose another --output-dir, or other names"
                        )  # fmt: skip


def _mark(scenes: Sequence[Scene], store: Store) -> None:
    for scene in scenes:
        text = text_of_marker(scene.plan.source, scene.fingerprint, scene.plan.options)
        if store.read(f"{scene.name}/{MARKER}") != text:
            store.write(f"{scene.name}/{MARKER}", text)


class _Driver:
    """Hands out stages, one of each scene at a time, and takes back what came of them."""

    def __init__(
        self, states: Sequence[State], store: Store, options: BatchOptions, watch: BatchWatch
    ) -> None:
        self.states, self.store, self.options, self.watch = states, store, options, watch
        self.ray = connected(options.address)
        self.running: dict[Any, State] = {}
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.most_cpus = max((node.get("CPU", 1.0) for node in alive), default=1.0)
        self.most_memory = max((node.get("memory", 0.0) for node in alive), default=0.0)
        self.has_gpus = any(node.get("GPU") for node in alive)
        self.make_stage = self.ray.remote(make_stage)
        self.make_page = self.ray.remote(make_page)

    def run(self) -> None:
        """Until every scene is over."""
        for state in self.states:
            self._hand_out(state)
        while self.running:
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
            for reference in ready:
                state = self.running.pop(reference)
                self._take_back(state, reference)
                self._hand_out(state)

    def _hand_out(self, state: State) -> None:
        if state.over:
            return
        scene, stage = state.scene, state.missing
        state.stage = "page" if stage is None else stage.name
        state.tries[state.stage] = state.tries.get(state.stage, 0) + 1
        resources = self._resources(stage, scene.plan.options.device)
        task = Task(
            store=self.store, scene=scene.name, plan=scene.plan, keys=dict(scene.keys),
            stage=state.stage, cpus=max(1, int(resources["num_cpus"])), gpu="num_gpus" in resources,
        )  # fmt: skip
        function = self.make_page if stage is None else self.make_stage
        # Tries are counted here, where they are also told.
        reference = function.options(max_retries=0, name=f"{scene.name}: {state.stage}",
                                     **resources).remote(task)  # fmt: skip
        self.running[reference] = state
        self.watch.changed(state)

    def _resources(self, stage: Stage | None, device: str) -> dict[str, float]:
        """A stage that trains waits for a GPU where there is one; the others do not."""
        if stage is None or not (stage.share or stage.name == "poses"):
            return {"num_cpus": 1.0}
        found: dict[str, float] = {"num_cpus": min(float(self.options.cpus), self.most_cpus)}
        if self.most_memory:
            found["memory"] = min(1e9 * stage.memory_gb, _MEMORY_SHARE * self.most_memory)
        wants = stage.gpu and device == "auto" and self.has_gpus
        if wants or (device == "cuda" and "device" in stage.options):
            found["num_gpus"] = 1.0
        return found

    def _take_back(self, state: State, reference: Any) -> None:
        name = state.stage
        state.stage = ""
        try:
            outcome = self.ray.get(reference)
        except Exception as error:  # the node is lost, the disk full, or a fault of ours
            if state.tries[name] > self.options.retries:
                state.error = f"{name} failed {state.tries[name]} times: {_reason(error)}"
        else:
            if name == "page":
                state.page, state.new = True, True
            elif outcome.done is None:
                state.error = f"{name}: {outcome.error}"
            else:
                state.done[name], state.nodes[name] = outcome.done, outcome.node
                state.new = True
        self.watch.changed(state)


def _reason(error: BaseException) -> str:
    """The last line that says something: Ray puts the traceback of the other machine before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1] if type(error).__name__.startswith("RayTask") and lines else ""
    return printable(told or (lines[0] if lines else type(error).__name__))


def counts(states: Sequence[State]) -> Mapping[str, int]:
    """How many scenes are done, and how many failed."""
    failed = sum(bool(state.error) for state in states)
    done = sum(state.over and not state.error for state in states)
    return {"done": done, "failed": failed, "left": len(states) - done - failed}


def check_all(states: Sequence[State], page: str) -> None:
    """Raises :class:`Scene4dError` with the reasons where a scene failed."""
    failed = [state for state in states if state.error]
    if failed:
        told = "\n".join(f"{s.scene.name} ({s.scene.where}): {s.error}" for s in failed[:12])
        raise Scene4dError(
            f"{len(failed)} of {len(states)} scenes could not be made:\n{told}",
            where=page,
            fix="the others stand; mend these inputs and give the same command again",
        )
