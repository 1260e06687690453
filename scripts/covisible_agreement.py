"""How far masks from flow agree with the exact ones that a capture brings.

Run: python scripts/covisible_agreement.py CAPTURE [--every 6] [--without-depth] [--kind moving]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.maps import read_mask
from scene4d.evaluation.covisible import covisible_masks
from scene4d.evaluation.regions import moving_masks_of


def main() -> None:
    """Reads the command line and prints the share of equal pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--every", type=int, default=1, help="of the held-out pictures")
    parser.add_argument("--without-depth", action="store_true")
    parser.add_argument("--kind", choices=["covisible", "moving"], default="covisible")
    arguments = parser.parse_args()
    scene = in_working_frame(read_scene(arguments.capture))
    if arguments.without_depth:
        scene = replace(scene, frames=[replace(f, depth_path=None) for f in scene.frames])
    wanted = list(scene.test_indices)[:: arguments.every]
    images = ImageCache(scene, indices=[])
    covisible = arguments.kind == "covisible"
    made = covisible_masks(scene, images, wanted) if covisible else (
        moving_masks_of(scene, images, wanted).items()
    )  # fmt: skip
    shares, ones, both, either = [], [], 0, 0
    for index, mask in made:
        frame = scene.frames[index]
        exact = read_mask(frame.covisible_path if covisible else frame.moving_path)
        shares.append(float((mask.numpy() == exact).mean()))
        ones.append(float(exact.mean()))
        both += np.count_nonzero(mask.numpy() & exact)
        either += np.count_nonzero(mask.numpy() | exact)
    print(
        f"{len(shares)} pictures: {statistics.fmean(shares):.2%} of the pixels agree, least "
        f"{min(shares):.2%}; intersection over union {both / max(either, 1):.3f}; "
        f"{statistics.fmean(ones):.2%} are {arguments.kind}"
    )


if __name__ == "__main__":
    main()
