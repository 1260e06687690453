"""From options to a finished run: builds the trainer's parts, trains, evaluates."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.frame import in_frame_of, in_working_frame
from scene4d.data.fusion import fuse_depth
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.options import SceneOptions
from scene4d.data.sample import sample_scene_path
from scene4d.data.scene import Scene, ViewSource, at_size_of
from scene4d.errors import DataError, UsageError
from scene4d.files import check_writable
from scene4d.priors.prior import Prior
from scene4d.representations.base import Representation, Trainable
from scene4d.representations.method import Method
from scene4d.representations.task import Task, World
from scene4d.training.checkpoint import Checkpoint
from scene4d.training.device import choose_device
from scene4d.training.fixers import check_fixing, with_fixer
from scene4d.training.methods import load_method
from scene4d.training.notices import notices
from scene4d.training.opened import OpenedScene
from scene4d.training.options import TrainOptions
from scene4d.training.parallel import Processes, joined
from scene4d.training.priors import check_guidance, with_prior
from scene4d.training.rendered_capture import rendered_capture
from scene4d.training.run import (
    LoadedRun,
    create_run,
    locked,
    newest_checkpoint,
    prior_of_python,
    read_cameras,
    read_config,
    run_path,
    trainable_from,
    write_config,
    write_scene,
)
from scene4d.training.sizing import with_sizes
from scene4d.training.teachers import check_teaches, load_teacher
from scene4d.training.trainer import Interrupted, Trainer, Watcher

MAX_FUSED_POINTS = 200_000
M = TypeVar("M", bound=torch.nn.Module)
WatcherFactory = Callable[[Method, Task, Representation], Watcher]
_log = logging.getLogger("scene4d")


def load_capture(
    options: TrainOptions,
    *,
    split: Literal["all", "test"] = "all",
    teacher: OpenedScene | None = None,
    source_from_scene: Float[Tensor, "4 4"] | None = None,
) -> tuple[Scene, ViewSource]:
    """The scene, with the images of ``split`` decoded; renders of the teacher where a training
    has a teacher and no photographs.

    In its working frame, or in that of a run, which ``source_from_scene`` leads back from.
    """
    if options.data is None and options.teacher is not None:
        return rendered_capture(teacher or load_teacher(options.teacher))
    path = sample_scene_path() if options.data is None else options.data
    scene = in_working_frame(read_scene(path, options))
    if source_from_scene is not None:  # other pictures, or a run from before there was such a frame
        scene = in_frame_of(scene, source_from_scene)
    images = ImageCache(
        scene,
        downscale_factor=options.downscale_factor or 1,
        ram_budget_gb=options.ram_budget_gb,
        indices=scene.test_indices if split == "test" else None,
    )
    return scene, images


def with_teachers_capture(options: TrainOptions, teacher: OpenedScene | None) -> TrainOptions:
    """Without a capture of its own, a training uses that of its teacher, if it is still there."""
    if options.data is not None or not isinstance(teacher, LoadedRun):
        return options
    taught = teacher.options
    path = taught.data
    if path is None and taught.teacher is None:
        path = sample_scene_path()
    if path is None or not path.exists():
        return options
    same = {f.name: getattr(taught, f.name) for f in fields(SceneOptions)}
    return replace(options, data=path, **same)


def start(
    method: Method,
    options: TrainOptions,
    *,
    watcher_factory: WatcherFactory | None = None,
    announce: bool = True,
    prior: Prior | None = None,
    resplit: Callable[[Scene], Scene] | None = None,
) -> Path:
    """Trains ``method`` in a new run folder, and returns the folder.

    ``announce``: name the folder in the log; not where it goes again. ``prior``: what guides it,
    in place of one that the options name. ``resplit``: another split of the capture, of runs that
    are not kept: evaluating or resuming one knows nothing of it.
    A method that needs a teacher and is given none gets one trained first, in a run of its own;
    see :attr:`Method.default_teacher`. All processes that torchrun started train together
    (docs/cluster.md), and return the same folder.
    """
    with joined() as processes:
        return _start(
            method, options, processes, watcher_factory,
            announce=announce, prior=prior, resplit=resplit,
        )  # fmt: skip


def _start(
    method: Method,
    options: TrainOptions,
    processes: Processes,
    watcher_factory: WatcherFactory | None,
    *,
    announce: bool,
    prior: Prior | None,
    resplit: Callable[[Scene], Scene] | None,
) -> Path:
    if processes.first:  # which tries it by making what it takes away again
        check_writable(options.output_dir / "run", folder=True)
    device = choose_device(options.device)  # first: a refusal need not wait for the images
    check_guidance(method, options, prior)
    check_fixing(method, options)
    if method.needs_capture:
        method, options, task = _with_capture(method, options, processes, watcher_factory, resplit)
        remarks = notices(task.scene, method)
    else:
        _refuse_captures(method, options, watcher_factory)
        task, remarks = _task_without_capture(method), []
    task = with_fixer(with_prior(task, method, options, prior), options)
    generator = torch.Generator().manual_seed(options.seed)
    trainable = method.build(task, generator=generator)
    processes.check(method, trainable, task)
    name = _experiment_name(method, options)
    run = Path(processes.told(lambda: str(create_run(method, options, experiment_name=name))))
    with _held(run, processes):
        if processes.first:
            said = None if prior is None else type(prior).__name__
            write_config(run, method, options, prior=said)
            write_scene(run, task)
        if announce:
            _log.info("run folder: %s", run)
        for line in remarks:
            _log.warning("note: %s", line)
        training = _Training(
            method=method, options=options, task=task, device=device, run=run, processes=processes
        )
        training.fit(trainable, generator, watcher_factory, announce=announce)
    return run


def _held(run: Path, processes: Processes) -> AbstractContextManager[None]:
    """The run's lock, which the first process holds for all."""
    return locked(run) if processes.first else nullcontext()


