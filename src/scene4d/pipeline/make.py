"""One scene from its input to its bundle, stage by stage; what stands already is reused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scene4d.errors import DataError, UsageError
from scene4d.files import check_writable, write_json, write_text
from scene4d.pipeline.inputs import (
    MARKER,
    Fingerprint,
    check_apart,
    find_input,
    fingerprint,
    marker_of,
    names_of,
    text_of_marker,
)
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.plan import Plan, allowance, plan_of
from scene4d.pipeline.report import REPORT, write_failure_page, write_page
from scene4d.pipeline.stage import Done, Say, Stage, Work, keys_of, make, read_done
from scene4d.pipeline.stages import FAILED, NoPosesError
from scene4d.training.run import locked


@dataclass(frozen=True, kw_only=True)
class Made:
    """What stands in ``out``."""

    out: Path
    plan: Plan
    done: Mapping[str, Done]
    report: Path
    commands: tuple[str, ...]
    """What to do next."""

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.done["bundle"].folder / "scene.s4d"

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the stages that were made now."""
        return tuple(name for name, done in self.done.items() if not done.reused)


class Watch:
    """Somebody who is told how it goes; this one says nothing."""

    def planned(self, plan: Plan, done: Mapping[str, Done]) -> None:
        """The plan, and what of it stands already."""

    def begins(self, stage: Stage, plan: Plan, seconds: float) -> None:
        """A stage starts that may take ``seconds``."""

    def ends(self, stage: Stage, done: Done) -> None:
        """A stage is done, or was before."""

    def say(self, line: str) -> None:
        """A line of a stage."""


def default_out(source: Path) -> Path:
    """Where the scene of ``source`` goes where nobody says: outputs/make/NAME."""
    return Path("outputs") / "make" / find_input(source).name


def make_scene(
    source: Path, out: Path, options: MakeOptions | None = None, *, watch: Watch | None = None
) -> Made:
    """Makes what is missing of the scene of ``source`` in the folder ``out``.

    Raises :class:`Scene4dError`, of poses that cannot be found :class:`NoPosesError` with a page
    about it in ``out``; what was finished before stands, and another call goes on from there.
    """
    options, watch, out = options or MakeOptions(), watch or Watch(), Path(out).absolute()
    found = find_input(source)
    check_apart(found.path, out)
    plan = plan_of(found, options)
    marker = marker_in(out)
    known = fingerprint(found, skip=out, marker=marker)
    check_out(out, found.path, known.content)
    check_writable(out / MARKER)
    out.mkdir(parents=True, exist_ok=True)
    with locked(
        out, what="another process is making a scene in this folder", fix="wait for it, or stop it"
    ):
        return _made(plan, known, out, watch)


def _made(plan: Plan, known: Fingerprint, out: Path, watch: Watch) -> Made:
    keys = keys_of(plan.stages, known.content)
    done = standing(plan, keys, out)
    watch.planned(plan, done)
    marker = text_of_marker(plan.source, known, plan.options)
    if not (out / MARKER).is_file() or (out / MARKER).read_bytes() != marker:
        write_text(out / MARKER, marker.decode())
    for stage in plan.stages:
        if stage.name not in done:
            seconds = allowance(stage, plan, done)
            watch.begins(stage, plan, seconds)
            work = work_of(stage, plan, done, seconds=seconds, out=out, say=watch.say)
            try:
                done[stage.name] = make(stage, keys[stage.name], out, work)
            except NoPosesError as error:
                raise reported(error, plan, out) from error
        watch.ends(stage, done[stage.name])
    return finished(plan, done, out)


def finished(plan: Plan, done: Mapping[str, Done], out: Path) -> Made:
    """Writes the page, where it is not that of ``done`` already."""
    (out / FAILED).unlink(missing_ok=True)
    commands = next_commands(out, done)
    report = out / REPORT
    if not report.is_file() or any(not entry.reused for entry in done.values()):
        report = write_page(out, plan, done, commands)
    return Made(out=out, plan=plan, done=done, report=report, commands=commands)


def standing(plan: Plan, keys: Mapping[str, str], out: Path) -> dict[str, Done]:
    """What of the plan stands in ``out``."""
    found = {s.name: read_done(out / s.name, s, keys[s.name]) for s in plan.stages}
    return {name: done for name, done in found.items() if done is not None}


def work_of(
    stage: Stage, plan: Plan, done: Mapping[str, Done], *, seconds: float, out: Path, say: Say
) -> Work:
    """What a stage's function is given."""
    return Work(
        folder=out / stage.name,
        source=plan.source,
        options=stage.options,
        done={name: done[name] for name in stage.needs},
        seconds=seconds,
        say=say,
    )


def reported(
    error: NoPosesError, plan: Plan, out: Path, *, found_at: str | None = None
) -> NoPosesError:
    """The error with the place of its page, which is written in ``out`` and will be ``found_at``,
    unless it stays there; the diagnosis is kept, too."""
    write_json(out / FAILED, dict(error.diagnosis))
    page = write_failure_page(out, plan, error.diagnosis)
    told = DataError(error.what, where=error.where,
                     fix=f"the diagnosis is the report: {found_at or page}; docs/process-data.md"
                     " tells how to capture")  # fmt: skip
    return NoPosesError(told, error.diagnosis)


def marker_in(out: Path) -> dict[str, str]:
    """What is known of the input of the scene in ``out``; empty where there is none."""
    path = out / MARKER
    return marker_of(path.read_bytes() if path.is_file() else None)


def check_out(out: Path, source: Path, known: str) -> None:
    """Refuses a folder with anything else in it, also with the scene of another input."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError("is a file, and a folder is to be written", where=out,
                         fix="name another place")  # fmt: skip
    marker = marker_in(out)
    if not marker and (names := list(names_of(out))):
        raise UsageError(f"is not empty and was not made by this command (it holds {names[0]!r})",
                         where=out, fix="name a new folder: scene4d make INPUT OUT"
                         )  # fmt: skip
    if marker and known != marker.get("fingerprint") and str(source) != marker.get("input"):
        raise UsageError(f"holds the scene of another input, {marker.get('input')}", where=out,
                         fix="name another folder: scene4d make INPUT OUT")  # fmt: skip


def next_commands(out: Path, done: Mapping[str, Done]) -> tuple[str, ...]:
    """What to do with what was made, as commands that can be copied."""
    bundle = shlex.quote(str(_shown(out / "bundle" / "scene.s4d")))
    commands = [f"scene4d view {bundle} --phone"]
    if "train" in done:  # whose folder has the name that the input had then
        experiment = Path(str(done["train"].results["run"])).parts[0]
        run = shlex.quote(str(_shown(out / "train" / experiment)))
        commands.append(f"scene4d render {run} --output-path tour.mp4")
    return tuple(commands)


def _shown(path: Path) -> Path:
    """As short as it can be named from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
