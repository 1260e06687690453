"""Blocks of MPIs as rounded frequencies, and back: the same texels on every machine.

Alpha, luma and two differences of colour (YCoCg: Malvar and Sullivan, "YCoCg-R: A color space with
RGB reversibility and low dynamic range", 2003) of 8 x 8 texels each go through a discrete cosine
transform and are rounded, as in JPEG. The way back is in integers, with the transform's matrix in
whole numbers. SPEC.md, section 8.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit, prange

SIDE = 8
CHANNELS = 4
"""Of frequencies: alpha, luma, red less blue, green less both. Of texels: red, green, blue, alpha
(premultiplied)."""
FREQUENCIES = SIDE * SIDE
MOST_LEVEL = 7
"""A block's steps are 2^level times as large."""
MOST_STEP = (1 << 15) - 1
MOST_FREQUENCY = 1 << 20
"""Of any magnitude; texels have at most 8 * 8 * 255."""

MATRIX = np.array(
    [
        [64, 64, 64, 64, 64, 64, 64, 64],
        [89, 75, 50, 18, -18, -50, -75, -89],
        [83, 36, -36, -83, -83, -36, 36, 83],
        [75, -18, -89, -50, 50, 89, 18, -75],
        [64, -64, -64, 64, 64, -64, -64, 64],
        [50, -89, 18, 75, -75, -18, 89, -50],
        [36, -83, 83, -36, -36, 83, -83, 36],
        [18, -50, 75, -89, 89, -75, 50, -18],
    ],
    dtype=np.int64,
)
"""[frequency, place]: the cosine transform, times 2^7.5."""
ORDER = sorted(((u, v) for u in range(SIDE) for v in range(SIDE)), key=lambda f: (sum(f), f[0]))
"""(down, across) of each frequency in stored order: the lowest first."""

_PLACE = np.array([SIDE * u + v for u, v in ORDER])
_WEIGHTS = np.array([0.7, 0.6, 1.4, 1.2])
"""Of the channels' steps: such that each adds about as much to the error of what is seen."""
_SLOPE = 0.2
"""By which steps grow with the frequency."""
_TO_ZERO = 0.1
"""Rounding is towards 0 by this share of a step: zeros are cheap."""
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


def steps_for(step: float, frequencies: int = FREQUENCIES) -> np.ndarray:
    """[4, frequencies] int64 steps of the channels' frequencies, in 1/8 of 1/255; ``step``, in
    1/255, is about the error that each adds to a texel."""
    grown = np.array([1 + _SLOPE * (u + v) for u, v in ORDER[:frequencies]])
    steps = np.rint(SIDE * step * _WEIGHTS[:, None] * grown).astype(np.int64)
    return np.clip(steps, 1, MOST_STEP)


def frequency_codes(texels: np.ndarray, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """[blocks, 4, frequencies] int32 of ``texels`` [blocks, 8, 8, 4] float32, 0 to 1, with steps
    times 2^``levels`` [blocks]."""
    codes = np.empty((len(texels), CHANNELS, steps.shape[1]), dtype=np.int32)
    _to_codes(texels, levels.astype(np.int64), steps, _COSINES, _PLACE, codes)
    return codes


def texel_codes(codes: np.ndarray, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """[blocks, 8, 8, 4] uint8 texels, in 1/255, of :func:`frequency_codes`.

    Raises :class:`OverflowError` for frequencies beyond MOST_FREQUENCY.
    """
    texels = np.empty((len(codes), SIDE, SIDE, CHANNELS), dtype=np.uint8)
    if not _to_texels(codes, levels.astype(np.int64), steps, MATRIX, _PLACE, texels):
        raise OverflowError("a frequency of a block is too large")
    return texels


_COSINES = (MATRIX / 2**7.5).astype(np.float32)
"""[frequency, place]: as the way back has them, and so its inverse but for 0.1%."""


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _to_codes(texels, levels, steps, cosines, place, codes):  # pragma: no cover
    for t in prange(len(texels)):
        plain = np.empty((4, 8, 8), dtype=np.float32)
        half = np.empty((8, 8), dtype=np.float32)
        for i in range(8):
            for j in range(8):
                r, g, b = texels[t, i, j, 0], texels[t, i, j, 1], texels[t, i, j, 2]
                both = (r + b) * np.float32(0.5)
                plain[0, i, j], plain[1, i, j] = texels[t, i, j, 3], (both + g) * np.float32(0.5)
                plain[2, i, j], plain[3, i, j] = r - b, g - both
        scale = np.float32(8 * 255)
        for c in range(4):
            for i in range(8):
                for v in range(8):
                    total = np.float32(0.0)
                    for j in range(8):
                        total += plain[c, i, j] * cosines[v, j]
                    half[i, v] = total * scale
            for k in range(steps.shape[1]):
                u, v = place[k] // 8, place[k] % 8
                total = np.float32(0.0)
                for i in range(8):
                    total += half[i, v] * cosines[u, i]
                size = abs(total) / np.float32(steps[c, k] << levels[t])
                code = np.int32(size + np.float32(0.5 - _TO_ZERO))
                codes[t, c, k] = code if total >= 0 else -code


@njit(parallel=True, **_OPTIONS)
@no_type_check
def _to_texels(codes, levels, steps, matrix, place, texels):  # pragma: no cover
    """Fills ``texels``; whether all frequencies are within bounds."""
    bad = 0
    for t in prange(len(codes)):
        plain = np.zeros((4, 8, 8), dtype=np.int64)
        half = np.empty((8, 8), dtype=np.int64)
        for c in range(4):
            half[:] = 0
            for k in range(steps.shape[1]):
                if codes[t, c, k] == 0:
                    continue
                frequency = np.int64(codes[t, c, k]) * (steps[c, k] << levels[t])
                if abs(frequency) > 1 << 20:
                    bad += 1
                    frequency = np.int64(0)
                u, v = place[k] // 8, place[k] % 8
                for i in range(8):
                    half[i, v] += matrix[u, i] * frequency
            for i in range(8):
                for v in range(8):
                    if half[i, v] != 0:
                        for j in range(8):
                            plain[c, i, j] += half[i, v] * matrix[v, j]
        for i in range(8):
            for j in range(8):
                a = (plain[0, i, j] + 131072) >> 18
                y = (plain[1, i, j] + 131072) >> 18
                co = (plain[2, i, j] + 131072) >> 18
                cg = (plain[3, i, j] + 131072) >> 18
                both = y - (cg >> 1)
                b = both - (co >> 1)
                texels[t, i, j, 0] = min(255, max(0, b + co))
                texels[t, i, j, 1] = min(255, max(0, cg + both))
                texels[t, i, j, 2] = min(255, max(0, b))
                texels[t, i, j, 3] = min(255, max(0, a))
    return bad == 0
