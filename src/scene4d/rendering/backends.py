"""Which rasteriser back ends work on this machine, and which one a device gets."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from scene4d.rendering.splats.cuda import gsplat_unavailable_reason

BackendName = Literal["numba", "gsplat", "reference"]

_log = logging.getLogger("scene4d")


@dataclass(frozen=True)
class BackendStatus:
    """One row of ``scene4d doctor``."""

    name: str
    device: str
    available: bool
    reason: str
    """Why it is not available; when it is, what it runs on."""


def numba_unavailable_reason() -> str | None:
    """Why the Numba kernels cannot run here, in one line; None when they can."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return f"the package 'numba' does not import ({error}); pip install --upgrade numba"
    return None


def _numba_status() -> BackendStatus:
    reason = numba_unavailable_reason()
    if reason is not None:
        return BackendStatus("numba", "cpu", False, reason)
    import numba

    detail = f"numba {numba.__version__}, {numba.get_num_threads()} threads"
    return BackendStatus("numba", "cpu", True, detail)


def _gsplat_status() -> BackendStatus:
    reason = gsplat_unavailable_reason()
    if reason is not None:
        return BackendStatus("gsplat", "cuda", False, reason)
    import gsplat

    detail = f"gsplat {gsplat.__version__} on {torch.cuda.get_device_name()}"
    return BackendStatus("gsplat", "cuda", True, detail)


def probe_backends() -> list[BackendStatus]:
    """Every back end of the splat rasteriser, with the reason where it cannot be used."""
    reference = BackendStatus("reference", "any", True, f"torch {torch.__version__}, slow")
    return [_numba_status(), _gsplat_status(), reference]


@functools.cache
def _announced(device_type: str) -> BackendName:
    if device_type == "cuda":
        _log.info("splat rasteriser on cuda: gsplat")
        return "gsplat"
    if device_type != "cpu":
        _log.warning("splat rasteriser on %s: plain torch (slow)", device_type)
        return "reference"
    reason = numba_unavailable_reason()
    if reason is None:
        _log.info("splat rasteriser on cpu: numba")
        if not _kernels_are_compiled():
            _log.info("compiling its kernels for this machine: once, about a minute on 2 cores")
        return "numba"
    _log.warning("splat rasteriser on cpu: plain torch (slow), because %s", reason)
    return "reference"


def _kernels_are_compiled() -> bool:
    """Whether an earlier process left compiled kernels in Numba's cache."""
    from scene4d.rendering.splats import compositing_kernels

    cache = Path(compositing_kernels.backward_band.stats.cache_path)
    return any(cache.glob("compositing_kernels.backward_band-*.nbi"))


def choose_backend(device: torch.device | str) -> BackendName:
    """The back end for tensors on ``device``; said once per kind of device in the log.

    CUDA tensors always get gsplat; if it cannot load, rasterising raises the reason.
    """
    return _announced(torch.device(device).type)
