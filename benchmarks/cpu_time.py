"""``scene4d`` whose --max-minutes are CPU minutes of its process, not of the clock on the wall.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/cpu_time.py train splat --max-minutes 2

So trainings that are compared at equal time stay equal while other work is on the machine. With one
thread, that is the time on an idle machine with one core.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from unittest import mock


def main() -> int:
    from scene4d.cli.main import main as scene4d
    from scene4d.training import budget

    with mock.patch.object(budget, "time", SimpleNamespace(monotonic=time.process_time)):
        return scene4d()


if __name__ == "__main__":
    raise SystemExit(main())
