"""The one Trainer: fits anything trainable by any objectives; it names no method."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from scene4d.data.scene import ReadsAhead, View
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.representations.base import Trainable
from scene4d.representations.method import Method, resolve
from scene4d.representations.saved import check_tensors, form, like
from scene4d.representations.task import Task
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.budget import Budget
from scene4d.training.checkpoint import Checkpoint, list_checkpoints, save_checkpoint
from scene4d.training.log import NoLog, TrainingLog
from scene4d.training.objectives.base import (
    Loss,
    Objective,
    ObjectiveInputs,
    total_loss,
    wanted_maps,
)
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.parallel import ALONE, Processes
from scene4d.training.sampling import ViewSampler, parts_of
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy

CHECKPOINT_MB_A_MINUTE = 100.0
"""More is not written, however often they are wanted: large ones come at longer intervals."""
LARGE_CHECKPOINT_MB = 100.0
"""Of larger ones only the newest is kept, unless the user says otherwise."""
KEPT_CHECKPOINTS = 2
LOG_EVERY = 10
"""Steps between lines of metrics.jsonl; reading the loss stalls a GPU."""


@runtime_checkable
class Watcher(Protocol):
    """Somebody who looks on, such as the live viewer."""

    def training_step(self) -> AbstractContextManager[object]:
        """Entered around each step; may block while training is paused."""

    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        """The step is done."""

    def close(self) -> None:
        """Training is over."""


@dataclass(kw_only=True)
class Trainer:
    """Everything one training needs; :meth:`train` runs it to its end."""

    method: Method
    options: TrainOptions
    task: Task
    """With the teacher and the prior on the device."""
    trainable: Trainable
    run: Path
    device: torch.device
    generator: torch.Generator
    """On the CPU, whatever the device: a run's random numbers do not depend on it."""
    watchers: Sequence[Watcher] = ()
    announce: bool = True
    """Name the run's files in the log; not where they go again."""
    processes: Processes = ALONE
    """Which share each step; the first one writes the run."""

    def __post_init__(self) -> None:
        self.trainable.to(self.device)
        capture = self.task.capture
        self.adjustments = CameraAdjustments(
            0 if capture is None else len(capture.frames),
            self.method,
            extent=self.task.world.extent,
            certain=self.trainable.certain,
        ).to(self.device)
        self.optimiser = GroupedAdam(
            [*self.trainable.parameter_groups(), *self.adjustments.parameter_groups()]
        )
        self.processes.alike([*self.trainable.parameters(), *self.trainable.buffers()])
        inputs = ObjectiveInputs(
            task=self.task,
            generator=self.generator,
            device=self.device,
            processes=self.processes,
        )
        self.objectives = build_objectives(self.method, inputs)
        check_schedule(self.objectives, self.method)
        strategy_options = self.method.strategy_options()
        strategy_class = resolve(strategy_options.implementation)
        self.strategy: Strategy = strategy_class(
            strategy_options, self.trainable, self.optimiser, self.generator
        )
        self.train_indices = [] if capture is None else list(capture.train_indices)
        self.sampler = ViewSampler(self.train_indices, self.generator)
        self.step = 0
        self.progress = 0.0
        """Share of training that is done at the start of this step."""
        self.budget = self._budget(elapsed_before=0.0)
        self.interrupted_by: str | None = None

    def train(self) -> None:
        """Trains until the budget is spent, then writes the last checkpoint.

        SIGINT, SIGTERM and SIGHUP end it after the current step, with a checkpoint; then
        :class:`Interrupted` is raised.
        """
        try:
            self._train()
        except (OSError, Scene4dError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            raise self._out_of_room(cause) from error
        if self.interrupted_by:
            raise Interrupted(self.interrupted_by, self.run)

    def _train(self) -> None:
        writes = self.processes.first
        last_saved, interval = time.monotonic(), self.options.checkpoint_every_s
        with self._log() as log, self._stopping_on_signals(), self.budget.without_compiling():
            while self._goes_on():
                metrics = self._step()
                if metrics:
                    log.log_step(self.step, metrics)
                if writes and time.monotonic() - last_saved >= interval:
                    interval = self._interval_after(self.save())
                    last_saved = time.monotonic()
            check_content(self.trainable, step=self.step, where=self.run)
            if writes:
                path = self.save()
                if self.announce or self.interrupted_by:
                    log.event(f"checkpoint: {path}")

    def _log(self) -> TrainingLog | NoLog:
        if not self.processes.first:
            return NoLog()
        return TrainingLog(
            self.run,
            total_steps=self.budget.max_steps,
            max_minutes=self.options.max_minutes,
            tensorboard=self.options.tensorboard,
            first_step=self.step,
        )

    def _goes_on(self) -> bool:
        """Whether there is another step, of which all processes know the same progress: until the
        time is up, the strategy ends it, or somebody stopped it."""
        progress = 1.0 if self.strategy.finished else self.budget.progress(self.step)
        self.progress, self.interrupted_by = self.processes.agreed(progress, self.interrupted_by)
        return self.interrupted_by is None and self.progress < 1.0

    def _out_of_room(self, error: OSError) -> Scene4dError:
        """What to say where files cannot be written; first a checkpoint of this moment is tried,
        if need be in the place of the oldest one."""
        folder = self.run / "checkpoints"
        for _ in range(2):
            try:
                self.save()
                break
            except Scene4dError:
                if len(kept := list_checkpoints(folder)) < 2:
                    break
                kept[0].unlink(missing_ok=True)
        need = 1e-6 * sum(t.nbytes for t in self.trainable.state_dict().values()) * 4 + 10
        fix = f"free some {need:,.0f} MB"
        if kept := list_checkpoints(folder):
            fix += f"; {kept[-1].name} stands: scene4d train --resume {self.run}"
        else:
            fix += " and start again: there was no room for a checkpoint"
        return Scene4dError(
            f"training stopped at step {self.step}: files could not be written"
            f" ({error.strerror or error})",
            where=self.run,
            fix=fix,
        )

    def _interval_after(self, checkpoint: Path) -> float:
        """Seconds to the next checkpoint after one of this size."""
        megabytes = checkpoint.stat().st_size / 1e6
        return max(self.options.checkpoint_every_s, 60 * (megabytes / CHECKPOINT_MB_A_MINUTE - 1))

    def save(self) -> Path:
        """Writes a checkpoint of this moment."""
        self._check_finite()
        parts = {
            "representation": self.trainable.state_dict(),
            "adjustments": self.adjustments.state_dict(),
            "optimiser": self.optimiser.state_tensors(),
            "strategy": self.strategy.state_tensors(),
            **{name: o.state_tensors() for name, o in self._named_objectives()},
            "trainer": {
                "generator": self.generator.get_state(),
                "pending_views": torch.tensor(self.sampler.pending, dtype=torch.int64),
            },
        }
        tensors = {
            f"{part}/{name}": value
            for part, values in parts.items()
            for name, value in values.items()
        }
        plain = {
            "method": self.method.name,
            "elapsed_s": self.budget.elapsed,
            "representation": dict(self.trainable.plain_data()),
        }
        keep = self.options.keep_checkpoints
        if keep is None:
            megabytes = sum(t.nbytes for t in tensors.values()) / 1e6
            keep = 1 if megabytes > LARGE_CHECKPOINT_MB else KEPT_CHECKPOINTS
        return save_checkpoint(
            self.run / "checkpoints",
            Checkpoint(step=self.step, plain=plain, tensors=tensors),
            keep=keep,
        )

    def restore(self, checkpoint: Checkpoint, *, where: Path) -> None:
        """Takes over from a checkpoint whose trainable this trainer was built with.

        Raises :class:`DataError` for tensors that this training cannot have left ``where``.
        """
        fix = "restore the file, or delete it to continue from the checkpoint before"
        try:
            self._restore(checkpoint)
        except (ValueError, RuntimeError, KeyError) as error:  # DataError is a ValueError
            told = str(error).split("\n")[0]
            raise DataError(f"cannot be resumed from: {told}", where=where, fix=fix) from error
        self.step = checkpoint.step
        self.budget = self._budget(elapsed_before=checkpoint.plain["elapsed_s"])

    def _restore(self, checkpoint: Checkpoint) -> None:
        adjustments = checkpoint.part("adjustments")
        check_tensors(adjustments, like(self.adjustments.state_dict()), where="adjustments")
        self.adjustments.load_state_dict(adjustments)
        self.optimiser.load_state_tensors(checkpoint.part("optimiser"))
        parts: dict[str, Strategy | Objective] = dict(self._named_objectives())
        for name, part in {"strategy": self.strategy, **parts}.items():
            tensors = checkpoint.part(name)
            check_tensors(tensors, part.state_forms(), where=name)
            part.load_state_tensors(tensors)
        trainer = checkpoint.part("trainer")
        state = self.generator.get_state()
        forms = {**like({"generator": state}), "pending_views": form("n", torch.int64)}
        check_tensors(trainer, forms, where="trainer")
        self.generator.set_state(trainer["generator"])
        pending = trainer["pending_views"].tolist()
        if not set(pending) <= set(self.train_indices):
            raise ValueError("views are still to come that are none of the capture's")
        self.sampler.pending = pending

    def _named_objectives(self) -> list[tuple[str, Objective]]:
        return [(f"objective_{i}", objective) for i, objective in enumerate(self.objectives)]

    def _budget(self, *, elapsed_before: float) -> Budget:
        minutes, steps = self.options.max_minutes, self.method.steps
        if steps is None and minutes is None:
            steps = self.method.default_steps
        seconds = None if minutes is None else minutes * 60.0
        return Budget(max_steps=steps, max_seconds=seconds, elapsed_before=elapsed_before)

    def _step(self) -> dict[str, float]:
        """One step; returns its metrics when they are due, otherwise nothing."""
        progress = self.progress
        with _all_entered(self.watchers, self.budget):
            counting = [o for o in self.objectives if o.options.counts_at(progress)]
            step = self._prepare(progress, counting)
            loss = total_loss(step, counting)
            if loss.to_propagate is not None:
                loss.to_propagate.backward()
            self.processes.average(self.optimiser.parameters)
            self.strategy.after_backward(step)
            self.optimiser.step(lambda g: self.method.learning_rate_factor(g, progress))
            self.strategy.after_step(step)
        self.step += 1
        due = self.step % LOG_EVERY == 0 or self.step == 1
        metrics = self._metrics(loss, step) if due or self.watchers else {}
        for watcher in self.watchers:
            watcher.after_step(self.step, metrics)
        return metrics if due else {}

    def _prepare(self, progress: float, counting: Sequence[Objective]) -> Step:
        self.trainable.on_progress(progress)
        self.optimiser.take_in(self.trainable.parameter_groups())
        views: list[View] = []
        has_alpha = self.task.world.background is not None
        if any(objective.needs_views for objective in counting):
            views = self._views(self.method.downscale(progress))
            has_alpha = any(view.alpha is not None for view in views)
        background = torch.rand(3, generator=self.generator) if has_alpha else torch.zeros(3)
        return Step(
            number=self.step,
            progress=progress,
            trainable=self.trainable,
            views=views,
            background=background.to(self.device),
            adjustments=self.adjustments,
            want=wanted_maps(counting),
            watch=self.strategy.on_render,
            processes=self.processes,
        )

    def _views(self, downscale: int) -> list[View]:
        """The photographs of a step, whole or in parts."""
        sampling, images = self.trainable.sampling, self.task.images
        whole = sampling.of == "images"
        count = self.method.batch_size if whole else sampling.pictures
        indices = self.sampler.next(count, among=sampling.among)
        views = [images.view(i, downscale) for i in indices]
        if isinstance(images, ReadsAhead):
            images.soon(self.sampler.coming(sampling.among), downscale)
        if not whole:
            views = [parts_of(views, sampling, self.generator)]
        return [on_device(view, self.device) for view in views]

    def _metrics(self, loss: Loss, step: Step) -> dict[str, float]:
        values = {"loss": float(loss.value)}
        values.update({name: float(value.detach()) for name, value in loss.log.items()})
        if not math.isfinite(values["loss"]):
            raise Scene4dError(
                f"the loss became {values['loss']} at step {self.step}",
                where=self.run,
                fix="resume from the last checkpoint, or lower the learning rates",
            )
        values.update(self.trainable.describe())
        values["seconds"] = self.budget.elapsed
        if step.views:
            camera = step.views[0].camera
            values["image_width"], values["image_height"] = camera.width, camera.height
        return values

    def _check_finite(self) -> None:
        for name, value in self.trainable.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise Scene4dError(
                    f"the parameter {name} has values that are not finite at step {self.step}",
                    where=self.run,
                    fix="resume from the last checkpoint, which was kept, or lower learning rates",
                )

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        def stop(number: int, frame: Any) -> None:
            self.interrupted_by = signal.Signals(number).name

        try:
            before = {s: signal.signal(s, stop) for s in stopping_signals()}
        except ValueError:  # not the main thread: whoever owns it handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_content(trainable: Trainable, *, step: int, where: Path) -> None:
    """Raises :class:`Scene4dError` where a training has left nothing to show."""
    if trainable.describe().get("num_gaussians") == 0:
        raise Scene4dError(
            f"no Gaussian is left at step {step}",
            where=where,
            fix="lower the weights of its size (--rate.weight, --sparsity.weight) or allow more "
            "(--target-mb); an earlier checkpoint may stand",
        )


def stopping_signals() -> list[signal.Signals]:
    """Those that ask a training to stop: not SIGHUP where it is ignored, as nohup has it."""
    found = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [s for s in found if s is not None and signal.getsignal(s) is not signal.SIG_IGN]


class Interrupted(Scene4dError):
    """Training was asked to stop; a checkpoint holds all of it."""

    def __init__(self, by: str, run: Path, *, then: str = "") -> None:
        self.by, self.run = by, run
        super().__init__(
            f"stopped by {by}; everything up to here is saved",
            where=run,
            fix=f"continue with: scene4d train --resume {run}{then}",
        )

    def while_teaching(self, method: str) -> Interrupted:
        """The same where the run is of a teacher that ``method`` was to learn from."""
        then = f" and then: scene4d train {method} --teacher {self.run}"
        return Interrupted(self.by, self.run, then=then)


def on_device(view: View, device: torch.device) -> View:
    """The view with its tensors on ``device``."""
    if view.rgb.device == device:
        return view
    tensors: dict[str, Any] = {
        name: value.to(device)
        for name in ("rgb", "alpha", "mask", "depth", "index")
        if isinstance(value := getattr(view, name), Tensor)
    }
    return replace(view, camera=view.camera.to(device), **tensors)


def build_objectives(method: Method, inputs: ObjectiveInputs) -> list[Objective]:
    """The method's objectives that have a weight and that there is what they need for."""
    declared = [(resolve(o.implementation), o) for o in method.terms() if o.weight != 0]
    return [
        objective(options, inputs)
        for objective, options in declared
        if objective.applies_to(inputs)
    ]


def check_schedule(objectives: Sequence[Objective], method: Method) -> None:
    """Raises :class:`UsageError` where at some time of the training no term counts."""
    covered = 0.0
    for start, end in sorted((o.options.start, o.options.end) for o in objectives):
        if start > covered:
            break
        covered = max(covered, end)
    if covered < 1.0:
        raise UsageError(
            f"no term of the loss counts from {covered:g} of the training on",
            where=f"the method {method.name!r}",
            fix="give one a weight, or let one begin earlier or end later",
        )


@contextmanager
def _all_entered(watchers: Sequence[Watcher], budget: Budget) -> Iterator[None]:
    """Inside every watcher's step; time spent waiting for them is not training time."""
    with ExitStack() as stack:
        start = time.monotonic()
        for watcher in watchers:
            stack.enter_context(watcher.training_step())
        budget.exclude(time.monotonic() - start)
        yield
