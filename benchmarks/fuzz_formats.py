"""Reads thousands of damaged and hostile files per splat format; every outcome other than a cloud
or our own error is printed, and makes the exit status 1.

    python benchmarks/fuzz_formats.py [--files 5000] [--formats spz sog] [--seed 0]
                                      [--task read | info | convert | points]

The files are read by their reader, shown by ``scene4d info`` (bundles of every kind among them),
converted to a PLY with ``--drop-invalid``, or (PLYs alone) taken as a capture's points.

Files are bit flips, overwritten numbers, cuts, splices, random headers, and damage *inside* the
containers (after decompression, in the JSON, in members of a ZIP with a right checksum). Each file
is read in a child process under a limit of time and of memory beyond what the process had.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import math
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import fuzz_bundle
import numpy as np
from fuzzing import (
    Tally,
    Trial,
    options,
    print_head,
    print_row,
    shown,
    tried,
    until,
    with_checked_kernels,
)

from scene4d.data.points import read_points
from scene4d.errors import Scene4dError
from scene4d.formats import registry as formats
from scene4d.formats.splat_cloud import SplatCloud

SECONDS_PER_FILE = 5.0
MEMORY = 1 << 30
"""Bytes of address space that reading one file of a few kB may add."""
NUMBERS = (0, 1, 2, 127, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1, 2**63)
VALUES = (
    *NUMBERS, -1, 0.5, -1e30, 1e300, float("nan"), float("inf"), None, True, "", "../../etc/passwd",
    "/etc/passwd", "meta.json", "x" * 5000, [], {}, [[]] * 3, [0] * 300, [1e40] * 3, {"a": 1},
)  # fmt: skip

Mutator = Callable[[random.Random, bytes], bytes]


def sample_cloud(count: int, degree: int) -> SplatCloud:
    rng = np.random.default_rng(count + degree)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return SplatCloud(
        means=normal(count, 3), quats=normal(count, 4), log_scales=normal(count, 3) - 3,
        logit_opacities=normal(count), sh=0.3 * normal(count, (degree + 1) ** 2, 3),
    )  # fmt: skip


# Damage to any bytes


def flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite_number(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    reach = rng.choice((64, 256, len(out)))
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice("BHIQ")
        size = struct.calcsize(kind)
        where = rng.randrange(max(1, min(reach, len(out)) - size))
        out[where : where + size] = struct.pack("<" + kind, rng.choice(NUMBERS) % 256**size)
    return bytes(out)


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice((rng.randrange(len(data)), rng.randrange(min(64, len(data)))))]


def splice(rng: random.Random, data: bytes) -> bytes:
    a, b, c = (rng.randrange(len(data)) for _ in range(3))
    length = rng.randint(1, 1 + len(data) // 2)
    return rng.choice((data[:a] + data[b : b + length] + data[a:], data[:a] + data[b:], data[c:]))


def random_header(rng: random.Random, data: bytes) -> bytes:
    size = rng.choice((4, 16, 32, 64, 200))
    keep = rng.choice((0, 4, 8))
    return data[:keep] + rng.randbytes(size) + data[keep + size :]


ANY: tuple[Mutator, ...] = (flip, overwrite_number, cut, splice, random_header)


# Damage inside the containers


def json_changed(rng: random.Random, document: object) -> object:
    """The document with one to three of its values, anywhere, replaced or removed."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        places: list[tuple[dict | list, object]] = []
        pending: list[object] = [document]
        while pending:
            item = pending.pop()
            keys = item if isinstance(item, dict) else range(len(item) if len(item) < 40 else 3)
            for key in keys:
                places.append((item, key))
                if isinstance(item[key], (dict, list)) and item[key]:
                    pending.append(item[key])
        if not places:
            break
        holder, key = rng.choice(places)
        if rng.random() < 0.2 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))  # or it is changed itself, for good
    return document


