"""Sheets of a light field as arrays: which tiles are stored, and their texels.

A texel's codes are stored as differences: alpha from the median of its left, upper and combined
neighbours (as in JPEG-LS: Weinberger et al., "The LOCO-I lossless image compression algorithm",
2000), colours from the neighbours' share of alpha, red and blue less green's difference. Of a
photographed room's sheets that takes 9.0 bits a texel in place of 18.5, of a chair's on white 8.2
in place of 11.0. SPEC.md, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from numba import njit

from scene4d.bundle.arrays import CodedArray
from scene4d.errors import DataError

TILE = 8
"""Texels of a tile along an axis."""
TEXELS = TILE * TILE
CHANNELS = 4
"""Premultiplied red, green, blue, and alpha."""
MAX_CODE = 255
LEAST_DISPARITY = 1e-15
MAX_PLACES = 1 << 22
"""Of tiles, stored or not."""
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetParts:
    """Sheets as integers, before coding."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool: which tiles there are."""
    codes: np.ndarray
    """[tiles, 8, 8, 4] int32, 0 to 255, tile by tile in the order of ``stored``."""
    step: float
    """Of the codes, in 1/255: 1 to 255."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SheetArrays:
    """Decoded sheets."""

    stored: np.ndarray
    """[slabs, planes, down, across] bool."""
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
    tiles = structure["sheets"]["tiles"]
    return {
        "sheet_tiles": (int(np.prod(places_of(structure))), 1, 0),
        "sheet_texels": (TEXELS * tiles, CHANNELS, 0),
    }


def check_sheets(structure: Mapping[str, Any]) -> None:
    """What the schema cannot say of a structure's sheets. Raises :class:`DataError`."""
    sheets = structure.get("sheets")
    if sheets is None:
        return
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
    if parts.step != structure["sheets"]["step"]:
        raise ValueError(f"codes are in {parts.step}, the entry says {structure['sheets']['step']}")
    if parts.stored.shape != shape or int(parts.stored.sum()) != count:
        raise ValueError(f"stored tiles are {parts.stored.shape}, the entry says {shape}, {count}")
    if parts.codes.shape != (count, TILE, TILE, CHANNELS):
        raise ValueError(f"codes of {count} tiles are {parts.codes.shape}")
    if parts.codes.size and not 0 <= parts.codes.min() <= parts.codes.max() <= MAX_CODE:
        raise ValueError(f"codes of sheets are 0 to {MAX_CODE}")
    codes = np.ascontiguousarray(parts.codes, dtype=np.int32)
    items = np.empty((CHANNELS, TEXELS * count), dtype=np.int32)
    _to_differences(*_order(parts.stored), codes, items)
    tiles = parts.stored.reshape(-1, 1).astype(np.int32)
    return [
        CodedArray(name="sheet_tiles", codes=tiles, stage=0, stream="sheet_tiles"),
        CodedArray(name="sheet_texels", codes=items.T, stage=0, stream="sheet_texels"),
    ]


def sheets_of(structure: Mapping[str, Any], arrays: Mapping[str, CodedArray]) -> SheetArrays | None:
    """The decoded sheets; None where there are none. Raises :class:`DataError`."""
    if "sheets" not in structure:
        return None
    tiles = arrays["sheet_tiles"].codes[:, 0]
    if tiles.min() < 0 or tiles.max() > 1:
        raise DataError("a tile of a sheet is neither stored nor not")
    count, step = structure["sheets"]["tiles"], float(structure["sheets"]["step"])
    if int(tiles.sum()) != count:
        raise DataError(f"{int(tiles.sum())} tiles of sheets are stored, not {count}")
    stored = tiles.astype(bool).reshape(places_of(structure))
    codes = np.zeros((count, TILE, TILE, CHANNELS), dtype=np.int32)
    items = np.ascontiguousarray(arrays["sheet_texels"].codes.T)
    if not _from_differences(*_order(stored), items, codes):
        raise DataError(f"a texel of a sheet has a code outside 0 to {MAX_CODE}")
    return SheetArrays(stored=stored, texels=values_of_codes(step)[codes])


