"""SPZ (Niantic): 8-bit codes and 24-bit positions, entropy-coded; versions 1 to 4 read, 4 written.

Versions 1 to 3 are one gzip stream: a header of 16 bytes, then positions, alphas, colours, scales,
rotations and spherical harmonics one after the other, and extension records at the end. Version 4
is a plain header of 32 bytes, extension records up to ``tocByteOffset``, a table of (compressed,
uncompressed) sizes and one zstd stream per attribute, in the same order; streams that would be
empty are left out.

Axes: the specification stores right-up-back (RUB), unless a record of Adobe's coordinate system
(0xADBE0003) names another of sixteen. The 3DGS PLY and all else here are taken as
right-down-front, as every SPZ tool does by default, so y and z change sign on the way in and out;
quaternions and harmonics with them, exactly. PlayCanvas' scene "biker", which exists both as
compressed PLY and as SPZ, reads equal through either (tests/exporters).

Precision: positions 2^-12 units, finer where splats are small and coarser where the scene is large
(2^-24 to 1, :func:`_fractional_bits`), log-scales 1/16 from -10 to 5.94, opacity and colour 8 bit
(colour clamped to f_dc of +-3.33), rotations 10 bit per component, harmonics -1..1 in steps of 1/16
(degree 1) and 1/8 (above). Sources: nianticlabs/spz (MIT), load-spz.cc and extensions/README.md;
the layout of version 4 agrees with the files of @adobe/spz 4.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.splat_cloud import SplatCloud

_MAGIC = b"NGSP"
_HEADER, _HEADER_4 = 16, 32
_LEGACY_COLOUR = 0.15
_BITS, _MOST_BITS = 12, 24
_FINE = 0.1
"""Positions are stored in steps of at most this share of a small splat's size."""
_ANTIALIASED, _EXTENSIONS = 1, 2
_LONGEST_EXTENSIONS = 1 << 20
_COORDINATES = 0xADBE0003
"""The type of the record of Adobe's coordinate system; its payload is a number from 0 to 16."""
_SYSTEMS = ("RUB", "LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF", "LBD", "RBD", "LBU",
            "RBU", "LFD", "RFD", "LFU", "RFU")  # fmt: skip
"""By that number: where x, y and z point, left or right, up or down, front or back; 0 says
nothing."""
_POINTING = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1),
             "B": (0, 0, -1)}  # fmt: skip
"""In the axes of the PLY, right-down-front."""
_LEVEL = 12
"""zstd's. 19 gave 3 to 4% smaller files on three scenes, in 7 to 20 times the time."""
_NAMES = ("means", "opacities", "sh0", "scales", "quats", "shN")
_FLIP = np.array([1, -1, -1], dtype=np.float32)
_FLIP_SH = np.array([-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], dtype=np.float32)
"""Signs of the harmonics of degree 1 to 3 when y and z are negated: that of their polynomials."""


@dataclass(frozen=True, kw_only=True)
class SpzHeader:
    """What an SPZ file says of itself."""

    version: int
    count: int
    sh_degree: int
    """0 to 4."""
    fractional_bits: int
    flags: int

    def sizes(self) -> list[int]:
        """Bytes of positions, alphas, colours, scales, rotations and harmonics."""
        each = [6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version >= 3 else 3]
        return [self.count * n for n in (*each, 3 * ((self.sh_degree + 1) ** 2 - 1))]


def write_spz(path: Path, cloud: SplatCloud, *, sh1_bits: int = 5, sh_rest_bits: int = 4) -> None:
    """Writes version 4, splats in their order.

    ``sh1_bits``, ``sh_rest_bits``: bits kept of the harmonics of degree 1 and above (1 to 8); the
    defaults are those of the reference, 8 keeps the full byte. Raises :class:`DataError` on NaN.
    """
    import zstandard

    cloud = packing.checked(cloud, path)
    bits = _fractional_bits(cloud, path)
    packing.warn_of_loss(
        path, "SPZ", cloud,
        means=np.rint(cloud.means.astype(np.float64) * 2**bits) / 2**bits,
        log_scales=_scale_codes(cloud) / 16.0 - 10,
        advice="another unit: scene4d convert --scale",
    )  # fmt: skip
    streams = _packed(cloud, bits, (sh1_bits, sh_rest_bits))
    streams = [stream for stream in streams if stream]
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressed = [compressor.compress(stream) for stream in streams]
    header = _MAGIC + struct.pack(
        "<IIBBBBI12x",
        *(4, len(cloud), cloud.sh_degree, bits),
        *(_ANTIALIASED if cloud.antialiased else 0, len(streams), _HEADER_4),
    )
    toc = [struct.pack("<QQ", len(c), len(s)) for c, s in zip(compressed, streams, strict=True)]
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(b"".join([header, *toc, *compressed]))


