"""Features of rays or points, looked up on planes: grids over two of their coordinates each.

LightSpeed (arXiv 2310.16832) reads six planes of the four coordinates of a ray, at several
resolutions, and concatenates; triplanes read three planes of the three coordinates of a point.
``reference_lookup`` is ``torch.nn.functional.grid_sample`` (bilinear, border, align_corners=True:
the one mode that every phone runtime has); :func:`lookup_planes` runs the same in Numba on the CPU.

On 2 cores, shared with other work, the kernel is 5.0 (1M rays) to 7.0 (100k) times as fast as
grid_sample, forward and backward together, with gradients of planes of 4 features; with those of
the rays too, 2.5 to 5.9 times (python benchmarks/light_slab.py lookup).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

LIGHT_SLAB_AXES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""xy, xu, xv, yu, yv, uv of rays (x, y, u, v)."""
TRIPLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""xy, xz, yz of points (x, y, z)."""
# NaN must stay a value that comparisons see, so no "nnan" among the liberties.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp"},
}
_U1, _U2, _U3 = np.uint64(1), np.uint64(2), np.uint64(3)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A grid over two coordinates."""

    axes: tuple[int, int]
    """The coordinate along its columns, and the one along its rows."""
    columns: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class FeaturePlanes:
    """Planes whose features are concatenated, and where their texels lie in one table.

    The table is [texels, features]: plane after plane; in each, slab after slab, then row by row.
    """

    planes: tuple[Plane, ...]
    features: int
    """Of one texel, the same for all planes."""
    slabs: int = 1
    """Independent copies of all planes; each ray reads the one of its slab."""

    def __post_init__(self) -> None:
        if self.features < 1 or self.slabs < 1:
            raise ValueError(f"planes need features and slabs, got {self.features}, {self.slabs}")
        for plane in self.planes:
            if plane.columns < 1 or plane.rows < 1 or min(plane.axes) < 0:
                raise ValueError(f"not a plane: {plane}")

    @classmethod
    def of_levels(
        cls,
        axes: Sequence[tuple[int, int]],
        sizes: Sequence[Sequence[int]],
        *,
        features: int,
        slabs: int = 1,
    ) -> FeaturePlanes:
        """Every pair of ``axes`` at every level; ``sizes[level][axis]`` texels along an axis."""
        planes = tuple(
            Plane(axes=(a, b), columns=size[a], rows=size[b]) for size in sizes for a, b in axes
        )
        return cls(planes=planes, features=features, slabs=slabs)

    @property
    def width(self) -> int:
        """Features of a ray: all planes together, in their order."""
        return len(self.planes) * self.features

    @property
    def starts(self) -> list[int]:
        """First texel of each plane in the table."""
        counts = [self.slabs * p.columns * p.rows for p in self.planes]
        return np.concatenate([[0], np.cumsum(counts)])[:-1].astype(int).tolist()

    @property
    def texels(self) -> int:
        """Rows of the table."""
        return self.slabs * sum(p.columns * p.rows for p in self.planes)

    def grid(
        self, table: Float[Tensor, "texels features"], index: int
    ) -> Float[Tensor, "slabs rows columns features"]:
        """The part of the table that holds plane ``index``: a view, of all its slabs."""
        plane, start = self.planes[index], self.starts[index]
        count = self.slabs * plane.rows * plane.columns
        return table[start : start + count].view(self.slabs, plane.rows, plane.columns, -1)

    def layout(self) -> np.ndarray:
        """[planes, 5] int64: axis of the columns, axis of the rows, columns, rows, first texel."""
        rows = [
            (*p.axes, p.columns, p.rows, start)
            for p, start in zip(self.planes, self.starts, strict=True)
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, 5)


def lookup_planes(
    coordinates: Float[Tensor, "rays axes"],
    table: Float[Tensor, "texels features"],
    planes: FeaturePlanes,
    slab: Int[Tensor, " rays"] | None = None,
) -> Float[Tensor, "rays width"]:
    """Features at ``coordinates`` in [-1, 1], whose ends are the centres of the outermost texels;
    beyond them, the border's. Plane after plane, bilinear within each.

    ``slab`` is each ray's slab (0 where None); a ray of two slabs is passed twice. Differentiable
    once in the table (which may be quantised on the way) and in the coordinates, whose gradient is
    0 on and beyond the border. NaN reads the first texel, as grid_sample has it, and gets no
    gradient. Raises ValueError for shapes and slabs that do not fit.
    """
    _check(coordinates, table, planes, slab)
    kernel = table.device.type == "cpu" and table.dtype == coordinates.dtype == torch.float32
    if not kernel:
        return reference_lookup(coordinates, table, planes, slab)
    if slab is None:
        slab = torch.zeros(len(coordinates), dtype=torch.int64)
    return _Lookup.apply(coordinates, table, planes, slab.long())


