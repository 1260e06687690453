"""What light slabs start from: first MPIs against their teacher, for numbers of slabs and planes.

    python benchmarks/first_mpi.py TEACHER --slabs 8 16 24 --planes 16 32
    python benchmarks/first_mpi.py TEACHER --slabs 24 --scales 1 1.5 --blocks 100000 --mb 3.1

TEACHER is a run. Every combination is placed, drawn and rounded to fit --mb, and compared with the
teacher's pictures in held-out views and in views from between the cameras (mean PSNR of colour and
alpha, dB): as drawn, and as stored. Nothing is trained.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import torch

from scene4d.cameras.between import Spread
from scene4d.cameras.rays import camera_rays
from scene4d.data.scene import at_size_of
from scene4d.methods.lightslab.first_mpi import (
    MpiLimits,
    between,
    first_mpi,
    gaussians_of,
    training_and_nearby_cameras,
)
from scene4d.methods.lightslab.method import LightSlabMethod
from scene4d.methods.lightslab.mpi import MultiplaneImages, seen_by
from scene4d.methods.lightslab.placement import place_slabs
from scene4d.methods.lightslab.stored_mpi import as_stored, fitting_steps
from scene4d.representations.content import find_content
from scene4d.training.run import load_run
from scene4d.training.train import load_capture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--slabs", nargs="+", type=int, default=[1, 2, 4, 8, 16, 24, 32, 48])
    parser.add_argument("--planes", nargs="+", type=int, default=[0], help="0: as the method")
    parser.add_argument("--scales", nargs="+", type=float, default=[LightSlabMethod().mpi_scale])
    parser.add_argument("--blocks", type=int, default=LightSlabMethod().max_blocks)
    parser.add_argument("--mb", type=float, default=3.1, help="of a bundle, for MPIs")
    parser.add_argument("--views", type=int, default=8, help="of each kind")
    arguments = parser.parse_args()
    with torch.no_grad():
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    run = load_run(arguments.teacher)
    capture, images = load_capture(run.options)
    scene, teacher = at_size_of(capture, images), run.representation.eval()
    _, held_out = load_capture(run.options, split="test")
    cameras = scene.train_cameras()
    content, gaussians = find_content(scene, teacher), gaussians_of(teacher, cameras)
    taught = LightSlabMethod().teaching
    spread = Spread(between=taught.between, jitter=taught.jitter, turn=taught.turn)
    kinds = {
        "held out": [held_out.view(i).camera for i in scene.test_indices[: arguments.views]],
        "between": between(cameras, spread, arguments.views, 1),
    }
    pictures = {n: [(c, gaussians.render(c)) for c in seen] for n, seen in kinds.items()}
    around = training_and_nearby_cameras(cameras, spread)
    print("| slabs | planes | texels | blocks | step | held out | between | stored: | held out"
          " | between |\n" + "|" + " --- |" * 10)  # fmt: skip
    for count, planes, scale in itertools.product(
        arguments.slabs, arguments.planes, arguments.scales
    ):
        slabs = place_slabs(
            cameras, content, kind="cameras", count=count, num_planes=planes or None, around=around
        )
        limits = MpiLimits(
            bytes=1e6 * arguments.mb, blocks=arguments.blocks, scale=scale, spread=spread
        )
        drawn = first_mpi(gaussians, slabs, cameras, limits)
        steps = fitting_steps(drawn, limits.bytes)
        texels = as_stored(drawn.texels, drawn.levels, steps)
        stored = MultiplaneImages(stored=drawn.stored, texels=texels)
        found = [
            f"{mean_db(mpi, slabs, pictures[name]):.2f}"
            for mpi in (drawn, stored) for name in kinds
        ]  # fmt: skip
        size = f"{drawn.columns} x {drawn.rows}"
        row = [
            slabs.num_slabs,
            slabs.num_planes,
            size,
            drawn.num_blocks,
            f"{steps[1, 0] / 4.8:.1f}",
        ]
        print("| " + " | ".join(map(str, [*row, *found[:2], "", *found[2:]])) + " |", flush=True)


def mean_db(mpi: MultiplaneImages, slabs: object, pictures: list) -> float:
    """Mean PSNR of colour and alpha against the pictures."""
    values = []
    for camera, picture in pictures:
        rays = camera_rays(camera)
        found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        shown = (seen_by(mpi, found, slabs) * found.coverage[:, None])[:, :4]
        wanted = torch.cat([picture.rgb, picture.alpha[..., None]], dim=-1).reshape(-1, 4)
        values.append(-10 * math.log10(float((shown - wanted).square().mean())))
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