def _with_capture(
    method: Method,
    options: TrainOptions,
    processes: Processes,
    watcher_factory: WatcherFactory | None,
    resplit: Callable[[Scene], Scene] | None,
) -> tuple[Method, TrainOptions, Task]:
    """The method and the options with what nobody chose, and the task of their capture."""
    if options.data is None and options.teacher is None:
        options = replace(options, data=sample_scene_path(method.sample_scene))
    method, options = with_sizes(method, options, processes)
    if options.teacher is None and (learns_from_teacher(method) or method.starts_from_teacher):
        if processes.count > 1:
            raise UsageError(
                f"learns from a teacher, which {processes.count} processes do not train first",
                where=f"the method {method.name!r}",
                fix="train one in one process, and name its run with --teacher",
            )
        options = with_default_teacher(method, options, watcher_factory=watcher_factory)
    teacher = None if options.teacher is None else load_teacher(options.teacher)
    options = with_teachers_capture(options, teacher)
    scene, images = load_capture(options, teacher=teacher)
    scene = scene if resplit is None else resplit(scene)
    if scene.points is None and any(f.has_measured_depth for f in scene.frames):
        scene = replace(scene, points=fuse_depth(scene, images, max_points=MAX_FUSED_POINTS))
    placed = None if teacher is None else teacher.in_frame(scene.source_from_scene)
    if teacher is not None and placed is not None and scene.photographed:
        check_teaches(teacher, placed, scene, images)
    return method, options, _task_on(scene, images, placed)


def _refuse_captures(
    method: Method, options: TrainOptions, watcher_factory: WatcherFactory | None
) -> None:
    """Raises :class:`UsageError` where a method without a capture is given what looks at one."""
    given = {"--data": options.data, "--teacher": options.teacher, "--viewer": watcher_factory}
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise UsageError(
            f"{unused[0]} means nothing to the method {method.name!r}, which has no capture",
            fix=f"leave {unused[0]} out",
        )


def learns_from_teacher(method: Method) -> bool:
    """Whether a term of the method's loss needs a teacher."""
    return any(o.needs_teacher and o.weight != 0 for o in method.terms())


def with_default_teacher(
    method: Method, options: TrainOptions, *, watcher_factory: WatcherFactory | None = None
) -> TrainOptions:
    """The options with a teacher, trained now, and with the time that is left.

    Raises :class:`UsageError` where the method names no teacher of its own.
    """
    name, share, minutes = method.default_teacher, method.default_teacher_share, options.max_minutes
    if name is None:
        raise UsageError(
            "a term of the loss compares with a teacher, and there is none",
            where=f"the method {method.name!r}",
            fix="name a run or a splat file with --teacher, or give the term the weight 0",
        )
    steps = None if method.steps is None else max(1, round(share * method.steps))
    theirs = None if minutes is None else share * minutes
    length = "" if theirs is None else f", for {theirs:g} of the {minutes:g} minutes"
    length += "" if steps is None else f", for at most {steps} steps"
    _log.info(
        "the method %r learns from a teacher and none is given (--teacher): training %r first%s",
        method.name, name, length,
    )  # fmt: skip
    teaching = load_method(name)(steps=steps)
    its_options = replace(options, max_minutes=theirs, prior=None, fixer=None)
    try:
        run = start(teaching, its_options, watcher_factory=watcher_factory)
    except Interrupted as error:
        raise error.while_teaching(method.name) from error
    _log.info("the teacher is kept, for more trainings: --teacher %s", run)
    left = None if minutes is None or theirs is None else minutes - theirs
    return replace(options, teacher=run, max_minutes=left)


