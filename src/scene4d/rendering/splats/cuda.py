"""The CUDA back end: gsplat, when it is installed and its extension loads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from scene4d.errors import Scene4dError
from scene4d.optional import import_optional, why_not


class BackendUnavailableError(Scene4dError):
    """A rasteriser back end was asked for that cannot work on this machine."""


@functools.cache
def gsplat_unavailable_reason() -> str | None:
    """Why gsplat cannot rasterise here, in one line; None when it can.

    The first call on a machine with a GPU may compile gsplat's extension, which takes minutes.
    gsplat is not imported without a GPU: where nvcc is installed it would try to compile.
    """
    if not torch.cuda.is_available():
        built = "no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
        return f"torch.cuda.is_available() is false ({built})"
    problem = why_not("gsplat", extra="cuda")
    return _extension_failure() if problem is None else f"the package 'gsplat' {problem}"


def _extension_failure() -> str | None:
    """Why gsplat's compiled part does not load; None when it does."""
    try:
        from gsplat.cuda._backend import _C
    except Exception as error:  # a JIT build fails with whatever its compiler raised
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"gsplat's CUDA extension did not build or load: {lines[0]}"
    if _C is None:
        return "gsplat's CUDA extension is not built, and there is no nvcc to build it with"
    return None


def load_gsplat() -> Callable[..., Any]:
    """``gsplat.rasterization``, or an error that says why it cannot be had."""
    reason = gsplat_unavailable_reason()
    if reason is None:
        from gsplat import rasterization

        return rasterization
    if torch.cuda.is_available():
        import_optional("gsplat", extra="cuda", needed_for="rasterising splats on CUDA")
    raise BackendUnavailableError(
        f"the gsplat back end cannot be used: {reason}",
        fix="keep the tensors on the CPU, or see 'scene4d doctor'",
    )
