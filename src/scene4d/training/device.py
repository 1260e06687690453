"""Which device a training runs on."""

from __future__ import annotations

import logging

import torch

from scene4d.errors import UsageError

_log = logging.getLogger("scene4d")


def choose_device(preference: str) -> torch.device:
    """``cpu`` or ``cuda``; ``auto`` takes cuda where torch and gsplat both work there."""
    from scene4d.rendering.splats.cuda import gsplat_unavailable_reason

    if preference == "cpu":
        return torch.device("cpu")
    reason = gsplat_unavailable_reason()
    if reason is None:
        return torch.device("cuda")
    if preference == "cuda":
        raise UsageError(f"--device cuda cannot be used: {reason}", fix="see 'scene4d doctor'")
    _log.info("device: cpu ('scene4d doctor' says why not cuda)")
    return torch.device("cpu")
