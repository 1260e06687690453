"""What is said on stderr while a batch runs: a live table, or plain lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from scene4d.pipeline.batch import BatchWatch, State, counts
from scene4d.training.display import in_terminal, shown
from scene4d.training.log import duration

_ROWS = 24
"""Of the table, at most: scenes that are worked on first."""


class TerminalBatchWatch(BatchWatch):
    """A table in a terminal, otherwise lines."""

    def __init__(self, *, plain: bool | None = None) -> None:
        """``plain``: lines; None asks whether stderr is a terminal."""
        self.plain = not in_terminal() if plain is None else plain
        self.states: Sequence[State] = ()
        self._open = ExitStack()

    def begins(self, states: Sequence[State]) -> None:
        """How many scenes, and what stands."""
        self.states = states
        found = counts(states)
        self._say(f"{len(states)} scenes, {found['done']} of them are there already")
        if not self.plain:
            self._open.enter_context(shown(lambda width: self.table()))

    def changed(self, state: State) -> None:
        """A line, where there is no table."""
        if self.plain:
            self._say(line_of(state))

    def ends(self) -> None:
        """The table stays as it is."""
        self._open.close()

    def table(self) -> Any:
        """Scenes by how near they are to somebody's interest: running, failed, waiting, done."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("scene", "now", "done", "time"):
            table.add_column(title)
        ordered = sorted(self.states, key=_interest)
        for state in ordered[:_ROWS]:
            spent = sum(done.seconds for done in state.done.values())
            now = state.error or state.stage or ("" if state.over else "waits")
            table.add_row(state.scene.name, now, " ".join(state.done), duration(spent))
        found = counts(self.states)
        table.caption = (
            f"{found['done']} of {len(self.states)} scenes done, {found['failed']} failed"
        )
        return table

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _interest(state: State) -> int:
    if state.stage:
        return 0
    if state.error:
        return 1
    return 3 if state.over else 2


def line_of(state: State) -> str:
    """What became of a scene just now."""
    name = state.scene.name
    if state.error:
        return f"{name}: failed: {state.error.splitlines()[0]}"
    if state.stage:
        tried = state.tries[state.stage]
        again = f" (again: try {tried})" if tried > 1 else ""
        return f"{name}: {state.stage}{again} ..."
    if state.over:
        return f"{name}: done"
    last = next(reversed(state.done), None)
    if last is None:
        return f"{name}: lost, and tried again"
    node = f" on {state.nodes[last]}" if last in state.nodes else ""
    return f"{name}: {last} took {duration(state.done[last].seconds)}{node}"
