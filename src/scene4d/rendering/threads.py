"""One lock for all kernels that run on several threads."""

from __future__ import annotations

import threading

KERNEL_LOCK = threading.RLock()
"""The workqueue threading layer of Numba must not be entered by two threads at once."""
