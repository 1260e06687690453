"""What is left of a scene that is cut for a device: by what shows, and by opacity times area.

    python benchmarks/fewer_splats.py RUN_OR_FILE --shares 0.5 0.2 0.1

PSNR on a run's held-out photographs; of a file, on renders of the whole.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    from scene4d.bundle.splats import default_importance
    from scene4d.exporters.shown import shown_shares
    from scene4d.formats.packing import taken
    from scene4d.representations.gaussians import GaussianSplats
    from scene4d.training.evaluate import mean_psnr
    from scene4d.training.open_scene import open_scene
    from scene4d.training.rendered_capture import rendered_capture
    from scene4d.training.run import load_run
    from scene4d.training.train import load_capture

    arguments = parse()
    if arguments.scene.is_dir():
        opened = load_run(arguments.scene)
        scene, images = load_capture(opened.options, split="test")
    else:
        opened = open_scene(arguments.scene)
        scene, images = rendered_capture(opened)
    whole = opened.in_frame(scene.source_from_scene)
    cloud = whole.splats()
    orders = {
        "opacity times area": default_importance(cloud),
        "what shows": shown_shares(opened),
    }
    print(f"{len(cloud):,} splats: {psnr(mean_psnr, whole, scene, images)}")
    for share in arguments.shares:
        for name, order in orders.items():
            kept = np.sort(np.argsort(-order, kind="stable")[: max(1, int(share * len(cloud)))])
            few = GaussianSplats.of(taken(cloud, kept), extent=scene.extent)
            print(f"{len(kept):,} by {name}: {psnr(mean_psnr, few, scene, images)}")


@torch.no_grad()
def psnr(mean_psnr, splats, scene, images) -> str:
    return f"{mean_psnr(splats, scene, images):.2f} dB"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path, help="a run, or a file of splats")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.2, 0.1], help="kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
