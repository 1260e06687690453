"""Makes the captures that the built-in RGB-D prior is trained on: drawn ones, with exact depth.

Run: python scripts/make_rgbd_captures.py OUT --models FOLDER [--rgbd CAPTURE ...] [--captures 240]

Rooms and objects are drawn from the glTF models in FOLDER/kaykit, some with drawn textures; one in
four is a stretch of one of the RGB-D captures, of the first half of its path: the second is left to
judge by. They are written one by one, so that the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from drawn_scenes import stage_of, write_capture, write_stretch

SIZE = 64
"""Pixels of pictures, about."""
HALF = 0.5


def main() -> None:
    """Draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="with kaykit/")
    parser.add_argument("--rgbd", type=Path, nargs="*", default=[], help="captures with depth")
    parser.add_argument("--captures", type=int, default=240)
    arguments = parser.parse_args()
    models = arguments.models
    files = sorted(str(f.relative_to(models)) for f in models.glob("kaykit/*/*.gltf"))
    for number in range(arguments.captures):
        random, out = np.random.default_rng(number), arguments.out / f"{number:03d}"
        if (out / "transforms.json").exists():
            continue
        if arguments.rgbd and number % 4 == 3:
            capture = arguments.rgbd[number // 4 % len(arguments.rgbd)]
            write_stretch(out, capture, random, size=SIZE, depth=True, share=HALF)
        else:
            stage, inside = stage_of(models, files, [], random)
            write_capture(out, stage, inside, random, size=SIZE, depth=True)
        print(out, flush=True)


if __name__ == "__main__":
    main()
