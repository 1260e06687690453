"""From options to a finished run: builds the trainer's parts, trains, evaluates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch

from scene4d.data.fusion import fuse_depth
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.options import SceneOptions
from scene4d.data.sample import sample_scene_path
from scene4d.data.scene import Scene, ViewSource
from scene4d.errors import UsageError
from scene4d.representations.base import Representation
from scene4d.representations.method import Method
from scene4d.training.checkpoint import Checkpoint
from scene4d.training.device import choose_device
from scene4d.training.options import TrainOptions
from scene4d.training.rendered_capture import rendered_capture
from scene4d.training.run import (
    create_run,
    locked,
    newest_checkpoint,
    read_config,
    representation_from,
    run_path,
    write_config,
    write_scene,
)
from scene4d.training.teachers import Teacher, load_teacher
from scene4d.training.trainer import Trainer, Watcher

MAX_FUSED_POINTS = 200_000
WatcherFactory = Callable[[Scene, ViewSource, Representation], Watcher]
_log = logging.getLogger("scene4d")


def load_capture(
    options: TrainOptions, *, split: Literal["all", "test"] = "all", teacher: Teacher | None = None
) -> tuple[Scene, ViewSource]:
    """The scene, with the images of ``split`` decoded; renders of the teacher where a training
    has a teacher and no photographs."""
    if options.data is None and options.teacher is not None:
        return rendered_capture(teacher or load_teacher(options.teacher))
    path = options.data if options.data is not None else sample_scene_path()
    scene = load_scene(path, options)
    images = ImageCache(
        scene,
        downscale_factor=options.downscale_factor,
        ram_budget_gb=options.ram_budget_gb,
        indices=scene.test_indices if split == "test" else None,
    )
    return scene, images


def with_teachers_capture(options: TrainOptions, teacher: Teacher | None) -> TrainOptions:
    """Without a capture of its own, a training uses that of its teacher, if it is still there."""
    if options.data is not None or teacher is None or teacher.options is None:
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
    method: Method, options: TrainOptions, *, watcher_factory: WatcherFactory | None = None
) -> Path:
    """Trains ``method`` on a capture in a new run folder, and returns the folder."""
    teacher = None if options.teacher is None else load_teacher(options.teacher)
    options = with_teachers_capture(options, teacher)
    task = _task(method, options, teacher)
    scene, images = task.scene, task.images
    if scene.points is None and any(f.depth_path is not None for f in scene.frames):
        scene = replace(scene, points=fuse_depth(scene, images, max_points=MAX_FUSED_POINTS))
        task = replace(task, scene=scene)
    generator = torch.Generator().manual_seed(options.seed)
    if teacher is None:
        representation = method.build(scene, generator=generator)
    else:
        representation = method.build_from(teacher.in_frame_of(scene), scene, generator=generator)
    name = options.experiment_name or experiment_name(options)
    run = create_run(method, options, experiment_name=name)
    with locked(run):
        write_config(run, method, options)
        write_scene(run, scene, images)
        _log.info("run folder: %s", run)
        _fit(task, run, representation, generator, watcher_factory)
    return run


def resume(
    path: Path, *, data: Path | None = None, watcher_factory: WatcherFactory | None = None
) -> Path:
    """Continues a run from its newest readable checkpoint, with the options it was started with.

    ``data`` overrides where the capture lies, for a run that was moved.
    """
    run = run_path(path)
    with locked(run):
        method, options = read_config(run)
        if data is not None:
            options = replace(options, data=data)
        checkpoint_path, checkpoint = newest_checkpoint(run)
        if checkpoint.plain["method"] != method.name:
            raise UsageError(f"is of method {checkpoint.plain['method']!r}", where=checkpoint_path)
        task = _task(method, options)
        representation = representation_from(checkpoint)
        _log.info("resuming %s at step %d", run, checkpoint.step)
        _fit(task, run, representation, torch.Generator(), watcher_factory, checkpoint)
    return run


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is trained on what, where: known before there is a run folder."""

    method: Method
    options: TrainOptions
    scene: Scene
    images: ViewSource
    device: torch.device


def _task(method: Method, options: TrainOptions, teacher: Teacher | None = None) -> _Task:
    device = choose_device(options.device)  # first: a refusal need not wait for the images
    scene, images = load_capture(options, teacher=teacher)
    return _Task(method=method, options=options, scene=scene, images=images, device=device)


def _fit(
    task: _Task,
    run: Path,
    representation: Representation,
    generator: torch.Generator,
    watcher_factory: WatcherFactory | None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Trains ``representation`` in ``run``, from ``checkpoint`` on where there is one."""
    trainer = Trainer(
        method=task.method,
        options=task.options,
        scene=task.scene,
        images=task.images,
        representation=representation,
        run=run,
        device=task.device,
        generator=generator,
        watchers=_watchers(watcher_factory, task.scene, task.images, representation),
    )
    with _closing(trainer.watchers):
        if checkpoint is not None:
            trainer.restore(checkpoint)
        trainer.train()


def experiment_name(options: TrainOptions) -> str:
    """The name of the capture's folder."""
    path = (options.data or options.teacher or sample_scene_path()).resolve()
    return (path.parent if path.is_file() else path).name


@contextmanager
def _closing(watchers: Sequence[Watcher]) -> Iterator[None]:
    """Closes the watchers at the end: nobody renders beside the evaluation."""
    with ExitStack() as stack:
        for watcher in watchers:
            stack.callback(watcher.close)
        yield


def _watchers(
    factory: WatcherFactory | None, scene: Scene, images: ViewSource, representation: Representation
) -> Sequence[Watcher]:
    return () if factory is None else (factory(scene, images, representation),)
