"""The planes' images of all slabs as look-up tables, for runtimes that read tensors alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.mpi import BLOCK

CELL = BLOCK + 1
"""Texels of a block's cell in the atlas: its own, and its right, lower and corner neighbours' next
ones, so that one bilinear look-up needs no other cell."""
CELLS_ACROSS = 256


@dataclass(frozen=True, kw_only=True)
class MpiTables:
    """The MPIs of all slabs as look-ups. Cell 0 of the atlas is empty."""

    cells: np.ndarray
    """[cells, 9, 9, 4] uint8, in 1/255."""
    index: np.ndarray
    """[places] int32: the cell of every place of a block, in the order slab, plane, row, column."""
    down: int
    """Blocks of an MPI plane from top to bottom."""
    across: int
    disparities: np.ndarray
    """[slabs, planes] float32, farthest first."""
    low: np.ndarray
    """[slabs, planes, 2]: where an MPI plane starts, as points on its plane in perspective."""
    blocks: np.ndarray
    """[slabs, planes, 2]: blocks for a unit of those."""

    def start(self, slab: int, plane: int) -> int:
        """The first place of an MPI plane."""
        return (slab * self.disparities.shape[1] + plane) * self.down * self.across

    def column(self, name: str, number: int) -> np.ndarray:
        """[slabs] float32: one of ``disparities``, ``low`` or ``blocks``, the latter two axis by
        axis, or of ``starts``: the place where a plane's blocks start."""
        if name == "starts":
            found = [self.start(slab, number) for slab in range(len(self.disparities))]
            return np.array(found, dtype=np.float32)
        values = getattr(self, name)
        return values.reshape(len(values), -1)[:, number].astype(np.float32)

    @property
    def last(self) -> tuple[float, float]:
        """An MPI plane's last texel to the right and downwards, in blocks."""
        return self.across - 1 / BLOCK, self.down - 1 / BLOCK

    def atlas(self) -> np.ndarray:
        """[1, 4, rows, columns] uint8: cells row by row, CELLS_ACROSS of them in each."""
        rows = -(-len(self.cells) // CELLS_ACROSS)
        padded = np.zeros((rows * CELLS_ACROSS, CELL, CELL, 4), dtype=np.uint8)
        padded[: len(self.cells)] = self.cells
        grid = padded.reshape(rows, CELLS_ACROSS, CELL, CELL, 4).transpose(4, 0, 2, 1, 3)
        return np.ascontiguousarray(grid.reshape(1, 4, rows * CELL, CELLS_ACROSS * CELL))

    def corners(self) -> np.ndarray:
        """[cells, 2] float32: each one's first texel in the atlas, -1 to 1 from first to last."""
        number = np.arange(len(self.cells))
        place = np.stack([number % CELLS_ACROSS, number // CELLS_ACROSS], axis=1) * CELL
        return (place * self.steps() - 1).astype(np.float32)

    def steps(self) -> np.ndarray:
        """[2] float64: a texel of the atlas, across and down, in those units."""
        rows = -(-len(self.cells) // CELLS_ACROSS)
        return 2 / (np.array([CELLS_ACROSS, rows]) * CELL - 1)


@torch.no_grad()
def mpi_tables(scene: LightSlabs) -> MpiTables:
    """The tables of a scene that has MPIs, whose values are kept in 8 bits."""
    mpi = scene.mpi
    assert mpi is not None
    texels = scene.shown_texels().detach().cpu()
    values = torch.zeros(1 + len(texels), BLOCK, BLOCK, 4, dtype=torch.uint8)
    values[1:] = (texels * 255 + 0.5).floor().clamp(0, 255).to(torch.uint8)
    index = (mpi.place.cpu() + 1).long()
    right, below = torch.zeros_like(index), torch.zeros_like(index)
    corner = torch.zeros_like(index)
    right[..., :-1], below[..., :-1, :] = index[..., 1:], index[..., 1:, :]
    corner[..., :-1, :-1] = index[..., 1:, 1:]
    stored = index > 0
    cells = torch.zeros(1 + len(texels), CELL, CELL, 4, dtype=torch.uint8)
    cells[:, :BLOCK, :BLOCK] = values
    cells[1:, :BLOCK, BLOCK] = values[right[stored]][:, :, 0]
    cells[1:, BLOCK, :BLOCK] = values[below[stored]][:, 0]
    cells[1:, BLOCK, BLOCK] = values[corner[stored]][:, 0, 0]
    slabs = scene.slabs
    size = torch.tensor([mpi.columns - 1, mpi.rows - 1]) / BLOCK
    return MpiTables(
        cells=cells.numpy(),
        index=index.flatten().int().numpy(),
        down=index.shape[2],
        across=index.shape[3],
        disparities=slabs.disparities.cpu().numpy(),
        low=slabs.low.cpu().numpy(),
        blocks=(size / (slabs.high - slabs.low).cpu()).numpy(),
    )
