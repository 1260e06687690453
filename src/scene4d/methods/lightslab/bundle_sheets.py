"""Sheets of a light field as arrays: which tiles are stored, and their frequencies.

A tile's texels are stored as rounded frequencies (:mod:`.tile_transform`), its level says how
coarsely: what is seldom seen costs little. SPEC.md, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray
from scene4d.errors import DataError
from scene4d.methods.lightslab.tile_transform import (
    CHANNELS,
    MOST_LEVEL,
    MOST_STEP,
    SIDE,
    texel_codes,
)

TILE = SIDE
"""Texels of a tile along an axis."""
LEAST_DISPARITY = 1e-15
MAX_PLACES = 1 << 22
"""Of tiles, stored or not."""
MAX_TILES = 200_000
"""As many as a player has room for in a texture of 4096 x 4096, with cells of 9 x 9 texels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetParts:
    """Sheets as integers, before coding."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool: which tiles there are."""
    levels: np.ndarray
    """[tiles] int32, 0 to 7, in the order of ``stored``."""
    codes: np.ndarray
    """[tiles, 4, frequencies] int32, as of ``frequency_codes``."""
    steps: np.ndarray
    """[4, frequencies] integers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetArrays:
    """Decoded sheets."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool."""
    levels: np.ndarray
    """[tiles] int32."""
    texels: np.ndarray
    """[tiles, 8, 8, 4] float32, multiples of 1/255 from 0 to 1."""


def places_of(structure: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Slabs, planes, and rows and columns of tiles of a structure with sheets."""
    sheets, slabs = structure["sheets"], structure["slabs"]
    across, down = sheets["columns"] // TILE, sheets["rows"] // TILE
    return len(slabs), len(slabs[0]["disparities"]), down, across


def array_sizes(structure: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Items, components and stage of the sheets' arrays; none without sheets."""
    if "sheets" not in structure:
        return {}
    sheets = structure["sheets"]
    return {
        "sheet_tiles": (int(np.prod(places_of(structure))), 1, 0),
        "sheet_levels": (sheets["tiles"], 1, 0),
        "sheet_frequencies": (sheets["tiles"], CHANNELS * len(sheets["steps"][0]), 0),
    }


def check_sheets(structure: Mapping[str, Any]) -> None:
    """What the schema cannot say of a structure's sheets. Raises :class:`DataError`."""
    sheets = structure.get("sheets")
    if sheets is None:
        return
    if len({len(steps) for steps in sheets["steps"]}) > 1:
        raise DataError("the channels of sheets have different numbers of frequencies")
    if sheets["columns"] % TILE or sheets["rows"] % TILE:
        raise DataError(f"sheets of {sheets['columns']} x {sheets['rows']} have no whole tiles")
    if any(slab["disparities"][0] < LEAST_DISPARITY for slab in structure["slabs"]):
        raise DataError("a slab has a sheet at infinity: its first disparity is too small")
    places = int(np.prod(places_of(structure)))
    if places > MAX_PLACES:
        raise DataError(f"sheets have {places} places of tiles; at most {MAX_PLACES} are allowed")
    if sheets["tiles"] > places:
        raise DataError(f"sheets have {sheets['tiles']} tiles, but only {places} places of them")


def sheet_arrays(parts: SheetParts, structure: Mapping[str, Any]) -> list[CodedArray]:
    """The arrays of ``parts``, which must be as ``structure`` says."""
    count, shape = structure["sheets"]["tiles"], places_of(structure)
    if parts.steps.tolist() != structure["sheets"]["steps"]:
        raise ValueError("the steps are not those of the entry")
    if not 1 <= parts.steps.min() <= parts.steps.max() <= MOST_STEP:
        raise ValueError(f"steps are 1 to {MOST_STEP}")
    if parts.stored.shape != shape or int(parts.stored.sum()) != count:
        raise ValueError(f"stored tiles are {parts.stored.shape}, the entry says {shape}, {count}")
    if parts.codes.shape != (count, *parts.steps.shape):
        raise ValueError(f"codes of {count} tiles are {parts.codes.shape}")
    if parts.levels.shape != (count,) or (count and not _are_levels(parts.levels)):
        raise ValueError(f"levels of {count} tiles are {parts.levels.shape}, 0 to {MOST_LEVEL}")
    frequencies = parts.codes.swapaxes(1, 2).reshape(count, parts.steps.size)
    columns = {
        "sheet_tiles": parts.stored.reshape(-1, 1),
        "sheet_levels": parts.levels[:, None],
        "sheet_frequencies": frequencies,
    }
    return [
        CodedArray(
            name=name, codes=np.asfortranarray(codes, dtype=np.int32), stage=0, stream=name,
            hints=("sheet_levels.0",) if name == "sheet_frequencies" else (),
        )
        for name, codes in columns.items()
    ]  # fmt: skip


def _are_levels(levels: np.ndarray) -> bool:
    return bool(levels.min() >= 0 and levels.max() <= MOST_LEVEL)


def sheets_of(structure: Mapping[str, Any], arrays: Mapping[str, CodedArray]) -> SheetArrays | None:
    """The decoded sheets; None where there are none. Raises :class:`DataError`."""
    if "sheets" not in structure:
        return None
    tiles, levels = (arrays[f"sheet_{name}"].codes[:, 0] for name in ("tiles", "levels"))
    if tiles.min() < 0 or tiles.max() > 1:
        raise DataError("a tile of a sheet is neither stored nor not")
    count, steps = structure["sheets"]["tiles"], np.array(structure["sheets"]["steps"])
    if int(tiles.sum()) != count:
        raise DataError(f"{int(tiles.sum())} tiles of sheets are stored, not {count}")
    if count and not _are_levels(levels):
        raise DataError(f"a tile of a sheet has a level outside 0 to {MOST_LEVEL}")
    stored = tiles.astype(bool).reshape(places_of(structure))
    codes = arrays["sheet_frequencies"].codes.reshape(count, *steps.T.shape).swapaxes(1, 2)
    try:
        texels = texel_codes(codes, levels, steps)
    except OverflowError as error:
        raise DataError(str(error)) from error
    return SheetArrays(
        stored=stored, levels=levels.astype(np.int32), texels=texels.astype(np.float32) / 255
    )