def _fractional_bits(cloud: SplatCloud, path: Path) -> int:
    """12 as in the reference; more, up to 24, until a step is a tenth of a small splat (one in ten
    is smaller); fewer when positions would not fit into 24 bits."""
    reach = float(np.abs(cloud.means).max(initial=0.0))
    if reach >= 2**23 - 1:
        raise DataError(
            f"a position of {reach:.4g} is farther than SPZ can say",
            where=path,
            fix="crop the scene or scale it down: scene4d convert --scale 0.001",
        )
    bits = _BITS
    if len(cloud):
        small = float(np.quantile(np.median(cloud.log_scales, axis=1), 0.1))
        bits = int(np.clip(np.ceil((-small - np.log(_FINE)) / np.log(2)), _BITS, _MOST_BITS))
    while bits and round(reach * 2**bits) >= 2**23:
        bits -= 1
    return bits


def _packed(cloud: SplatCloud, bits: int, sh_bits: tuple[int, int]) -> list[bytes]:
    fixed = np.rint(cloud.means.astype(np.float64) * _FLIP * 2**bits).astype("<i4")
    positions = np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 4)[:, :3]
    colours = cloud.sh[:, 0] * (_LEGACY_COLOUR * 255) + 127.5
    signs = _FLIP_SH[: cloud.sh.shape[1] - 1]
    parts = (
        positions,
        packing.to_codes(255 * packing.opacity_of(cloud.logit_opacities), 255),
        packing.to_codes(colours, 255),
        _scale_codes(cloud),
        _pack_quats(cloud.quats),
        _pack_sh(cloud.sh[:, 1:] * signs[:, None], sh_bits),
    )
    return [np.ascontiguousarray(part).tobytes() for part in parts]


def _scale_codes(cloud: SplatCloud) -> np.ndarray:
    """[N, 3] bytes of the log-scales, clamped to -10..5.94."""
    return packing.to_codes((cloud.log_scales + 10) * 16, 255)


def _pack_quats(quats: np.ndarray) -> np.ndarray:
    """[N] little-endian: index of the largest of xyzw, then sign and 9 bits for each other."""
    flipped = quats[:, [1, 2, 3, 0]] * np.append(_FLIP, np.float32(1))
    largest, others = packing.smallest_three(flipped)
    size = packing.to_codes(np.abs(others) * (511 * np.sqrt(2)), 511, np.uint32)
    code = largest.astype(np.uint32)
    for column in range(3):
        sign = (others[:, column] < 0).astype(np.uint32)
        code = (code << np.uint32(10)) | (sign << np.uint32(9)) | size[:, column]
    return code.astype("<u4")


