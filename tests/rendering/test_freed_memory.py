"""Freed memory is kept, so that training steps do not fault it in again."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from scene4d.rendering.freed_memory import keep_freed_memory
    assert keep_freed_memory()
np.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(4_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    command = [sys.executable, "-c", CODE, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_blocks_are_used_again() -> None:
    # 20 blocks of 32 MB are some 156,000 pages of 4 kB, or 320 huge ones of 2 MB, each faulted in
    # anew by default; kept, none need be.
    assert page_faults("keep") < page_faults("default") / 4
