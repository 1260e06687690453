""".4dgs, version 1: splats that move straight, each in a window of time (4dgs.dev, Avala AI, 2026).

The file is the magic, records (one byte that says which, a 64-bit length, content) and the magic
again; integers are little-endian, texts and maps begin with their length in bytes (32 bits). We
write the header, steps of quantisation, a table of windows, chunks, an index of the chunks and the
footer; motion of the model ``gaussian-birth``. A chunk holds a stream of integers for each
attribute: steps of their quantisation, zigzag coded, plain or as differences, byte planes apart,
deflated. A splat is there in its window [from, to), at ``position + motion (t - centre)``; rotation
and size are constant. Axes and units are those of the 3DGS PLY; time starts at 0.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.timed_splats import TimedSplats

_MAGIC = b"\x894DGS1\r\n"
_HEADER, _FOOTER, _QUANTISATION, _WINDOWS, _CHUNK, _BAND, _INDEX = 1, 2, 3, 4, 5, 7, 8
_CUTOFF = 0.05
"""Of fades; ours have none."""
_POSITION_SHARE = 0.05
"""Largest error of a position, of the median standard deviation."""
_SCALE, _ROTATION, _COLOUR, _OPACITY = 0.01, 0.0005, 0.5 / 255, 0.5 / 255
"""Largest errors: relative of sizes, of a quaternion's components, of colours and opacities."""
_SH = 8.0 / 255
"""Step of harmonics, stored as bytes for -4..4."""
_HALF_SECOND, _LIFE_CLASSES, _LIFE_S = 0.5, (-4, 2), (0.02, 2.0)
"""The step of motion is halved with each doubling of a splat's life over half a second, and doubled
with each halving, between these lives and classes."""
_CHUNK_S, _MOST_CHUNKS = 2.0, 64
"""Chunks last so long, or as long as so many have to, but for the one of what is there longer."""


@dataclass(frozen=True, kw_only=True)
class _Steps:
    position: float
    motion: float
    time: float
    origin: np.ndarray
    windows: np.ndarray
    """[K, 2] seconds, all different."""


def write_4dgs(path: Path, splats: TimedSplats, *, times_s: tuple[float, float]) -> None:
    """Writes ``splats``, which move straight, do not turn and do not fade. ``times_s`` are their
    first and last second; the file begins at 0.

    Raises :class:`DataError` for an empty scene and for positions too far apart for the steps.
    """
    packing.require_splats(splats.cloud, path, "a .4dgs file")
    packing.checked(splats.cloud, path)
    duration = times_s[1] - times_s[0]
    windows, which = np.unique(splats.windows_s - times_s[0], axis=0, return_inverse=True)
    which = which.reshape(-1)
    median = float(np.exp(np.median(splats.cloud.log_scales.astype(np.float64))))
    bound = _POSITION_SHARE * median
    means = splats.cloud.means.astype(np.float64)
    steps = _Steps(
        position=2 * bound, motion=2 * bound / _HALF_SECOND, time=duration * 2.0**-20,
        origin=means.min(axis=0), windows=windows,
    )  # fmt: skip
    parts = [
        _MAGIC,
        _header(splats.cloud, means, duration, times_s[0]),
        _quantisation(steps, median),
        _record(_WINDOWS, _u32(len(windows)) + windows.astype("<f8").tobytes()),
    ]
    index, offset = [], sum(map(len, parts))
    for rows, span, level in _chunks(windows, which):
        blobs = _chunk_records(path, splats, rows, which, steps, times_s[0], span, level)
        at = offset + len(blobs[0])
        bands = b""
        for band, blob in enumerate(blobs[1:], start=1):
            bands += struct.pack("<BQQ", band, at, len(blob))
            at += len(blob)
        entry = struct.pack("<ddQQII", *span, offset, len(blobs[0]), len(rows), len(blobs) - 1)
        index.append(_record(_INDEX, entry + bands))
        parts += blobs
        offset = at
    summary = b"".join(index)
    parts += [summary, _record(_FOOTER, struct.pack("<QQI", offset, 0, zlib.crc32(summary)))]
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(b"".join([*parts, _MAGIC]))


def _chunks(
    windows: np.ndarray, which: np.ndarray
) -> list[tuple[np.ndarray, tuple[float, float], int]]:
    """Rows, seconds and level of each chunk: one of what is there longest, and one of what lies in
    each two seconds."""
    first, last = float(windows[:, 0].min()), float(windows[:, 1].max())
    length = max(_CHUNK_S, (last - first) / _MOST_CHUNKS)
    slack = 1e-3 * length
    cell = np.floor((windows[:, 0] - first + slack) / length)
    # What reaches over the border of two cells is of the chunk of all times.
    cell[windows[:, 1] > first + (cell + 1) * length + slack] = -1
    found = []
    for number in np.unique(cell):
        inside = windows[cell == number]
        span = (float(inside[:, 0].min()), float(inside[:, 1].max()))
        rows = (cell[which] == number).nonzero()[0]
        found.append((rows, (first, last) if number < 0 else span, 0 if number < 0 else 1))
    return found