def resume(
    path: Path,
    *,
    data: Path | None = None,
    teacher: Path | None = None,
    prior: Prior | str | None = None,
    fixer: Path | None = None,
    watcher_factory: WatcherFactory | None = None,
) -> Path:
    """Continues a run from its newest readable checkpoint, with the options it was started with.

    ``data``, ``teacher``, ``prior`` and ``fixer`` override where these lie, for those that moved.
    A prior that was given from Python must be given again. In as many processes as torchrun
    started, however many there were before.
    """
    run = run_path(path)
    with joined() as processes, _held(run, processes):
        method, options = read_config(run)
        if data is not None:
            options = replace(options, data=data)
        if teacher is not None:
            options = replace(options, teacher=teacher)
        if fixer is not None:
            options = replace(options, fixer=fixer)
        if isinstance(prior, str):
            options, prior = replace(options, prior=prior), None
        elif prior is not None:
            options = replace(options, prior=None)
        elif options.prior is None and (given := prior_of_python(run)):
            raise UsageError(
                f"this training is guided by a prior that Python gave it, a {given}",
                where=run,
                fix="go on in Python: scene4d.resume(RUN, prior=...)",
            )
        checkpoint_path, checkpoint = newest_checkpoint(run)
        if checkpoint.plain["method"] != method.name:
            raise UsageError(f"is of method {checkpoint.plain['method']!r}", where=checkpoint_path)
        device = choose_device(options.device)
        task = with_prior(_task_again(run, method, options), method, options, prior)
        task = with_fixer(task, options)
        trainable = trainable_from(checkpoint, where=checkpoint_path)
        processes.check(method, trainable, task)
        training = _Training(
            method=method, options=options, task=task, device=device, run=run, processes=processes
        )
        _log.info("resuming %s at step %d", run, checkpoint.step)
        resumed = (checkpoint_path, checkpoint)
        training.fit(trainable, torch.Generator(), watcher_factory, resumed)
    return run


def _task_on(scene: Scene, images: ViewSource, teacher: Representation | None) -> Task:
    """That of a capture; the teacher is in its coordinates."""
    return Task(world=World.of(scene), capture=at_size_of(scene, images), teacher=teacher)


def _task_without_capture(method: Method) -> Task:
    """What the method itself says of its world."""
    return Task(world=method.world(), conditions=method.conditions(), poses=method.poses())


def _task_again(run: Path, method: Method, options: TrainOptions) -> Task:
    """The task of a run that goes on; its teacher is read where it is still needed."""
    if not method.needs_capture:
        return _task_without_capture(method)
    home = read_cameras(run).source_from_scene
    if options.teacher is None or not (options.data is None or learns_from_teacher(method)):
        return _task_on(*load_capture(options, source_from_scene=home), teacher=None)
    if not options.teacher.exists():
        raise DataError(
            "the teacher was not found",
            where=options.teacher,
            fix=f"name its new place: scene4d train --resume {run} --teacher PATH",
        )
    teacher = load_teacher(options.teacher)
    scene, images = load_capture(options, teacher=teacher, source_from_scene=home)
    return _task_on(scene, images, teacher.in_frame(scene.source_from_scene))


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What is trained on what, where."""

    method: Method
    options: TrainOptions
    task: Task
    device: torch.device
    run: Path
    processes: Processes

    def fit(
        self,
        trainable: Trainable,
        generator: torch.Generator,
        watcher_factory: WatcherFactory | None = None,
        resumed: tuple[Path, Checkpoint] | None = None,
        *,
        announce: bool = True,
    ) -> None:
        """Trains ``trainable``, from a checkpoint on where there is one."""
        teacher = _on_device(self.task.teacher, self.device)
        prior = _on_device(self.task.prior, self.device)
        fixer = _on_device(self.task.fixer, self.device)
        trainer = Trainer(
            method=self.method,
            options=self.options,
            task=replace(self.task, teacher=teacher, prior=prior, fixer=fixer),
            trainable=trainable,
            run=self.run,
            device=self.device,
            generator=generator,
            watchers=self._watchers(watcher_factory, trainable),
            announce=announce,
            processes=self.processes,
        )
        with _closing(trainer.watchers):
            if resumed is not None:
                trainer.restore(resumed[1], where=resumed[0])
            trainer.train()

    def _watchers(self, factory: WatcherFactory | None, trainable: Trainable) -> Sequence[Watcher]:
        if factory is None or not self.processes.first:
            return ()
        if not isinstance(trainable, Representation):
            return ()
        return (factory(self.method, self.task, trainable),)


def _experiment_name(method: Method, options: TrainOptions) -> str:
    """What was asked for, or the name of the capture's folder; without one, the method's."""
    if options.experiment_name is not None:
        return options.experiment_name
    if not method.needs_capture:
        return method.name
    path = options.data or options.teacher
    assert path is not None  # without either, it is the sample scene
    path = path.resolve()
    return (path.parent if path.is_file() else path).name


def _on_device(module: M | None, device: torch.device) -> M | None:
    """The teacher or prior on ``device``: a copy where it would have to move, as others use it."""
    if module is None or device.type == "cpu":
        return module
    return copy.deepcopy(module).to(device)


@contextmanager
def _closing(watchers: Sequence[Watcher]) -> Iterator[None]:
    """Closes the watchers at the end: nobody renders beside the evaluation."""
    with ExitStack() as stack:
        for watcher in watchers:
            stack.callback(watcher.close)
        yield
