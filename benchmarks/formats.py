"""Seconds to write and read a million splats in every format, and the bytes that each takes.

    python benchmarks/formats.py [--splats 1000000] [--sh-degree 3] [--formats ply spz] [--file X]

The splats are synthetic: clusters along surfaces with correlated colours, so sizes are a guide only
(--file takes a real scene). Times are the best of --tries; SOG's palette is written once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from scene4d.formats import registry as formats
from scene4d.formats.splat_cloud import SplatCloud


def synthetic(count: int, degree: int) -> SplatCloud:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(count // 500 + 1, 3)) * 3
    which = rng.integers(len(centres), size=count)
    means = centres[which] + rng.normal(size=(count, 3)) * [0.3, 0.3, 0.02]
    colours = rng.normal(size=(len(centres), (degree + 1) ** 2, 3)) * 0.3
    noise = rng.normal(size=(count, (degree + 1) ** 2, 3)) * 0.1
    arrays = {
        "means": means,
        "quats": rng.normal(size=(count, 4)),
        "log_scales": rng.normal(size=(count, 3)) - 5,
        "logit_opacities": rng.normal(size=count) * 2 + 1,
        "sh": colours[which] + noise,
    }
    return SplatCloud(**{name: array.astype(np.float32) for name, array in arrays.items()})


def measure(cloud: SplatCloud, name: str, folder: Path, tries: int) -> tuple[float, float, int]:
    """Seconds of writing and of reading, and the file's bytes."""
    path = folder / f"a{formats.format_named(name).suffixes[0]}"
    slow = name in ("sog", "s4d")
    writing = [timed(formats.write_splats, path, cloud) for _ in range(1 if slow else tries)]
    reading = [timed(formats.read_splats, path) for _ in range(tries)]
    return min(writing), min(reading), path.stat().st_size


def timed(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=1_000_000)
    parser.add_argument("--sh-degree", type=int, default=3)
    parser.add_argument("--formats", nargs="*", default=[f.name for f in formats.FORMATS])
    parser.add_argument("--file", type=Path, help="a splat file instead of synthetic splats")
    parser.add_argument("--tries", type=int, default=3)
    args = parser.parse_args()
    if args.file is None:
        cloud = synthetic(args.splats, args.sh_degree)
    else:
        cloud = formats.read_splats(args.file)
    print(f"{len(cloud):,} splats, spherical harmonics of degree {cloud.sh_degree}")
    print(f"{'format':<16}{'write s':>9}{'read s':>9}{'MB':>9}{'bytes each':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.formats:
            written, read, size = measure(cloud, name, Path(folder), args.tries)
            each = size / max(len(cloud), 1)
            print(
                f"{name:<16}{written:>9.2f}{read:>9.2f}{size / 1e6:>9.2f}{each:>12.2f}", flush=True
            )


if __name__ == "__main__":
    main()
