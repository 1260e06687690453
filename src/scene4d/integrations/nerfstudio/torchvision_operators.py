"""Lets torchvision be imported beside a torch that it was not built for.

nerfstudio imports torchvision, and the registry's torchvision carries CUDA operators that do not
load beside torch's CPU build: then ``import torchvision`` fails with "operator torchvision::nms
does not exist", because it registers shape rules for two operators that are missing. nerfstudio
uses neither of them. Declaring them (without an implementation) is enough.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_declared: list[torch.library.Library] = []
"""A declaration lives as long as its library object."""


def declare_missing_operators() -> None:
    """Declares ``torchvision::nms`` and ``qnms`` where torchvision itself cannot.

    Call it before the first ``import torchvision``. Where torchvision's own operators load, as
    beside a CUDA build of torch, nothing is changed.
    """
    if _declared or _operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    _declared.append(library)


def _operators_load() -> bool:
    """Whether ``import torchvision`` works by itself; tried without leaving a half-import."""
    import sys

    if "torchvision" in sys.modules:
        return True
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    except ImportError:
        return True  # there is no torchvision: nothing to repair here
    return True
