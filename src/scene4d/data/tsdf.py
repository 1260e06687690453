"""A truncated signed distance volume: pictures with depth in, surface points or a mesh out.

Curless and Levoy, "A volumetric method for building complex models from range images", SIGGRAPH
1996; sparse blocks as in Niessner et al., "Real-time 3D reconstruction at scale using voxel
hashing", 2013. Numba kernels; a voxel sums its observations in the pictures' order, so results do
not hang on the number of threads.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.marching_cubes import BLOCK, surface_points, triangles
from scene4d.errors import NotEnoughMemoryError

_BLOCK_BYTES = (5 * 4 + 3 * 8) * BLOCK**3
"""Distance, weight and three colours in float32, and the vertices' numbers while a mesh is made."""
_TRUNCATION_VOXELS = 4.0
_STRIDE = 2
"""Pixels between those whose rays are followed to find blocks; a block is many pixels wide."""
_MOST_CELLS = 1 << 20
"""Blocks along an axis on either side of the origin: 21 bits each make one 63-bit key."""


class TsdfVolume:
    """Distances to the nearest surface in blocks of voxels along the surfaces seen so far."""

    def __init__(self, voxel: float, *, max_gb: float = 4.0) -> None:
        """``voxel``: edge in scene units; ``max_gb``: memory for the blocks, refused beyond it."""
        if not voxel > 0:
            raise ValueError(f"the voxel size must be positive, got {voxel}")
        self.voxel = voxel
        self.max_gb = max_gb
        self._origin: np.ndarray | None = None
        self._row: dict[int, int] = {}
        self._coords = np.empty((0, 3), dtype=np.int64)
        shape = (0, BLOCK, BLOCK, BLOCK)
        self._distance = np.empty(shape, dtype=np.float32)
        self._weight = np.empty(shape, dtype=np.float32)
        self._colour = np.empty((*shape, 3), dtype=np.float32)

    def integrate(
        self,
        camera: Camera,
        rgb: Float[Tensor, "height width 3"],
        depth: Float[Tensor, "height width"],
        *,
        limit: float,
    ) -> None:
        """Adds one undistorted picture; ``depth`` 0 or beyond ``limit`` says nothing.

        ``depth`` is measured along the viewing axis in scene units; a pixel reaches from its index
        to the next.
        """
        distance = np.nan_to_num(_array(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        distance[(distance < 0) | (distance >= limit)] = 0
        if not (distance > 0).any():
            return
        K, viewmat = _array(camera.K, np.float64), _array(camera.viewmat, np.float64)
        rotation, shift = viewmat[:3, :3], viewmat[:3, 3]
        if self._origin is None:  # near the content: keys and float32 positions stay small
            self._origin = -rotation.T @ shift
        shift = shift + rotation @ self._origin
        rows = self._rows_of(self._keys_along_rays(distance, K, rotation, shift))
        _integrate(
            rows,
            self._coords,
            self._distance,
            self._weight,
            self._colour,
            self.voxel,
            self.voxel * _TRUNCATION_VOXELS,
            np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]),
            rotation,
            shift,
            distance,
            np.clip(_array(rgb, np.float32), 0.0, 1.0),
        )

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [N, 3] on the surface and colours [N, 3] in 0..1, float64."""
        coords, distance, colour, observed = self._sorted()
        positions, colours, _ = surface_points(coords, distance, colour, observed)
        return self._in_scene(positions), colours.astype(np.float64)

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices [N, 3], their colours [N, 3] in 0..1 and triangles [M, 3], by marching cubes.

        Triangles are counter-clockwise as seen from where the surface was seen. Vertices that no
        triangle has are among them.
        """
        coords, distance, colour, observed = self._sorted()
        positions, colours, ids = surface_points(coords, distance, colour, observed)
        faces = triangles(coords, distance, observed, ids)
        return self._in_scene(positions), colours.astype(np.float64), faces

    def _in_scene(self, positions: np.ndarray) -> np.ndarray:
        if self._origin is None:
            return positions
        return (positions + 0.5) * self.voxel + self._origin

    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        count = len(self._row)
        coords = self._coords[:count]
        order = np.lexsort(coords.T)
        observed = self._weight[:count][order] > 0
        return coords[order], self._distance[:count][order], self._colour[:count][order], observed

    def _keys_along_rays(
        self, distance: np.ndarray, K: np.ndarray, rotation: np.ndarray, shift: np.ndarray
    ) -> np.ndarray:
        """Sorted keys of the blocks that rays cross within the truncation of their surface."""
        coarse = distance[::_STRIDE, ::_STRIDE]
        row, column = np.nonzero(coarse > 0)
        depth = coarse[row, column].astype(np.float64)
        x = (column * _STRIDE + 0.5 - K[0, 2]) / K[0, 0]
        y = (row * _STRIDE + 0.5 - K[1, 2]) / K[1, 1]
        rays = np.stack([x, y, np.ones_like(x)], axis=-1)
        reach = self.voxel * _TRUNCATION_VOXELS
        keys = [np.empty(0, dtype=np.int64)]
        for offset in np.linspace(-reach, reach, 3):
            local = rays * np.maximum(depth + offset, 1e-9)[:, None] - shift
            cells = np.floor(local @ rotation / (self.voxel * BLOCK))
            cells = cells[(np.abs(cells) < _MOST_CELLS).all(axis=1)].astype(np.int64) + _MOST_CELLS
            keys.append(np.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]))
        return np.unique(np.concatenate(keys))

    def _rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the blocks, new ones added at the end."""
        fresh = np.array([key for key in keys.tolist() if key not in self._row], dtype=np.int64)
        count = len(self._row)
        self._refuse_if_too_big(count + len(fresh))
        if count + len(fresh) > len(self._coords):
            self._grow(max(2 * len(self._coords), count + len(fresh), 64))
        mask = (1 << 21) - 1
        coords = np.stack([fresh >> 42, fresh >> 21 & mask, fresh & mask], axis=1) - _MOST_CELLS
        self._coords[count : count + len(fresh)] = coords
        self._row.update(zip(fresh.tolist(), range(count, count + len(fresh)), strict=True))
        return np.array([self._row[key] for key in keys.tolist()], dtype=np.int64)

    def _grow(self, size: int) -> None:
        """Memory of new blocks is zero, and costs nothing until it is written to."""
        for name in ("_coords", "_distance", "_weight", "_colour"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), dtype=old.dtype)
            new[: len(self._row)] = old[: len(self._row)]
            setattr(self, name, new)

    def _refuse_if_too_big(self, count: int) -> None:
        """Growing copies: twice the content is needed."""
        if 2 * count * _BLOCK_BYTES / 1e9 > self.max_gb:
            raise NotEnoughMemoryError(
                f"voxels of {self.voxel:.3g} need more than {self.max_gb:g} GB of memory here",
                fix=f"use voxels of {2 * self.voxel:.3g} or larger, or a smaller depth limit",
            )


def _array(tensor: Tensor, kind: type) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy(), dtype=kind, order="C")


@njit(parallel=True, cache=True, nogil=True)
@no_type_check
def _integrate(
    rows, coords, distance, weight, colour, voxel, reach, focal, rotation, shift, depth, rgb
):
    """Averages the distance along the viewing axis, over ``reach``, into the voxels of ``rows``.

    Voxels behind the surface by more than ``reach`` are hidden and stay as they are.
    """
    height, width = depth.shape
    for i in prange(len(rows)):
        block = rows[i]
        for a in range(BLOCK):
            px = (coords[block, 0] * BLOCK + a + 0.5) * voxel
            for b in range(BLOCK):
                py = (coords[block, 1] * BLOCK + b + 0.5) * voxel
                for c in range(BLOCK):
                    pz = (coords[block, 2] * BLOCK + c + 0.5) * voxel
                    z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + shift[2]
                    if z <= 0:
                        continue
                    x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + shift[0]
                    y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + shift[1]
                    u = np.floor(focal[0] * x / z + focal[2])
                    v = np.floor(focal[1] * y / z + focal[3])
                    if not (u >= 0 and v >= 0 and u < width and v < height):
                        continue
                    row, column = int(v), int(u)
                    seen = depth[row, column]
                    if seen <= 0 or seen - z < -reach:
                        continue
                    value = min(1.0, (seen - z) / reach)
                    old = weight[block, a, b, c]
                    share = 1.0 / (old + 1.0)
                    distance[block, a, b, c] += (value - distance[block, a, b, c]) * share
                    for k in range(3):
                        colour[block, a, b, c, k] += (
                            rgb[row, column, k] - colour[block, a, b, c, k]
                        ) * share
                    weight[block, a, b, c] = old + 1.0
