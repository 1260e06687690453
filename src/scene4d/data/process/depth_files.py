"""Depth maps beside the pictures of a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from scene4d.data.process.sfm import SfmCamera

DEPTH_FOLDER = "depth"
_LARGEST_FILE = 640
"""Longer side of the maps that are written, pixels."""

Depth = Float[np.ndarray, "height width"]


@dataclass(frozen=True, kw_only=True)
class DepthFiles:
    """Depth maps that were written."""

    names: Mapping[str, str]
    """The file in the capture, by picture."""
    unit: float
    """Scene units in a step of the files."""
    estimated: bool = False
    """Whether a network says them, and nothing that was seen from two sides."""

    def facts(self) -> dict[str, Any]:
        """What transforms.json says of them all."""
        kind = {"depth_kind": "estimated"} if self.estimated else {}
        return {"depth_unit_scale_factor": self.unit, **kind}


def write_depths(
    folder: Path, depths: Mapping[str, Depth], *, unit: float, estimated: bool = False
) -> DepthFiles:
    """Writes 16-bit PNG in steps of ``unit``; 0: not known. What is farther than they hold is
    written as far as that."""
    folder.mkdir()
    for picture, depth in depths.items():
        steps = np.where(depth > 0, np.clip(np.round(depth / unit), 1, 65535), 0)
        Image.fromarray(steps.astype(np.uint16)).save(folder / _name(picture))
    names = {picture: f"{folder.name}/{_name(picture)}" for picture in depths}
    return DepthFiles(names=names, unit=unit, estimated=estimated)


def _name(picture: str) -> str:
    return f"{Path(picture).stem}.png"


def file_size(camera: SfmCamera) -> tuple[int, int]:
    """Width and height of the depth map of a picture."""
    factor = max(1.0, max(camera.width, camera.height) / _LARGEST_FILE)
    return max(1, round(camera.width / factor)), max(1, round(camera.height / factor))
