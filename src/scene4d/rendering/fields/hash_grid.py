"""A multi-resolution hash grid: features of points, looked up at several resolutions.

Source: Instant Neural Graphics Primitives, Mueller et al. 2022, section 3. Levels with no more
vertices than rows are stored densely, finer ones share rows by hashing. ``reference_lookup`` is
plain torch; :class:`HashGrid` runs the same in Numba on the CPU (``hash_grid_kernels``).
:class:`HashGrids` is several of them over chosen coordinates of a point, such as (x, y, t).

"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scene4d.rendering.fields.hash_grid_kernels import (
    DENSE,
    MASKED,
    MODULO,
    forward_kernel,
    points_kernel,
    table_kernel,
)
from scene4d.rendering.threads import KERNEL_LOCK

PRIMES = (1, 2654435761, 805459861)
_XYZ = ((0, 1, 2),)


@dataclass(frozen=True, kw_only=True)
class GridShape:
    """Sizes of a hash grid."""

    resolutions: tuple[int, ...]
    """Cells along each axis, level by level, coarse to fine."""
    rows: tuple[int, ...]
    """Rows of each level's table."""
    features: int
    last_resolutions: tuple[int, ...] = ()
    """Cells along the last axis, level by level, where it is another kind of axis, such as time;
    empty: as many as along the others."""

    def __post_init__(self) -> None:
        if len(self.resolutions) != len(self.rows) or not self.rows:
            raise ValueError(f"{len(self.resolutions)} levels, {len(self.rows)} tables")
        if self.last_resolutions and len(self.last_resolutions) != len(self.rows):
            raise ValueError(f"{len(self.rows)} levels, {len(self.last_resolutions)} last axes")
        if min(*self.resolutions, *self.last_resolutions, *self.rows, self.features) < 1:
            raise ValueError(f"not a grid: {self}")

    @classmethod
    def growing(
        cls,
        *,
        levels: int,
        features: int,
        coarsest: int,
        finest: int,
        max_rows: int,
        last: tuple[int, int] | None = None,
    ) -> GridShape:
        """Resolutions that grow geometrically; ``max_rows`` bounds every level's table. ``last``:
        coarsest and finest number of cells along the last axis, where it has its own."""
        resolutions = _growing(coarsest, finest, levels)
        ends = _growing(*last, levels) if last is not None else resolutions
        rows = tuple(
            min((r + 1) ** 2 * (e + 1), max_rows) for r, e in zip(resolutions, ends, strict=True)
        )
        return cls(
            resolutions=resolutions,
            rows=rows,
            features=features,
            last_resolutions=ends if last is not None else (),
        )

    @property
    def width(self) -> int:
        """Features of a point: all levels together."""
        return len(self.resolutions) * self.features

    def sides(self, level: int) -> tuple[int, int, int]:
        """Cells along the three axes."""
        side = self.resolutions[level]
        return side, side, self.last_resolutions[level] if self.last_resolutions else side

    def dense(self, level: int) -> bool:
        """Whether each vertex of the level has a row of its own."""
        return self.rows[level] == math.prod(side + 1 for side in self.sides(level))

    def layout(self, *, start: int = 0, axes: Sequence[int] = _XYZ[0]) -> np.ndarray:
        """[levels, 9] int64: cells along the axes (3), first row (the first level's is ``start``),
        number of rows, how a vertex finds its row, and the coordinates that are the axes (3)."""
        starts = start + np.concatenate([[0], np.cumsum(self.rows)[:-1]])
        table = []
        for level, (first, rows) in enumerate(zip(starts.tolist(), self.rows, strict=True)):
            way = DENSE if self.dense(level) else MODULO if rows & (rows - 1) else MASKED
            table.append([*self.sides(level), first, rows, way, *axes])
        return np.array(table, dtype=np.int64)


def _growing(coarsest: int, finest: int, levels: int) -> tuple[int, ...]:
    factor = (finest / coarsest) ** (1 / max(levels - 1, 1))
    return tuple(round(coarsest * factor**level) for level in range(levels))


