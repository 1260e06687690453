"""Compares a capture's depth, masks and tracks with those that our generator gives for its cameras.

Run: python benchmarks/dynamic_truth.py SHARED/knight_room --models SHARED --every 4

The recipe holds what stands in the capture ``knight_room``, which another renderer drew.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from dynamic_capture.raster import Pinhole, rasterise  # noqa: E402
from dynamic_capture.recipe import read_recipe  # noqa: E402
from dynamic_capture.scene import build  # noqa: E402
from dynamic_capture.truth import (  # noqa: E402
    Shot,
    covisible_mask,
    dynamic_mask,
    moving_faces,
    shows,
)

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def shots_of(capture: Path, stage, positions, frames: int) -> dict[str, Shot]:
    """By name, every picture of the capture as our rasteriser sees it, one sample a pixel."""
    transforms = json.loads((capture / "transforms.json").read_text())
    shots = {}
    for frame in transforms["frames"]:
        name = Path(frame["file_path"]).stem
        camera = Pinhole(
            world_to_camera=np.linalg.inv(np.asarray(frame["transform_matrix"]) @ OPENGL),
            focal=transforms["fl_x"],
            width=transforms["w"],
            height=transforms["h"],
        )
        k = round(frame["time"] * (frames - 1))
        seen = rasterise(positions[k].reshape(-1, 3), stage.faces, camera)
        shots[name] = Shot(name=name, camera=camera, frame=k, seen=seen)
    return shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=ROOT / "scripts/captures/knight_room.toml")
    parser.add_argument("--every", type=int, default=1, help="of the held-out pictures")
    arguments = parser.parse_args()
    recipe, capture = read_recipe(arguments.recipe), arguments.capture
    stage = build(recipe.things, recipe.room, arguments.models)
    positions = [stage.at(float(t))[0] for t in recipe.times()]
    shots = shots_of(capture, stage, positions, recipe.frames)
    moving = moving_faces(positions)
    train = [s for n, s in shots.items() if n.startswith("train")]
    depth, dynamic, covisible = [], [], []
    for name, shot in shots.items():
        stored = np.asarray(Image.open(capture / "depth" / f"{name}.png")) * 0.001
        depth.append((np.abs(shot.seen.depth - stored) < 0.001).mean())
        mask = np.asarray(Image.open(capture / "dynamic" / f"{name}.png"))
        dynamic.append((mask == dynamic_mask(shot, moving)).mean())
    for shot in [s for n, s in shots.items() if n.startswith("test")][:: arguments.every]:
        mask = np.asarray(Image.open(capture / "covisible" / f"{shot.name}.png"))
        covisible.append((mask == covisible_mask(shot, train, positions)).mean())
    tracks = np.load(capture / "tracks.npz")
    ours = [shows(s, tracks["points"][s.frame].astype(np.float64)) for s in train]
    pixels = [s.camera.project(tracks["points"][s.frame])[0] for s in train]
    print(f"depth within 1 mm: {np.mean(depth):.4%} of the pixels, least {min(depth):.4%}")
    print(f"dynamic masks: {np.mean(dynamic):.4%}, least {min(dynamic):.4%}")
    print(f"covisible masks: {np.mean(covisible):.4%}, least {min(covisible):.4%}")
    print(f"tracks' visibility: {(np.stack(ours) == tracks['visible']).mean():.4%}")
    print(f"tracks' pixels: at most {np.abs(np.stack(pixels) - tracks['pixels']).max():.4f} off")


if __name__ == "__main__":
    main()
