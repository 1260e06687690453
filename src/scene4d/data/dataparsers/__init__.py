"""Dataparsers: one module per capture format, found by looking at the folder.

Each module has ``LOOKS_FOR`` (in words), ``recognises(root) -> bool`` and
``parse(root, options) -> Scene``. Modules are imported only when they are asked.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scene4d.errors import DataError, UsageError

DATAPARSERS: dict[str, str] = {
    "nerfstudio": "scene4d.data.dataparsers.nerfstudio",
    "blender": "scene4d.data.dataparsers.blender",
    "colmap": "scene4d.data.dataparsers.colmap",
    "llff": "scene4d.data.dataparsers.llff",
    "nerfies": "scene4d.data.dataparsers.nerfies",
}
"""Name to module, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True)
class ParseOptions:
    """What a dataparser may be told."""

    test_every: int = 8
    """Hold out every n-th image where the capture gives no split; 0 holds out none."""
    downscale_factor: int = 1
    """How much smaller the images will be used: ``images_4`` is read where it exists for 4."""


def dataparser_module(name: str) -> Any:
    """The module of the dataparser called ``name``. Raises :class:`UsageError` on others."""
    if name not in DATAPARSERS:
        raise UsageError(
            f"no dataparser is called {name!r}", fix=f"choose auto, {', '.join(DATAPARSERS)}"
        )
    return importlib.import_module(DATAPARSERS[name])


def detect(root: Path) -> str:
    """The name of the first dataparser that recognises ``root``."""
    if not root.exists():
        raise DataError("there is no such file or folder", where=root, fix="check the path")
    for name in DATAPARSERS:
        if dataparser_module(name).recognises(root):
            return name
    looked = "; ".join(f"{name}: {dataparser_module(name).LOOKS_FOR}" for name in DATAPARSERS)
    raise DataError(
        f"is not a capture with known poses (looked for {looked})",
        where=root,
        fix=(
            "give the folder that holds one of these, or make poses from raw pictures with "
            "'scene4d process-data images --data FOLDER --output-dir OUT'"
        ),
    )
