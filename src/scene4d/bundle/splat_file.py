"""The ``.s4d`` bundle as a splat format: read into, and written from, plain splats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scene4d.errors import DataError
from scene4d.formats.packing import checked, invalid_splats
from scene4d.formats.placing import cloud_offset
from scene4d.formats.splat_cloud import SplatCloud, inverse_similarity

if TYPE_CHECKING:
    from scene4d.bundle.coding import Coded
    from scene4d.bundle.scene_info import SceneInfo
    from scene4d.bundle.splats import SplatQuantisation


def read_s4d(path: Path, *, stages: int | None = None, drop_invalid: bool = False) -> SplatCloud:
    """The Gaussians of a bundle (file or folder) in the capture's frame, whatever its kind.

    ``stages``: only so many of the progressive stages. ``drop_invalid``: as in every reader; what a
    bundle holds is finite, so it is its transform that can lead beyond float32. Raises
    :class:`DataError`.
    """
    from scene4d.bundle.container import open_bundle
    from scene4d.bundle.kinds import decoded_splats

    bundle = open_bundle(path)
    cloud = decoded_splats(bundle, stages=stages)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = cloud.transformed(np.array(bundle.manifest["transform"], dtype=np.float64))
    if not drop_invalid and invalid_splats(moved).any():
        raise DataError("the transform leads beyond the numbers of float32", where=path)
    return checked(moved, path, drop_invalid=drop_invalid)


def write_s4d(
    path: Path,
    cloud: SplatCloud,
    settings: SplatQuantisation | None = None,
    scene_info: SceneInfo | None = None,
) -> Coded:
    """Writes plain splats as a bundle of kind ``splats``; see :class:`SplatQuantisation`.

    ``cloud`` is in bundle coordinates, which are the capture's unless ``scene_info`` has a
    transform; without one, a scene far from the origin is moved there and gets a transform.
    """
    from scene4d.bundle.scene_info import default_info
    from scene4d.bundle.splats import write_splats_bundle

    if scene_info is None and cloud.far:
        home = cloud_offset(cloud)
        cloud = cloud.transformed(inverse_similarity(home))
        a, b, c, d = (tuple(row) for row in home.tolist())
        scene_info = replace(default_info(cloud), transform=(a, b, c, d))
    return write_splats_bundle(path, cloud, settings, scene_info)
