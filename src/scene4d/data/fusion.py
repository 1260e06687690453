"""Initial points from RGB-D captures: the training frames' depth maps fused into one cloud.

Truncated signed distance fusion: Curless and Levoy, "A volumetric method for building complex
models from range images", SIGGRAPH 1996, through :mod:`scene4d.data.tsdf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.scene import Points, Scene, View
from scene4d.data.tsdf import TsdfVolume
from scene4d.errors import DataError

_VOXELS_PER_DEPTH = 200
"""The default voxel is the median depth over this: 1 cm at 2 m, what depth cameras resolve."""
_FAR = 4.0
"""Times the median depth; beyond it a volume would need more memory than it is worth, and points
are averaged in voxels that are this much larger."""
_FRAMES_LOOKED_AT = 8


@runtime_checkable
class DepthImages(Protocol):
    """What gives views by frame index; :class:`scene4d.data.images.ImageCache` does."""

    def view(self, index: int, downscale: int = 1) -> View:
        """The frame's pixels, undistorted."""
        ...


def fuse_depth(
    scene: Scene,
    images: DepthImages,
    *,
    voxel: float | None = None,
    max_points: int | None = None,
) -> Points:
    """Coloured points on the surfaces that the depth maps of the training frames show.

    ``voxel``: edge in scene units; None: 1/200 of the median depth. ``max_points``: voxels grow
    until there are no more points than that. Pixels without a measurement, masked out or
    transparent are not used; test frames never. Raises :class:`DataError` when no depth is left.
    """
    if voxel is not None and not voxel > 0:
        raise DataError(f"the voxel size must be positive, got {voxel}", where=scene.root)
    median = _median_depth(scene, images)
    voxel = voxel or median / _VOXELS_PER_DEPTH
    near = _integrated(scene, images, voxel, limit=_FAR * median)
    far = _averaged(scene, images, _FAR * voxel, beyond=_FAR * median)
    xyz, rgb = (np.concatenate(parts) for parts in zip(near, far, strict=True))
    if max_points is not None:
        xyz, rgb = _at_most(xyz, rgb, voxel, max_points)
    return Points(
        xyz=torch.from_numpy(xyz.astype(np.float32)),
        rgb=torch.from_numpy(np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)),
    )


def unproject(
    view: View, depth: Float[Tensor, "height width"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """World positions and colours of the pixels whose ``depth`` is positive, in float64.

    Depth is measured along the viewing axis, at the pixel's centre.
    """
    row, column = torch.nonzero(depth > 0, as_tuple=True)
    z = depth[row, column].double()
    K, c2w = view.camera.K.double(), view.camera.c2w.double()
    x = (column + 0.5 - K[0, 2]) / K[0, 0] * z
    y = (row + 0.5 - K[1, 2]) / K[1, 1] * z
    local = torch.stack([x, -y, -z], dim=-1)
    return local @ c2w[:3, :3].T + c2w[:3, 3], view.rgb[row, column].double()


def _depth_views(
    scene: Scene, images: DepthImages, indices: Sequence[int] | None = None
) -> Iterator[tuple[View, Float[Tensor, "height width"]]]:
    """Training views (or those at ``indices``) with their usable depth, 0 elsewhere."""
    for index in scene.train_indices if indices is None else indices:
        if not scene.frames[index].has_measured_depth:
            continue
        view = images.view(index)
        if view.depth is None:
            continue
        usable = torch.isfinite(view.depth) & (view.depth > 0)
        if view.mask is not None:
            usable &= view.mask
        if view.alpha is not None:
            usable &= view.alpha > 0.5
        yield view, torch.where(usable, view.depth, 0.0)


def _median_depth(scene: Scene, images: DepthImages) -> float:
    """Over some of the training frames, evenly spread; over all where those have no depth."""
    some = scene.train_indices[:: max(1, len(scene.train_indices) // _FRAMES_LOOKED_AT)]
    samples = [depth[depth > 0] for _, depth in _depth_views(scene, images, some)]
    if not any(len(values) for values in samples):
        samples = [depth[depth > 0] for _, depth in _depth_views(scene, images)]
    found = torch.cat(samples) if samples else torch.empty(0)
    if not len(found):
        raise DataError(
            "no training frame has a depth measurement",
            where=scene.root,
            fix="check depth_file_path and the depth unit in transforms.json",
        )
    return float(found.median())


def _integrated(
    scene: Scene, images: DepthImages, voxel: float, *, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 3] and colours [N, 3] in 0..1 of the fused surface nearer than ``limit``."""
    volume = TsdfVolume(voxel)
    for view, depth in _depth_views(scene, images):
        volume.integrate(view.camera, view.rgb, depth, limit=limit)
    return volume.points()


def _averaged(
    scene: Scene, images: DepthImages, voxel: float, *, beyond: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means of unprojected pixels deeper than ``beyond``, per voxel."""
    parts = []
    for view, depth in _depth_views(scene, images):
        xyz, rgb = unproject(view, torch.where(depth > beyond, depth, 0.0))
        values = np.concatenate([xyz.numpy(), rgb.numpy(), np.ones((len(xyz), 1))], axis=1)
        parts.append(_sum_in_voxels(values, xyz.numpy(), voxel))
    sums = np.concatenate(parts)
    sums = _sum_in_voxels(sums, sums[:, :3] / sums[:, 6:], voxel)
    return sums[:, :3] / sums[:, 6:], sums[:, 3:6] / sums[:, 6:]


def _sum_in_voxels(values: np.ndarray, xyz: np.ndarray, voxel: float) -> np.ndarray:
    """Sums of the rows of ``values`` [N, C] whose positions share a voxel."""
    if not len(values):
        return values
    cells = np.floor(xyz / voxel)
    cells -= cells.min(axis=0)
    size = cells.max(axis=0) + 1
    if size.prod() >= 2.0**62:
        raise DataError(f"voxels of {voxel:.3g} are too small for a cloud {size * voxel} in size")
    order = cells.astype(np.int64) @ np.array([1, size[0], size[0] * size[1]]).astype(np.int64)
    _, inverse = np.unique(order, return_inverse=True)
    return np.stack([np.bincount(inverse, weights=column) for column in values.T], axis=1)


def _at_most(
    xyz: np.ndarray, rgb: np.ndarray, voxel: float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Averaged in voxels that grow until at most ``limit`` points are left."""
    if limit < 1:
        raise DataError(f"max_points must be positive, got {limit}")
    while len(xyz) > limit:
        # Surfaces: the number of occupied voxels falls with the square of their size.
        voxel *= max(1.1, (len(xyz) / limit) ** 0.5)
        rows = np.concatenate([xyz, rgb, np.ones((len(xyz), 1))], axis=1)
        sums = _sum_in_voxels(rows, xyz, voxel)
        xyz, rgb = sums[:, :3] / sums[:, 6:], sums[:, 3:6] / sums[:, 6:]
    return xyz, rgb
