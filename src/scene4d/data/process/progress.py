"""Signs of life: a count every few seconds, for stages that take minutes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

    Read by another process: SQLite's locks are the process's, and Python's SQLite beside COLMAP's
    own copy in one process takes no notice of them. It then truncates the index of the write-ahead
    log under the other, which ends the process with SIGBUS (sqlite.org/howtocorrupt, 2.2.1).
    """
    ticker = Ticker(say, title, total)
    command = [sys.executable, "-I", "-c", _COUNT, _uri(database), table, str(EVERY_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as counting:
        assert counting.stdout is not None
        lines = counting.stdout

        def tell() -> None:
            for line in lines:
                ticker.at(int(line))

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            counting.kill()
            teller.join()


_COUNT = """\
import contextlib, sqlite3, sys, time
uri, table, seconds = sys.argv[1:]
while True:
    time.sleep(float(seconds))
    with contextlib.suppress(sqlite3.Error):
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.1)) as connection:
            (count,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            print(count, flush=True)
"""
"""What the other process runs; it ends when nobody reads it any more."""


def _uri(database: Path) -> str:
    return f"file:{quote(str(database))}?mode=ro"


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
