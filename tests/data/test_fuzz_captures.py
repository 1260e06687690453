"""Some hundred damaged captures; benchmarks/fuzz_captures.py by itself loads thousands."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_captures.py"


def test_damaged_captures_are_loaded_or_refused_within_time_and_memory():
    """In a process of its own: the shape checks of the tests make loading ten times slower."""
    command = [sys.executable, str(SCRIPT), "--files", "25", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 6 and all(row[1] == "25" and row[4] == "0" for row in rows)
    # The damage reaches past the first check, and some is harmless.
    assert sum(int(row[2]) for row in rows) > 10 and sum(int(row[3]) for row in rows) > 60
