"""How the process deals with memory that it has freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of mallopt's settings in glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Tells glibc to keep large freed blocks; False with another C library.

    Every training step takes and frees the same blocks, and getting them from the system again
    costs a page fault each 4 kB (docs/rasteriser.md). It concerns the whole process, so the command
    line calls it, and importing scene4d does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    large = mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, 1 << 25)
    return bool(large and mallopt(_TRIM_THRESHOLD, 1 << 30))
