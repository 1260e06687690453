"""Cutting and moving splats on their way from one file to another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from scene4d.errors import DataError, UsageError
from scene4d.formats import packing
from scene4d.formats.splat import importance_order
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.ranges import Count, Finite, Positive, Share, Within


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """What is left out, and where the rest goes; filters see the input's coordinates."""

    crop: tuple[Finite, Finite, Finite, Finite, Finite, Finite] | None = None
    """Box whose splats are kept: XMIN YMIN ZMIN XMAX YMAX ZMAX, scene units of the input."""
    min_opacity: Share = 0.0
    """Splats below this opacity (0 to 1) are left out."""
    max_splats: Count | None = None
    """Keep this many, those of the largest opacity times volume."""
    sh_degree: Annotated[int, Within(0, 3)] | None = None
    """Keep spherical harmonics up to this degree, 0 to 3."""
    transform: Path | None = None
    """File with a 4 x 4 matrix (JSON or 16 numbers, row by row): rotation, uniform scale and
    translation, applied first."""
    scale: Positive = 1.0
    """Factor on positions and sizes."""
    rotate: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    """Degrees about x, then y, then z (fixed axes), after the scale."""
    translate: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    """Scene units, after the rotation."""

    def __post_init__(self) -> None:
        if self.crop is not None and not all(
            low <= high for low, high in zip(self.crop[:3], self.crop[3:], strict=True)
        ):
            raise UsageError("--crop wants XMIN YMIN ZMIN XMAX YMAX ZMAX, each MIN up to its MAX")
        if not 0 <= self.min_opacity <= 1:
            raise UsageError(f"--min-opacity must be from 0 to 1, got {self.min_opacity}")
        if self.max_splats is not None and self.max_splats < 1:
            raise UsageError(f"--max-splats must be 1 or more, got {self.max_splats}")
        if self.sh_degree is not None and not 0 <= self.sh_degree <= 3:
            raise UsageError(f"--sh-degree must be from 0 to 3, got {self.sh_degree}")
        numbers = (self.scale, *self.rotate, *self.translate)
        if not (np.isfinite(numbers).all() and self.scale > 0):
            raise UsageError("--scale must be positive, and all transforms finite")


def edited(cloud: SplatCloud, options: EditOptions) -> SplatCloud:
    """``cloud`` after the filters and then the transform, in its order.

    Raises :class:`DataError` for a transform that is no similarity.
    """
    keep = np.ones(len(cloud), dtype=bool)
    if options.crop is not None:
        box = np.array(options.crop)
        keep &= ((cloud.means >= box[:3]) & (cloud.means <= box[3:])).all(axis=1)
    if options.min_opacity > 0:
        keep &= packing.opacity_of(cloud.logit_opacities) >= options.min_opacity
    if not keep.all():
        cloud = packing.taken(cloud, keep)
    if options.max_splats is not None and len(cloud) > options.max_splats:
        chosen = importance_order(cloud)[: options.max_splats]
        cloud = packing.taken(cloud, np.sort(chosen))
    if options.sh_degree is not None and options.sh_degree < cloud.sh_degree:
        cloud = with_sh_degree(cloud, options.sh_degree)
    return cloud.transformed(matrix_of(options))


def with_sh_degree(cloud: SplatCloud, degree: int) -> SplatCloud:
    """``cloud`` with the harmonics up to ``degree`` alone."""
    return replace(cloud, sh=np.ascontiguousarray(cloud.sh[:, : (degree + 1) ** 2]))


def matrix_of(options: EditOptions) -> np.ndarray:
    """[4, 4] float64: the file's matrix, then scale, rotations and translation."""
    matrix = np.eye(4)
    for axis, degrees in enumerate(options.rotate):
        turn = np.eye(4)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        matrix = turn @ matrix
    matrix[:3, :3] *= options.scale
    matrix[:3, 3] = options.translate
    return matrix if options.transform is None else matrix @ read_matrix(options.transform)


def read_matrix(path: Path) -> np.ndarray:
    """[4, 4] from a file of JSON (nested or flat) or of 16 numbers. Raises :class:`DataError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")[:65536]
        numbers = json.loads(text) if text.lstrip()[:1] == "[" else text.replace(",", " ").split()
        matrix = np.array(numbers, dtype=np.float64)
        return matrix.reshape(4, 4)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"does not hold a 4 x 4 matrix ({error})",
            where=path,
            fix="write 16 numbers, row by row, or a JSON list of four lists",
        ) from error
