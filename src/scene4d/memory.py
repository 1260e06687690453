"""How much memory can be had, for what is sized by it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from scene4d.torchrun import this_process


def available_ram_bytes() -> float:
    """Memory that can be had without swapping: of what there is, this process's share of those that
    torchrun started on this machine."""
    return _available_bytes() / this_process().local_count


def _available_bytes() -> float:
    """Of the machine; 8 GB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return 8e9


def give_back_freed_memory() -> None:
    """Hands freed memory back to the system, where the C library would keep it (glibc): after many
    large buffers, between which small ones live on, what is kept is as large as all of them."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
