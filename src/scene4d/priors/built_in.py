"""The networks that come with the package: a fixer and an RGB-D prior (their cards:
methods/fixer and methods/unet)."""

from __future__ import annotations

import os
from pathlib import Path

BUILT_IN = Path("built-in")
"""In place of a network's file: the one that comes with the package."""
_WEIGHTS = Path(__file__).parent / "weights"


def found_in(place: Path, name: str) -> Path:
    """The file of weights that ``place`` means: itself, the one of this ``name`` in that folder, or
    the one that comes with the package."""
    if place == BUILT_IN and not os.path.exists(place):
        return _WEIGHTS / name
    return place / name if os.path.isdir(place) else place
