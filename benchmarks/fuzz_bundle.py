"""Reads thousands of damaged bundles: each must be read or refused as DataError, in bounds.

    python benchmarks/fuzz_bundle.py [--files 4000] [--seed 0] [--kind lightslab]

Starts from the conformance bundles of every kind, or of one. A mutation damages raw bytes (flips,
cuts, repeats), or goes past the checksums on purpose: members get other bytes with a fitting hash,
the manifest other values with a fitting CRC, or other numbers that the schema allows. One in forty
is greedy: sound, of codes that take no bytes, with counts around the bounds of SPEC.md. Prints how
many were read, refused, and refused why.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import with_checked_kernels

from scene4d.bundle.checks import bundle_faults
from scene4d.bundle.container import BundleWriter, open_bundle
from scene4d.bundle.kinds import bundle_kinds, decoded, kind_of
from scene4d.bundle.splat_file import read_s4d
from scene4d.errors import DataError

_EXPORT = Path(__file__).resolve().parents[1] / "mobile_export"
GOOD = _EXPORT / "conformance" / "good"
sys.path.insert(0, str(_EXPORT))
import conformance_bombs as bombs  # noqa: E402 - lies beside the conformance files
from conformance_motion import still_nodes  # noqa: E402

MOST_SECONDS = 5.0
"""Of the processor."""
MEMORY_FREE, MEMORY_PER_BYTE = 128 << 20, 1024
"""Peak memory allowed: tables of 32 MiB with their making or the 2^22 codes and values that any
bundle may have, and a multiple of the file."""
GREEDY = 0.025
_NUMBERS = (0, -1, 1, 2, 3, 7, 16, 255, 4095, 4096, 65536, 1 << 24, 1 << 28, (1 << 31) - 1, 1 << 32,
            1 << 62, 1e-300, 1e300, -0.5, 0.1)  # fmt: skip
_OTHERS = (None, True, "", "x", "../x", "dc.0", "sh", [], {}, [0], [[]])


def mutated(source: Path, rng: np.random.Generator) -> bytes:
    """A damaged version of a bundle."""
    if rng.random() < GREEDY:
        return greedy(rng)
    kind = rng.integers(0, 6)
    if kind == 0:
        return damaged_bytes(source.read_bytes(), rng)
    bundle = open_bundle(source)
    members = {name: bundle.read(name) for name in bundle.names()}
    manifest = {k: v for k, v in copy.deepcopy(bundle.manifest).items() if k != "members"}
    if kind in (1, 2):
        coded = [n for n in members if n.endswith(".bin")]
        name = coded[rng.integers(0, len(coded))]
        if name == "tables.bin" and rng.random() < 0.8:
            inner = damaged_bytes(zlib.decompress(members[name]), rng)
            members[name] = zlib.compress(inner)
        else:
            members[name] = damaged_bytes(members[name], rng)
    if kind in (2, 3, 4):
        for _ in range(rng.integers(1, 3)):
            change_value(manifest, rng)
    if kind == 5:
        for _ in range(rng.integers(1, 4)):
            change_meaning(manifest, rng)
    writer = BundleWriter(manifest)
    for name, data in members.items():
        writer.add(name, data)
    try:
        return lying_members(writer, rng) if kind == 4 else writer.to_bytes()
    except (TypeError, ValueError):
        return source.read_bytes()[: rng.integers(0, 200)]


def greedy(rng: np.random.Generator) -> bytes:
    """A bundle that asks for much with few bytes; perhaps with room behind its poster."""
    room = int(2 ** rng.uniform(0, 18)) * int(rng.integers(0, 2))
    choice = rng.integers(0, 5)
    count = int(2 ** rng.uniform(10, 19))
    if choice == 4:
        nodes, segments = int(2 ** rng.uniform(2, 12)), int(2 ** rng.uniform(0, 12))
        return bombs.padded("splats4d", *still_nodes(count, nodes, segments=segments), room=room)
    if choice == 0:
        return bombs.padded("splats", *bombs.same_splats(count), room=room)
    if choice == 1:
        extra = bombs.zeros("what", int(2 ** rng.uniform(14, 23)), int(rng.integers(1, 3)))
        return bombs.padded("splats", *bombs.same_splats(3, extra), room=room)
    if choice == 2:
        wide = bombs.wide_array(int(2 ** rng.uniform(4, 13)))
        return bombs.padded("splats", *bombs.same_splats(3, *wide), room=room)
    shape = {
        "num_children": int(rng.integers(0, 9)), "hidden": int(2 ** rng.uniform(0, 8)),
        "attention": bool(rng.integers(0, 2)), "sh_degree": int(rng.integers(0, 4)),
    }  # fmt: skip
    mask = int(rng.integers(0, 1 << shape["num_children"]))
    family = bombs.one_family(max(1, count // 16), mask, **shape)
    return bombs.padded("lpgs", *family, room=room)


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, a cut, a repeated or zeroed piece, or random bytes in between."""
    result = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(result) + 1))
        length = int(rng.integers(1, 60))
        choice = rng.integers(0, 6)
        if choice <= 1 and at < len(result):
            result[at] ^= 1 << int(rng.integers(0, 8))
        elif choice == 2:
            del result[at : at + length]
        elif choice == 3:
            result[at:at] = result[at : at + length]
        elif choice == 4:
            result[at : at + length] = bytes(len(result[at : at + length]))
        else:
            piece = rng.integers(0, 256, len(result[at : at + length]), dtype=np.uint8)
            result[at : at + length] = piece.tobytes()
    return bytes(result[: rng.integers(0, len(result) + 1)] if rng.random() < 0.1 else result)


