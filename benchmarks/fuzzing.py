"""What the fuzzers share: inputs are given to the code under test in child processes, each under a
limit of time and of memory, so that a crash ends a child and is one outcome among others."""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from scene4d.cli.info import summarise, text_of
from scene4d.errors import Scene4dError

Input = TypeVar("Input")


class TimeLimitError(BaseException):
    """It took too long; no handler of the code under test takes it for one of its own."""


@dataclass(frozen=True)
class Trial(Generic[Input]):
    """What is done with each input."""

    attempt: Callable[[Input, Path], object]
    """Gets an input and an empty folder's path; raises what the user would see."""
    warm_up: Callable[[Path], object]
    """What is imported or compiled lazily, before time and memory are counted."""
    seconds: float
    """Of the processor."""
    memory: int | None
    """Bytes of address space that one input may add; None: no limit."""
    until: float = math.inf
    """By :func:`time.monotonic`: no input is begun later."""


@dataclass
class Tally(Generic[Input]):
    """How it went."""

    outcomes: Counter = field(default_factory=Counter)
    """Counts of "ok", "refused" (by one of scene4d's errors) and "bad"."""
    bad: list[tuple[Input, str]] = field(default_factory=list)
    longest: float = 0.0
    """Seconds of the processor for the slowest input."""

    def add(self, given: Input, outcome: str, seconds: float = 0.0) -> None:
        kind = outcome if outcome in ("ok", "refused") else "bad"
        self.outcomes[kind] += 1
        self.longest = max(self.longest, seconds)
        if kind == "bad":
            self.bad.append((given, outcome))


def tried(inputs: Iterable[Input], trial: Trial[Input]) -> Tally[Input]:
    """Gives every input to ``trial``; the next child goes on behind the input that ended one."""
    context = multiprocessing.get_context("fork")
    tally: Tally[Input] = Tally()
    pending = list(inputs)
    while pending:
        with tempfile.TemporaryDirectory(prefix="scene4d-fuzz-") as folder:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(pending, trial, Path(folder), theirs))
            child.start()
            theirs.close()
            done = 0
            try:
                ours.recv()
            except EOFError:
                raise SystemExit("the inputs as they are do not pass: see above") from None
            try:
                while done < len(pending):
                    tally.add(pending[done], *ours.recv())
                    done += 1
            except EOFError:
                child.join()
                if child.exitcode == 0:  # the time is over
                    return tally
                tally.add(pending[done], f"the process died ({child.exitcode})")
                done += 1
            child.join()
            pending = pending[done:]
    return tally


def _child(inputs: Sequence[Input], trial: Trial[Input], root: Path, connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("scene4d").setLevel(logging.CRITICAL)
    for alarm in _TIMERS.values():
        signal.signal(alarm, _on_alarm)
    trial.warm_up(root / "first")
    connection.send("ready")
    if trial.memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + trial.memory, used + trial.memory))
    for number, given in enumerate(inputs):
        if time.monotonic() > trial.until:
            break
        start = time.process_time()
        outcome = _outcome(given, trial, root / str(number))
        connection.send((outcome, time.process_time() - start))
    connection.close()


_TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
_PATIENCE = 10
"""Seconds of the clock for one of the processor, which others may have: who waits is found, too."""


def _on_alarm(signum: int, frame: object) -> None:
    raise TimeLimitError


def _outcome(given: Input, trial: Trial[Input], folder: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, trial.seconds)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * trial.seconds)
    try:
        trial.attempt(given, folder)
    except Scene4dError as error:
        return "refused" if "\n" not in error.what else f"long message: {error.what!r}"
    except BaseException as error:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        place = "" if at is None else f" at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
        return f"{type(error).__name__}: {error}"[:300] + place
    finally:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
    return "ok"


def shown(path: Path) -> None:
    """What ``scene4d info`` prints of ``path``, both ways, as a terminal of UTF-8 takes it."""
    summary = summarise(path)
    for text in (text_of(summary), json.dumps(summary, indent=2)):
        text.encode()


def with_checked_kernels() -> None:
    """Makes NUMBA_BOUNDSCHECK=1, where it is set, hold for every kernel: starts the script again.

    Numba keeps kernels with and without checks under one name, so those of earlier runs would be
    taken as they are: the checked ones get a folder of their own. On more than one thread, a
    parallel kernel that fails its check goes on.
    """
    folder = os.environ.get("NUMBA_CACHE_DIR") or str(Path.home() / ".cache" / "scene4d")
    if os.environ.get("NUMBA_BOUNDSCHECK") != "1" or Path(folder).name == _CHECKED:
        return
    ours = {"NUMBA_CACHE_DIR": str(Path(folder) / _CHECKED), "NUMBA_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ours})


_CHECKED = "checked-kernels"


def options(description: str, *, files: int, each: str) -> argparse.ArgumentParser:
    """The options that every fuzzer has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--files", type=int, default=files, help=f"inputs per {each}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help=f"at most, per {each}")
    parser.add_argument("--keep", type=Path, help="folder for the inputs with bad outcomes")
    return parser


def until(minutes: float) -> float:
    """When ``--minutes`` from now are over."""
    return time.monotonic() + 60 * minutes


def print_head(each: str) -> None:
    print(f"{each:<18}{'inputs':>8}{'ok':>8}{'refused':>9}{'bad':>6}{'longest s':>11}", flush=True)


def print_row(name: str, tally: Tally) -> None:
    """A row of the table, and what the first bad outcomes were."""
    counts = tally.outcomes
    row = (sum(counts.values()), counts["ok"], counts["refused"], counts["bad"], tally.longest)
    print(f"{name:<18}{row[0]:>8}{row[1]:>8}{row[2]:>9}{row[3]:>6}{row[4]:>11.2f}", flush=True)
    for _, outcome in tally.bad[:10]:
        print(f"    {outcome}", flush=True)
