"""What is said on stderr while a scene is made: the plan as one table, then stage by stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from scene4d.pipeline.make import Watch
from scene4d.pipeline.plan import Plan, allowance
from scene4d.pipeline.report import stage_result
from scene4d.pipeline.stage import Done, Stage
from scene4d.training.log import duration


class TerminalWatch(Watch):
    """Prints on stderr."""

    def __init__(self) -> None:
        self._start = time.monotonic()

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
        guessed = dict(done)
        for number, stage in enumerate(plan.stages, 1):
            planned = f"about {duration(allowance(stage, plan, guessed))}"
            told = "is there" if stage.name in done else planned
            table.add_row(str(number), stage.name, stage.what, told)
        options = plan.options
        self.say(f"{plan.source.path}: {plan.source.facts}; {options.total_minutes:g} minutes for"
                 f" all, quality {options.quality}")  # fmt: skip
        Console(stderr=True).print(table)

    def begins(self, stage: Stage, plan: Plan, seconds: float) -> None:
        """Its number, name and time."""
        number = [s.name for s in plan.stages].index(stage.name) + 1
        gone = duration(time.monotonic() - self._start)
        self.say(f"[{number}/{len(plan.stages)}] {stage.name}: {stage.what}"
                 f" (about {duration(seconds)}; {gone} so far)")  # fmt: skip

    def ends(self, stage: Stage, done: Done) -> None:
        """What came out."""
        if not done.reused:
            told = stage_result(stage.name, done.results).split("\n")[0]
            self.say(f"  {stage.name} done in {duration(done.seconds)}: {told}")

    def say(self, line: str) -> None:
        """As it is."""
        print(line, file=sys.stderr, flush=True)
