"""Sheets of light fields: texels as differences from their neighbours, and back exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene4d.bundle.arrays import CodedArray
from scene4d.bundle.coding import encode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.light_slab import content_of, decode_light_slab
from scene4d.bundle.sheets import (
    MAX_CODE,
    SheetParts,
    array_sizes,
    check_sheets,
    sheet_arrays,
    sheets_of,
    values_of_codes,
)
from scene4d.errors import DataError

GOOD = Path(__file__).resolve().parents[2] / "mobile_export" / "conformance" / "good"


def structure(stored: np.ndarray, step: float = 2.0) -> dict:
    slabs, planes, down, across = stored.shape
    return {
        "slabs": [{"disparities": [0.1 * (i + 1) for i in range(planes)]}] * slabs,
        "sheets": {"columns": 8 * across, "rows": 8 * down, "tiles": int(stored.sum()),
                   "step": step},
    }  # fmt: skip


def random_parts(shape: tuple[int, int, int, int], seed: int, top: int = MAX_CODE) -> SheetParts:
    rng = np.random.default_rng(seed)
    stored = rng.random(shape) < rng.choice([0.2, 0.5, 1.0])
    codes = rng.integers(0, top + 1, (int(stored.sum()), 8, 8, 4)).astype(np.int32)
    # also whole tiles and texels that are 0, where the neighbours tell nothing
    codes[rng.random(codes.shape[:3]) < 0.3] = 0
    return SheetParts(stored=stored, codes=codes, step=2.0)


def by_name(arrays: list[CodedArray]) -> dict[str, CodedArray]:
    return {array.name: array for array in arrays}


def image_parts(picture: np.ndarray) -> SheetParts:
    """One slab's two sheets, the second all stored and ``picture`` [rows, columns, 4]."""
    rows, columns, _ = picture.shape
    stored = np.zeros((1, 2, rows // 8, columns // 8), dtype=bool)
    stored[0, 1] = True
    tiles = picture.reshape(rows // 8, 8, columns // 8, 8, 4).transpose(0, 2, 1, 3, 4)
    return SheetParts(stored=stored, codes=tiles.reshape(-1, 8, 8, 4).astype(np.int32), step=2.0)


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(*(st.integers(1, n) for n in (3, 4, 3, 3))), seed=st.integers(0, 2**32 - 1))
def test_any_codes_come_back(shape, seed):
    parts = random_parts(shape, seed)
    entry = structure(parts.stored)
    arrays = by_name(sheet_arrays(parts, entry))
    assert {n: (*a.codes.shape, a.stage) for n, a in arrays.items()} == array_sizes(entry)
    found = sheets_of(entry, arrays)
    assert found is not None
    np.testing.assert_array_equal(found.stored, parts.stored)
    # two codes of step 2 may mean the same only above 127
    np.testing.assert_array_equal(found.texels, values_of_codes(2.0)[parts.codes])
    again = sheet_arrays(replace(parts, codes=parts.codes), entry)
    np.testing.assert_array_equal(again[1].codes, arrays["sheet_texels"].codes)


@pytest.mark.parametrize("step", [1.0, 2.0, 2.625, 4.0, 255.0])
def test_values_are_whole_255ths_and_the_nearest_code_is_the_same(step):
    values = values_of_codes(step)
    levels = values.astype(np.float64) * 255
    assert values.dtype == np.float32 and values.max() == 1 and (np.diff(values) >= 0).all()
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)  # float32 near 255
    codes = np.arange(int(255 / step) + 1)
    # what is read is off by at most half a level, which is half a code or less
    if step > 1:
        np.testing.assert_array_equal(np.rint(levels[: len(codes)] / step), codes)


def test_colours_follow_alpha():
    """A sheet of one colour whose alpha varies: all is in alpha's differences, and the colours' are
    rounding, below 1.5 codes before green's is taken off."""
    rng = np.random.default_rng(3)
    alpha = rng.integers(64, 128, (32, 24))
    share = np.array([0.75, 0.5, 0.25])
    picture = np.concatenate([np.rint(alpha[..., None] * share), alpha[..., None]], axis=2)
    parts = image_parts(picture)
    differences = sheet_arrays(parts, structure(parts.stored))[1].codes
    # The first texel of the sheet has no neighbour, so that its colours are guessed.
    assert np.abs(differences[1:, 1:]).max() <= 2
    assert np.abs(differences[:, 0]).max() > 10


def test_a_sheet_of_one_value_is_one_difference():
    parts = image_parts(np.broadcast_to([30, 20, 10, 90], (16, 40, 4)))
    differences = sheet_arrays(parts, structure(parts.stored))[1].codes
    assert (differences[1:] == 0).all() and differences[0].tolist() == [90, 20 - 45, 10, -10]


def test_the_order_of_items_turns_back_in_odd_rows():
    """A ramp down the rows alone costs its first column, which ends every second row."""
    picture = np.zeros((8, 8, 4))
    picture[..., 3] = np.arange(8)[:, None] * 10
    parts = image_parts(picture)
    alpha = sheet_arrays(parts, structure(parts.stored))[1].codes[:, 0].reshape(8, 8)
    expected = np.zeros((8, 8), dtype=int)
    expected[2::2, 0] = 10
    expected[1::2, 7] = 10
    np.testing.assert_array_equal(alpha, expected)


def test_smooth_sheets_take_few_bits():
    """Waves with noise of one code up or down, which is log2(3) bits for each of four values, 6.3;
    a difference of noisy values is noisier than one of them, at most twice as dear."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:256, :256] / 256
    alpha = 60 + 40 * np.sin(9 * x + 4 * y)
    colours = [alpha * (0.5 + 0.3 * np.sin(5 * y + c)) for c in range(3)]
    picture = np.stack([*colours, alpha], axis=2) + rng.integers(-1, 2, (256, 256, 4))
    parts = image_parts(np.rint(picture))
    arrays = sheet_arrays(parts, structure(parts.stored))
    plain = CodedArray(name="plain", codes=parts.codes.reshape(-1, 4), stage=0)
    bits, before = (8 * encode_scene(None, a).size / 256**2 for a in (arrays, [plain]))
    assert 6.3 < bits < 12.6 and bits < 0.8 * before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": 12}, "no whole tiles"),
        ({"rows": 4}, "no whole tiles"),
        ({"columns": 4096, "rows": 4096}, "places of tiles"),
        ({"tiles": 13}, "only 12 places"),
    ],
)
def test_entries_that_cannot_be_are_refused(change, told):
    entry = structure(np.ones((2, 6, 1, 1), dtype=bool))
    check_sheets(entry)
    if "places of" in told:  # 12 x 2^18 is 3/4 of what is allowed
        entry["slabs"] = entry["slabs"] * 2
    with pytest.raises(DataError, match=told):
        check_sheets({**entry, "sheets": {**entry["sheets"], **change}})


def test_a_sheet_at_infinity_is_refused():
    entry = structure(np.ones((1, 2, 1, 1), dtype=bool))
    entry["slabs"] = [{"disparities": [0.0, 0.5]}]
    with pytest.raises(DataError, match="infinity"):
        check_sheets(entry)
    check_sheets({"slabs": entry["slabs"]})  # without sheets it may be


def test_arrays_that_lie_are_refused():
    parts = random_parts((1, 3, 2, 2), 5)
    entry = structure(parts.stored)
    arrays = by_name(sheet_arrays(parts, entry))
    tiles, texels = arrays["sheet_tiles"], arrays["sheet_texels"]
    for changed, told in (
        (replace(tiles, codes=1 - tiles.codes), "are stored, not"),
        (replace(tiles, codes=2 * tiles.codes), "neither stored nor not"),
        (replace(tiles, codes=tiles.codes - 1), "neither stored nor not"),
        (replace(texels, codes=texels.codes + 256), "outside 0 to 255"),
        (replace(texels, codes=texels.codes - (1 << 30)), "outside 0 to 255"),
    ):
        with pytest.raises(DataError, match=told):
            sheets_of(entry, {**arrays, changed.name: changed})


def test_every_value_of_an_item_is_checked():
    """With alpha and two neighbours' colours at 0, each channel by itself reaches 256 or -1."""
    parts = image_parts(np.zeros((8, 8, 4)))
    entry = structure(parts.stored)
    arrays = by_name(sheet_arrays(parts, entry))
    for component, value in ((0, 256), (0, -1), (1, 256), (1, -1), (2, 256), (2, -1), (3, 256),
                             (3, -1)):  # fmt: skip
        codes = arrays["sheet_texels"].codes.copy()
        codes[63, component] = value
        changed = replace(arrays["sheet_texels"], codes=codes)
        with pytest.raises(DataError, match="outside 0 to 255"):
            sheets_of(entry, {**arrays, "sheet_texels": changed})


def test_parts_unlike_their_entry_are_an_error():
    parts = random_parts((1, 2, 2, 2), 6, top=100)
    entry = structure(parts.stored)
    for changed, told in (
        (replace(parts, stored=parts.stored[:, :1]), "stored tiles"),
        (replace(parts, codes=parts.codes[:-1]), "codes of"),
        (replace(parts, codes=parts.codes - 1), "0 to 255"),
        (replace(parts, codes=parts.codes + 200), "0 to 255"),
        (replace(parts, step=3.0), "in 3.0"),
    ):
        with pytest.raises(ValueError, match=told):
            sheet_arrays(changed, entry)


def test_no_tile_is_stored():
    stored = np.zeros((1, 2, 1, 1), dtype=bool)
    parts = SheetParts(stored=stored, codes=np.zeros((0, 8, 8, 4), dtype=np.int32), step=2.0)
    found = sheets_of(structure(stored), by_name(sheet_arrays(parts, structure(stored))))
    assert found is not None and found.texels.shape == (0, 8, 8, 4)


def test_people_are_told_of_sheets():
    bundle = open_bundle(GOOD / "lightslab_sheets_five.s4d")
    sheets = decode_light_slab(bundle).sheets
    assert sheets is not None and sheets.stored.shape == (5, 4, 3, 1)
    assert content_of(bundle.manifest) == (
        f"a light field of 5 slabs and 8 planes, with 20 sheets of 8 x 24 texels,"
        f" {len(sheets.texels)} of their tiles stored"
    )
    assert decode_light_slab(open_bundle(GOOD / "lightslab_one.s4d")).sheets is None
