"""A multi-resolution hash grid: features of points, looked up at several resolutions.

Source: Instant Neural Graphics Primitives, Mueller et al. 2022, section 3. Levels with no more
vertices than rows are stored densely, finer ones share rows by hashing. ``reference_lookup`` is
plain torch; :class:`HashGrid` runs the same in Numba on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor, nn

PRIMES = (1, 2654435761, 805459861)
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True, kw_only=True)
class GridShape:
    """Sizes of a hash grid."""

    resolutions: tuple[int, ...]
    """Cells along each axis, level by level, coarse to fine."""
    rows: tuple[int, ...]
    """Rows of each level's table."""
    features: int

    def __post_init__(self) -> None:
        if len(self.resolutions) != len(self.rows) or not self.rows:
            raise ValueError(f"{len(self.resolutions)} levels, {len(self.rows)} tables")
        if min(*self.resolutions, *self.rows, self.features) < 1:
            raise ValueError(f"not a grid: {self}")

    @classmethod
    def growing(
        cls, *, levels: int, features: int, coarsest: int, finest: int, max_rows: int
    ) -> GridShape:
        """Resolutions that grow geometrically; ``max_rows`` bounds every level's table."""
        factor = (finest / coarsest) ** (1 / max(levels - 1, 1))
        resolutions = tuple(round(coarsest * factor**level) for level in range(levels))
        rows = tuple(min((r + 1) ** 3, max_rows) for r in resolutions)
        return cls(resolutions=resolutions, rows=rows, features=features)

    @property
    def width(self) -> int:
        """Features of a point: all levels together."""
        return len(self.resolutions) * self.features

    def dense(self, level: int) -> bool:
        """Whether each vertex of the level has a row of its own."""
        return self.rows[level] == (self.resolutions[level] + 1) ** 3

    def layout(self) -> np.ndarray:
        """[levels, 4] int64: resolution, first row, number of rows, 1 where dense."""
        starts = np.concatenate([[0], np.cumsum(self.rows)[:-1]])
        flags = [int(self.dense(level)) for level in range(len(self.rows))]
        return np.stack([self.resolutions, starts, self.rows, flags], axis=1).astype(np.int64)


class HashGrid(nn.Module):
    """Learned features on the vertices of grids of several resolutions."""

    def __init__(self, shape: GridShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        start = torch.rand(sum(shape.rows), shape.features, generator=generator) * 2e-2 - 1e-2
        self.table = nn.Parameter(start)

    def forward(
        self, points: Float[Tensor, "n 3"], table: Float[Tensor, "rows f"] | None = None
    ) -> Float[Tensor, "n width"]:
        """Features at ``points`` in the unit cube (values outside are clamped), trilinear within
        each level; differentiable in ``table`` (by default its own) and in the points."""
        values = self.table if table is None else table
        _check(points, values, self.shape)
        if values.device.type != "cpu":
            return reference_lookup(points, values, self.shape)
        return _Lookup.apply(points, values, self.shape)


def _check(points: Tensor, table: Tensor, shape: GridShape) -> None:
    wanted = (sum(shape.rows), shape.features)
    if tuple(table.shape) != wanted or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(
            f"the table has shape {tuple(table.shape)}, the grid needs {wanted}; "
            f"points have shape {tuple(points.shape)}, not (n, 3)"
        )


def reference_lookup(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "rows f"], shape: GridShape
) -> Float[Tensor, "n width"]:
    """The definition of the look-up in plain torch."""
    features = []
    corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).to(points.device)
    for resolution, start, rows, dense in shape.layout().tolist():
        scaled = points.clamp(0, 1) * resolution
        # NaN has no cell; in the first one its features are NaN, and no memory is misread.
        low = scaled.detach().nan_to_num(0.0).floor().clamp(max=resolution - 1).long()
        fraction = scaled - low
        vertices = low[:, None] + corners
        if dense:
            side = resolution + 1
            index = (vertices[..., 0] * side + vertices[..., 1]) * side + vertices[..., 2]
        else:
            hashed = torch.zeros_like(vertices[..., 0])
            for axis, prime in enumerate(PRIMES):
                hashed ^= vertices[..., axis] * prime & 0xFFFFFFFF
            index = hashed % rows
        near = torch.where(corners.bool(), fraction[:, None], 1 - fraction[:, None]).prod(dim=-1)
        features.append((table[start + index] * near[..., None]).sum(dim=1))
    return torch.cat(features, dim=1)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, shape):
        layout = shape.layout()
        ctx.shape = shape
        ctx.save_for_backward(points, table)
        out = np.empty((points.shape[0], shape.width), dtype=np.float32)
        _forward(_array(points), _array(table), layout, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx, grad):
        points, table = ctx.saved_tensors
        layout = ctx.shape.layout()
        d_table = np.zeros(table.shape, dtype=np.float32)
        d_points = np.zeros((len(layout), points.shape[0], 3), dtype=np.float32)
        want_points = ctx.needs_input_grad[0]
        _backward(
            _array(points), _array(table), layout, _array(grad), want_points, d_table, d_points
        )
        moved = torch.from_numpy(d_points.sum(axis=0)) if want_points else None
        return moved, torch.from_numpy(d_table), None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().float().numpy()