def ply_header(rng: random.Random, data: bytes) -> bytes:
    head, _, body = data.partition(b"end_header\n")
    lines = head.split(b"\n")
    i = rng.randrange(1, len(lines) - 1)
    words = lines[i].split(b" ")
    change = rng.randrange(4)
    if change == 0:
        words[rng.randrange(len(words))] = str(rng.choice((*NUMBERS, -1, 10**30))).encode()
    elif change == 1:
        words = rng.choice(lines).split(b" ")
    elif change == 2:
        words = [w.replace(b"float", b"char").replace(b"uint", b"double") for w in words]
    lines[i] = b" ".join(words)
    if change == 3:
        del lines[i]
    return b"\n".join(lines) + b"end_header\n" + body


def inside_gzip(rng: random.Random, data: bytes) -> bytes:
    return gzip.compress(rng.choice(ANY)(rng, gzip.decompress(data)), 1)


def inside_zstd(rng: random.Random, data: bytes) -> bytes:
    """Streams and table of SPZ 4 that lie in agreement with each other, or not."""
    import zstandard

    number, offset = data[15], struct.unpack_from("<I", data, 16)[0]
    toc = [struct.unpack_from("<QQ", data, offset + 16 * i) for i in range(number)]
    start, streams = offset + 16 * number, []
    for packed, _ in toc:
        streams.append(zstandard.ZstdDecompressor().decompress(data[start : start + packed]))
        start += packed
    chosen = rng.randrange(number)
    if rng.random() < 0.3:
        streams[chosen] = bytes(rng.choice((1, 2**20, 2**24)))
    else:
        streams[chosen] = rng.choice(ANY)(rng, streams[chosen])
    honest = rng.random() < 0.5
    packer = zstandard.ZstdCompressor(write_content_size=rng.random() < 0.5)
    packed = [packer.compress(s) for s in streams]
    table = [
        struct.pack("<QQ", len(p), len(s) if honest else t[1])
        for p, s, t in zip(packed, streams, toc, strict=True)
    ]
    head = bytearray(data[:32])
    if rng.random() < 0.2:
        head[8:12] = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
    return b"".join([bytes(head), *table, *packed])


def inside_zip(rng: random.Random, data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if rng.random() < 0.6:
        meta = json_changed(rng, json.loads(members["meta.json"]))
        members["meta.json"] = json.dumps(meta).encode()
    else:
        name = rng.choice(list(members))
        other = rng.choice(list(members.values()))
        bomb = bytes(2**25)
        members[name] = rng.choice((rng.choice(ANY)(rng, members[name]), other, bomb))
    buffer = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def glb_json(rng: random.Random, data: bytes) -> bytes:
    size = struct.unpack_from("<I", data, 12)[0]
    document = json_changed(rng, json.loads(data[20 : 20 + size]))
    text = json.dumps(document).encode()
    if rng.random() < 0.02:
        text = b"[" * 200_000
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), _JSON) + (
        text + rest
    )


def inside_bundle(rng: random.Random, data: bytes) -> bytes:
    """A conformance bundle of any kind instead, damaged behind its checksums."""
    return fuzz_bundle.mutated(rng.choice(_bundles()), np.random.default_rng(rng.getrandbits(64)))


@cache
def _bundles() -> list[Path]:
    return fuzz_bundle.sources_of(None)


_JSON = 0x4E4F534A
INSIDE: dict[str, tuple[Mutator, ...]] = {
    "ply": (ply_header,), "compressed-ply": (ply_header,), "splat": (), "spz": (inside_zstd,),
    "spz-gzip": (inside_gzip,), "sog": (inside_zip,), "glb": (glb_json,),
    "s4d": (inside_bundle,),
}  # fmt: skip


def legacy_spz(cloud: SplatCloud, version: int) -> bytes:
    """A gzip SPZ of version 2 or 3, as nianticlabs/spz wrote them."""
    from scene4d.formats import spz

    parts = spz._packed(cloud, 12, (8, 8))
    if version == 2:
        quats = cloud.quats / np.linalg.norm(cloud.quats, axis=1, keepdims=True)
        quats = np.where(quats[:, :1] < 0, -quats, quats)
        xyz = quats[:, 1:] * spz._FLIP
        parts[4] = np.clip(np.rint(xyz * 127.5 + 127.5), 0, 255).astype(np.uint8).tobytes()
    head = struct.pack("<4sIIBBBB", b"NGSP", version, len(cloud), cloud.sh_degree, 12, 0, 0)
    return gzip.compress(head + b"".join(parts), mtime=0)