def change_value(manifest: dict[str, Any], rng: np.random.Generator) -> None:
    """One entry somewhere in the manifest becomes another value, is removed or repeated."""
    target: Any = manifest
    # where most of a decoder's decisions are
    central = ("arrays", "stages", "positions", "lpgs", "lightslab", "splats4d")
    found = {name: manifest[name] for name in central if name in manifest}
    if found and rng.random() < 0.7:
        target = found
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        if not keys:
            return
        key = keys[rng.integers(0, len(keys))]
        value = target[key]
        if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
            target = value
            continue
        break
    choice = rng.random()
    if choice < 0.1:
        del target[key]
    elif choice < 0.2 and isinstance(target, list):
        target.append(copy.deepcopy(value))
    elif choice < 0.8 and isinstance(value, (int, float)):
        near = int(value) + int(rng.integers(-3, 4))
        target[key] = near if rng.random() < 0.5 else _NUMBERS[rng.integers(0, len(_NUMBERS))]
    else:
        pool = (*_OTHERS, *_NUMBERS)
        target[key] = copy.deepcopy(pool[rng.integers(0, len(pool))])


def change_meaning(manifest: dict[str, Any], rng: np.random.Generator) -> None:
    """Numbers that the schema allows, so that decoding goes on to the Gaussians."""
    wide = float(np.float32(10.0 ** rng.uniform(-14, 14)))
    entry = manifest["arrays"][rng.integers(0, len(manifest["arrays"]))]
    if "lightslab" in manifest and rng.random() < 0.6:
        change_field(manifest["lightslab"], rng)
        return
    if "splats4d" in manifest and rng.random() < 0.6:
        change_motion(manifest, rng)
        return
    shape = manifest.get("lpgs")
    choice = rng.integers(0, 10 if shape else 4)
    if choice <= 1 and entry.get("quantiser", {}).get("type") == "uniform":
        name = ("step", "offset")[choice]
        sign = 1.0 if choice == 0 else float(rng.choice([-1, 1]))
        values = entry["quantiser"][name]
        values[rng.integers(0, len(values))] = sign * wide ** float(rng.choice([1, 2, 2.7]))
    elif choice == 2:
        entry["low"][rng.integers(0, len(entry["low"]))] += int(rng.integers(-300, 300))
    elif choice == 3 and "positions" in manifest:
        manifest["positions"]["origin"][rng.integers(0, 3)] = float(rng.uniform(-1, 1)) * wide
        manifest["positions"]["step"] *= float(rng.choice([1, 0.01, 2]))
    elif choice == 4:
        shape["radius"] = wide
    elif choice == 5:
        shape["centre"][rng.integers(0, 3)] = wide
    elif choice == 6 and shape["grid"]:
        sizes = shape["grid"][("rows", "resolutions")[rng.integers(0, 2)]]
        sizes[rng.integers(0, len(sizes))] = int(rng.choice([1, 7, 65, 728, 730, 1 << 20]))
        if rng.random() < 0.7:  # the table stays as large as it is
            shape["grid"]["rows"][1] = max(1, 793 - shape["grid"]["rows"][0])
    elif choice in (7, 8):
        name = ("attention", "contraction")[choice - 7]
        shape[name] = not shape[name]
    elif shape:
        for name, most in (("num_children", 8), ("hidden", 256)):
            shape[name] = int(rng.integers(0, most + 1))