class HashGrids(nn.Module):
    """Learned features on the vertices of several grids, each over three coordinates of a point;
    what they give is concatenated, grid by grid. One table holds all of them."""

    def __init__(
        self,
        shapes: Sequence[GridShape],
        axes: Sequence[tuple[int, int, int]],
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """``axes``: the coordinates that each grid looks at. Raises ValueError unless all grids
        have as many features a level."""
        super().__init__()
        if len(shapes) != len(axes) or not shapes:
            raise ValueError(f"{len(shapes)} grids, {len(axes)} choices of axes for grids")
        if len({shape.features for shape in shapes}) > 1 or min(map(min, axes)) < 0:
            raise ValueError(f"grids of one set have the same features: {shapes}, axes {axes}")
        self.shapes, self.axes = tuple(shapes), tuple(axes)
        rows = sum(sum(shape.rows) for shape in shapes)
        start = torch.rand(rows, shapes[0].features, generator=generator) * 2e-2 - 1e-2
        self.table = nn.Parameter(start)

    @property
    def width(self) -> int:
        """Features of a point: all grids together."""
        return sum(shape.width for shape in self.shapes)

    @property
    def coordinates(self) -> int:
        """Coordinates of a point that are looked at: the highest axis, and one."""
        return max(map(max, self.axes)) + 1

    def forward(
        self, points: Float[Tensor, "n axes"], table: Float[Tensor, "rows f"] | None = None
    ) -> Float[Tensor, "n width"]:
        """Features at ``points`` in the unit cube (values outside are clamped), trilinear within
        each level; differentiable once in ``table`` (by default its own) and in the points."""
        values = self.table if table is None else table
        self._check(points, values)
        if values.device.type != "cpu" or values.dtype != torch.float32:
            return self.reference(points, values)
        return _Lookup.apply(points, values, self._layout())

    def reference(
        self, points: Float[Tensor, "n axes"], table: Float[Tensor, "rows f"]
    ) -> Float[Tensor, "n width"]:
        """The definition of the look-up in plain torch."""
        parts, start = [], 0
        for shape, axes in zip(self.shapes, self.axes, strict=True):
            end = start + sum(shape.rows)
            parts.append(reference_lookup(points[:, list(axes)], table[start:end], shape))
            start = end
        return torch.cat(parts, dim=1)

    def _layout(self) -> np.ndarray:
        starts = np.concatenate([[0], np.cumsum([sum(s.rows) for s in self.shapes])[:-1]]).tolist()
        parts = zip(self.shapes, starts, self.axes, strict=True)
        return np.concatenate([s.layout(start=first, axes=a) for s, first, a in parts])

    def _check(self, points: Tensor, table: Tensor) -> None:
        wanted = (sum(sum(s.rows) for s in self.shapes), self.shapes[0].features)
        least = self.coordinates
        if tuple(table.shape) != wanted or points.ndim != 2 or points.shape[1] < least:
            raise ValueError(
                f"the table has shape {tuple(table.shape)}, the grid needs {wanted}; "
                f"points have shape {tuple(points.shape)}, not (n, {least})"
            )


class HashGrid(HashGrids):
    """Learned features on the vertices of grids of several resolutions, over three coordinates."""

    def __init__(self, shape: GridShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__([shape], _XYZ, generator=generator)
        self.shape = shape


def reference_lookup(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "rows f"], shape: GridShape
) -> Float[Tensor, "n width"]:
    """The definition of the look-up in plain torch."""
    features = []
    corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).to(points.device)
    for sides, (start, rows, way) in zip(
        map(shape.sides, range(len(shape.rows))), shape.layout()[:, 3:6].tolist(), strict=True
    ):
        cells = torch.tensor(sides, device=points.device)
        scaled = points.clamp(0, 1) * cells
        # NaN has no cell; in the first one its features are NaN, and no memory is misread.
        low = scaled.detach().nan_to_num(0.0).floor().long().minimum(cells - 1)
        fraction = scaled - low
        vertices = low[:, None] + corners
        if way == DENSE:
            step = (sides[1] + 1) * (sides[2] + 1), sides[2] + 1, 1
            index = (vertices * torch.tensor(step, device=points.device)).sum(dim=-1)
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
    def forward(ctx, points, table, layout):
        ctx.layout = layout
        ctx.save_for_backward(points, table)
        features = table.shape[1]
        out = np.empty((points.shape[0], len(layout) * features), dtype=np.float32)
        with KERNEL_LOCK:
            forward_kernel(features)(_array(points), _flat(table), layout, out.reshape(-1))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        points, table = ctx.saved_tensors
        places, grad, features = _array(points), _flat(grad), table.shape[1]
        d_points = d_table = None
        if ctx.needs_input_grad[0]:
            d_points = torch.zeros(points.shape)
            with KERNEL_LOCK:
                points_kernel(features)(places, _flat(table), ctx.layout, grad, d_points.numpy())
        if ctx.needs_input_grad[1]:
            d_table = torch.zeros(table.shape)
            groups, flat = numba.get_num_threads(), d_table.numpy().reshape(-1)
            with KERNEL_LOCK:
                table_kernel(features)(places, ctx.layout, grad, groups, flat)
        return d_points, d_table, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().float().numpy()


def _flat(tensor: Tensor) -> np.ndarray:
    return _array(tensor).reshape(-1)


def contracted(
    points: Float[Tensor, "n 3"], centre: Float[Tensor, " 3"], radius: float
) -> Float[Tensor, "n 3"]:
    """Points of all space in the unit cube: a ball of ``radius`` fills its middle half, and the
    rest is squeezed into the shell around it (Mip-NeRF 360, Barron et al. 2022, eq. 10)."""
    local = (points - centre) / radius
    norm = local.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return ((2 - 1 / norm) * (local / norm)) / 4 + 0.5
