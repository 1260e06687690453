"""Makes the sample scene data/nerf_chair from the 400x400 pictures of the NeRF-synthetic chair.

Run: python scripts/make_sample_scene.py SOURCE data/nerf_chair

SOURCE is a folder in the Blender layout (transforms_train.json, transforms_test.json, train/,
test/). Every picture is averaged over blocks of pixels in premultiplied alpha, stored with
straight alpha, and every pixel that is fully transparent is stored as zeros (they would be
invisible noise otherwise, and cost bytes). The poses and the field of view stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image


def shrink(rgba: np.ndarray, factor: int) -> np.ndarray:
    """Block averages of a straight-alpha uint8 picture, taken in premultiplied alpha."""
    height, width = rgba.shape[0] // factor, rgba.shape[1] // factor
    pixels = rgba[: height * factor, : width * factor].astype(np.float64) / 255.0
    premultiplied = np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)
    mean = premultiplied.reshape(height, factor, width, factor, 4).mean(axis=(1, 3))
    alpha = mean[..., 3:]
    straight = np.divide(mean[..., :3], alpha, out=np.zeros_like(mean[..., :3]), where=alpha > 0)
    small = np.rint(np.concatenate([straight, alpha], axis=-1) * 255.0).astype(np.uint8)
    small[small[..., 3] == 0] = 0
    return small


def make_split(source: Path, target: Path, split: str, *, count: int, factor: int) -> int:
    """Writes one split of at most ``count`` evenly spread frames; returns the bytes written."""
    transforms = json.loads((source / f"transforms_{split}.json").read_text())
    frames = transforms["frames"]
    count = min(count, len(frames))
    chosen = [frames[round(i * len(frames) / count)] for i in range(count)]
    size = 0
    for frame in chosen:
        relative = frame["file_path"] + ".png"
        with Image.open(source / relative) as picture:
            small = shrink(np.asarray(picture.convert("RGBA")), factor)
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small, "RGBA").save(path, optimize=True)
        size += path.stat().st_size
    transforms = {**transforms, "frames": chosen}
    text = json.dumps(transforms, indent=1) + "\n"
    (target / f"transforms_{split}.json").write_text(text)
    return size + len(text)


def main() -> None:
    """Reads the command line and writes both splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the 400x400 pictures")
    parser.add_argument("target", type=Path, help="folder to write, e.g. data/nerf_chair")
    parser.add_argument("--factor", type=int, default=2, help="pixels averaged along each side")
    parser.add_argument("--train", type=int, default=90, help="frames to train on, at most")
    parser.add_argument("--test", type=int, default=25, help="frames to evaluate on, at most")
    args = parser.parse_args()
    for split, count in (("train", args.train), ("test", args.test)):
        size = make_split(args.source, args.target, split, count=count, factor=args.factor)
        print(f"{split}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
