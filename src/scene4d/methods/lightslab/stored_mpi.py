"""MPIs as a bundle keeps them: with rounded frequencies; and about how much they take."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from scene4d.methods.lightslab.block_transform import frequency_codes, steps_for, texel_codes
from scene4d.methods.lightslab.mpi import MultiplaneImages

FREQUENCIES = 49
"""Of 64, the lowest ones: the others cost a reader more memory than they make pictures better."""
FINEST, COARSEST = 3.0, 64.0
"""Steps between which one is looked for, in 1/255."""
_SAMPLE = 8192
"""Blocks by which sizes are told."""
_KEPT_FOR = 16
"""Changes of the texels after which training rounds them anew."""
_ACTIVITY = np.array([1, 2, 4, 6, 9, 13, 20, 32, 60])
"""Between sums of magnitudes before a value, by which the entropy coder expects it."""
_MOST_CODE = 40
_ESCAPE_BITS = 6.0


def as_stored(
    texels: Float[Tensor, "blocks 8 8 4"], levels: Shaped[Tensor, " blocks"], steps: np.ndarray
) -> Float[Tensor, "blocks 8 8 4"]:
    """What a reader finds of ``texels``, 0 to 1, whose frequencies are in ``steps`` (as of
    ``steps_for``) times 2^``levels``."""
    blocks, coarse = texels.detach().cpu().numpy(), levels.cpu().numpy()
    found = texel_codes(frequency_codes(blocks, coarse, steps), coarse, steps)
    return (torch.from_numpy(found).to(texels.dtype) / 255).to(texels.device)


class RoundedTexels:
    """Texels as stored, with the gradient of the texels themselves (straight-through).

    While training, their errors are those of at most 16 changes ago: rounding takes longer than a
    step does.
    """

    def __init__(self) -> None:
        self._version = -1
        self._steps = np.zeros((0, 0), dtype=np.int64)
        self._error: Tensor | None = None

    @torch.no_grad()
    def refresh(self, mpi: MultiplaneImages, steps: np.ndarray, *, exactly: bool = False) -> None:
        """Rounds anew where the texels (``exactly``: in any way) or the steps have changed."""
        texels = mpi.texels
        recent = 0 <= texels._version - self._version <= (0 if exactly else _KEPT_FOR)
        if self._error is None or not recent or not np.array_equal(steps, self._steps):
            self._error = as_stored(texels, mpi.levels, steps) - texels
            self._version, self._steps = texels._version, steps

    def of(self, mpi: MultiplaneImages) -> Float[Tensor, "blocks 8 8 4"]:
        """``mpi``' texels with the errors of the last :meth:`refresh`."""
        assert self._error is not None
        found: Tensor = mpi.texels + self._error.to(mpi.texels.device)
        return found


def fitting_steps(mpi: MultiplaneImages, most_bytes: float) -> np.ndarray:
    """[4, frequencies] integers: the finest steps at which the blocks take about ``most_bytes`` of
    a bundle, between those of FINEST and COARSEST."""
    low, high = FINEST, COARSEST
    if estimated_bytes(mpi, steps_for(low, FREQUENCIES)) <= most_bytes:
        return steps_for(low, FREQUENCIES)
    for _ in range(7):
        middle = (low * high) ** 0.5
        if estimated_bytes(mpi, steps_for(middle, FREQUENCIES)) <= most_bytes:
            high = middle
        else:
            low = middle
    return steps_for(high, FREQUENCIES)


def estimated_bytes(mpi: MultiplaneImages, steps: np.ndarray) -> float:
    """About how much of a bundle the blocks take: the entropy of each frequency, given the sum of
    the magnitudes of those before it, of some thousand blocks. Measured were 0.86 to 1.03 of it."""
    if mpi.num_blocks == 0:
        return 0.0
    chosen = slice(None, None, max(1, mpi.num_blocks // _SAMPLE))
    texels, levels = mpi.texels.detach()[chosen].cpu().numpy(), mpi.levels[chosen].cpu()
    codes = frequency_codes(texels, levels.numpy(), steps)
    columns = codes.swapaxes(1, 2).reshape(len(codes), -1)
    before, bits = np.zeros(len(codes), dtype=np.int64), 0.0
    wide = 2 * _MOST_CODE + 1
    for column in columns.T:
        size = np.abs(column)
        if size.any():
            rows = np.searchsorted(_ACTIVITY, before, side="right")
            symbols = np.clip(column, -_MOST_CODE, _MOST_CODE) + _MOST_CODE
            counts = np.bincount(rows * wide + symbols, minlength=(len(_ACTIVITY) + 1) * wide)
            counts = counts.reshape(-1, wide)
            shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
            bits -= float((counts * np.log2(np.where(counts > 0, shares, 1))).sum())
            bits += _ESCAPE_BITS * int((size > _MOST_CODE).sum())
        before += size
    return bits / 8 * mpi.num_blocks / len(codes)
