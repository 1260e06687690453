"""How far structure from motion has come is told without touching the database's locks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing

from optional_packages import import_or_skip

from scene4d.data.process import progress

TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
"""


def test_counts_are_told_and_the_locks_of_this_process_stand(tmp_path, monkeypatch):
    """POSIX locks go when a process closes any descriptor of their file: COLMAP's SQLite would hold
    none any more, and its log's index was truncated under it."""
    fcntl = import_or_skip("fcntl")
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.02)
    path = tmp_path / "database.db"
    said: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE keypoints (a INTEGER)")
        connection.executemany("INSERT INTO keypoints VALUES (?)", [(i,) for i in range(7)])
        connection.commit()
    with open(path, "r+b") as file:  # as another copy of SQLite would, at another byte
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
        with progress.watched(path, "keypoints", said.append, "finding", 12):
            until = time.monotonic() + 20
            while len(said) < 2 and time.monotonic() < until:
                time.sleep(0.02)
        tried = subprocess.run([sys.executable, "-c", TRY_LOCK, str(path)], capture_output=True)
    assert said[:2] == ["finding: 12", "  finding: 7 of 12"]
    assert tried.returncode != 0
