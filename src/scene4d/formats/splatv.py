""".splatv: 64 bytes per splat, cubic motion (antimatter15/splaTV, 2023; also gsplat.js).

uint32 0x674b, uint32 length of a JSON list, the list, then the data of each of its entries. That of
the entry ``splat`` is a texture of 4 x 32 bits a texel, 1,024 splats of four texels a row:

| 32-bit words | content |
|---|---|
| 0-2 | position, float32 |
| 3-4 | rotation wxyz, float16 |
| 5-6 | standard deviations, float16, and 16 bits that say nothing |
| 7 | red, green, blue, opacity, a byte each |
| 8-12 | motion per dt, dt^2, dt^3, three float16 each, and 16 bits that say nothing |
| 13-14 | what is added to the rotation per dt, float16 |
| 15 | the centre in time c and the fade s, float16: dt = t - c, opacity times exp(-(dt / s)^2) |

Time runs from 0 to 1 whatever the scene lasts: the file cannot say seconds. Only the constant
colour is kept. Axes and units are those of the 3DGS PLY.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.timed_splats import TimedSplats

_MAGIC = 0x674B
_ROW_SPLATS, _WORDS = 1024, 16
_NEVER = 6e4
"""A fade that nothing can be seen of; float16 ends at 65,504."""
_HALF = 65504.0


def write_splatv(
    path: Path,
    splats: TimedSplats,
    *,
    times_s: tuple[float, float],
    cameras: list[dict[str, Any]],
) -> None:
    """Writes ``splats``, whose motion is of degree 3 at most; ``times_s`` become 0 and 1.

    ``cameras``: as in a 3DGS ``cameras.json``; viewers start at the first. Raises
    :class:`DataError` for an empty scene and for numbers that float16 does not hold.
    """
    packing.require_splats(splats.cloud, path, "a .splatv file")
    packing.checked(splats.cloud, path)
    rows = -(-len(splats) // _ROW_SPLATS)
    words = np.zeros((rows * _ROW_SPLATS, _WORDS), np.uint32)
    words[: len(splats)] = _words(path, splats, times_s)
    words[len(splats) :, 15] = np.array([-_HALF, 1.0], "<f2").view("<u4")[0]  # never seen
    entry = {
        "type": "splat", "size": words.nbytes, "texwidth": 4 * _ROW_SPLATS, "texheight": rows,
        "cameras": cameras,
    }  # fmt: skip
    head = json.dumps([entry], separators=(",", ":")).encode()
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(np.array([_MAGIC, len(head)], "<u4").tobytes() + head)
        file.write(words.astype("<u4").tobytes())


def _words(path: Path, splats: TimedSplats, times_s: tuple[float, float]) -> np.ndarray:
    """[N, 16] as the texture has them."""
    cloud, count = splats.cloud, len(splats)
    start, seconds = times_s[0], times_s[1] - times_s[0]
    halves = np.zeros((count, 2 * _WORDS))
    lengths = np.linalg.norm(cloud.quats.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        sizes = np.exp(cloud.log_scales.astype(np.float64))
    halves[:, 6:10] = cloud.quats / lengths
    halves[:, 10:13] = np.maximum(sizes, np.finfo(np.float16).smallest_subnormal)
    degree = splats.motion.shape[1]
    powers = seconds ** np.arange(1, degree + 1)
    motion = splats.motion * powers[:, None]
    halves[:, 16 : 16 + 3 * degree] = motion.reshape(count, 3 * degree)
    halves[:, 26:30] = splats.turns / lengths * seconds
    halves[:, 30] = (splats.centres_s - start) / seconds
    halves[:, 31] = np.minimum(splats.fades_s / seconds, _NEVER)
    if not (np.abs(halves) <= _HALF).all():
        row = int((np.abs(halves) > _HALF).any(axis=1).argmax())
        raise DataError(
            f"splat {row} is larger or faster than float16 can say (65,504)",
            where=path,
            fix="scale the scene down (scene4d convert --scale), or export ply-sequence",
        )
    words = halves.astype("<f2").view("<u4").astype(np.uint32)
    words[:, :3] = cloud.means.astype("<f4").view("<u4")
    rgba = np.empty((count, 4), np.uint8)
    rgba[:, :3] = packing.to_codes(255 * (0.5 + packing.SH_C0 * cloud.sh[:, 0]), 255)
    rgba[:, 3] = packing.to_codes(255 * packing.opacity_of(cloud.logit_opacities), 255)
    words[:, 7] = rgba.view("<u4")[:, 0]
    return words
