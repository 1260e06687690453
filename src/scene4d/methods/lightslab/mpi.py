"""MPIs: a multiplane image for each slab, composited along every pixel's ray.

A slab's multiplane image (MPI, stereo magnification, arXiv 1805.09817) has a plane of premultiplied
colour and alpha at each of its depths. A ray takes its colour from where it meets them, near to
far. Most of an MPI plane is empty: only blocks of 8 x 8 texels that any camera sees something of
are stored, 64 texels each.

On the CPU the compositing is Numba's, forward and backward; elsewhere torch's, which is also the
reference that the tests compare with.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numba import njit, prange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scene4d.methods.lightslab.slabs import SlabRays, Slabs
from scene4d.rendering.fields.plane_lookup import cell

BLOCK = 8
"""Texels of a block along an axis."""
TEXELS = BLOCK * BLOCK
CHANNELS = 4
"""Premultiplied red, green, blue, and alpha."""
OUTPUTS = 5
"""Red, green, blue, alpha, and alpha-weighted depth along the slab's axis."""
MAX_PLANES = 64
LEAST_TRANSMITTANCE = 1 / 1024
"""MPI planes behind are left out where less than this is left of a ray."""
_AT_ONCE = 1 << 17
"""Rays whose gradients on all MPI planes are held at a time: 64 MB with 32 MPI planes."""
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp"},
}


class MultiplaneImages(nn.Module):
    """The stored blocks of all slabs' MPIs."""

    stored: Tensor
    levels: Tensor
    """[blocks] uint8: blocks of level n are stored in steps 2^n times as large."""
    place: Tensor
    """[slabs, planes, down, across] int32: the number of each stored block, -1 for the others."""

    def __init__(
        self,
        *,
        stored: Bool[Tensor, "slabs planes down across"],
        texels: Float[Tensor, "blocks 8 8 4"],
        levels: Shaped[Tensor, " blocks"] | None = None,
    ) -> None:
        """``texels``, 0 to 1, and ``levels``, by default 0: block by block in the order of
        ``stored``."""
        super().__init__()
        if stored.ndim != 4 or 0 in stored.shape or stored.dtype != torch.bool:
            raise ValueError(
                f"no MPI plane has blocks of shape {list(stored.shape)}, {stored.dtype}"
            )
        if int(stored.sum()) != len(texels):
            raise ValueError(f"{int(stored.sum())} blocks are stored, {len(texels)} are given")
        if stored.shape[1] > MAX_PLANES:
            raise ValueError(f"a slab has at most {MAX_PLANES} MPI planes, not {stored.shape[1]}")
        if levels is None:
            levels = torch.zeros(len(texels), dtype=torch.uint8)
        self.register_buffer("stored", stored)
        self.register_buffer("levels", levels.to(torch.uint8))
        self.register_buffer("place", _numbered(stored), persistent=False)
        self.texels = nn.Parameter(texels.contiguous())

    @property
    def columns(self) -> int:
        """Texels of an MPI plane from left to right."""
        return self.stored.shape[3] * BLOCK

    @property
    def rows(self) -> int:
        """Texels of an MPI plane from top to bottom."""
        return self.stored.shape[2] * BLOCK

    @property
    def num_blocks(self) -> int:
        """Stored blocks."""
        return len(self.texels)

    def forward(
        self,
        coordinates: Float[Tensor, "pairs axes"],
        slab: Int[Tensor, " pairs"],
        depths: Float[Tensor, "slabs planes"],
        *,
        texels: Float[Tensor, "blocks 8 8 4"] | None = None,
    ) -> Float[Tensor, "pairs 5"]:
        """Colour, alpha and alpha-weighted ``depths`` (of the planes along their slab's axis) of
        rays at ``coordinates`` on their slab's planes, -1 to 1 from first to last texel.

        ``texels`` in place of the module's own, such as rounded ones. Differentiable in those and
        in the coordinates.
        """
        values = self.texels if texels is None else texels
        self._check(coordinates, slab, depths, values)
        if coordinates.device.type == "cpu" and values.dtype == torch.float32:
            found: Tensor = _Composite.apply(coordinates, values, slab, self.place, depths)
            return found
        return reference_composite(coordinates, values, slab, self.place, depths)

    def _check(
        self, coordinates: Tensor, slab: Tensor, depths: Tensor | None, texels: Tensor
    ) -> None:
        """What the kernels rely on: they read where they are told to."""
        slabs, planes = self.place.shape[:2]
        wrong = tuple(coordinates.shape) != (len(slab), 2 * planes)
        wrong |= depths is not None and tuple(depths.shape) != (slabs, planes)
        wrong |= tuple(texels.shape) != (self.num_blocks, BLOCK, BLOCK, CHANNELS)
        if wrong:
            shapes = [list(t.shape) for t in (coordinates, slab, depths, texels) if t is not None]
            raise ValueError(f"{slabs} slabs of {planes} MPI planes, but shapes are {shapes}")
        if len(slab) and not 0 <= int(slab.min()) <= int(slab.max()) < slabs:
            raise ValueError(f"slabs must be 0 to {slabs - 1}")

    @torch.no_grad()
    def most_seen(
        self, coordinates: Float[Tensor, "pairs axes"], slab: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " blocks"]:
        """The largest share that any texel of each block has in one of these rays."""
        self._check(coordinates, slab, None, self.texels)
        groups = numba.get_num_threads()
        most = np.zeros((groups, self.num_blocks), dtype=np.float32)
        _seen(_array(coordinates), _array(slab), _array(self.place), _array(self.texels), most)
        return torch.from_numpy(most.max(axis=0))


