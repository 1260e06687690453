"""Buffers of EXT_meshopt_compression: the specification's own examples, and files of another coder.

``MESHOPTIMIZER`` names a folder where ``npm install meshoptimizer`` was run, the extension's own
decoder, which reads what is written here.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from scene4d.errors import DataError
from scene4d.formats.meshopt import decode_attributes, encode_attributes
from scene4d.formats.meshopt_triangles import decode_triangles, encode_triangles, ordered

GRID = 12


def grid(rows: int = GRID) -> np.ndarray:
    """Triangles of a square grid of vertices, row by row."""
    v = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = v[:-1, :-1], v[:-1, 1:], v[1:, :-1], v[1:, 1:]
    return np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], 2).reshape(-1, 3)


def turned(triangles: np.ndarray) -> set[tuple[int, ...]]:
    """Each from its smallest corner on."""
    return {tuple(np.roll(t, -int(t.argmin()))) for t in np.asarray(triangles)}


def shuffled(seed: int = 0) -> np.ndarray:
    """A grid's triangles in no order, one of them twice, one that is a line, and a far vertex."""
    rng = np.random.default_rng(seed)
    more = np.array([[0, 1, 13], [5, 5, 6], [7, 8, 70_000]])
    return rng.permutation(np.concatenate([grid(), grid()[:1], more]))


def smooth(count: int, stride: int) -> np.ndarray:
    """Rows whose columns change by nothing, a little, more, and as they like, from 0 to 255."""
    rng = np.random.default_rng(count)
    steps = rng.integers(-1, 2, (count, stride)) * (1 + np.arange(stride) % 4 * 5)
    steps[:, ::4] = 0
    return np.concatenate(
        [np.cumsum(steps, 0)[:, :-1], rng.integers(0, 256, (count, 1))], 1
    ).astype(np.uint8)


def test_the_specifications_example_of_a_group() -> None:
    # Appendix A: 16 differences in 4 bits, of which two follow in a byte each
    group = bytes.fromhex("175ff0bc77a9210034b5")
    stored = bytes([0xA0, 0b10]) + group + bytes([0, 0, 0]) + bytes(32)
    steps = [-1, -4, -3, 26, -91, 0, -6, 6, -4, -4, 5, -5, 1, -1, 0, 0]
    found = decode_attributes(stored, 16, 4)
    np.testing.assert_array_equal(found[:, 0], np.cumsum(steps).astype(np.uint8))
    assert not found[:, 1:].any()
    # The base is the first row, so that only what follows is coded as there.
    again = encode_attributes(found)
    np.testing.assert_array_equal(decode_attributes(again, 16, 4), found)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 255, 256, 257, 1000])
@pytest.mark.parametrize("stride", [4, 12, 64, 256])
def test_attributes_come_back(count: int, stride: int) -> None:
    rows = smooth(count, stride)
    found = decode_attributes(encode_attributes(rows), count, stride)
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("triangles", [grid(), shuffled(), np.zeros((0, 3), np.int64), grid()[:1]])
def test_triangles_come_back_in_their_order(triangles: np.ndarray) -> None:
    found = decode_triangles(encode_triangles(triangles), len(triangles))
    for given, read in zip(triangles, found, strict=True):
        assert turned([given]) == turned([read])


def test_a_good_order_takes_little_more_than_a_byte_for_a_triangle() -> None:
    mixed = np.random.default_rng(1).permutation(grid(40))
    found, used = ordered(mixed, 1600)
    assert turned(used[found]) == turned(mixed)
    # in the order of first appearance
    _, first = np.unique(found, return_index=True)
    assert (np.diff(first) > 0).all()
    size = len(encode_triangles(found)) - 17
    assert size < 1.2 * len(mixed)  # npm's orders it in 1.14
    assert len(encode_triangles(mixed)) > 2 * size


def test_vertices_that_no_triangle_has_are_left_out() -> None:
    found, used = ordered(np.array([[9, 4, 2], [2, 4, 7]]), 12)
    assert sorted(used) == [2, 4, 7, 9] and found.max() == 3


# encodeGltfBuffer of npm's meshoptimizer 1.3.0: a list of triangles, which names pairs of corners
# in its table, and 20 rows of 4 bytes
THEIR_TRIANGLES = (
    "e1fe1e001e001e001ede0e061e051e041ede0e041e041e041ede0e041e041e041ef00a007687566778a9866589"
    "689801690000"
)
THEIR_ROWS = (
    "a0052aaaaaaaaa000000070002060a0e12161a1e22262a2e32363aff0000003e42464a0a044545445454454544"
    "54000000000000000000000000000000000000000000000000000000000000000000000000000009"
)