def change_field(field: dict[str, Any], rng: np.random.Generator) -> None:
    """Other sizes and places of a light field's slabs, planes and network."""
    plane = field["feature_planes"][rng.integers(0, len(field["feature_planes"]))]
    slab = field["slabs"][rng.integers(0, len(field["slabs"]))]
    choice = rng.integers(0, 8 if "mpi" in field else 6)
    if choice == 6:
        name = ("columns", "rows", "blocks")[rng.integers(0, 3)]
        field["mpi"][name] = int(rng.choice([0, 1, 2, 8, 12, 16, 24, 255, 4096, 200_000]))
    elif choice == 7:
        change_steps(field["mpi"]["steps"], rng)
    elif choice == 0:
        name = ("samples", "encoded", "width", "blocks")[rng.integers(0, 4)]
        field["decoder"][name] = int(rng.choice([0, 1, 2, 4, 8, 16, 64, 128, 512]))
    elif choice == 1:
        field["decoder"]["channels"] = rng.integers(1, 257, rng.integers(1, 5)).tolist()
    elif choice == 2:  # also turned about, which keeps the size
        plane["columns"], plane["rows"] = plane["rows"], plane["columns"]
        plane[("columns", "rows", "stage")[rng.integers(0, 3)]] = int(rng.choice([0, 1, 2, 4096]))
    elif choice == 3:
        plane["axes"] = rng.integers(0, 8, 2).tolist()
    elif choice == 4:
        name = ("disparities", "low", "high")[rng.integers(0, 3)]
        slab[name] = slab[name][: rng.integers(2, 5)]
    else:
        slab["low"], slab["high"] = slab["high"], slab["low"]


def change_motion(manifest: dict[str, Any], rng: np.random.Generator) -> None:
    """Other times, steps and nodes, and codes of the motion that start elsewhere."""
    entry = manifest["splats4d"]
    choice = rng.integers(0, 6)
    wide = float(np.float32(10.0 ** rng.uniform(-9, 9)))
    if choice == 0:
        entry[("start", "duration", "interval")[rng.integers(0, 3)]] = wide
    elif choice == 1:  # all of time is scaled, so that chunks still fit
        entry["duration"], entry["interval"] = entry["duration"] * wide, entry["interval"] * wide
    elif choice == 2:
        entry[("rotation_step", "shift_step")[rng.integers(0, 2)]] = wide
    elif choice == 3:
        entry["nodes"] = int(rng.choice([0, 3, 4, 5, 6, 7, 4096]))
    elif choice == 4 and entry["chunks"]:
        chunk = entry["chunks"][rng.integers(0, len(entry["chunks"]))]
        name = ("stage", "segment", "segments")[rng.integers(0, 3)]
        chunk[name] = max(0, chunk[name] + int(rng.integers(-2, 3)))
    else:
        names = ("node_rest", "nodes", "weights", "window", "moving", "motion_0", "motion_1")
        found = [a for a in manifest["arrays"] if a["name"] in names]
        array = found[rng.integers(0, len(found))]
        at = rng.integers(0, len(array["low"]))
        array["low"][at] += int(rng.choice([-1, 1, 2, 255, 1 << 20, -(1 << 29)]))


