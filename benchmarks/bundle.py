"""Time to write and read a .s4d bundle of plain splats, and its bytes per splat and attribute.

    python benchmarks/bundle.py [--splats 1000000] [--sh-degree 3] [--file SCENE.ply]

Without a file, splats are made: on wrinkled surfaces, with smooth colours and SH coefficients of
which most are near 0, as training leaves them. Times are the best of three, without compilation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from scene4d.bundle.container import open_bundle
from scene4d.bundle.splats import decode_splats, encode_splats, write_splats_bundle
from scene4d.formats.splat_cloud import SplatCloud


def made_up_cloud(count: int, degree: int) -> SplatCloud:
    rng = np.random.default_rng(0)
    u, v = rng.random((2, count)) * 6
    means = np.stack([u, v, 0.5 * np.sin(2 * u) * np.cos(3 * v)], axis=1)
    means += rng.normal(size=(count, 3)) * 0.02
    smooth = np.stack([np.sin(u + p) * np.cos(v - p) for p in (0, 1, 2)], axis=1)
    size = np.log(3.0 / count**0.5)
    coefficients = (degree + 1) ** 2
    sh = np.zeros((count, coefficients, 3))
    sh[:, 0] = smooth + 0.2 * rng.normal(size=(count, 3))
    common = rng.laplace(size=(count, coefficients - 1, 1)) * 0.05
    sh[:, 1:] = common + rng.laplace(size=(count, coefficients - 1, 3)) * 0.01
    quats = rng.normal(size=(count, 4)) + np.array([2.0, 0, 0, 0])
    scales = size + rng.normal(size=(count, 3)) * 0.5 - np.array([0, 0, 1.5])
    opacity = rng.normal(size=count) * 2 + smooth[:, 0]
    arrays = (means, quats, scales, opacity, sh)
    f = [a.astype(np.float32) for a in arrays]
    return SplatCloud(means=f[0], quats=f[1], log_scales=f[2], logit_opacities=f[3], sh=f[4])


def best_of(times: int, work) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=1_000_000)
    parser.add_argument("--sh-degree", type=int, default=3)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    if arguments.file:
        from scene4d.formats.ply import read_ply

        cloud = read_ply(arguments.file)
    else:
        cloud = made_up_cloud(arguments.splats, arguments.sh_degree)
    small = made_up_cloud(60_000, cloud.sh_degree)  # compiles and warms up every path
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.s4d"
        write_splats_bundle(path, small)
        decode_splats(open_bundle(path))
        encoding = best_of(2, lambda: encode_splats(cloud))
        coded = write_splats_bundle(path, cloud)
        decoding = best_of(3, lambda: decode_splats(open_bundle(path)))
        size = path.stat().st_size
    million = len(cloud) / 1e6
    print(f"{len(cloud):,} splats of SH degree {cloud.sh_degree}: {size:,} bytes,"
          f" {size / len(cloud):.2f} per splat")  # fmt: skip
    print(f"encode {encoding:.2f} s ({encoding / million:.2f} s per million)")
    print(f"decode {decoding:.3f} s ({decoding / million:.3f} s per million)")
    errors = {entry["name"]: entry.get("error") for entry in coded.manifest["arrays"]}
    errors["positions"] = coded.manifest["positions"].get("error")
    for name, bits in coded.bits.items():
        error = errors.get(name)
        told = f"   error max {error['max']:g}, rms {error['rms']:g}" if error else ""
        print(f"  {name:<12}{bits / 8 / len(cloud):8.3f} bytes per splat{told}")


if __name__ == "__main__":
    main()