def _pack_sh(sh: np.ndarray, sh_bits: tuple[int, int]) -> np.ndarray:
    """Bytes 128 + 128 x, rounded to the middle of buckets of 2^(8 - bits)."""
    codes = np.rint(sh * 128) + 128
    for part, bits in ((slice(0, 3), sh_bits[0]), (slice(3, None), sh_bits[1])):
        bucket = 1 << (8 - bits)
        codes[:, part] = np.floor((codes[:, part] + bucket // 2) / bucket) * bucket
    return np.clip(codes, 0, 255).astype(np.uint8)


def read_spz(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """The splats of an SPZ file of version 1 to 4, in the axes of the PLY.

    Harmonics of degree 4, which nothing else here can hold, are dropped with a warning. Raises
    :class:`DataError`; sizes are checked against the file's before anything is decompressed.
    """
    data = packing.read_bytes(path)
    header, streams, system = _streams(data, Path(path))
    count = header.count
    each = 4 if header.version >= 3 else 3
    rotations = np.frombuffer(streams[4], dtype=np.uint8).reshape(count, each)
    quats = _unpack_quats(rotations) if header.version >= 3 else _first_three(rotations)
    colours = np.frombuffer(streams[2], dtype=np.uint8).astype(np.float32).reshape(count, 3)
    constant = (colours / 255 - 0.5) / _LEGACY_COLOUR
    scales = np.frombuffer(streams[3], dtype=np.uint8).reshape(count, 3)
    cloud = SplatCloud(
        means=_positions(streams[0], header) * _FLIP + np.float32(0),  # no -0
        quats=quats,
        log_scales=scales.astype(np.float32) / 16 - 10,
        logit_opacities=packing.logit_of_bytes(np.frombuffer(streams[1], dtype=np.uint8)),
        sh=np.concatenate([constant[:, None], _harmonics(streams[5], header, path)], axis=1),
        antialiased=bool(header.flags & _ANTIALIASED),
    )
    return packing.checked(_turned(cloud, system), path, drop_invalid=drop_invalid)


def _turned(cloud: SplatCloud, system: str) -> SplatCloud:
    """``cloud``, which was read as RUB, as the file's own ``system`` has it."""
    if system == "RUB":
        return cloud
    own, usual = (np.array([_POINTING[axis] for axis in s], dtype=float).T for s in (system, "RUB"))
    matrix = np.eye(4)
    matrix[:3, :3] = own @ usual.T
    if np.linalg.det(matrix) < 0:  # a mirror: through the origin, which turns no splat, and a turn
        odd = np.sqrt(np.arange(cloud.sh.shape[1])).astype(int) % 2
        signs = (1 - 2 * odd).astype(np.float32)
        cloud = replace(cloud, means=-cloud.means, sh=cloud.sh * signs[:, None])
        matrix[:3, :3] *= -1
    return cloud.transformed(matrix)


def _positions(stream: bytes, header: SpzHeader) -> np.ndarray:
    if header.version == 1:  # half floats; never released, read by the reference
        halves = np.frombuffer(stream, dtype="<f2").reshape(-1, 3)
        return halves.astype(np.float32)
    wide = np.zeros((header.count * 3, 4), dtype=np.uint8)
    wide[:, 1:] = np.frombuffer(stream, dtype=np.uint8).reshape(-1, 3)
    fixed = wide.view("<i4")[:, 0] >> 8  # the sign comes along from the top byte
    return (fixed * np.float32(2.0**-header.fractional_bits)).astype(np.float32).reshape(-1, 3)


def _unpack_quats(codes: np.ndarray) -> np.ndarray:
    code = np.ascontiguousarray(codes).view("<u4")[:, 0]
    fields = np.stack([(code >> np.uint32(shift)) & np.uint32(1023) for shift in (20, 10, 0)], 1)
    size = (fields & np.uint32(511)) / (511 * np.sqrt(2))
    others = np.where(fields >> np.uint32(9), -size, size)
    quats = packing.from_smallest_three(code >> np.uint32(30), others)
    return (quats * np.append(_FLIP, np.float32(1)))[:, [3, 0, 1, 2]]


def _first_three(codes: np.ndarray) -> np.ndarray:
    """Versions 1 and 2: x, y, z as bytes, w is positive."""
    xyz = codes.astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", xyz, xyz), 0))
    return np.concatenate([w[:, None], xyz * _FLIP], axis=1)


def _harmonics(stream: bytes, header: SpzHeader, path: Path) -> np.ndarray:
    codes = np.frombuffer(stream, dtype=np.uint8).reshape(
        header.count, (header.sh_degree + 1) ** 2 - 1, 3
    )
    if header.sh_degree > 3:
        warnings.warn(f"{path}: spherical harmonics of degree 4 are dropped", stacklevel=3)
        codes = codes[:, :15]
    values = (codes.astype(np.float32) - 128) / 128
    return values * _FLIP_SH[: codes.shape[1], None]


def _streams(data: bytes, path: Path) -> tuple[SpzHeader, list[bytes], str]:
    """The header, the six decompressed attributes, each of exactly its size, and the axes."""
    if data[:4] == _MAGIC:
        return _streams_of_4(data, path)
    if data[:2] != b"\x1f\x8b":
        raise DataError("is not an SPZ file: neither 'NGSP' nor a gzip stream", where=path)
    inflater = zlib.decompressobj(wbits=31)
    try:
        start = inflater.decompress(data, _HEADER)
        header = _header(start, path)
        if not 1 <= header.version <= 3:
            raise DataError(f"has SPZ version {header.version} inside gzip", where=path)
        require = sum(header.sizes()) + _LONGEST_EXTENSIONS
        packing.require_plausible(header.count, len(data), path)
        body = inflater.decompress(inflater.unconsumed_tail, require)
    except zlib.error as error:
        raise DataError(f"its gzip stream is damaged ({error})", where=path) from error
    sizes = header.sizes()
    if len(body) < sum(sizes):
        raise packing.cut_off(path, sum(sizes), len(body), f"a scene of {header.count:,} splats")
    ends = np.cumsum([0, *sizes])
    records = body[ends[-1] :] if header.flags & _EXTENSIONS else b""
    return header, [body[a:b] for a, b in pairwise(ends)], _system(records, path)


def _system(records: bytes, path: Path) -> str:
    """The axes that extension records name, RUB if none does; records of other kinds, which cannot
    change the splats, are passed over, and so is what is no record."""
    offset = 0
    while offset + 8 <= len(records):
        kind, size = struct.unpack_from("<II", records, offset)
        payload = records[offset + 8 : offset + 8 + size]
        if len(payload) < size:
            break  # the first builds wrote records without their length
        if kind == _COORDINATES:
            number = int.from_bytes(payload, "little")
            if len(payload) != 4 or number >= len(_SYSTEMS):
                raise DataError(
                    f"its coordinate system has the number {number}; 0 to 16 exist", where=path
                )
            return _SYSTEMS[number]
        offset += 8 + size
    return "RUB"


def _header(data: bytes, path: Path) -> SpzHeader:
    if len(data) < _HEADER or data[:4] != _MAGIC:
        raise DataError("is not an SPZ file, or its header is cut off", where=path)
    version, count, degree, bits, flags, _ = struct.unpack_from("<IIBBBB", data, 4)
    header = SpzHeader(
        version=version, count=count, sh_degree=degree, fractional_bits=bits, flags=flags
    )
    if degree > 4:
        raise DataError(f"has spherical harmonics of degree {degree}; SPZ knows 0 to 4", where=path)
    if bits > 24:
        raise DataError(f"has {bits} fractional bits in positions of 24", where=path)
    return header


def _table(data: bytes, path: Path) -> tuple[SpzHeader, list[tuple[int, int, int]]]:
    """Version 4: the header and (offset, compressed, uncompressed) of each attribute."""
    header = _header(data, path)
    if header.version != 4 or len(data) < _HEADER_4:
        raise DataError(
            f"has SPZ version {header.version}, or is cut off; 1 to 4 can be read", where=path
        )
    number, offset = data[15], struct.unpack_from("<I", data, 16)[0]
    packing.require_plausible(header.count, len(data), path)
    wanted = header.sizes()
    present = [i for i, size in enumerate(wanted) if size]
    if number == len(wanted) and len(present) < number:
        present = list(range(number))  # a writer that keeps empty streams
    end = offset + 16 * number
    if number != len(present) or offset < _HEADER_4 or end > len(data):
        raise DataError(
            f"its table of {number} streams at byte {offset} does not fit a file of {len(data):,}"
            f" bytes and degree {header.sh_degree}",
            where=path,
        )
    rows = [(0, 0, 0)] * len(wanted)
    for row, index in enumerate(present):
        packed, size = struct.unpack_from("<QQ", data, offset + 16 * row)
        if size != wanted[index] or packed > len(data) - end:
            raise DataError(
                f"its stream {_NAMES[index]} has {size:,} bytes in {packed:,}; {wanted[index]:,}"
                f" are needed, and {len(data) - end:,} left in the file",
                where=path,
            )
        rows[index] = (end, packed, size)
        end += packed
    return header, rows


def _streams_of_4(data: bytes, path: Path) -> tuple[SpzHeader, list[bytes], str]:
    import zstandard

    header, rows = _table(data, path)
    records = data[_HEADER_4 : struct.unpack_from("<I", data, 16)[0]]
    system = _system(records, path) if header.flags & _EXTENSIONS else "RUB"
    inflater = zstandard.ZstdDecompressor(max_window_size=2**27)
    streams = []
    for name, (offset, packed, size) in zip(_NAMES, rows, strict=True):
        if not size:
            streams.append(b"")
            continue
        piece = data[offset : offset + packed]
        try:
            # A frame may name its own size, which the library would allocate unasked.
            if zstandard.frame_content_size(piece) not in (-1, size):
                raise DataError(f"its stream {name} lies about its size", where=path)
            stream = inflater.decompress(piece, max_output_size=size)
        except zstandard.ZstdError as error:
            raise DataError(f"its stream {name} is damaged ({error})", where=path) from error
        if len(stream) != size:
            raise packing.cut_off(path, size, len(stream), f"the stream {name}")
        streams.append(stream)
    return header, streams, system


def sizes_spz(path: Path) -> dict[str, int]:
    """Bytes of each attribute in version 4; nothing for the older ones, which are one stream."""
    data = packing.read_bytes(path)
    if data[:4] != _MAGIC:
        return {}
    return {
        name: packed
        for name, (_, packed, size) in zip(_NAMES, _table(data, path)[1], strict=True)
        if size
    }
