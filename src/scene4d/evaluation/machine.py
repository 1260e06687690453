"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

import scene4d


def describe_machine() -> dict[str, str | int]:
    """Processor, cores, GPU and versions, as plain data."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "scene4d": scene4d.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
