"""The one live display at the bottom of a terminal, for everybody who has something to show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Part = Callable[[int], Any]
"""What rich is to show in a terminal of so many columns."""


class Display:
    """Parts below each other, drawn anew a few times a second; what is printed on stderr meanwhile
    goes above."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True)
        self.parts: list[Part] = []
        self.live = Live(console=self.console, refresh_per_second=4, get_renderable=self.drawn)

    def drawn(self) -> Any:
        """All parts as they are now."""
        from rich.console import Group

        return Group(*(part(self.console.width) for part in self.parts))


_now: list[Display] = []
"""That of this process, while there is one."""


def in_terminal() -> bool:
    """Whether stderr is a terminal, also where a display has taken its place."""
    return bool(_now) or sys.stderr.isatty()


@contextmanager
def shown(part: Part) -> Iterator[Display]:
    """Shows ``part`` in the display that there is, until then, or in one of its own, which leaves
    it as it was last."""
    if _now:
        display = _now[0]
        display.parts.append(part)
        try:
            yield display
        finally:
            display.parts.remove(part)
        return
    display = Display()
    display.parts.append(part)
    _now.append(display)
    try:
        with display.live:
            yield display
    finally:
        _now.remove(display)