def _header(cloud: SplatCloud, means: np.ndarray, duration: float, start: float) -> bytes:
    box = [*means.min(axis=0), *means.max(axis=0)]
    about = {"source_start_seconds": repr(float(start))}
    return _record(
        _HEADER,
        _text("") + _text("scene4d") + struct.pack("<dQd", duration, len(cloud), _CUTOFF)
        + _text("gaussian-birth") + struct.pack("<6dBB", *box, cloud.sh_degree, 0) + _map(about),
    )  # fmt: skip


def _quantisation(steps: _Steps, median: float) -> bytes:
    position = _POSITION_SHARE * median
    bounds = {
        "pos": position, "scale_rel": _SCALE, "rot": _ROTATION, "rgb": _COLOUR, "alpha": _OPACITY,
        "motion": position / _HALF_SECOND, "time": steps.time / 2, "sigma_rel": _SCALE, "sh": 0,
    }  # fmt: skip
    numbers = [
        *steps.origin, steps.position, _log_step(), 2 * _ROTATION, 2 * _COLOUR, 2 * _OPACITY,
        steps.motion, steps.time, _log_step(),
    ]  # fmt: skip
    told = _map({name: repr(float(value)) for name, value in bounds.items()} | {"sh": "0"})
    return _record(_QUANTISATION, _text("uniform-v1") + struct.pack("<11dB", *numbers, 1) + told)


def _log_step() -> float:
    return 2.0 * float(np.log1p(_SCALE))


def _chunk_records(
    path: Path,
    splats: TimedSplats,
    rows: np.ndarray,
    which: np.ndarray,
    steps: _Steps,
    start: float,
    span: tuple[float, float],
    level: int,
) -> list[bytes]:
    """The record of a chunk, and one of each band of its harmonics."""
    rows = rows[packing.morton_order(splats.cloud.means[rows])]
    cloud = packing.taken(splats.cloud, rows)
    lives = steps.windows[which[rows]]
    pitch = steps.motion * 2.0 ** -_life_classes(lives[:, 1] - lives[:, 0])
    largest, three = _smallest_three(cloud.quats)
    rgb = np.rint((0.5 + packing.SH_C0 * cloud.sh[:, 0].astype(np.float64)) / (2 * _COLOUR))
    red, green, blue = rgb.T
    opacity = packing.opacity_of(cloud.logit_opacities)
    zeros = np.zeros((len(rows), 1))
    streams = [
        (cloud.means - steps.origin) / steps.position,
        cloud.log_scales.astype(np.float64) / _log_step(),
        largest[:, None],
        three / (2 * _ROTATION),
        np.stack([green, red - green, blue - green], axis=1),
        opacity[:, None] / (2 * _OPACITY),
        splats.motion[rows, 0] / pitch[:, None],
        (splats.centres_s[rows, None] - start) / steps.time,
        zeros,  # how fast it fades
        zeros + 1,  # it does not
        which[rows, None],
    ]
    content = b"".join(_stream(path, i, np.rint(each)) for i, each in enumerate(streams))
    head = struct.pack("<ddII", *span, level, len(rows)) + _text("")
    sizes = struct.pack("<QQ", len(content), len(content))
    blobs = [_record(_CHUNK, head + sizes + content)]
    codes = np.clip(np.rint((cloud.sh[:, 1:].astype(np.float64) + 4.0) / _SH), 0, 255)
    for band in range(1, cloud.sh_degree + 1):
        of_band = codes[:, band**2 - 1 : (band + 1) ** 2 - 1]
        columns = of_band.swapaxes(1, 2).reshape(len(rows), -1)
        blobs.append(_record(_BAND, bytes([band]) + _stream(path, _BAND, columns)))
    return blobs


def _life_classes(lives: np.ndarray) -> np.ndarray:
    half = np.clip(lives, *_LIFE_S)
    return np.clip(np.ceil(np.log2(half / _HALF_SECOND)), *_LIFE_CLASSES)


def _smallest_three(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`packing.smallest_three`, of quaternions xyzw."""
    return packing.smallest_three(quats[:, [1, 2, 3, 0]])


def _stream(path: Path, attribute: int, values: np.ndarray) -> bytes:
    """Integers [n, channels] as they are or as differences, whichever is smaller."""
    if np.abs(values).max(initial=0) >= 2**30:
        raise DataError(
            "its splats lie too far apart for the steps that its small ones need",
            where=path,
            fix="scene4d export RUN ply-sequence has no such steps",
        )
    plain = values.astype(np.int64)
    different = np.diff(plain, axis=0, prepend=np.zeros_like(plain[:1]))
    packed = [(mode, *_packed(each)) for mode, each in enumerate((plain, different))]
    mode, width, body = min(packed, key=lambda found: len(found[2]))
    shape = (plain.shape[1], len(plain), len(body))
    return struct.pack("<BBBBBIQ", attribute, width, mode, 0, *shape) + body


def _packed(values: np.ndarray) -> tuple[int, bytes]:
    """Bytes of a number, and the numbers zigzag coded, byte planes apart, deflated."""
    codes = ((values << 1) ^ (values >> 63)).astype(np.uint64).reshape(-1)
    width = next(w for w in (1, 2, 4) if codes.max(initial=0) < 1 << (8 * w))
    planes = codes.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    return width, zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(content)) + content


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _text(value: str) -> bytes:
    data = value.encode()
    return _u32(len(data)) + data


def _map(values: dict[str, str]) -> bytes:
    body = b"".join(_text(key) + _text(value) for key, value in sorted(values.items()))
    return _u32(len(body)) + body