def reference_lookup(
    coordinates: Float[Tensor, "rays axes"],
    table: Float[Tensor, "texels features"],
    planes: FeaturePlanes,
    slab: Int[Tensor, " rays"] | None = None,
) -> Float[Tensor, "rays width"]:
    """The definition of :func:`lookup_planes`: grid_sample, plane by plane, slab by slab."""
    _check(coordinates, table, planes, slab)
    out = coordinates.new_zeros(len(coordinates), planes.width, dtype=table.dtype)
    if slab is None:
        slab = torch.zeros(len(coordinates), dtype=torch.int64, device=coordinates.device)
    for s in range(planes.slabs):
        rays = torch.nonzero(slab == s)[:, 0]
        places = coordinates[rays]
        features = [out.new_zeros(len(places), 0)]
        for index, plane in enumerate(planes.planes):
            grid = planes.grid(table, index)[s].permute(2, 0, 1)[None]
            where = places[:, list(plane.axes)][None, None]
            found = F.grid_sample(
                grid, where, mode="bilinear", padding_mode="border", align_corners=True
            )
            features.append(found[0, :, 0].T)
        out = out.index_copy(0, rays, torch.cat(features, dim=1))
    return out


def _check(coordinates: Tensor, table: Tensor, planes: FeaturePlanes, slab: Tensor | None) -> None:
    if tuple(table.shape) != (planes.texels, planes.features):
        raise ValueError(
            f"the table has shape {tuple(table.shape)}, the planes need "
            f"({planes.texels}, {planes.features})"
        )
    used = max((max(plane.axes) for plane in planes.planes), default=-1)
    if used >= coordinates.shape[1]:
        raise ValueError(f"the planes read coordinate {used} of {coordinates.shape[1]}")
    if slab is None or slab.numel() == 0:
        return
    if len(slab) != len(coordinates):
        raise ValueError(f"{len(slab)} slabs for {len(coordinates)} rays")
    if int(slab.min()) < 0 or int(slab.max()) >= planes.slabs:
        raise ValueError(f"slabs must be 0 to {planes.slabs - 1}")


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, coordinates, table, planes, slab):
        ctx.planes = planes
        ctx.save_for_backward(coordinates, table, slab)
        out = np.empty((len(coordinates), planes.width), dtype=np.float32)
        forward = _forward_kernel(planes.features)
        flat = out.reshape(-1)
        forward(_array(coordinates), _array(table).reshape(-1), _array(slab), planes.layout(), flat)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        coordinates, table, slab = ctx.saved_tensors
        layout, grad = ctx.planes.layout(), _array(grad)
        places, slabs = _array(coordinates), _array(slab)
        features = ctx.planes.features
        d_coordinates = d_table = None
        if ctx.needs_input_grad[0]:
            d_coordinates = torch.zeros(coordinates.shape)
            into = d_coordinates.numpy()
            _coordinates_kernel(features)(places, _array(table), slabs, layout, grad, into)
        if ctx.needs_input_grad[1]:
            d_table = torch.zeros(table.shape)
            flat = d_table.numpy().reshape(-1)
            backward = _backward_kernel(features)
            backward(places, slabs, layout, grad.reshape(-1), numba.get_num_threads(), flat)
        return d_coordinates, d_table, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@njit(**_OPTIONS)
@no_type_check
def cell(value, size):
    """Lower texel, fraction, and the fraction's derivative: 0 on and beyond the border."""
    last = np.float32(size - 1)
    scale = np.float32(0.5) * last
    scaled = (value + np.float32(1.0)) * scale
    if not scaled > np.float32(0.0):  # also NaN, which has no texel
        return np.int64(0), np.float32(0.0), np.float32(0.0)
    if scaled >= last:
        return np.int64(max(size - 2, 0)), np.float32(1.0 if size > 1 else 0.0), np.float32(0.0)
    low = np.int64(scaled)
    return low, scaled - np.float32(low), scale


@njit(**_OPTIONS)
@no_type_check
def _corners(x, y, slab, columns, rows, start):
    """Rows of the table: upper left, upper right, lower left, lower right."""
    here = start + (slab * rows + y) * columns + x
    below = here + (columns if rows > 1 else 0)
    step = 1 if columns > 1 else 0
    return here, here + step, below, below + step


@njit(inline="always", **_OPTIONS)
@no_type_check
def _four(values, i):
    """Unsigned indices: they cannot count from the end, which would cost a test each."""
    return values[i], values[i + _U1], values[i + _U2], values[i + _U3]


@njit(inline="always", **_OPTIONS)
@no_type_check
def _add_four(values, i, weight, g0, g1, g2, g3):
    v0, v1, v2, v3 = _four(values, i)
    v0, v1, v2, v3 = v0 + weight * g0, v1 + weight * g1, v2 + weight * g2, v3 + weight * g3
    values[i], values[i + _U1], values[i + _U2], values[i + _U3] = v0, v1, v2, v3


# Each kernel is compiled for one number of features, a constant that the compiler unrolls. Features
# are read four at a time before any is written: otherwise the compiler, which cannot know that
# arrays do not overlap, would make no vectors of them.


