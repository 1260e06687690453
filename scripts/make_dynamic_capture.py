"""Makes a dynamic capture with exact truth: animated glTF models in a room, DyCheck's problem.

Run: python scripts/make_dynamic_capture.py RECIPE.toml OUT --models FOLDER

One camera moves (and others may stand beside it), two that stand still are held out. Written are a
nerfstudio ``transforms.json`` with ``time`` (0..1) and ``fps``, ``images``, ``depth`` (16-bit PNG
along the viewing axis, by default thousandths of a scene unit, at pixels' centres), ``dynamic`` (1
where the visible surface ever moves), ``covisible`` (of held-out pictures: whose material point
more than max(5, 10 %) of the training pictures show), and ``tracks.npz`` of points on what moves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dynamic_capture.raster import Pinhole, Seen, averaged, rasterise, shade
from dynamic_capture.recipe import Recipe, read_recipe, test_cameras, train_cameras
from dynamic_capture.scene import Stage, build
from dynamic_capture.truth import Shot, covisible_mask, dynamic_mask, moving_faces, tracks
from PIL import Image

CORNERS = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenCV's camera axes to OpenGL's."""


def take(
    stage: Stage, camera: Pinhole, posed: tuple[np.ndarray, np.ndarray], recipe: Recipe
) -> tuple[np.ndarray, Seen]:
    """A picture [height, width, 3] of uint8, and what its pixels' centres show."""
    positions, normals = posed
    seen = rasterise(positions.reshape(-1, 3), stage.faces, camera, samples=recipe.samples)
    colors = shade(seen, normals, stage.surfaces, recipe.light, np.asarray(recipe.sky))
    picture = (averaged(colors, recipe.samples) * 255.0).round().astype(np.uint8)
    return picture, seen.centres(recipe.samples)


def make(recipe: Recipe, models: Path, out: Path) -> None:
    """Draws and writes a capture into the folder ``out``."""
    stage = build(recipe.things, recipe.room, models)
    posed = [stage.at(float(time)) for time in recipe.times()]
    positions = [p.astype(np.float32) for p, _ in posed]
    moving = moving_faces(positions)
    train, test = [], []
    for name, camera, frame, held_out in _shots(recipe):
        picture, seen = take(stage, camera, posed[frame], recipe)
        shot = Shot(name=name, camera=camera, frame=frame, seen=seen)
        (test if held_out else train).append(shot)
        _write_shot(out, shot, picture, dynamic_mask(shot, moving), recipe)
        if recipe.depth == "all" or not held_out:
            write_depth(out / "depth" / f"{name}.png", seen.depth, recipe.depth_unit)
    one = [shot for shot in train if shot.name.startswith("train_")]
    tell = one if recipe.covisible == "moving" else train
    for shot in test:
        _write_mask(out / "covisible" / f"{shot.name}.png", covisible_mask(shot, tell, positions))
    found = tracks(one, moving, positions, recipe.tracks, np.random.default_rng(recipe.seed))
    if found and len(one) == len(train):  # tracks belong to one camera's frames
        np.savez_compressed(out / "tracks.npz", **found)
    (out / "transforms.json").write_text(json.dumps(_transforms(recipe, train, test)) + "\n")


def _shots(recipe: Recipe) -> list[tuple[str, Pinhole, int, bool]]:
    """Name, camera, frame, and whether it is held out."""
    shots = []
    for number, path in enumerate(train_cameras(recipe)):
        prefix = "train" if number == 0 and recipe.moving is not None else f"cam{number}"
        shots += [(f"{prefix}_{k:03d}", camera, k, False) for k, camera in enumerate(path)]
    held_out = test_cameras(recipe)
    for number, camera in enumerate(held_out):
        shots += [(f"test{number + 1}_{k:03d}", camera, k, True)
                  for k in range(number, recipe.frames, len(held_out))]  # fmt: skip
    return shots


def _write_shot(
    out: Path, shot: Shot, picture: np.ndarray, moving: np.ndarray, recipe: Recipe
) -> None:
    path = out / "images" / f"{shot.name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=recipe.jpeg_quality, subsampling=0, optimize=True)
    _write_mask(out / "dynamic" / f"{shot.name}.png", moving)


def write_depth(path: Path, depth: np.ndarray, unit: float) -> None:
    """In whole ``unit``, 16 bits; 0 where nothing is seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.where(np.isfinite(depth), depth, 0.0) / unit
    Image.fromarray(np.clip(steps.round(), 0, 65535).astype(np.uint16)).save(path, optimize=True)


def _write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, optimize=True)


def _transforms(recipe: Recipe, train: Sequence[Shot], test: Sequence[Shot]) -> dict:  # type: ignore[type-arg]
    names = [f"images/{shot.name}.jpg" for shot in test]
    cameras = {name: i for i, name in enumerate(dict.fromkeys(_prefix(s) for s in [*train, *test]))}
    return {
        "camera_model": "OPENCV",
        "fl_x": recipe.focal,
        "fl_y": recipe.focal,
        "cx": recipe.width / 2,
        "cy": recipe.height / 2,
        "w": recipe.width,
        "h": recipe.height,
        "depth_unit_scale_factor": recipe.depth_unit,
        "fps": recipe.fps,
        "train_filenames": [f"images/{shot.name}.jpg" for shot in train],
        "test_filenames": names,
        "val_filenames": names,
        "frames": [
            {**_frame(recipe, shot, held_out), "camera": cameras[_prefix(shot)]}
            for shots, held_out in ((train, False), (test, True))
            for shot in shots
        ],
    }


def _prefix(shot: Shot) -> str:
    """The camera's name."""
    return shot.name.partition("_")[0]


def _frame(recipe: Recipe, shot: Shot, held_out: bool) -> dict:  # type: ignore[type-arg]
    c2w = np.linalg.inv(shot.camera.world_to_camera) @ CORNERS
    name = shot.name
    entry = {
        "file_path": f"images/{name}.jpg",
        "dynamic_mask_path": f"dynamic/{name}.png",
        "transform_matrix": c2w.round(9).tolist(),
        "time": round(shot.frame / max(recipe.frames - 1, 1), 9),
    }
    if recipe.depth == "all" or not held_out:
        entry["depth_file_path"] = f"depth/{name}.png"
    if held_out:
        entry["covisible_mask_path"] = f"covisible/{name}.png"
    return entry


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="a TOML file, see scripts/dynamic_capture/recipe")
    parser.add_argument("out", type=Path, help="folder to write; must not be there")
    parser.add_argument("--models", type=Path, required=True, help="folder of the glTF models")
    arguments = parser.parse_args()
    if arguments.out.exists():
        raise SystemExit(f"{arguments.out} is there already")
    make(read_recipe(arguments.recipe), arguments.models, arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