@njit(**_OPTIONS)
@no_type_check
def _row(ix, iy, iz, resolution, rows, dense):
    if dense:
        return (ix * (resolution + 1) + iy) * (resolution + 1) + iz
    mask = np.int64(0xFFFFFFFF)
    hashed = ix ^ (iy * np.int64(2654435761) & mask) ^ (iz * np.int64(805459861) & mask)
    return hashed % rows


@njit(**_OPTIONS)
@no_type_check
def _cell(value, resolution):
    """Lower vertex, fraction, and whether the value lies inside (0 gradient where clamped)."""
    inside = (value >= np.float32(0.0)) and (value <= np.float32(1.0))
    scaled = min(max(value, np.float32(0.0)), np.float32(1.0)) * np.float32(resolution)
    # NaN has no cell; in the first one its features are NaN, and no memory is misread.
    low = min(np.int64(scaled), resolution - 1) if scaled >= np.float32(0.0) else np.int64(0)
    return low, scaled - np.float32(low), inside


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _forward(points, table, layout, out):
    width = table.shape[1]
    for n in prange(points.shape[0]):
        for level in range(layout.shape[0]):
            resolution, start, rows, dense = layout[level]
            ix, fx, _ = _cell(points[n, 0], resolution)
            iy, fy, _ = _cell(points[n, 1], resolution)
            iz, fz, _ = _cell(points[n, 2], resolution)
            for f in range(width):
                out[n, level * width + f] = 0.0
            for corner in range(8):
                cx, cy, cz = corner >> 2 & 1, corner >> 1 & 1, corner & 1
                near = (fx if cx else 1 - fx) * (fy if cy else 1 - fy) * (fz if cz else 1 - fz)
                row = start + _row(ix + cx, iy + cy, iz + cz, resolution, rows, dense)
                for f in range(width):
                    out[n, level * width + f] += near * table[row, f]


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _backward(points, table, layout, grad, want_points, d_table, d_points):
    width = table.shape[1]
    for level in prange(layout.shape[0]):  # rows of two levels never meet: no races
        resolution, start, rows, dense = layout[level]
        for n in range(points.shape[0]):
            ix, fx, in_x = _cell(points[n, 0], resolution)
            iy, fy, in_y = _cell(points[n, 1], resolution)
            iz, fz, in_z = _cell(points[n, 2], resolution)
            dx = dy = dz = np.float32(0.0)
            for corner in range(8):
                cx, cy, cz = corner >> 2 & 1, corner >> 1 & 1, corner & 1
                wx = fx if cx else 1 - fx
                wy = fy if cy else 1 - fy
                wz = fz if cz else 1 - fz
                row = start + _row(ix + cx, iy + cy, iz + cz, resolution, rows, dense)
                near = wx * wy * wz
                dot = np.float32(0.0)
                for f in range(width):
                    g = grad[n, level * width + f]
                    d_table[row, f] += near * g
                    dot += table[row, f] * g
                if want_points:
                    dx += dot * wy * wz * (1 if cx else -1)
                    dy += dot * wx * wz * (1 if cy else -1)
                    dz += dot * wx * wy * (1 if cz else -1)
            if want_points:
                d_points[level, n, 0] = dx * resolution if in_x else 0.0
                d_points[level, n, 1] = dy * resolution if in_y else 0.0
                d_points[level, n, 2] = dz * resolution if in_z else 0.0


def contracted(
    points: Float[Tensor, "n 3"], centre: Float[Tensor, " 3"], radius: float
) -> Float[Tensor, "n 3"]:
    """Points of all space in the unit cube: a ball of ``radius`` fills its middle half, and the
    rest is squeezed into the shell around it (Mip-NeRF 360, Barron et al. 2022, eq. 10)."""
    local = (points - centre) / radius
    norm = local.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return ((2 - 1 / norm) * (local / norm)) / 4 + 0.5
