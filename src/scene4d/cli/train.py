"""``scene4d train METHOD``: a capture becomes a trained scene in a run folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from scene4d.cli.parse import parse as parse_arguments
from scene4d.errors import UsageError
from scene4d.representations.method import Method
from scene4d.torchrun import this_process
from scene4d.training.methods import (
    load_all_methods,
    load_method,
    method_names,
    prior_method_names,
)
from scene4d.training.options import TrainOptions


def main(argv: list[str]) -> None:
    """Parses, trains, evaluates; prints the run folder on stdout."""
    name, rest = split_method(argv, method_names())
    if name is None and not any(a.split("=")[0] == "--resume" for a in rest):
        if {"-h", "--help"} & set(rest):
            print(_usage())
            return
        raise UsageError("which method?", fix=f"scene4d train METHOD, with METHOD one of: "
                         f"{', '.join(method_names())}")  # fmt: skip
    method, options = parse(name, rest)
    if options.resume is None and method is None:
        raise UsageError("which method?", fix=_usage())
    run = _train(method, options)
    if not this_process().first:
        return
    print(_what_next(run), file=sys.stderr)
    print(run)


def _what_next(run: Path) -> str:
    """The next commands, of a scene or of what makes scenes of texts."""
    from scene4d.representations.base import Generator
    from scene4d.training.run import load_run, read_config

    if not issubclass(read_config(run)[0].representation_class(), Generator):
        return next_commands(run, file=usual_file(run))
    text = shlex.quote(load_run(run).condition or "TEXT")
    name, place = shlex.quote(str(run)), shlex.quote(str(run / "scene.glb"))
    return f"next:\n  scene4d generate {name} {text} --output-path {place}"


def next_commands(run: Path, *, file: tuple[str, str]) -> str:
    """What to do with a run, as commands that can be copied; ``file``: an export's format and
    suffix."""
    form, suffix = file
    name = shlex.quote(str(run))
    view = (
        f"  scene4d view {name}            # in a browser here; --phone: on a phone in your Wi-Fi\n"
    )
    return (
        "next:\n"
        f"{'' if form == 'mesh' else view}"
        f"  scene4d render {name} orbit --output-path {shlex.quote(str(run / 'orbit.mp4'))}\n"
        f"  scene4d export {name} {form} --output-path {shlex.quote(str(run / f'scene{suffix}'))}"
    )


def usual_file(run: Path) -> tuple[str, str]:
    """What the run's scene is exported as first: splats, a bundle, or else a mesh."""
    from scene4d.bundle.kinds import bundle_kinds
    from scene4d.representations.base import Representation
    from scene4d.training.run import load_run, read_config

    method, _ = read_config(run)
    if method.made_of_splats:
        return "ply", ".ply"
    scene = load_run(run).representation
    if type(scene).mesh is not Representation.mesh:  # with its texture, which may take a while
        return "mesh", ".glb"
    if any(kind.takes(scene) for kind in bundle_kinds().values()):
        return "bundle", ".s4d"
    return "mesh", ".glb"


def split_method(argv: Sequence[str], names: Sequence[str]) -> tuple[str | None, list[str]]:
    """The method's name, wherever it stands among the options, and the remaining arguments."""
    places = [i for i, argument in enumerate(argv) if argument in names]
    free = [i for i in places if i == 0 or not _takes_value(argv[i - 1])]
    if not places:
        positional = [a for i, a in enumerate(argv) if not a.startswith("-")
                      and (i == 0 or not _takes_value(argv[i - 1]))]  # fmt: skip
        if positional:
            raise UsageError(
                f"there is no method {positional[0]!r}", fix=f"choose one of: {', '.join(names)}"
            )
        return None, list(argv)
    chosen = (free or places)[0]
    return argv[chosen], [a for i, a in enumerate(argv) if i != chosen]


def _takes_value(argument: str) -> bool:
    """Whether the argument after this one may be its value rather than the method's name."""
    flags = ("--viewer", "--evaluate", "--tensorboard")
    return argument.startswith("--") and "=" not in argument and not (
        argument.startswith("--no-") or argument in flags
    )  # fmt: skip


def parse(
    name: str | None, argv: Sequence[str], *, verb: str = "train"
) -> tuple[Method | None, TrainOptions]:
    """The method's options and the training's, from one flat list of flags."""
    fields: list[Any] = [("training", Annotated[TrainOptions, tyro.conf.arg(name="")],
                          field(default_factory=TrainOptions))]  # fmt: skip
    description = "Continues a run."
    if name is not None:
        method_class = load_method(name)
        text = " ".join(_told_by(method_class).split())
        description = text if text == method_class.description else (
            f"{text}\n\n{method_class.description}."
        )  # fmt: skip
        fields.append(("method", Annotated[method_class, tyro.conf.arg(name="")],
                       field(default_factory=method_class)))  # fmt: skip
    arguments_class = make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    arguments: Any = parse_arguments(
        arguments_class,
        list(argv),
        prog=f"scene4d {verb} {name or ''}".strip(),
        description=description,
    )
    return getattr(arguments, "method", None), arguments.training


def _usage() -> str:
    methods = load_all_methods()
    first = [name for name in ("splat",) if name in methods]
    names = [*first, *(name for name in sorted(methods) if name not in first)]
    width = max(12, 2 + max(map(len, names)))
    lines = [f"  {name:<{width}}{_in_a_line(methods[name])}" for name in names]
    start = "Start with splat: the others are made from it, or compared with it.\n" if first else ""
    return (
        "usage: scene4d train METHOD [options]\n       scene4d train --resume RUN\n\nmethods:\n"
        + "\n".join(lines)
        + f"\n\n{start}"
        "'scene4d train METHOD --help' lists a method's options; most trainings need none but\n"
        "--data, --max-minutes and --viewer."
    )


def _in_a_line(method: type[Method]) -> str:
    """What it is good for: the first line of its docstring."""
    return _told_by(method).strip().splitlines()[0].rstrip(".")


def _told_by(method: type[Method]) -> str:
    """Its docstring; where it has none, its description (a dataclass without one is given its
    signature)."""
    text = method.__doc__ or ""
    return method.description if not text or text.startswith(f"{method.__name__}(") else text


def _train(method: Method | None, options: TrainOptions):
    from scene4d.training import train
    from scene4d.training.run import read_config, run_path

    factory = None
    if options.viewer:
        from scene4d.viewer.live import LiveViewer

        def factory(trained, task, representation):
            return LiveViewer(
                task.scene, representation, images=task.images, uses_time=trained.uses_time,
                port=options.viewer_port,
            )  # fmt: skip

    if options.resume is not None:
        if read_config(run_path(options.resume))[0].name in prior_method_names():
            raise UsageError("is a training of no scene", where=options.resume,
                             fix=f"scene4d prior train --resume {options.resume}")  # fmt: skip
        run = train.resume(
            options.resume, data=options.data, teacher=options.teacher, prior=options.prior,
            fixer=options.fixer, watcher_factory=factory,
        )  # fmt: skip
    else:
        assert method is not None
        run = train.start(method, options, watcher_factory=factory)
    if options.evaluate and this_process().first and read_config(run)[0].needs_capture:
        from scene4d.training.evaluate import evaluate_run, summary

        print(summary(evaluate_run(run, data=options.data, compute_masks=False)), file=sys.stderr)
    return run
