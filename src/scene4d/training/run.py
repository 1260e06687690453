"""The run folder: what a training leaves behind, readable on any machine.

``config.toml`` (options as plain data), ``scene.json`` (cameras, split, frame of the input),
``checkpoints/``, ``metrics.jsonl``, ``eval.json``, ``report.html``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch

import scene4d
from scene4d.cameras.camera import Camera
from scene4d.data.sample import sample_scene_at, sample_scene_place
from scene4d.data.scene import Frame
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.files import printable, read_json, remove_leftovers, write_json
from scene4d.plain import from_table, to_table
from scene4d.priors.built_in import BUILT_IN
from scene4d.priors.kinds import PriorName, prior_name
from scene4d.ranges import MOST_PIXELS, Finite, Within
from scene4d.representations.base import Generator, Representation, Trainable
from scene4d.representations.method import Method
from scene4d.representations.saved import check_tensors, like
from scene4d.representations.task import Task
from scene4d.toml_files import read_toml, write_toml
from scene4d.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
)
from scene4d.training.methods import load_method
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.options import TrainOptions

SCHEMA_VERSION = 1
GIVEN_IN_PYTHON = "python"
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedRun(OpenedScene):
    """A run read back: the representation at its newest checkpoint, and how it came about."""

    method: Method
    options: TrainOptions
    step: int
    elapsed_s: float
    """Seconds of training up to the checkpoint."""
    checkpoint_path: Path
    generator: Generator | None = None
    """What was trained, where that is no scene but makes them: ``representation`` is one of its."""
    condition: str | None = None
    """What the generator made ``representation`` of."""

    @property
    def experiment_name(self) -> str:
        """The folder two levels above the run."""
        return self.path.parent.parent.name


def run_path(path: Path) -> Path:
    """The run folder that ``path`` names: the folder, its config.toml, or a folder of runs
    (OUTPUT_DIR/EXPERIMENT, or METHOD in it), of which the newest is taken, and said."""
    path = Path(path)
    folder = path.parent if path.name == "config.toml" else path
    if (folder / "config.toml").is_file():
        return folder.resolve()
    newest = newest_run(folder)
    if newest is None:
        raise DataError(
            "is not a run folder: it has no config.toml, nor has a run in it",
            where=folder,
            fix="give a folder like outputs/EXPERIMENT/METHOD/DATE_TIME, or outputs/EXPERIMENT",
        )
    _log.info("the newest run in %s: %s", folder, newest)
    return newest.resolve()


def newest_run(folder: Path) -> Path | None:
    """The newest run of an experiment's folder or a method's in it, by the time in its name, of
    those with a checkpoint if there are any; None where there is no run."""
    configs = [*folder.glob("*/config.toml"), *folder.glob("*/*/config.toml")]
    runs = sorted((config.parent for config in configs), key=lambda run: (run.name, str(run)))
    trained = [run for run in runs if list_checkpoints(run / "checkpoints")]
    return (trained or runs)[-1] if runs else None


def newest_begun(output_dir: Path, method: str) -> Path | None:
    """The newest run of ``method`` in OUTPUT_DIR/EXPERIMENT that has a checkpoint to go on from."""
    runs = sorted(config.parent for config in output_dir.glob(f"*/{method}/*/config.toml"))
    begun = [run for run in runs if list_checkpoints(run / "checkpoints")]
    return max(begun, key=lambda run: run.name, default=None)


def create_run(method: Method, options: TrainOptions, *, experiment_name: str) -> Path:
    """Makes the folder OUTPUT_DIR/EXPERIMENT/METHOD/DATE_TIME of a new run; never one that is."""
    parent = options.output_dir / experiment_name / method.name
    while True:
        folder = parent / time.strftime("%Y-%m-%d_%H%M%S")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.2)
        except OSError as error:
            raise Scene4dError(f"cannot be made ({error.strerror})", where=folder) from error
        else:
            _tidy_beside(folder)
            return folder.resolve()


def _tidy_beside(run: Path) -> None:
    """Removes what processes that were killed before their first checkpoint had begun to write:
    nobody goes on in such a run, and so nobody else would."""
    for other in run.parent.iterdir():
        if not (other / ".lock").is_file() or list_checkpoints(other / "checkpoints"):
            continue
        with suppress(Scene4dError, OSError), locked(other):
            for name in ("config.toml", "scene.json"):
                remove_leftovers(other / name)
            remove_unfinished(other / "checkpoints")


@contextmanager
def locked(
    run: Path,
    *,
    what: str = "another process is training in this run folder",
    fix: str = "wait for it or stop it; a new 'scene4d train' makes a folder of its own",
) -> Iterator[None]:
    """Holds the run for this process; a second one is refused, in the words ``what`` and ``fix``.
    The lock dies with the process."""
    with open(run / ".lock", "a+b") as file:
        try:
            _lock_exclusively(file.fileno())
        except OSError as error:
            raise Scene4dError(what, where=run, fix=fix) from error
        yield


def _lock_exclusively(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_config(
    run: Path, method: Method, options: TrainOptions, *, prior: str | None = None
) -> None:
    """Writes config.toml; the capture's path relative to it, and absolute as a second guess.
    ``prior``: what came from Python, in words."""
    training = to_table(options)
    for ours in ("data", "teacher", "prior", "fixer", "resume", "output_dir"):
        training.pop(ours, None)
    write_toml(
        run / "config.toml",
        {
            "schema_version": SCHEMA_VERSION,
            "scene4d_version": scene4d.__version__,
            "method": method.name,
            "data": _data_place(options.data, run),
            "teacher": _place(options.teacher, run),
            "fixer": _fixer_place(options.fixer, run),
            "prior": _prior_place(options.prior, run)
            if prior is None
            else {GIVEN_IN_PYTHON: prior},
            "training": training,
            "method_options": to_table(method),
        },
    )


def read_config(run: Path) -> tuple[Method, TrainOptions]:
    """The method and options in config.toml."""
    path = run / "config.toml"
    table = read_toml(path)
    version = table.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"has schema_version {version!r}, expected {SCHEMA_VERSION}",
            where=path,
            fix="use the version of scene4d that wrote it",
        )
    saved = from_table(_SavedConfig, table, where=path)
    method = from_table(load_method(saved.method), saved.method_options, where=path)
    training = dict(saved.training)
    places = {"data": saved.data, "teacher": saved.teacher, "fixer": saved.fixer}
    for name, place in places.items():
        if place:
            training[name] = _find(run, place, where=path)
    if saved.prior and GIVEN_IN_PYTHON not in saved.prior:
        found = Path(_find(run, saved.prior, where=path)) if "path" in saved.prior else None
        training["prior"] = str(PriorName(kind=saved.prior.get("kind"), place=found))
    return method, from_table(TrainOptions, training, where=path)


@dataclass(frozen=True, kw_only=True)
class _SavedConfig:
    """config.toml, as it may be."""

    schema_version: int
    scene4d_version: str = ""
    method: str
    data: Mapping[str, str] = field(default_factory=dict)
    teacher: Mapping[str, str] = field(default_factory=dict)
    prior: Mapping[str, str] = field(default_factory=dict)
    fixer: Mapping[str, str] = field(default_factory=dict)
    training: dict  # type: ignore[type-arg]
    method_options: dict  # type: ignore[type-arg]


def _place(path: Path | None, run: Path) -> dict[str, str]:
    """A path relative to the run, and absolute as a second guess."""
    if path is None:
        return {}
    absolute = path.resolve()
    return {"path": Path(os.path.relpath(absolute, run)).as_posix(), "absolute": str(absolute)}


def _fixer_place(path: Path | None, run: Path) -> dict[str, str]:
    """That of a file, or the name of the one that comes with the package."""
    if path == BUILT_IN and not path.exists():
        return {"path": str(path), "absolute": str(path)}
    return _place(path, run)


def _data_place(path: Path | None, run: Path) -> dict[str, str]:
    """That of a capture; a sample scene by its name, as it moves with the package."""
    sample = None if path is None else sample_scene_at(path)
    return _place(path, run) if sample is None else {"sample": sample}


def _prior_place(prior: str | None, run: Path) -> dict[str, str]:
    """The kind, where it is named, and the place as :func:`_place` has it."""
    if prior is None:
        return {}
    name = prior_name(prior)
    return ({} if name.kind is None else {"kind": name.kind}) | _place(name.place, run)


def prior_of_python(run: Path) -> str | None:
    """The prior that a run was given from Python, in words; None: it was given none."""
    saved = from_table(_SavedConfig, read_toml(run / "config.toml"), where=run / "config.toml")
    return saved.prior.get(GIVEN_IN_PYTHON)


def _find(run: Path, place: Mapping[str, str], *, where: Path) -> str:
    """The relative path where it leads somewhere, otherwise the absolute one; that of a sample
    scene."""
    if "sample" in place:
        return str(sample_scene_place(place["sample"]))
    if "path" not in place:
        raise DataError("names a capture or teacher without its path", where=where)
    relative = run / place["path"]
    try:
        found = relative.exists()
    except (OSError, ValueError) as error:  # too long, null bytes
        raise DataError(f"names a path that cannot be ({printable(error)})", where=where) from error
    return str(relative if found else place.get("absolute", relative))


def write_scene(run: Path, task: Task) -> None:
    """Writes scene.json: the world, and of a capture undistorted cameras at the training size and
    the split."""
    world, scene = task.world, task.capture

    def entries(indices: Sequence[int]) -> list[dict[str, Any]]:
        return [] if scene is None else [entry(scene.frames[i]) for i in indices]

    def entry(frame: Frame) -> dict[str, Any]:
        camera = frame.camera
        return {
            "name": frame.name,
            "c2w": camera.c2w.tolist(),
            "K": camera.K.tolist(),
            "width": camera.width,
            "height": camera.height,
            "time": None if camera.time is None else float(camera.time),
        }

    write_json(
        run / "scene.json",
        {
            "dataparser": "" if scene is None else scene.dataparser,
            "train": [] if scene is None else entries(scene.train_indices),
            "test": [] if scene is None else entries(scene.test_indices),
            "split_rule": "" if scene is None else scene.split_rule,
            "background": world.background,
            "bounds": world.bounds,
            "source_from_scene": world.source_from_scene.tolist(),
            "photographed": scene is not None and scene.photographed,
        },
    )


def read_cameras(run: Path) -> SceneCameras:
    """The cameras of scene.json. Raises :class:`DataError` for anything else."""
    path = run / "scene.json"
    table = from_table(_SavedScene, read_json(path), where=path)
    for c in (*table.train, *table.test):
        if c.width * c.height > MOST_PIXELS:
            size = f"{c.width} x {c.height}"
            raise DataError(f"the camera {printable(c.name)!r} has {size} pixels", where=path,
                            fix=f"at most {MOST_PIXELS:,} are rendered")  # fmt: skip
        if min(c.K[0][0], c.K[1][1]) <= 0:
            raise DataError(f"the camera {printable(c.name)!r} has focal lengths {c.K[0][0]:g} and"
                            f" {c.K[1][1]:g}", where=path,
                            fix="they are positive: restore the file")  # fmt: skip

    def cameras(saved: tuple[_SavedCamera, ...]) -> list[Camera]:
        return [
            Camera(
                c2w=torch.tensor(c.c2w),
                K=torch.tensor(c.K),
                width=c.width,
                height=c.height,
                time=None if c.time is None else torch.tensor(c.time),
            )
            for c in saved
        ]

    return SceneCameras(
        train=cameras(table.train),
        test=cameras(table.test),
        train_names=[c.name for c in table.train],
        test_names=[c.name for c in table.test],
        background=None if table.background is None else torch.tensor(table.background),
        source_from_scene=torch.tensor(table.source_from_scene, dtype=torch.float64),
        bounds=table.bounds,
        split_rule=table.split_rule,
        photographed=table.photographed,
    )


_Row3 = tuple[Finite, Finite, Finite]
_Row4 = tuple[Finite, Finite, Finite, Finite]
_Pixels = Annotated[int, Within(1, 1 << 16)]


@dataclass(frozen=True, kw_only=True)
class _SavedCamera:
    name: str
    c2w: tuple[_Row4, _Row4, _Row4, _Row4]
    K: tuple[_Row3, _Row3, _Row3]
    width: _Pixels
    height: _Pixels
    time: Finite | None = None


@dataclass(frozen=True, kw_only=True)
class _SavedScene:
    """scene.json, as it may be."""

    dataparser: str = ""
    train: tuple[_SavedCamera, ...]
    test: tuple[_SavedCamera, ...]
    split_rule: str
    background: _Row3 | None = None
    bounds: tuple[Finite, Finite] | None = None
    source_from_scene: tuple[_Row4, _Row4, _Row4, _Row4]
    photographed: bool = True


def newest_checkpoint(run: Path) -> tuple[Path, Checkpoint]:
    """The newest checkpoint that can be read; a damaged one is named and passed over."""
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            return path, load_checkpoint(path)
        except DataError as error:
            _log.warning("%s", error)
    raise DataError(
        "has no readable checkpoint",
        where=run,
        fix="the training ended before its first checkpoint; start it again",
    )


def trainable_from(checkpoint: Checkpoint, *, where: Path) -> Trainable:
    """What a checkpoint holds, a representation or a generator, on the CPU.

    Raises :class:`DataError` unless its tensors are those that its plain data implies.
    """
    plain = checkpoint.plain["representation"]
    cls = load_method(checkpoint.plain["method"]).representation_class()
    tensors = checkpoint.part("representation")
    fix = "restore the file, or delete it to use the checkpoint before"
    try:
        forms = cls.saved_forms(plain)
        if forms is not None:
            check_tensors(tensors, forms, where="representation")
        built = cls.from_saved(tensors, plain)
        check_tensors(tensors, like(built.state_dict()), where="representation")
    except DataError as error:
        raise DataError(str(error).split("\n")[0], where=where, fix=fix) from error
    except Exception as error:  # whatever a plugin's own checks raise; the file is to blame
        told = f"{type(error).__name__}: {printable(error)}"
        raise DataError(f"holds no {cls.__name__} ({told})", where=where, fix=fix) from error
    return built


def load_run(path: Path, *, device: str = "cpu", condition: str | None = None) -> LoadedRun:
    """Reads a run folder or its config.toml. Of a generator's run, the scene of ``condition``, by
    default the first that it was trained for.

    Raises :class:`DataError` when it is no run, :class:`UsageError` for a condition where none is
    taken, or none where one is needed.
    """
    run = run_path(path)
    method, options = read_config(run)
    checkpoint_path, checkpoint = newest_checkpoint(run)
    trained = trainable_from(checkpoint, where=checkpoint_path).to(device)
    generator = trained if isinstance(trained, Generator) else None
    if generator is not None:
        condition = condition if condition is not None else next(iter(generator.conditions), None)
    representation = _scene_of(trained, condition, where=run)
    return LoadedRun(
        path=run,
        method=method,
        options=options,
        representation=representation,
        cameras=read_cameras(run),
        step=checkpoint.step,
        elapsed_s=checkpoint.plain["elapsed_s"],
        checkpoint_path=checkpoint_path,
        generator=generator,
        condition=condition,
    )


def _scene_of(trained: Trainable, condition: str | None, *, where: Path) -> Representation:
    """What was trained, or the scene that it makes of a condition."""
    if isinstance(trained, Generator):
        if condition is None:
            raise UsageError("makes scenes of a condition, and none is given", where=where)
        with torch.no_grad():
            return trained.scene(condition)
    if condition is not None:
        raise UsageError("holds one scene, and takes no condition", where=where)
    if not isinstance(trained, Representation):
        raise UsageError(f"holds no scene, but a {type(trained).__name__}", where=where,
                         fix="'scene4d prior' is for such runs")  # fmt: skip
    return trained