def seen_by(
    mpi: MultiplaneImages,
    rays: SlabRays,
    slabs: Slabs,
    *,
    texels: Float[Tensor, "blocks 8 8 4"] | None = None,
) -> Float[Tensor, "rays 5"]:
    """Colour, alpha, and alpha-weighted distance along the ray, of the ray's slabs together."""
    seen = mpi(rays.coordinates, rays.slab, 1 / slabs.disparities, texels=texels)
    along = (seen[:, 4] - seen[:, 3] * rays.start) / rays.climb
    values = torch.cat([seen[:, :4], along[:, None]], dim=1)
    empty = values.new_zeros(len(rays.coverage), OUTPUTS)
    return empty.index_add(0, rays.ray, values * rays.weight[:, None])


def _numbered(stored: Bool[Tensor, " *places"]) -> Int[Tensor, " *places"]:
    flat = stored.flatten()
    number = flat.cumsum(0, dtype=torch.int32) - 1
    return torch.where(flat, number, -1).to(torch.int32).view(stored.shape)


def reference_composite(
    coordinates: Float[Tensor, "pairs axes"],
    texels: Float[Tensor, "blocks 8 8 4"],
    slab: Int[Tensor, " pairs"],
    place: Int[Tensor, "slabs planes down across"],
    depths: Float[Tensor, "slabs planes"],
) -> Float[Tensor, "pairs 5"]:
    """:meth:`MultiplaneImages.forward` in plain torch."""
    _, planes, down, across = place.shape
    columns, rows = across * BLOCK, down * BLOCK
    x = ((coordinates[:, 0::2] + 1) * 0.5 * (columns - 1)).clamp(0, columns - 1)
    y = ((coordinates[:, 1::2] + 1) * 0.5 * (rows - 1)).clamp(0, rows - 1)
    x0, y0 = x.detach().long().clamp(max=columns - 2), y.detach().long().clamp(max=rows - 2)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    plane = torch.arange(planes, device=place.device)
    numbers = place.long()
    flat = torch.cat([texels.reshape(-1, CHANNELS), texels.new_zeros(1, CHANNELS)])

    def texel(column: Tensor, row: Tensor) -> Tensor:
        block = numbers[slab[:, None], plane, row // BLOCK, column // BLOCK]
        inside = (block * BLOCK + row % BLOCK) * BLOCK + column % BLOCK
        return flat[torch.where(block < 0, len(flat) - 1, inside)]

    upper = texel(x0, y0) * (1 - fx) + texel(x0 + 1, y0) * fx
    lower = texel(x0, y0 + 1) * (1 - fx) + texel(x0 + 1, y0 + 1) * fx
    met = numbers[slab[:, None], plane, y0 // BLOCK, x0 // BLOCK] >= 0
    values = (torch.where(met[..., None], upper * (1 - fy) + lower * fy, 0.0)).flip(1)
    alpha = values[..., 3]
    left = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
    share = torch.where(before.detach() < LEAST_TRANSMITTANCE, 0.0, before)
    far = depths[slab].flip(1)
    parts = [(share[..., None] * values).sum(dim=1), (share * alpha * far).sum(dim=1)[:, None]]
    return torch.cat(parts, dim=1)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, coordinates, texels, slab, place, depths):
        ctx.save_for_backward(coordinates, texels, slab, place, depths)
        out = np.empty((len(coordinates), OUTPUTS), dtype=np.float32)
        _forward(*map(_array, (coordinates, slab, place, texels, depths)), out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        coordinates, texels, slab, place, depths = map(_array, ctx.saved_tensors)
        groups, moves = numba.get_num_threads(), ctx.needs_input_grad[0]
        d_coordinates = np.zeros(coordinates.shape if moves else (0, 0), dtype=np.float32)
        d_texels = np.zeros(texels.shape, dtype=np.float32)
        for start in range(0, len(slab), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            rays = (coordinates[part], slab[part], place)
            d_values = np.zeros((depths.shape[1], len(rays[1]), CHANNELS), dtype=np.float32)
            d_places = d_coordinates[part]
            _backward(*rays, texels, depths, _array(grad)[part], groups, d_values, d_places)
            if ctx.needs_input_grad[1]:
                _scatter(*rays, d_values, groups, d_texels)
        moved = torch.from_numpy(d_coordinates) if moves else None
        return moved, torch.from_numpy(d_texels), None, None, None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


@njit(inline="always", **_OPTIONS)
@no_type_check
def _row(place, s, k, x, y):
    """Which texel of the table is (x, y) of an MPI plane; -1: none."""
    block = place[s, k, y >> 3, x >> 3]
    if block < 0:
        return np.int64(-1)
    return (np.int64(block) * 8 + (y & 7)) * 8 + (x & 7)


@njit(inline="always", **_OPTIONS)
@no_type_check
def _corners(place, s, k, x, y):
    """Texels of a cell: upper left, upper right, lower left, lower right; -1 where not stored."""
    r00 = _row(place, s, k, x, y)
    if (x & 7) < 7 and (y & 7) < 7:
        return r00, r00 + 1, r00 + 8, r00 + 9
    r01, r10 = _row(place, s, k, x + 1, y), _row(place, s, k, x, y + 1)
    return r00, r01, r10, _row(place, s, k, x + 1, y + 1)


@njit(inline="always", **_OPTIONS)
@no_type_check
def _texel(flat, row):
    if row < 0:
        zero = np.float32(0.0)
        return zero, zero, zero, zero
    return flat[row, 0], flat[row, 1], flat[row, 2], flat[row, 3]


@njit(inline="always", **_OPTIONS)
@no_type_check
def _mixed(flat, rows, fx, fy):
    """The four channels between a cell's corners."""
    a0, a1, a2, a3 = _texel(flat, rows[0])
    b0, b1, b2, b3 = _texel(flat, rows[1])
    c0, c1, c2, c3 = _texel(flat, rows[2])
    d0, d1, d2, d3 = _texel(flat, rows[3])
    gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
    w00, w01, w10, w11 = gx * gy, fx * gy, gx * fy, fx * fy
    return (
        w00 * a0 + w01 * b0 + w10 * c0 + w11 * d0,
        w00 * a1 + w01 * b1 + w10 * c1 + w11 * d1,
        w00 * a2 + w01 * b2 + w10 * c2 + w11 * d2,
        w00 * a3 + w01 * b3 + w10 * c3 + w11 * d3,
    )


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _forward(coordinates, slab, place, texels, depths, out):
    planes, rows, columns = place.shape[1], place.shape[2] * 8, place.shape[3] * 8
    flat = texels.reshape(-1, 4)
    for n in prange(len(slab)):
        s = slab[n]
        left = np.float32(1.0)
        red = green = blue = depth = np.float32(0.0)
        for k in range(planes - 1, -1, -1):
            x, fx, _ = cell(coordinates[n, 2 * k], columns)
            y, fy, _ = cell(coordinates[n, 2 * k + 1], rows)
            if place[s, k, y >> 3, x >> 3] < 0:
                continue
            r, g, b, a = _mixed(flat, _corners(place, s, k, x, y), fx, fy)
            red += left * r
            green += left * g
            blue += left * b
            depth += left * a * depths[s, k]
            left *= np.float32(1.0) - a
            if left < np.float32(1 / 1024):
                break
        out[n, 0], out[n, 1], out[n, 2] = red, green, blue
        out[n, 3], out[n, 4] = np.float32(1.0) - left, depth


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _backward(coordinates, slab, place, texels, depths, grad, groups, d_values, d_coordinates):
    """Gradients of each ray's values on the MPIs, and of its coordinates if they are wanted."""
    planes, rows, columns = place.shape[1], place.shape[2] * 8, place.shape[3] * 8
    flat = texels.reshape(-1, 4)
    count = len(slab)
    for q in prange(groups):
        met = np.empty((64, 5), dtype=np.float32)
        for n in range(count * q // groups, count * (q + 1) // groups):
            s = slab[n]
            left = np.float32(1.0)
            last = planes
            for k in range(planes - 1, -1, -1):
                x, fx, _ = cell(coordinates[n, 2 * k], columns)
                y, fy, _ = cell(coordinates[n, 2 * k + 1], rows)
                last = k
                met[k, 4] = np.float32(-1.0)
                if place[s, k, y >> 3, x >> 3] < 0:
                    continue
                r, g, b, a = _mixed(flat, _corners(place, s, k, x, y), fx, fy)
                met[k, 0], met[k, 1], met[k, 2], met[k, 3], met[k, 4] = r, g, b, a, left
                left *= np.float32(1.0) - a
                if left < np.float32(1 / 1024):
                    break
            # What lies behind, as if nothing were in front of it.
            red = green = blue = alpha = depth = np.float32(0.0)
            g0, g1, g2, g3, g4 = grad[n, 0], grad[n, 1], grad[n, 2], grad[n, 3], grad[n, 4]
            for k in range(last, planes):
                left = met[k, 4]
                if left < np.float32(0.0):
                    continue
                a, z = met[k, 3], depths[s, k]
                hidden = g0 * red + g1 * green + g2 * blue
                d3 = left * (g3 * (np.float32(1.0) - alpha) + g4 * (z - depth) - hidden)
                d0, d1, d2 = left * g0, left * g1, left * g2
                d_values[k, n, 0], d_values[k, n, 1] = d0, d1
                d_values[k, n, 2], d_values[k, n, 3] = d2, d3
                if len(d_coordinates) > 0:
                    x, fx, sx = cell(coordinates[n, 2 * k], columns)
                    y, fy, sy = cell(coordinates[n, 2 * k + 1], rows)
                    corners = _corners(place, s, k, x, y)
                    one, no = np.float32(1.0), np.float32(0.0)
                    e0, e1, e2, e3 = _mixed(flat, corners, one, fy)
                    w0, w1, w2, w3 = _mixed(flat, corners, no, fy)
                    dx = d0 * (e0 - w0) + d1 * (e1 - w1) + d2 * (e2 - w2) + d3 * (e3 - w3)
                    d_coordinates[n, 2 * k] = sx * dx
                    e0, e1, e2, e3 = _mixed(flat, corners, fx, one)
                    w0, w1, w2, w3 = _mixed(flat, corners, fx, no)
                    dy = d0 * (e0 - w0) + d1 * (e1 - w1) + d2 * (e2 - w2) + d3 * (e3 - w3)
                    d_coordinates[n, 2 * k + 1] = sy * dy
                behind = np.float32(1.0) - a
                red = met[k, 0] + behind * red
                green = met[k, 1] + behind * green
                blue = met[k, 2] + behind * blue
                alpha = a + behind * alpha
                depth = a * z + behind * depth


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _scatter(coordinates, slab, place, d_values, groups, d_texels):
    """Adds the values' gradients to the texels that they are mixed of.

    Each thread has planes of its own, whose texels never meet: no races, and every sum is taken in
    the order of the rays, however many threads there are.
    """
    planes, rows, columns = place.shape[1], place.shape[2] * 8, place.shape[3] * 8
    flat = d_texels.reshape(-1, 4)
    for q in prange(groups):
        for k in range(q, planes, groups):
            for n in range(len(slab)):
                d0, d1, d2, d3 = (
                    d_values[k, n, 0], d_values[k, n, 1], d_values[k, n, 2], d_values[k, n, 3]
                )  # fmt: skip
                if d0 == 0 and d1 == 0 and d2 == 0 and d3 == 0:
                    continue
                x, fx, _ = cell(coordinates[n, 2 * k], columns)
                y, fy, _ = cell(coordinates[n, 2 * k + 1], rows)
                corners = _corners(place, slab[n], k, x, y)
                gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
                weights = (gx * gy, fx * gy, gx * fy, fx * fy)
                for c in range(4):
                    row, w = corners[c], weights[c]
                    if row >= 0:
                        flat[row, 0] += w * d0
                        flat[row, 1] += w * d1
                        flat[row, 2] += w * d2
                        flat[row, 3] += w * d3


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _seen(coordinates, slab, place, texels, most):
    """The largest share of each block in a ray, one row of ``most`` for each thread."""
    planes, rows, columns = place.shape[1], place.shape[2] * 8, place.shape[3] * 8
    flat = texels.reshape(-1, 4)
    count, groups = len(slab), len(most)
    for q in prange(groups):
        for n in range(count * q // groups, count * (q + 1) // groups):
            s = slab[n]
            left = np.float32(1.0)
            for k in range(planes - 1, -1, -1):
                x, fx, _ = cell(coordinates[n, 2 * k], columns)
                y, fy, _ = cell(coordinates[n, 2 * k + 1], rows)
                if place[s, k, y >> 3, x >> 3] < 0:
                    continue
                corners = _corners(place, s, k, x, y)
                _, _, _, a = _mixed(flat, corners, fx, fy)
                for c in range(4):
                    if corners[c] >= 0:
                        block = corners[c] >> 6
                        most[q, block] = max(most[q, block], left * a)
                left *= np.float32(1.0) - a
                if left < np.float32(1 / 1024):
                    break
