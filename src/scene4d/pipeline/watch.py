"""What is said on stderr while a scene is made: the plan as one table, then stage by stage.

In a terminal one display stays below what is said until the scene is made: which stage it is, how
far everything has come, and what a training shows of itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from scene4d.pipeline.make import Watch
from scene4d.pipeline.plan import Plan, allowance
from scene4d.pipeline.report import stage_result
from scene4d.pipeline.stage import Done, Stage
from scene4d.training.display import in_terminal, shown
from scene4d.training.log import duration


class TerminalWatch(Watch):
    """Prints on stderr; entered, it also shows there how far all stages have come."""

    def __init__(self, *, plain: bool | None = None) -> None:
        """``plain``: lines alone; None asks whether stderr is a terminal."""
        self.plain = not in_terminal() if plain is None else plain
        self._start = time.monotonic()
        self._open = ExitStack()
        self._seconds: dict[str, float] = {}
        """That the stages which are to be made take, as planned or as they took."""
        self._title, self._now, self._since = "", "", 0.0

    def __enter__(self) -> TerminalWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._title = ""  # nothing of it stays
        self._open.close()

    def planned(self, plan: Plan, done: Mapping[str, Done]) -> None:
        """The table, with a time for each stage, unless nothing is to be done."""
        for note in plan.notes:
            self.say(f"note: {note}")
        if len(done) == len(plan.stages):
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("", "stage", "what", "time"):
            table.add_column(title, justify="right" if title == "time" else "left")
        for number, stage in enumerate(plan.stages, 1):
            told = "is there"
            if stage.name not in done:
                self._seconds[stage.name] = allowance(stage, plan, done)
                told = f"about {duration(self._seconds[stage.name])}"
            table.add_row(str(number), stage.name, stage.what, told)
        options = plan.options
        self.say(f"{plan.source.path}: {plan.source.facts}; {options.total_minutes:g} minutes for"
                 f" all, quality {options.quality}")  # fmt: skip
        Console(stderr=True).print(table)

    def begins(self, stage: Stage, plan: Plan, seconds: float) -> None:
        """Its number, name and time."""
        number = [s.name for s in plan.stages].index(stage.name) + 1
        self._title = f"[{number}/{len(plan.stages)}] {stage.name}: {stage.what}"
        gone = duration(time.monotonic() - self._start)
        self.say(f"{self._title} (about {duration(seconds)}; {gone} so far)")
        self._seconds[stage.name] = seconds
        if not self._now and not self.plain:
            self._open.enter_context(shown(self._progress))
        self._now, self._since = stage.name, time.monotonic()

    def ends(self, stage: Stage, done: Done) -> None:
        """What came out."""
        if not done.reused:
            self._seconds[stage.name] = done.seconds
            told = stage_result(stage.name, done.results).split("\n")[0]
            self.say(f"  {stage.name} done in {duration(done.seconds)}: {told}")

    def say(self, line: str) -> None:
        """As it is."""
        print(line, file=sys.stderr, flush=True)

    def left(self) -> tuple[float, float]:
        """Seconds that the stages took up to now, of this one at most what it was to take; and
        seconds that are left."""
        names = list(self._seconds)
        before = names[: names.index(self._now)]
        passed = sum(self._seconds[name] for name in before)
        passed += min(time.monotonic() - self._since, self._seconds[self._now])
        return passed, max(sum(self._seconds.values()) - passed, 0.0)

    def _progress(self, width: int) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        if not self._title:
            return Group()
        passed, left = self.left()
        gone = time.monotonic() - self._start
        told = f"{self._title}; {duration(gone)} so far, about {duration(left)} left"
        bar = ProgressBar(total=max(passed + left, 1e-9), completed=passed, width=min(60, width))
        return Group(Text(told, overflow="ellipsis", no_wrap=True), bar)
