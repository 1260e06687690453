"""Points to start a scene from: read from a file, or random where cameras look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scene4d.data.scene import Points
from scene4d.errors import DataError


def read_points(path: Path) -> Points:
    """The points of a PLY file; grey where it has no colours. Raises :class:`DataError`."""
    import trimesh

    if not path.is_file():
        raise DataError("point file not found", where=path)
    try:
        cloud = trimesh.load(path, process=False)
    except Exception as error:  # trimesh raises whatever its parsers meet in a damaged file
        raise DataError(f"cannot be read as points ({error})", where=path) from error
    vertices = getattr(cloud, "vertices", None)
    if vertices is None or len(vertices) == 0:
        raise DataError("holds no points", where=path)
    xyz = np.asarray(vertices, dtype=np.float32)
    colours = getattr(cloud, "colors", None)
    if colours is None or len(colours) != len(xyz):
        colours = getattr(getattr(cloud, "visual", None), "vertex_colors", None)
    if colours is None or len(colours) != len(xyz):
        colours = np.full((len(xyz), 3), 128, dtype=np.uint8)
    return clean_points(xyz, np.asarray(colours)[:, :3], path)


def clean_points(xyz: np.ndarray, rgb: np.ndarray, where: object) -> Points:
    """Points without the non-finite ones; DataError when none is left."""
    good = np.isfinite(xyz).all(axis=1)
    if not good.any():
        raise DataError("holds no finite points", where=where)
    return Points(
        xyz=torch.from_numpy(np.array(xyz[good], dtype=np.float32)),
        rgb=torch.from_numpy(np.array(rgb[good], dtype=np.uint8)),
    )