@cache
def _forward_kernel(features: int) -> Any:
    """The look-up."""
    in_fours = features // 4 * 4

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def forward(coordinates, table, slab, layout, out):
        count = layout.shape[0]
        for n in prange(coordinates.shape[0]):
            for p in range(count):
                a, b, columns, rows, start = layout[p]
                x, fx, _ = cell(coordinates[n, a], columns)
                y, fy, _ = cell(coordinates[n, b], rows)
                r00, r01, r10, r11 = _corners(x, y, slab[n], columns, rows, start)
                i00, i01 = np.uint64(r00 * features), np.uint64(r01 * features)
                i10, i11 = np.uint64(r10 * features), np.uint64(r11 * features)
                gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
                w00, w01, w10, w11 = gx * gy, fx * gy, gx * fy, fx * fy
                first = np.uint64((n * count + p) * features)
                for four in range(0, in_fours, 4):
                    f = np.uint64(four)
                    a0, a1, a2, a3 = _four(table, i00 + f)
                    b0, b1, b2, b3 = _four(table, i01 + f)
                    c0, c1, c2, c3 = _four(table, i10 + f)
                    d0, d1, d2, d3 = _four(table, i11 + f)
                    v0 = w00 * a0 + w01 * b0 + w10 * c0 + w11 * d0
                    v1 = w00 * a1 + w01 * b1 + w10 * c1 + w11 * d1
                    v2 = w00 * a2 + w01 * b2 + w10 * c2 + w11 * d2
                    v3 = w00 * a3 + w01 * b3 + w10 * c3 + w11 * d3
                    k = first + f
                    out[k], out[k + _U1], out[k + _U2], out[k + _U3] = v0, v1, v2, v3
                for one in range(in_fours, features):
                    f = np.uint64(one)
                    upper = w00 * table[i00 + f] + w01 * table[i01 + f]
                    out[first + f] = upper + w10 * table[i10 + f] + w11 * table[i11 + f]

    return forward


@cache
def _backward_kernel(features: int) -> Any:
    """The look-up's gradient in the table."""
    in_fours = features // 4 * 4

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def backward(coordinates, slab, layout, grad, groups, d_table):
        count = layout.shape[0]
        # Each thread has planes of its own, whose texels never meet: no races, and every sum is
        # taken in the order of the rays, however many threads there are.
        for q in prange(groups):
            for n in range(coordinates.shape[0]):
                for p in range(count * q // groups, count * (q + 1) // groups):
                    a, b, columns, rows, start = layout[p]
                    x, fx, _ = cell(coordinates[n, a], columns)
                    y, fy, _ = cell(coordinates[n, b], rows)
                    r00, r01, r10, r11 = _corners(x, y, slab[n], columns, rows, start)
                    i00, i01 = np.uint64(r00 * features), np.uint64(r01 * features)
                    i10, i11 = np.uint64(r10 * features), np.uint64(r11 * features)
                    gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
                    w00, w01, w10, w11 = gx * gy, fx * gy, gx * fy, fx * fy
                    first = np.uint64((n * count + p) * features)
                    for four in range(0, in_fours, 4):
                        f = np.uint64(four)
                        g0, g1, g2, g3 = _four(grad, first + f)
                        _add_four(d_table, i00 + f, w00, g0, g1, g2, g3)
                        _add_four(d_table, i01 + f, w01, g0, g1, g2, g3)
                        _add_four(d_table, i10 + f, w10, g0, g1, g2, g3)
                        _add_four(d_table, i11 + f, w11, g0, g1, g2, g3)
                    for one in range(in_fours, features):
                        f = np.uint64(one)
                        g = grad[first + f]
                        d_table[i00 + f] += w00 * g
                        d_table[i01 + f] += w01 * g
                        d_table[i10 + f] += w10 * g
                        d_table[i11 + f] += w11 * g

    return backward


@cache
def _coordinates_kernel(features: int) -> Any:
    """The look-up's gradient in the coordinates."""

    @njit(parallel=True, **_OPTIONS)
    @no_type_check
    def backward_coordinates(coordinates, table, slab, layout, grad, d_coordinates):
        for n in prange(coordinates.shape[0]):
            for p in range(layout.shape[0]):
                a, b, columns, rows, start = layout[p]
                x, fx, sx = cell(coordinates[n, a], columns)
                y, fy, sy = cell(coordinates[n, b], rows)
                r00, r01, r10, r11 = _corners(x, y, slab[n], columns, rows, start)
                d00 = d01 = d10 = d11 = np.float32(0.0)
                for f in range(features):
                    g = grad[n, p * features + f]
                    d00 += g * table[r00, f]
                    d01 += g * table[r01, f]
                    d10 += g * table[r10, f]
                    d11 += g * table[r11, f]
                gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
                d_coordinates[n, a] += sx * ((d01 - d00) * gy + (d11 - d10) * fy)
                d_coordinates[n, b] += sy * ((d10 - d00) * gx + (d11 - d01) * fx)

    return backward_coordinates
