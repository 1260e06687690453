"""A hundred and fifty damaged bundles; benchmarks/fuzz_bundle.py by itself reads thousands."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_bundle.py"


def test_damaged_bundles_are_read_or_refused_within_time_and_memory():
    """In a process of its own: the shape checks of the tests make reading ten times slower."""
    command = [sys.executable, str(SCRIPT), "--files", "150", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = re.match(r"150 files in \d+ s: (\d+) read, (\d+) refused, none bad", done.stdout)
    assert told, done.stdout
    # The mutations reach past the first check: many different refusals, and some are harmless.
    assert int(told[1]) > 1 and int(told[2]) > 100 and done.stdout.count("\n") > 20
