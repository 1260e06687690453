"""A truncated signed distance volume: pictures with depth in, surface points or a mesh out.

Curless and Levoy, "A volumetric method for building complex models from range images", SIGGRAPH
1996; sparse blocks as in Niessner et al., "Real-time 3D reconstruction at scale using voxel
hashing", 2013. The work is done by Open3D's VoxelBlockGrid (its older ScalableTSDFVolume gives no
points at all in Open3D 0.20 on the CPU).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import NotEnoughMemoryError
from scene4d.optional import import_optional

_BLOCK = 16
"""Voxels along an edge of a block."""
_BLOCK_BYTES = 5 * 4 * _BLOCK**3
"""Distance, weight and three colours, float32."""
_TRUNCATION_VOXELS = 4.0
_LEAST_WEIGHT = 0.5
"""A voxel counts from one observation on (Open3D compares with >)."""
_OFFSET = (0.3819, 0.2764, 0.4271)
"""Of the grid against the world, in voxels. Open3D sees no crossing where a distance is exactly 0,
so a floor at z = 0 would have no surface in a grid with corners there."""


class TsdfVolume:
    """Distances to the nearest surface in blocks of voxels along the surfaces seen so far."""

    def __init__(self, voxel: float, *, max_gb: float = 4.0) -> None:
        """``voxel``: edge in scene units; ``max_gb``: memory for the blocks, refused beyond it.

        Raises :class:`MissingExtraError` without Open3D.
        """
        open3d: Any = import_optional("open3d", extra="recon", needed_for="fusing depth")
        if not voxel > 0:
            raise ValueError(f"the voxel size must be positive, got {voxel}")
        self.voxel = voxel
        self.max_gb = max_gb
        self._offset = voxel * np.array(_OFFSET)
        self._open3d = open3d
        kind = open3d.core.float32
        self._grid = open3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (kind, kind, kind),
            ((1,), (1,), (3,)),
            voxel,
            _BLOCK,
            1024,
            open3d.core.Device("CPU:0"),
        )

    def integrate(
        self,
        camera: Camera,
        rgb: Float[Tensor, "height width 3"],
        depth: Float[Tensor, "height width"],
        *,
        limit: float,
    ) -> None:
        """Adds one undistorted picture; ``depth`` 0 or beyond ``limit`` says nothing.

        ``depth`` is measured along the viewing axis in scene units. Like our cameras, Open3D's
        grid takes a pixel to reach from its index to the next (checked with a slanted plane).
        """
        core, image = self._open3d.core, self._open3d.t.geometry.Image
        distance = np.nan_to_num(_array(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if not ((distance > 0) & (distance < limit)).any():
            return
        depth_image = image(core.Tensor(distance[..., None]))
        intrinsic = core.Tensor(_array(camera.K, np.float64))
        viewmat = _array(camera.viewmat, np.float64)
        viewmat[:3, 3] -= viewmat[:3, :3] @ self._offset  # the grid's own frame
        extrinsic = core.Tensor(viewmat)
        common = (intrinsic, extrinsic, 1.0, float(limit), _TRUNCATION_VOXELS)
        blocks = self._grid.compute_unique_block_coordinates(depth_image, *common)
        self._refuse_if_too_big(int(blocks.shape[0]))
        self._grid.integrate(
            blocks,
            depth_image,
            image(core.Tensor(np.clip(_array(rgb, np.float32), 0.0, 1.0))),
            intrinsic,
            *common,
        )

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [N, 3] on the surface and colours [N, 3] in 0..1, float64."""
        if self._grid.hashmap().size() == 0:
            return np.empty((0, 3)), np.empty((0, 3))
        cloud = self._grid.extract_point_cloud(_LEAST_WEIGHT)
        return _numpy(cloud.point, "positions") - self._offset, _numpy(cloud.point, "colors")

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices [N, 3], their colours [N, 3] in 0..1 and triangles [M, 3], by marching cubes."""
        none = np.empty((0, 3))
        if self._grid.hashmap().size() == 0:
            return none, none, none.astype(np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mesh = self._grid.extract_triangle_mesh(_LEAST_WEIGHT)
        triangles = _numpy(mesh.triangle, "indices").astype(np.int64)
        positions = _numpy(mesh.vertex, "positions") - self._offset
        return positions, _numpy(mesh.vertex, "colors"), triangles

    def _refuse_if_too_big(self, coming: int) -> None:
        """The hash map doubles when it is full, and copies: twice its content is needed."""
        needed = 2 * (self._grid.hashmap().size() + coming) * _BLOCK_BYTES / 1e9
        if needed > self.max_gb:
            raise NotEnoughMemoryError(
                f"voxels of {self.voxel:.3g} need more than {self.max_gb:g} GB of memory here",
                fix=f"use voxels of {2 * self.voxel:.3g} or larger, or a smaller depth limit",
            )


def _array(tensor: Tensor, kind: type) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy(), dtype=kind, order="C")


def _numpy(attributes: Any, name: str) -> np.ndarray:
    """An attribute as float64 rows of three; empty when the extraction found nothing."""
    if name not in attributes:
        return np.empty((0, 3))
    return attributes[name].numpy().astype(np.float64).reshape(-1, 3)
