"""Signs of life: a count every few seconds, for stages that take minutes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

Say = Callable[[str], None]
Item = TypeVar("Item")

EVERY_SECONDS = 5.0
"""Between two lines of one stage: enough to see that it goes on, too few to fill a log."""


def counted(items: Sequence[Item], say: Say, title: str) -> Iterator[Item]:
    """The items, told as ``title: 12 of 300`` at the start and from time to time."""
    ticker = Ticker(say, title, len(items))
    for done, item in enumerate(items):
        ticker.at(done)
        yield item


@contextmanager
def watched(database: Path, table: str, say: Say, title: str, total: int) -> Iterator[None]:
    """Tells how many rows ``table`` of COLMAP's database has while a long call fills it.

    Read from beside: COLMAP keeps a write-ahead log, in which readers hold nobody up.
    """
    ticker, done = Ticker(say, title, total), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            with suppress(sqlite3.Error), closing(_read_only(database)) as connection:
                (count,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
                ticker.at(count)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=0.1)


class Ticker:
    """Says how far a stage has come, at most every :data:`EVERY_SECONDS`."""

    def __init__(self, say: Say, title: str, total: int | None = None) -> None:
        """``total``: None when nobody knows."""
        self._say, self._title, self._total = say, title, total
        self._last = time.monotonic()
        say(title if total is None else f"{title}: {total}")

    def at(self, done: int) -> None:
        """Called as often as one likes."""
        now = time.monotonic()
        if now - self._last < EVERY_SECONDS or not done:
            return
        self._last = now
        of = "" if self._total is None else f" of {self._total}"
        self._say(f"  {self._title}: {done}{of}")