def originals(name: str, folder: Path) -> list[bytes]:
    """Small good files of a format."""
    clouds = [sample_cloud(300, 3), sample_cloud(40, 1), sample_cloud(1, 0)]
    if name == "spz-gzip":
        return [legacy_spz(cloud, version) for cloud in clouds for version in (2, 3)]
    form = formats.format_named(name)
    path, found = folder / f"original{form.suffixes[0]}", []
    for cloud in clouds:
        formats.write_splats(path, cloud)
        found.append(path.read_bytes())
    if name == "ply":
        found += [as_text(data) for data in found]
    return found


def as_text(data: bytes) -> bytes:
    """A PLY of float32 as the text kind, with a smoothing filter and a comment."""
    head, _, body = data.partition(b"end_header\n")
    head = head.replace(b"binary_little_endian", b"ascii").replace(b"nx", b"filter_3D")
    head = head.replace(b"1.0\n", b"1.0\ncomment SplatRenderMode: mip\n", 1)
    rows = np.frombuffer(body, "<f4").reshape(-1, head.count(b"property"))
    lines = [" ".join(f"{value:.6g}" for value in row) for row in rows.tolist()]
    return head + b"end_header\n" + "\n".join(lines).encode() + b"\n"


def mutants(name: str, seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(f"{name} {seed}")
    for _ in range(count):
        mutator = rng.choice((*ANY, *INSIDE[name] * 4))
        yield mutator(rng, rng.choice(seeds))


def _convert(path: Path) -> None:
    """As ``scene4d convert --drop-invalid`` does, without its words."""
    cloud = formats.read_splats(path, drop_invalid=True)
    formats.write_splats(path.with_name("converted.ply"), cloud)


def task_for(task: str, name: str) -> Callable[[Path], object]:
    """What is done with each file of a format."""
    if task == "read":
        return formats._function(formats.format_named(name.removesuffix("-gzip")).read)
    return {"info": shown, "convert": _convert, "points": read_points}[task]


def fuzz(
    name: str, count: int, *, seed: int = 0, task: str = "read", minutes: float = math.inf
) -> Tally[bytes]:
    """How ``count`` files of a format went."""
    form, act = formats.format_named(name.removesuffix("-gzip")), task_for(task, name)
    file = "file.bin" if task == "read" else f"file{form.suffixes[0]}"

    def attempt(data: bytes, folder: Path) -> None:
        path = folder.with_name(file)
        path.write_bytes(data)
        act(path)

    def warm_up(folder: Path) -> None:
        import PIL.Image
        import zstandard

        assert zstandard
        PIL.Image.init()
        with contextlib.suppress(Scene4dError):
            attempt(b"", folder)

    with tempfile.TemporaryDirectory() as scratch:
        seeds = originals(name, Path(scratch))
    trial = Trial(attempt, warm_up, SECONDS_PER_FILE, MEMORY, until=until(minutes))
    return tried(mutants(name, seeds, count, seed), trial)


def main() -> None:
    parser = options(__doc__.splitlines()[0], files=5000, each="format")
    parser.add_argument("--formats", nargs="*", default=list(INSIDE))
    parser.add_argument("--task", default="read", choices=("read", "info", "convert", "points"))
    args = parser.parse_args()
    with_checked_kernels()
    failed = False
    print_head("format")
    for name in args.formats:
        if args.task == "points" and not name.endswith("ply"):
            continue
        tally = fuzz(name, args.files, seed=args.seed, task=args.task, minutes=args.minutes)
        print_row(name, tally)
        failed |= bool(tally.bad)
        for i, (data, _) in enumerate(tally.bad if args.keep else []):
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{name}-{i}.bin").write_bytes(data)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
