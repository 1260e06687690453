"""What all kernels that run on several threads share: their lock, and what they take."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

KERNEL_LOCK = threading.RLock()
"""The workqueue threading layer of Numba must not be entered by two threads at once."""


def kernels_take(values: Tensor) -> bool:
    """Whether CPU kernels do it; otherwise plain torch does, which is their definition."""
    return values.device.type == "cpu" and values.dtype == torch.float32