def test_what_another_coder_wrote_is_read() -> None:
    found = decode_triangles(bytes.fromhex(THEIR_TRIANGLES), len(grid(5)))
    assert turned(found) == turned(grid(5))
    np.testing.assert_array_equal(decode_attributes(bytes.fromhex(THEIR_ROWS), 20, 4), made_rows())
    # No larger than theirs, but for pairs of corners, which are rare in a good order.
    assert len(encode_attributes(made_rows())) == len(bytes.fromhex(THEIR_ROWS))
    assert len(encode_triangles(grid(5))) <= len(bytes.fromhex(THEIR_TRIANGLES)) + 4


def made_rows() -> np.ndarray:
    i = np.arange(20)
    return np.stack([i, i * i, 7 * i % 5, np.full(20, 9)], 1).astype(np.uint8)


DECODER = """
import {createRequire} from 'module'; import fs from 'fs';
const {MeshoptDecoder: d} = createRequire(process.argv[2] + '/')('meshoptimizer');
await d.ready;
const [stored, count, stride, mode, out] = process.argv.slice(3);
const rows = new Uint8Array(count * stride);
d.decodeGltfBuffer(rows, +count, +stride, new Uint8Array(fs.readFileSync(stored)), mode, 'NONE');
fs.writeFileSync(out, rows);
"""


@pytest.mark.parametrize("what", ["rows", "ordered", "shuffled"])
def test_the_extensions_own_decoder_reads_it(what: str, tmp_path: Path) -> None:
    folder = os.environ.get("MESHOPTIMIZER")
    if not folder or not shutil.which("node"):
        pytest.skip("MESHOPTIMIZER names no folder with npm's meshoptimizer")
    rows = smooth(1000, 12)
    triangles = shuffled() if what == "shuffled" else ordered(grid(), GRID**2)[0]
    stored = encode_attributes(rows) if what == "rows" else encode_triangles(triangles)
    (tmp_path / "stored").write_bytes(stored)
    (tmp_path / "d.mjs").write_text(DECODER)
    shape = [1000, 12, "ATTRIBUTES"] if what == "rows" else [triangles.size, 4, "TRIANGLES"]
    subprocess.run(
        ["node", tmp_path / "d.mjs", Path(folder).resolve(), tmp_path / "stored",
         *map(str, shape), tmp_path / "out"],
        check=True,
    )  # fmt: skip
    found = (tmp_path / "out").read_bytes()
    if what == "rows":
        assert found == rows.tobytes()
    else:
        read = np.frombuffer(found, "<u4").reshape(-1, 3)
        np.testing.assert_array_equal(read, decode_triangles(stored, len(triangles)))


def test_damaged_bytes_are_refused_or_read_as_something() -> None:
    """Nothing beyond the bytes is read, and nothing else than DataError is raised."""
    rng = np.random.default_rng(3)
    rows, triangles = smooth(100, 8), shuffled()
    for stored, read in (
        (encode_attributes(rows), lambda data: decode_attributes(data, 100, 8)),
        (encode_triangles(triangles), lambda data: decode_triangles(data, len(triangles))),
    ):
        for cut in (0, 1, 20, len(stored) // 2, len(stored) - 1):
            with pytest.raises(DataError):
                read(stored[:cut])
        with pytest.raises(DataError):
            read(b"\xff" + stored[1:])
        refused = 0
        for _ in range(300):
            changed = bytearray(stored)
            for at in rng.integers(1, len(stored), 4):
                changed[at] = rng.integers(256)
            try:
                read(bytes(changed))
            except DataError:
                refused += 1
        assert refused > 30


@pytest.mark.parametrize("stride", [0, 3, 260])
def test_rows_of_no_such_size_are_refused(stride: int) -> None:
    with pytest.raises(DataError, match=f"rows of {stride} bytes"):
        decode_attributes(bytes(100), 1, stride)


def test_few_bytes_ask_for_no_memory() -> None:
    with pytest.raises(DataError, match="cut off"):
        decode_attributes(b"\xa0" + bytes(60), 10**12, 4)
    with pytest.raises(DataError, match="cut off"):
        decode_triangles(b"\xe1" + bytes(60), 10**12)