def change_steps(steps: list[list[int]], rng: np.random.Generator) -> None:
    """Other steps of MPIs' frequencies, or another number of them."""
    most = int(rng.choice([2, 256, 1 << 15]))
    if rng.random() < 0.7:
        channel = steps[rng.integers(0, len(steps))]
        channel[rng.integers(0, len(channel))] = int(rng.integers(1, most))
    else:
        count = int(rng.integers(1, 65))
        steps[:] = rng.integers(1, most, (len(steps), count)).tolist()


def lying_members(writer: BundleWriter, rng: np.random.Generator) -> bytes:
    """The list of members with another entry, in a file that is sound otherwise."""
    manifest = writer.manifest(spare=1024)
    layout = copy.deepcopy(manifest["members"])
    change_value({"members": manifest["members"]}, rng)
    return writer.file_of(json.dumps(manifest, separators=(",", ":")).encode(), layout)


def outcome(path: Path) -> tuple[str, float, int]:
    """What reading ``path`` gave ("read" or the error's words), seconds, peak bytes."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bundle = open_bundle(path)
            read_s4d(path) if kind_of(bundle).made_of_splats else decoded(bundle)
        told = "read"
    except DataError as error:
        told = error.what
    faults = bundle_faults(path)
    if told != "read" and not faults:
        told = f"WRONG: refused ({told}) but without fault"
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return told, seconds, peak


def sources_of(kind: str | None) -> list[Path]:
    """The conformance bundles of a kind, or all."""
    paths = sorted(GOOD.glob("*.s4d"))
    return [p for p in paths if kind in (None, open_bundle(p).manifest["kind"])]


def fuzz(files: int, seed: int, folder: Path, kind: str | None = None) -> Counter[str]:
    """Outcomes of ``files`` mutations. Raises AssertionError when one breaks a bound."""
    sources = sources_of(kind)
    told: Counter[str] = Counter()
    for path in sources:
        decoded(open_bundle(path))  # so that compiling is in no one's time
    for number in range(files):
        rng = np.random.default_rng((seed, number))
        data = mutated(sources[number % len(sources)], rng)
        path = folder / "mutated.s4d"
        path.write_bytes(data)
        try:
            what, seconds, peak = outcome(path)
        except Exception as error:
            raise AssertionError(f"mutation ({seed}, {number}): {error!r}") from error
        assert seconds < MOST_SECONDS, f"mutation ({seed}, {number}) took {seconds:.1f} s"
        allowed = MEMORY_FREE + MEMORY_PER_BYTE * len(data)
        assert peak < allowed, f"mutation ({seed}, {number}) took {peak} bytes"
        assert not what.startswith("WRONG"), f"mutation ({seed}, {number}): {what}"
        told["read" if what == "read" else _words(what)] += 1
    return told


def _words(text: str) -> str:
    """An error without what is particular to one file."""
    return " ".join(w for w in text.split() if not any(c in "0123456789'[" for c in w))[:60]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=tuple(bundle_kinds()))
    arguments = parser.parse_args()
    with_checked_kernels()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = fuzz(arguments.files, arguments.seed, Path(folder), arguments.kind)
    seconds = time.perf_counter() - start
    print(f"{arguments.files} files in {seconds:.0f} s: {told['read']} read,"
          f" {arguments.files - told['read']} refused, none bad")  # fmt: skip
    for words, count in told.most_common(40):
        print(f"{count:7d}  {words}")


if __name__ == "__main__":
    main()
