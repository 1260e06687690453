"""An occupancy grid: which parts of rays are worth a look, from densities seen in training.

Instant-NGP's (Mueller et al. 2022, appendix E.2), with three differences. It has two media: a
static one, and a dynamic one whose grid has a layer for each stretch of time; each sample says
which of them are there. A cell counts as empty only if its neighbours are so, too: a look at one
place of a cell misses what is thinner. And cells that nobody looked at yet are unknown, not empty:
they are sampled."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numba import njit, prange
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from scene4d.rendering.fields.volume import RaySamples
from scene4d.rendering.threads import KERNEL_LOCK

STATIC, DYNAMIC = 1, 2
"""Bits of a sample: which media may be there."""
_UNKNOWN = -1.0
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


class OccupancyGrid(nn.Module):
    """Densities in the cells of the unit cube of contracted space; no parameters, only buffers."""

    static: Tensor
    dynamic: Tensor

    def __init__(self, *, cells: int, dynamic_cells: int, layers: int, least: float) -> None:
        """``cells``, ``dynamic_cells``: along each axis. ``least``: the density that a medium has
        at least where it counts as there, per unit of length."""
        super().__init__()
        self.least = least
        self.register_buffer("static", torch.full((cells,) * 3, _UNKNOWN))
        self.register_buffer("dynamic", torch.full((layers, *(dynamic_cells,) * 3), _UNKNOWN))
        self._grown: tuple[list[tuple[int, int]], Tensor, Tensor] | None = None

    def grown(self, medium: int) -> Tensor:
        """The largest density in each cell and the cells around it, and in the layers before and
        after; below 0 in cells that nobody looked at."""
        state = [(grid.data_ptr(), grid._version) for grid in (self.static, self.dynamic)]
        if self._grown is None or self._grown[0] != state:
            self._grown = (state, _grown(self.static[None])[0], _grown(self.dynamic))
        return self._grown[1] if medium == STATIC else self._grown[2]

    def layer(self, time: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The layer of times in 0..1; those outside belong to the first and the last."""
        layers = len(self.dynamic)
        return (time * layers).nan_to_num(0.0).long().clamp(0, layers - 1)

    @torch.no_grad()
    def march(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        time: Float[Tensor, " rays"],
        edges: Float[Tensor, " edges"],
        *,
        phase: float,
        media: int = STATIC | DYNAMIC,
        explore: int = 0,
    ) -> tuple[RaySamples, UInt8[Tensor, " n"]]:
        """The parts of rays, between ``edges``, in which one of ``media`` may be: each sample lies
        at ``phase`` of its part; and which media these are. ``explore``: one in so many parts is
        sampled, whatever is there; 0: none.

        Origins and directions are in units of the ball that the contraction leaves as it is, with
        its centre at 0; so is what is stored: density times the ball's radius."""
        device = origins.device
        rays = tuple(_array(t) for t in (origins, directions, self.layer(time)))
        grids = (_array(self.grown(STATIC)), _array(self.grown(DYNAMIC)))
        places = _array(edges)
        parts = np.empty((len(origins), len(places) - 1), np.uint16)
        kinds = np.empty(parts.shape, np.uint8)
        counts = np.empty(len(origins), np.int64)
        # Which ones moves with the phase, faster than it does.
        exploring = (explore, int(phase * 997 % 1 * explore))
        wanted = (media, np.float32(self.least), *exploring)
        with KERNEL_LOCK:
            _march(rays, grids, places, np.float32(phase), wanted, parts, kinds, counts)
        firsts = np.concatenate([[0], np.cumsum(counts)])
        middles, widths = np.empty((2, int(firsts[-1])), np.float32)
        which = np.empty(int(firsts[-1]), np.uint8)
        with KERNEL_LOCK:
            _pack(parts, kinds, firsts, places, np.float32(phase), middles, widths, which)
        samples = RaySamples(
            firsts=torch.from_numpy(firsts).to(device),
            middles=torch.from_numpy(middles).to(device),
            widths=torch.from_numpy(widths).to(device),
        )
        return samples, torch.from_numpy(which).to(device)

    def cells_to_look_at(
        self, medium: int, share: float, generator: torch.Generator, *, turn: int = 0
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 4"]]:
        """Some cells of a medium's grid, and a random place in each: (x, y, z, time) in the unit
        cube. 1 / ``share`` turns one after the other are all cells. Cells outside of contracted
        space are left out."""
        grid = self.static[None] if medium == STATIC else self.dynamic
        layers, cells = len(grid), grid.shape[1]
        every = max(1, round(1 / share))
        index = torch.arange(turn % every, grid.numel(), every)
        within = torch.rand(len(index), 4, generator=generator)
        places = torch.stack([index // cells**2 % cells, index // cells % cells, index % cells], 1)
        unit = (places + within[:, :3]) / cells
        reach = 0.5 + 0.9 / cells  # half a cell's diagonal beyond the ball
        inside = (unit - 0.5).norm(dim=1) < reach
        time = (index // cells**3 + within[:, 3:].squeeze(1)) / layers
        found = torch.cat([unit, time[:, None]], dim=1)[inside]
        device = grid.device
        return index[inside].to(device), found.to(device)

    @torch.no_grad()
    def update(
        self, medium: int, cells: Int[Tensor, " n"], density: Float[Tensor, " n"], *, decay: float
    ) -> None:
        """Takes densities that were found in cells; old ones fade by ``decay`` at a look."""
        flat = (self.static if medium == STATIC else self.dynamic).view(-1)
        old = flat[cells]
        flat[cells] = torch.where(old >= 0, old * decay, 0.0)
        # A cell that was drawn twice takes the larger: the order of writes does not matter.
        flat.scatter_reduce_(0, cells, density.to(flat.dtype), "amax")

    def share(self, medium: int) -> float:
        """The part of a medium's cells in contracted space that are sampled."""
        grid = self.grown(medium)
        sides = (torch.arange(grid.shape[-1]) + 0.5) / grid.shape[-1] - 0.5
        x, y, z = torch.meshgrid(sides, sides, sides, indexing="ij")
        inside = (x * x + y * y + z * z < 0.25).to(grid.device)
        return float(((grid < 0) | (grid > self.least))[..., inside].float().mean())


def _grown(grid: Float[Tensor, "layers n n n"]) -> Float[Tensor, "layers n n n"]:
    around = max_pool3d(grid[:, None], 3, stride=1, padding=1)[:, 0]
    late, early = around.clone(), around.clone()
    late[1:], early[:-1] = around[:-1], around[1:]
    return torch.where(grid < 0, grid, torch.maximum(around, torch.maximum(late, early)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().numpy()


@njit(**_OPTIONS)
@no_type_check
def _cell_of(x, y, z, cells):
    """The cell of a place in the units of the ball; NaN has the first. Contracted as in
    ``hash_grid.contracted``."""
    norm = np.float32(np.sqrt(x * x + y * y + z * z))
    scale = np.float32(0.25)
    if norm > np.float32(1.0):
        scale = (np.float32(2.0) - np.float32(1.0) / norm) / norm * np.float32(0.25)
    half, side = np.float32(0.5), np.float32(cells)
    u, v, w = (x * scale + half) * side, (y * scale + half) * side, (z * scale + half) * side
    i = min(np.int64(u), cells - 1) if u >= np.float32(0.0) else np.int64(0)
    j = min(np.int64(v), cells - 1) if v >= np.float32(0.0) else np.int64(0)
    k = min(np.int64(w), cells - 1) if w >= np.float32(0.0) else np.int64(0)
    return max(i, 0), max(j, 0), max(k, 0)


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _march(rays, grids, edges, phase, wanted, parts, kinds, counts):
    origins, directions, layers = rays
    static, dynamic = grids
    media, least, explore, offset = wanted
    fine = edges[1] - edges[0]
    for r in prange(origins.shape[0]):
        kept = 0
        for n in range(edges.shape[0] - 1):
            width = edges[n + 1] - edges[n]
            t = edges[n] + phase * width
            x = origins[r, 0] + t * directions[r, 0]
            y = origins[r, 1] + t * directions[r, 1]
            z = origins[r, 2] + t * directions[r, 2]
            kind = 0
            i, j, k = _cell_of(x, y, z, static.shape[0])
            stored = static[i, j, k]
            if stored < 0 or stored * width > least * fine:
                kind = 1
            if media & 2:
                i, j, k = _cell_of(x, y, z, dynamic.shape[1])
                seen = dynamic[layers[r], i, j, k]
                if seen < 0 or seen * width > least * fine:
                    kind |= 2
            if explore > 0 and (n + offset) % explore == 0:
                kind = 3
            kind &= media
            if kind:
                parts[r, kept], kinds[r, kept] = n, kind
                kept += 1
        counts[r] = kept


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _pack(parts, kinds, firsts, edges, phase, middles, widths, which):
    for r in prange(parts.shape[0]):
        for m in range(firsts[r + 1] - firsts[r]):
            n, k = parts[r, m], firsts[r] + m
            widths[k] = edges[n + 1] - edges[n]
            middles[k] = edges[n] + phase * widths[k]
            which[k] = kinds[r, m]
