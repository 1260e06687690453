"""MPIs of a light field as arrays: which blocks are stored, and their frequencies.

A block's texels are stored as rounded frequencies (:mod:`.block_transform`), its level says how
coarsely: what is seldom seen costs little. SPEC.md, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray
from scene4d.errors import DataError
from scene4d.methods.lightslab.block_transform import (
    CHANNELS,
    MOST_LEVEL,
    MOST_STEP,
    SIDE,
    texel_codes,
)

BLOCK = SIDE
"""Texels of a block along an axis."""
LEAST_DISPARITY = 1e-15
MAX_PLACES = 1 << 22
"""Of blocks, stored or not."""
MAX_BLOCKS = 200_000
"""As many as a player has room for in a texture of 4096 x 4096, with cells of 9 x 9 texels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MpiParts:
    """MPIs as integers, before coding."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool: which blocks there are."""
    levels: np.ndarray
    """[blocks] int32, 0 to 7, in the order of ``stored``."""
    codes: np.ndarray
    """[blocks, 4, frequencies] int32, as of ``frequency_codes``."""
    steps: np.ndarray
    """[4, frequencies] integers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MpiArrays:
    """Decoded MPIs."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool."""
    levels: np.ndarray
    """[blocks] int32."""
    texels: np.ndarray
    """[blocks, 8, 8, 4] float32, multiples of 1/255 from 0 to 1."""


def places_of(structure: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Slabs, planes, and rows and columns of blocks of a structure with MPIs."""
    mpi, slabs = structure["mpi"], structure["slabs"]
    across, down = mpi["columns"] // BLOCK, mpi["rows"] // BLOCK
    return len(slabs), len(slabs[0]["disparities"]), down, across


def array_sizes(structure: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Items, components and stage of the MPIs' arrays; none without MPIs."""
    if "mpi" not in structure:
        return {}
    mpi = structure["mpi"]
    return {
        "mpi_blocks": (int(np.prod(places_of(structure))), 1, 0),
        "mpi_levels": (mpi["blocks"], 1, 0),
        "mpi_frequencies": (mpi["blocks"], CHANNELS * len(mpi["steps"][0]), 0),
    }


def check_mpi(structure: Mapping[str, Any]) -> None:
    """What the schema cannot say of a structure's MPIs. Raises :class:`DataError`."""
    mpi = structure.get("mpi")
    if mpi is None:
        return
    if len({len(steps) for steps in mpi["steps"]}) > 1:
        raise DataError("the channels of MPIs have different numbers of frequencies")
    if mpi["columns"] % BLOCK or mpi["rows"] % BLOCK:
        raise DataError(f"MPIs of {mpi['columns']} x {mpi['rows']} have no whole blocks")
    if any(slab["disparities"][0] < LEAST_DISPARITY for slab in structure["slabs"]):
        raise DataError("a slab has an MPI plane at infinity: its first disparity is too small")
    places = int(np.prod(places_of(structure)))
    if places > MAX_PLACES:
        raise DataError(f"MPIs have {places} places of blocks; at most {MAX_PLACES} are allowed")
    if mpi["blocks"] > places:
        raise DataError(f"MPIs have {mpi['blocks']} blocks, but only {places} places of them")


def mpi_arrays(parts: MpiParts, structure: Mapping[str, Any]) -> list[CodedArray]:
    """The arrays of ``parts``, which must be as ``structure`` says."""
    count, shape = structure["mpi"]["blocks"], places_of(structure)
    if parts.steps.tolist() != structure["mpi"]["steps"]:
        raise ValueError("the steps are not those of the entry")
    if not 1 <= parts.steps.min() <= parts.steps.max() <= MOST_STEP:
        raise ValueError(f"steps are 1 to {MOST_STEP}")
    if parts.stored.shape != shape or int(parts.stored.sum()) != count:
        raise ValueError(f"stored blocks are {parts.stored.shape}, the entry says {shape}, {count}")
    if parts.codes.shape != (count, *parts.steps.shape):
        raise ValueError(f"codes of {count} blocks are {parts.codes.shape}")
    if parts.levels.shape != (count,) or (count and not _are_levels(parts.levels)):
        raise ValueError(f"levels of {count} blocks are {parts.levels.shape}, 0 to {MOST_LEVEL}")
    frequencies = parts.codes.swapaxes(1, 2).reshape(count, parts.steps.size)
    columns = {
        "mpi_blocks": parts.stored.reshape(-1, 1),
        "mpi_levels": parts.levels[:, None],
        "mpi_frequencies": frequencies,
    }
    return [
        CodedArray(
            name=name, codes=np.asfortranarray(codes, dtype=np.int32), stage=0, stream=name,
            hints=("mpi_levels.0",) if name == "mpi_frequencies" else (),
        )
        for name, codes in columns.items()
    ]  # fmt: skip


def _are_levels(levels: np.ndarray) -> bool:
    return bool(levels.min() >= 0 and levels.max() <= MOST_LEVEL)


def mpi_of(structure: Mapping[str, Any], arrays: Mapping[str, CodedArray]) -> MpiArrays | None:
    """The decoded MPIs; None where there are none. Raises :class:`DataError`."""
    if "mpi" not in structure:
        return None
    blocks, levels = (arrays[f"mpi_{name}"].codes[:, 0] for name in ("blocks", "levels"))
    if blocks.min() < 0 or blocks.max() > 1:
        raise DataError("a block of an MPI plane is neither stored nor not")
    count, steps = structure["mpi"]["blocks"], np.array(structure["mpi"]["steps"])
    if int(blocks.sum()) != count:
        raise DataError(f"{int(blocks.sum())} blocks of MPIs are stored, not {count}")
    if count and not _are_levels(levels):
        raise DataError(f"a block of an MPI plane has a level outside 0 to {MOST_LEVEL}")
    stored = blocks.astype(bool).reshape(places_of(structure))
    codes = arrays["mpi_frequencies"].codes.reshape(count, *steps.T.shape).swapaxes(1, 2)
    try:
        texels = texel_codes(codes, levels, steps)
    except OverflowError as error:
        raise DataError(str(error)) from error
    return MpiArrays(
        stored=stored, levels=levels.astype(np.int32), texels=texels.astype(np.float32) / 255
    )
