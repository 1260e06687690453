"""How far covisible masks from flow agree with the exact ones that a capture brings.

Run: python scripts/covisible_agreement.py CAPTURE [--every 6] [--without-depth]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.maps import read_mask
from scene4d.evaluation.covisible import covisible_masks


def main() -> None:
    """Reads the command line and prints the share of equal pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--every", type=int, default=1, help="of the held-out pictures")
    parser.add_argument("--without-depth", action="store_true")
    arguments = parser.parse_args()
    scene = in_working_frame(read_scene(arguments.capture))
    if arguments.without_depth:
        scene = replace(scene, frames=[replace(f, depth_path=None) for f in scene.frames])
    wanted = list(scene.test_indices)[:: arguments.every]
    shares, covisible = [], []
    for index, mask in covisible_masks(scene, ImageCache(scene, indices=[]), wanted):
        exact = read_mask(scene.frames[index].covisible_path)
        shares.append(float((mask.numpy() == exact).mean()))
        covisible.append(float(exact.mean()))
    print(
        f"{len(shares)} pictures: {statistics.fmean(shares):.2%} of the pixels agree, least "
        f"{min(shares):.2%}; {statistics.fmean(covisible):.2%} are covisible"
    )


if __name__ == "__main__":
    main()
