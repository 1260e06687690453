"""How much of the training is done: by steps, or by the clock when there is a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numba.core import event


@dataclass(kw_only=True)
class Budget:
    """Share of training done, which every schedule is a function of.

    With ``max_seconds`` the share follows the clock, so that growth, resolution and learning
    rates fit into the time there is; a limit of steps that is reached earlier still ends it.
    """

    max_steps: int | None
    max_seconds: float | None
    elapsed_before: float = 0.0
    """Seconds spent before this process took over (a resumed run)."""

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("training needs a number of steps or a time limit")
        self._start = time.monotonic()
        self._paused = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all processes, without pauses."""
        return self.elapsed_before + time.monotonic() - self._start - self._paused

    def exclude(self, seconds: float) -> None:
        """Takes time that was not training (a pause in the viewer) off the clock."""
        self._paused += seconds

    @contextmanager
    def without_compiling(self) -> Iterator[None]:
        """Inside, what this thread spends on compiling kernels is taken off the clock: that is done
        once on a machine, and a short training would otherwise be over before its first step."""
        listener = _Compiling(self)
        event.register("numba:compile", listener)
        try:
            yield
        finally:
            event.unregister("numba:compile", listener)

    def progress(self, step: int) -> float:
        """Share done before step number ``step`` (the first is 0); at least 1 when it is over."""
        shares = []
        if self.max_steps is not None:
            shares.append(step / self.max_steps if self.max_steps > 0 else 1.0)
        if self.max_seconds is not None:
            shares.append(self.elapsed / self.max_seconds if self.max_seconds > 0 else 1.0)
        return max(shares)


class _Compiling(event.Listener):
    """Takes the time of each compilation in the thread that made this off a budget's clock."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._thread = threading.get_ident()
        self._depth = 0
        self._start = 0.0

    def on_start(self, event: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        if self._depth == 0:
            self._start = time.monotonic()
        self._depth += 1  # a kernel may call for another's compilation

    def on_end(self, event: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._depth -= 1
        if self._depth == 0:
            self._budget.exclude(time.monotonic() - self._start)
