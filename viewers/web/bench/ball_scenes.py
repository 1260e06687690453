"""Scenes for player.mjs: bundles of about 1, 5 and 20 MB, and splats as PLY, all made from a seed.

python ball_scenes.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from scene4d.formats.registry import write_splats
from scene4d.formats.splat_cloud import SplatCloud

BUNDLES = {"1mb": 40_000, "5mb": 200_000, "20mb": 800_000}
PLYS = {"10k": 10_000, "50k": 50_000}


def ball(count: int, degree: int) -> SplatCloud:
    """Small, half transparent splats in a shell: each view blends some ten of them at a pixel.

    Independent random numbers are the worst case of the entropy coder: trained scenes of as many
    splats are smaller.
    """
    rng = np.random.default_rng(count)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = rng.uniform(0.7, 1.0, size=(count, 1))
    size = 1.2 / np.sqrt(count)
    harmonics = rng.normal(scale=0.08, size=(count, (degree + 1) ** 2, 3))
    harmonics[:, 0] = rng.uniform(-1.5, 1.5, size=(count, 3))
    return SplatCloud(
        means=(directions * radii).astype(np.float32),
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        log_scales=np.log(rng.uniform(0.3, 1.2, size=(count, 3)) * size).astype(np.float32),
        logit_opacities=rng.uniform(-1, 3, size=count).astype(np.float32),
        sh=harmonics.astype(np.float32),
    )


def main() -> None:
    """Writes what is not there yet."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in BUNDLES.items():
        path = folder / f"{name}.s4d"
        if not path.exists():
            write_splats(path, ball(count, degree=3))
        print(f"{path.name}: {count:,} splats, {path.stat().st_size / 1e6:.2f} MB", flush=True)
    for name, count in PLYS.items():
        path = folder / f"{name}.ply"
        if not path.exists():
            write_splats(path, ball(count, degree=0))


if __name__ == "__main__":
    main()
