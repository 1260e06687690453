"""One step of the way: what it reads, what it writes, its options; a folder that is reused.

A stage is plain data. Its key is a hash of all that its result depends on: its name and version,
its options, the keys of the stages it reads and the fingerprint of the input. What a stage made
lies in ``OUT/NAME`` with a ``stage.json`` that holds the key; as long as both are there and the key
is the same, nothing is done. It is made in ``OUT/.NAME-KEY`` and renamed, so that a folder without
a dot is always whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scene4d.errors import Scene4dError
from scene4d.files import read_json, write_json
from scene4d.pipeline.inputs import SceneInput
from scene4d.representations.method import resolve

Say = Callable[[str], None]
RECORD = "stage.json"
SPENT = ".spent.json"
"""In a folder that is gone on with: the seconds that were spent on it."""
VERSION = 1
"""Of the stages' functions: raised when what they make changes."""
LEAST_FREE_MB = 50
"""Less free space than this is told before a stage starts rather than in its middle."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is to be made, as plain data."""

    name: str
    run: str
    """The function that makes it, as ``"module:function"``, called with a :class:`Work`."""
    what: str
    """For people."""
    needs: tuple[str, ...] = ()
    """Stages before whose results it reads."""
    reads_input: bool = False
    outputs: tuple[str, ...] = ()
    """What has to be in its folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """All that its result depends on besides."""
    share: float = 0.0
    """Of the time that the stages which take what there is have together; 0: it takes ``seconds``.
    """
    seconds: float = 0.0
    """It is guessed to take, where ``share`` is 0."""
    resumes: bool = False
    """Whether what a killed process left is gone on with."""
    gpu: bool = False
    """Whether it wants a GPU where there is one."""
    memory_gb: float = 2.0
    """It is promised by whoever shares out machines."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a stage left."""

    folder: Path
    key: str
    seconds: float
    """It took, over all tries."""
    results: Mapping[str, Any]
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage's function is given."""

    folder: Path
    """To write to: empty, or with what a killed process left of the same work."""
    source: SceneInput
    options: Mapping[str, Any]
    done: Mapping[str, Done]
    """By name, the stages that it needs."""
    seconds: float
    """That it may take."""
    say: Say = print


def keys_of(stages: tuple[Stage, ...], fingerprint: str) -> dict[str, str]:
    """The key of each stage; those that one needs come before it."""
    keys: dict[str, str] = {}
    for stage in stages:
        parts = [VERSION, stage.name, stage.run, dict(stage.options)]
        parts += [keys[name] for name in stage.needs]
        parts += [fingerprint] if stage.reads_input else []
        text = json.dumps(parts, sort_keys=True, default=str)
        keys[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:24]
    return keys


def read_done(folder: Path, stage: Stage, key: str) -> Done | None:
    """What stands in ``folder``, if it is the result of ``stage`` with that key, and whole."""
    path = folder / RECORD
    if not path.is_file() or any(not (folder / name).exists() for name in stage.outputs):
        return None
    return done_of(path.read_bytes(), folder, stage, key)


def done_of(record: bytes, folder: Path, stage: Stage, key: str) -> Done | None:
    """What a ``stage.json`` says, if it is of ``stage`` with that key."""
    try:
        table = json.loads(record)
        same = (table["schema_version"], table["stage"], table["key"]) == (1, stage.name, key)
        seconds, results = float(table["seconds"]), dict(table["results"])
    except (KeyError, TypeError, ValueError, RecursionError):  # damaged: it is made again
        return None
    if not same:
        return None
    return Done(folder=folder, key=key, seconds=seconds, results=results, reused=True)


def make(stage: Stage, key: str, out: Path, work: Work) -> Done:
    """Makes ``stage`` in a folder beside ``OUT/NAME`` and puts it in its place; ``work.folder`` is
    set here. Whatever fails leaves ``OUT/NAME`` as it was."""
    target, temporary = out / stage.name, out / f".{stage.name}-{key}"
    with _told_of_full_disks(stage, out):
        if temporary.exists() and not stage.resumes:
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True, exist_ok=True)
        before = _seconds_before(temporary)
        start = time.monotonic()
        try:
            results = resolve(stage.run)(replace(work, folder=temporary))
        except BaseException:
            _leave(temporary, stage, before + time.monotonic() - start)
            raise
        seconds = before + time.monotonic() - start
        (temporary / SPENT).unlink(missing_ok=True)
        record = {"schema_version": 1, "stage": stage.name, "key": key, "seconds": seconds,
                  "options": dict(stage.options), "results": results}  # fmt: skip
        write_json(temporary / RECORD, record)
        _put_in_place(temporary, target)
    return Done(folder=target, key=key, seconds=seconds, results=results)


def _seconds_before(folder: Path) -> float:
    try:
        return float(read_json(folder / SPENT)["seconds"])
    except (Scene4dError, KeyError, TypeError, ValueError):
        return 0.0


def _leave(folder: Path, stage: Stage, seconds: float) -> None:
    """What a stage that failed leaves: nothing, or what it goes on with."""
    if not stage.resumes or not any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        write_json(folder / SPENT, {"seconds": seconds})
    except Scene4dError:  # a full disk: the time is not counted
        return


def _put_in_place(fresh: Path, target: Path) -> None:
    """``fresh`` becomes ``target``; an earlier one goes once the new one stands, and with it what
    was left of others."""
    old = target.with_name(f".{target.name}-earlier")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(fresh, target)
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _told_of_full_disks(stage: Stage, out: Path) -> Iterator[None]:
    """Within, a full disk is one error that says what stands and how to go on."""
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < LEAST_FREE_MB * 1e6:
        raise _full_disk(stage, out, f"only {free / 1e6:.0f} MB are free")
    try:
        yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full_disk(stage, out, cause.strerror or "no space left") from error
            cause = cause.__cause__ or cause.__context__
        raise


def _full_disk(stage: Stage, out: Path, why: str) -> Scene4dError:
    return Scene4dError(
        f"the disk is full at the stage {stage.name!r} ({why})",
        where=out,
        fix="free some disk space and give the same command again: the stages before it stand",
    )