def values_of_codes(step: float) -> np.ndarray:
    """[256] float32: what each code means."""
    levels = np.minimum(255, np.floor(step * np.arange(MAX_CODE + 1) + 0.5))
    return (levels / 255).astype(np.float32)


def _order(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sheet, row and column of each stored tile, [tiles, 3]; and [sheets, down, across] int32: the
    number of the tile of each place, -1 where none is stored."""
    places = np.argwhere(stored.reshape(-1, *stored.shape[2:]))
    numbers = np.full((stored.shape[0] * stored.shape[1], *stored.shape[2:]), -1, dtype=np.int32)
    numbers[tuple(places.T)] = np.arange(len(places), dtype=np.int32)
    return places, numbers


@njit(**_OPTIONS)
@no_type_check
def _neighbour(numbers, codes, s, y, x, c):
    """Code of channel c at texel (x, y) of sheet s; 0 beyond it and where nothing is stored."""
    if x < 0 or y < 0:
        return 0
    tile = numbers[s, y >> 3, x >> 3]
    return np.int64(codes[tile, y & 7, x & 7, c]) if tile >= 0 else 0


@njit(**_OPTIONS)
@no_type_check
def _expected_alpha(numbers, codes, s, y, x):
    """The median, and the sum of the left and the upper neighbour."""
    w = _neighbour(numbers, codes, s, y, x - 1, 3)
    n = _neighbour(numbers, codes, s, y - 1, x, 3)
    nw = _neighbour(numbers, codes, s, y - 1, x - 1, 3)
    if nw >= max(w, n):
        return min(w, n), w + n
    if nw <= min(w, n):
        return max(w, n), w + n
    return w + n - nw, w + n


@njit(**_OPTIONS)
@no_type_check
def _expected_colour(numbers, codes, s, y, x, c, alpha, total):
    """The neighbours' colour at this texel's alpha."""
    if total == 0:
        return alpha >> 1
    both = _neighbour(numbers, codes, s, y, x - 1, c) + _neighbour(numbers, codes, s, y - 1, x, c)
    return (2 * alpha * both + total) // (2 * total)


@njit(**_OPTIONS)
@no_type_check
def _item(tile, y, x):
    """Where a texel's item is; odd rows go back."""
    return tile * 64 + 8 * y + (x if y % 2 == 0 else 7 - x)


@njit(**_OPTIONS)
@no_type_check
def _to_differences(places, numbers, codes, items):  # pragma: no cover
    for tile in range(len(places)):
        s, down, across = places[tile]
        for i in range(64):
            y, x = 8 * down + (i >> 3), 8 * across + (i & 7)
            r, g, b, a = codes[tile, i >> 3, i & 7]
            m, total = _expected_alpha(numbers, codes, s, y, x)
            at = _item(tile, i >> 3, i & 7)
            items[0, at] = a - m
            green = g - _expected_colour(numbers, codes, s, y, x, 1, a, total)
            red = r - _expected_colour(numbers, codes, s, y, x, 0, a, total)
            blue = b - _expected_colour(numbers, codes, s, y, x, 2, a, total)
            items[1, at], items[2, at], items[3, at] = green, red - green, blue - green


@njit(**_OPTIONS)
@no_type_check
def _from_differences(places, numbers, items, codes):  # pragma: no cover
    """Fills ``codes``; whether all of them are in range."""
    for tile in range(len(places)):
        s, down, across = places[tile]
        for i in range(64):
            y, x = 8 * down + (i >> 3), 8 * across + (i & 7)
            m, total = _expected_alpha(numbers, codes, s, y, x)
            at = _item(tile, i >> 3, i & 7)
            a, green = m + np.int64(items[0, at]), np.int64(items[1, at])
            if a < 0 or a > 255:
                return False
            g = green + _expected_colour(numbers, codes, s, y, x, 1, a, total)
            r = _expected_colour(numbers, codes, s, y, x, 0, a, total)
            b = _expected_colour(numbers, codes, s, y, x, 2, a, total)
            r += green + items[2, at]
            b += green + items[3, at]
            if min(r, g, b) < 0 or max(r, g, b) > 255:
                return False
            here = codes[tile, i >> 3, i & 7]
            here[0], here[1], here[2], here[3] = r, g, b, a
    return True
