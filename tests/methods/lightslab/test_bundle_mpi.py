"""MPIs of light fields as arrays: any frequencies come back, and what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scene4d.bundle import coding
from scene4d.bundle.arrays import CodedArray
from scene4d.bundle.coding import decode_scene, encode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.manifest import check_manifest
from scene4d.bundle.scene_info import default_info
from scene4d.bundle.splats import bundle_writer
from scene4d.bundle.tables import MAX_TABLES, Tables
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lightslab.block_transform import frequency_codes, steps_for, texel_codes
from scene4d.methods.lightslab.bundle_content import content_of, decode_light_slab
from scene4d.methods.lightslab.bundle_mpi import (
    MAX_BLOCKS,
    MpiParts,
    array_sizes,
    check_mpi,
    mpi_arrays,
    mpi_of,
)

pytestmark = pytest.mark.unchecked_shapes

GOOD = Path(__file__).resolve().parents[3] / "mobile_export" / "conformance" / "good"


def structure(parts: MpiParts) -> dict:
    slabs, planes, down, across = parts.stored.shape
    return {
        "slabs": [{"disparities": [0.1 * (i + 1) for i in range(planes)]}] * slabs,
        "mpi": {"columns": 8 * across, "rows": 8 * down, "blocks": int(parts.stored.sum()),
                   "steps": parts.steps.tolist()},
    }  # fmt: skip


def random_parts(shape: tuple[int, int, int, int], seed: int, frequencies: int = 12) -> MpiParts:
    rng = np.random.default_rng(seed)
    stored = rng.random(shape) < rng.choice([0.2, 0.5, 1.0])
    count = int(stored.sum())
    codes = rng.integers(-300, 300, (count, 4, frequencies)).astype(np.int32)
    codes[rng.random(codes.shape) < rng.choice([0.0, 0.9, 1.0])] = 0
    steps = rng.integers(1, 25, (4, frequencies))
    levels = rng.integers(0, 8, count).astype(np.int32)
    return MpiParts(stored=stored, levels=levels, codes=codes, steps=steps)


def picture_parts(picture: np.ndarray, steps: np.ndarray, level: int = 0) -> MpiParts:
    """Two MPI planes of a slab, the second all stored, ``picture`` [rows, columns, 4], 0 to 1."""
    rows, columns, _ = picture.shape
    stored = np.zeros((1, 2, rows // 8, columns // 8), dtype=bool)
    stored[0, 1] = True
    blocks = picture.reshape(rows // 8, 8, columns // 8, 8, 4).transpose(0, 2, 1, 3, 4)
    texels = np.ascontiguousarray(blocks.reshape(-1, 8, 8, 4), dtype=np.float32)
    levels = np.full(len(texels), level, dtype=np.int32)
    codes = frequency_codes(texels, levels, steps)
    return MpiParts(stored=stored, levels=levels, codes=codes, steps=steps)


def by_name(arrays: list[CodedArray]) -> dict[str, CodedArray]:
    return {array.name: array for array in arrays}


def through_file(arrays: list[CodedArray], path: Path) -> dict[str, CodedArray]:
    """What a file with these arrays alone holds."""
    coded = encode_scene(None, arrays)
    coded = replace(coded, manifest={"count": 0, "sh_degree": 0, **coded.manifest})
    none = np.zeros((0, 3), dtype=np.float32)
    cloud = SplatCloud(means=none, quats=np.zeros((0, 4), dtype=np.float32), log_scales=none,
                       logit_opacities=none[:, 0], sh=none[:, None])  # fmt: skip
    bundle_writer("lightslab", coded, default_info(cloud)).write(path)
    return decode_scene(open_bundle(path)).arrays


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 4, 3, 3))),
    seed=st.integers(0, 2**32 - 1),
    frequencies=st.integers(1, 16),
)
@example(shape=(2, 3, 2, 1), seed=1, frequencies=64)
def test_any_codes_come_back(tmp_path_factory, shape, seed, frequencies):
    parts = random_parts(shape, seed, frequencies)
    entry = structure(parts)
    check_mpi(entry)
    arrays = mpi_arrays(parts, entry)
    assert {a.name: (*a.codes.shape, a.stage) for a in arrays} == array_sizes(entry)
    read = through_file(arrays, tmp_path_factory.mktemp("mpi") / "a.s4d")
    for array in arrays:
        np.testing.assert_array_equal(read[array.name].codes, array.codes)
    # value 4 k + j of an item is frequency k of channel j
    for j in range(4):
        np.testing.assert_array_equal(read["mpi_frequencies"].codes[:, j::4], parts.codes[:, j])
    found = mpi_of(entry, read)
    assert found is not None
    np.testing.assert_array_equal(found.stored, parts.stored)
    np.testing.assert_array_equal(found.levels, parts.levels)
    assert found.texels.dtype == np.float32
    texels = texel_codes(parts.codes, parts.levels, parts.steps)
    np.testing.assert_array_equal(np.rint(255 * found.texels), texels)
    # float32's own spacing
    np.testing.assert_allclose(255 * found.texels, texels, rtol=1e-6)


def test_smooth_pictures_take_few_bytes():
    """Waves 36 texels long: at the finest steps 40 codes of a block are not 0, a third of them 1 or
    -1, which is some 3.5 bits each. Texels of 8 bits would take 256 bytes."""
    y, x = np.mgrid[:256, :256] / 256
    alpha = 0.5 + 0.4 * np.sin(40 * x + 20 * y)
    colours = [alpha * (0.5 + 0.3 * np.sin(15 * y + c)) for c in range(3)]
    picture = np.stack([*colours, alpha], axis=2)
    sizes, errors = [], []
    for step in (2.0, 4.0, 16.0):
        parts = picture_parts(picture, steps_for(step))
        entry = structure(parts)
        arrays = mpi_arrays(parts, entry)
        sizes.append(encode_scene(None, arrays).size / parts.codes.shape[0])
        found = mpi_of(entry, by_name(arrays))
        assert found is not None
        pixels = found.texels.reshape(32, 32, 8, 8, 4).transpose(0, 2, 1, 3, 4)
        errors.append(255 * np.sqrt(((pixels.reshape(256, 256, 4) - picture) ** 2).mean()))
    assert sizes[0] < 20 and sizes[1] < 0.8 * sizes[0] and sizes[2] < 0.6 * sizes[1], sizes
    # a step is about the error that each frequency adds at most; most of them are 0 anyway
    assert errors[0] < errors[1] < errors[2] and (np.array(errors) < [1, 2, 8]).all(), errors


def test_higher_levels_take_fewer_bytes():
    rng = np.random.default_rng(4)
    picture = rng.random((160, 160, 4)) * 0.5
    sizes = []
    for level in range(6):
        parts = picture_parts(picture, steps_for(1.0, 15), level)
        sizes.append(encode_scene(None, mpi_arrays(parts, structure(parts))).size)
    # a level halves every code, one bit of each of 60 values of 400 blocks, while they are large
    assert sizes[0] - sizes[1] > 0.8 * 400 * 60 / 8
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.4 * sizes[0], sizes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": 12}, "no whole blocks"),
        ({"rows": 4}, "no whole blocks"),
        ({"columns": 4096, "rows": 4096}, "places of blocks"),
        ({"blocks": 13}, "only 12 places"),
        ({"steps": [[1, 2], [1, 2], [1], [1, 2]]}, "different numbers of frequencies"),
    ],
)
def test_entries_that_cannot_be_are_refused(change, told):
    entry = structure(random_parts((2, 6, 1, 1), 1))
    check_mpi(entry)
    if "places of" in told:  # 12 x 2^18 is 3/4 of what is allowed
        entry["slabs"] = entry["slabs"] * 2
    with pytest.raises(DataError, match=told):
        check_mpi({**entry, "mpi": {**entry["mpi"], **change}})


def test_an_mpi_plane_at_infinity_is_refused():
    entry = structure(random_parts((1, 2, 1, 1), 2))
    entry["slabs"] = [{"disparities": [0.0, 0.5]}]
    with pytest.raises(DataError, match="infinity"):
        check_mpi(entry)
    check_mpi({"slabs": entry["slabs"]})  # without MPIs it may be
    assert array_sizes({"slabs": entry["slabs"]}) == {}
    assert mpi_of({"slabs": entry["slabs"]}, {}) is None


def test_arrays_that_lie_are_refused():
    stored = np.arange(12).reshape(1, 3, 2, 2) % 3 > 0
    parts = replace(random_parts((1, 1, 1, 8), 5), stored=stored)
    parts = replace(parts, levels=np.arange(8, dtype=np.int32),
                    codes=np.zeros((8, 4, 12), dtype=np.int32))  # fmt: skip
    entry = structure(parts)
    arrays = by_name(mpi_arrays(parts, entry))
    blocks, levels, frequencies = (
        arrays[f"mpi_{name}"] for name in ("blocks", "levels", "frequencies")
    )
    huge, negative = frequencies.codes.copy(), frequencies.codes.copy()
    huge[2, 41], negative[7, 0] = 1 << 20, -(1 << 30)
    for changed, told in (
        (replace(blocks, codes=1 - blocks.codes), "are stored, not"),
        (replace(blocks, codes=2 * blocks.codes), "neither stored nor not"),
        (replace(blocks, codes=blocks.codes - 1), "neither stored nor not"),
        (replace(levels, codes=levels.codes + 1), "level outside 0 to 7"),
        (replace(levels, codes=levels.codes - 1), "level outside 0 to 7"),
        (replace(frequencies, codes=huge), "too large"),
        (replace(frequencies, codes=negative), "too large"),
    ):
        with pytest.raises(DataError, match=told):
            mpi_of(entry, {**arrays, changed.name: changed})


def test_parts_unlike_their_entry_are_an_error():
    parts = random_parts((1, 2, 2, 2), 6)
    entry = structure(parts)
    count, least = len(parts.levels), parts.steps.copy()
    most = parts.steps.copy()
    least[2, 3], most[1, 0] = 0, 1 << 15
    for changed, told in (
        (replace(parts, stored=parts.stored[:, :1]), "stored blocks"),
        (replace(parts, stored=~parts.stored), "stored blocks"),
        (replace(parts, codes=parts.codes[:-1]), "codes of"),
        (replace(parts, codes=parts.codes[:, :, :-1]), "codes of"),
        (replace(parts, levels=parts.levels[:-1]), "levels of"),
        (replace(parts, levels=parts.levels + 8), "levels of"),
        (replace(parts, levels=np.full(count, -1, dtype=np.int32)), "levels of"),
        (replace(parts, steps=parts.steps + 1), "not those of the entry"),
    ):
        with pytest.raises(ValueError, match=told):
            mpi_arrays(changed, entry)
    for steps in (least, most):
        wrong = replace(parts, steps=steps)
        with pytest.raises(ValueError, match="steps are 1 to 32767"):
            mpi_arrays(wrong, structure(wrong))


@pytest.mark.parametrize("frequencies", [1, 64])
def test_no_block_is_stored(tmp_path, frequencies):
    parts = MpiParts(
        stored=np.zeros((1, 2, 1, 1), dtype=bool), levels=np.zeros(0, dtype=np.int32),
        codes=np.zeros((0, 4, frequencies), dtype=np.int32), steps=steps_for(2.0, frequencies),
    )  # fmt: skip
    arrays = through_file(mpi_arrays(parts, structure(parts)), tmp_path / "a.s4d")
    found = mpi_of(structure(parts), arrays)
    assert found is not None and found.texels.shape == (0, 8, 8, 4) and found.levels.shape == (0,)


def test_as_many_blocks_as_there_is_room_for():
    """In the player's texture of 4096 x 4096, in cells of 9 x 9."""
    assert MAX_BLOCKS <= (4096 // 9) ** 2


def test_people_are_told_of_mpis():
    bundle = open_bundle(GOOD / "lightslab_mpi_five.s4d")
    mpi = decode_light_slab(bundle).mpi
    assert mpi is not None and mpi.stored.shape == (5, 4, 3, 1)
    assert content_of(bundle.manifest) == (
        f"a light field of 5 slabs and 8 planes, with 20 MPI planes of 8 x 24 texels,"
        f" {len(mpi.texels)} of their blocks stored"
    )
    assert decode_light_slab(open_bundle(GOOD / "lightslab_one.s4d")).mpi is None


def test_tables_stay_within_what_a_file_may_have(monkeypatch):
    """196 channels whose contexts all pay."""
    count, rng = 6000, np.random.default_rng(0)
    spread = np.exp(np.sin(np.arange(count) / 500)[:, None] + rng.normal(size=(count, 1)))
    codes = np.rint(rng.normal(size=(count, 196)) * spread).clip(-300, 300).astype(np.int32)
    array = CodedArray(name="many", codes=np.asfortranarray(codes), stage=0, stream="many")

    def number() -> int:
        coded = encode_scene(None, [array])
        return len(Tables.from_bytes(coded.members[coded.manifest["tables"]]))

    wanted = number()
    assert 500 < wanted <= MAX_TABLES
    monkeypatch.setattr(coding, "MAX_TABLES", 300)
    assert 196 < number() <= 300


def test_an_entry_of_an_earlier_version_is_told_so():
    """Names before format 1.0 give one clear error, not the schema's first fault."""
    bundle = open_bundle(GOOD / "lightslab_mpi_least.s4d")
    entry = dict(bundle.manifest["lightslab"])
    entry["planes"] = entry.pop("feature_planes")
    with pytest.raises(DataError, match="earlier version") as caught:
        check_manifest({**bundle.manifest, "lightslab": entry}, "old.s4d")
    assert "export it again" in str(caught.value)
