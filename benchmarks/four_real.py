"""What a deformation of its own for each generated picture buys: knight_room's truth, spoilt.

    python benchmarks/four_real.py --models SHARED [--steps 600] [--height 120]

Drawn are a freeze-time video (one moment, cameras on an arc) and a reference video (one camera, all
moments) of what stands in knight_room, and held-out pictures of two other cameras at all moments.
Of the freeze-time video each picture is then warped smoothly and recoloured, each in another way,
as pictures of a video model disagree; the camera of the reference video sees the same picture in
both. Trained on is no depth, points as structure from motion would give them, and masks by flow.
All arms train for the same number of steps; figures are those of the true held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from dynamic_capture.raster import averaged, rasterise, shade  # noqa: E402
from dynamic_capture.recipe import Fixed, read_recipe, test_cameras, train_cameras  # noqa: E402
from dynamic_capture.scene import build  # noqa: E402
from dynamic_capture.truth import Shot, covisible_mask, dynamic_mask, moving_faces  # noqa: E402
from scipy.ndimage import map_coordinates  # noqa: E402

from scene4d.data.process.write import write_points  # noqa: E402
from scene4d.methods.deformable.four_real_method import FourRealMethod  # noqa: E402
from scene4d.training.evaluate import evaluate_run  # noqa: E402
from scene4d.training.options import TrainOptions  # noqa: E402
from scene4d.training.train import start  # noqa: E402

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
TARGET, RADIUS, EYE_HEIGHT = (0.0, 0.9, -1.2), 3.9, 2.0
"""What knight_room's cameras look at, from how far and how high."""
ARMS = {
    "with both": {},
    "without deformations": {"own_deformation": False},
    "without colours": {"fit_exposure": False},
    "without either": {"own_deformation": False, "fit_exposure": False},
}


def spoilt(picture: np.ndarray, warp: float, colour: float, random) -> np.ndarray:
    """The picture [h, w, 3] of 0..255 bent by about ``warp`` pixels, in waves of half its width and
    more, its colours changed by about the share ``colour``."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(float)
    moved = []
    for at in (y, x):
        waves = 0.0
        for _ in range(3):
            across, down = random.uniform(-2, 2, 2) * 2 * np.pi / np.array([width, width])
            waves = waves + np.sin(across * x + down * y + random.uniform(0, 2 * np.pi))
        moved.append(at + warp * waves / 1.5**0.5)
    bent = np.stack([map_coordinates(picture[..., c].astype(float), moved, order=1, mode="nearest")
                     for c in range(3)], axis=-1)  # fmt: skip
    matrix = np.eye(3) + colour * random.normal(size=(3, 3)) / 2
    return np.clip(bent @ matrix.T + 255 * colour / 2 * random.normal(size=3), 0, 255)


class Writer:
    """Draws pictures into a capture's folder."""

    def __init__(self, folder: Path, models: Path, height: int, frames: int) -> None:
        recipe = read_recipe(ROOT / "scripts/captures/knight_room.toml")
        scale = height / recipe.height
        self.recipe = replace(
            recipe, height=height, width=round(scale * recipe.width), focal=scale * recipe.focal,
            frames=frames, fps=recipe.fps * frames / recipe.frames,
        )  # fmt: skip
        self.folder, self.stage = folder, build(recipe.things, recipe.room, models)
        self.posed = [self.stage.at(float(time)) for time in self.recipe.times()]
        self.positions = [p.astype(np.float32) for p, _ in self.posed]
        self.moving = moving_faces(self.positions)
        self.train: list[Shot] = []
        self.entries: list[dict] = []

    def shot(self, name: str, camera, frame: int, spoil=None) -> tuple[np.ndarray, np.ndarray]:
        """Writes a picture; returns it and its depth."""
        positions, normals = self.posed[frame]
        seen = rasterise(positions.reshape(-1, 3), self.stage.faces, camera, samples=3)
        sky = np.asarray(self.recipe.sky)
        colours = shade(seen, normals, self.stage.surfaces, self.recipe.light, sky)
        picture = averaged(colours, 3) * 255.0
        picture = picture if spoil is None else spoil(picture)
        path = self.folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.round().astype(np.uint8)).save(path)
        entry = {
            "file_path": f"{name}.png", "camera": name.partition("/")[0],
            "transform_matrix": (np.linalg.inv(camera.world_to_camera) @ OPENGL).tolist(),
            "time": float(self.recipe.times()[frame]),
        }  # fmt: skip
        shot = Shot(name=name, camera=camera, frame=frame, seen=seen.centres(3))
        if name.startswith("test"):
            found = covisible_mask(shot, self.train, self.positions)
            for key, mask in (("dynamic", dynamic_mask(shot, self.moving)), ("covisible", found)):
                Image.fromarray(mask).save(path.with_suffix(f".{key}.png"))
                entry[f"{key}_mask_path"] = f"{name}.{key}.png"
        else:
            self.train.append(shot)
        self.entries.append(entry)
        return picture, shot.seen.depth

    def close(self, points: tuple[np.ndarray, np.ndarray]) -> None:
        """Writes the index."""
        write_points(self.folder / "points.ply", *points)
        r, names = self.recipe, [e["file_path"] for e in self.entries]
        test = [name for name in names if name.startswith("test")]
        (self.folder / "transforms.json").write_text(json.dumps({
            "w": r.width, "h": r.height, "fl_x": r.focal, "fl_y": r.focal, "cx": r.width / 2,
            "cy": r.height / 2, "time_unit": "seconds", "ply_file_path": "points.ply",
            "train_filenames": [name for name in names if name not in test],
            "test_filenames": test, "frames": self.entries,
        }))  # fmt: skip


def at_angle(degrees: float) -> Fixed:
    turn = np.radians(degrees)
    eye = np.asarray(TARGET) * [1, 0, 1] + [RADIUS * np.sin(turn), 0, RADIUS * np.cos(turn)]
    return Fixed(eye=(float(eye[0]), EYE_HEIGHT, float(eye[2])), target=TARGET)


def write(folder: Path, arguments: argparse.Namespace, *, clean: bool = False) -> None:
    """The capture: freeze-time video, reference video, held-out pictures, points."""
    random = np.random.default_rng(arguments.seed)
    writer = Writer(folder, arguments.models, arguments.height, arguments.frames)
    recipe, middle = writer.recipe, arguments.frames // 2
    angles = np.linspace(-arguments.arc, arguments.arc, arguments.views)
    scale = arguments.height / 240
    drawn = replace(recipe, moving=None, fixed_train=tuple(at_angle(a) for a in angles))
    xyz, rgb = [], []
    for number, path in enumerate(train_cameras(drawn)):
        camera = path[0]

        def spoil(picture: np.ndarray) -> np.ndarray:
            return spoilt(picture, scale * arguments.warp, arguments.colour, random)

        reference = number == arguments.views // 2
        name = f"video/{middle:03d}" if reference else f"freeze{number}/000"
        picture, depth = writer.shot(name, camera, middle, None if clean or reference else spoil)
        y, x = (random.integers(0, n, arguments.points // arguments.views) for n in depth.shape)
        known = np.isfinite(depth[y, x])
        y, x = y[known], x[known]
        z = depth[y, x] * (1 + 0.005 * random.normal(size=len(y)))
        rays = np.stack([x + 0.5 - recipe.width / 2, y + 0.5 - recipe.height / 2], -1)
        local = np.column_stack([rays / recipe.focal * z[:, None], z, np.ones(len(z))])
        xyz.append((local @ np.linalg.inv(camera.world_to_camera).T)[:, :3])
        rgb.append(picture[y, x])
        if reference:
            for frame in set(range(arguments.frames)) - {middle}:
                writer.shot(f"video/{frame:03d}", camera, frame)
    for number, camera in enumerate(test_cameras(recipe)):
        for frame in range(number, arguments.frames, 2):
            writer.shot(f"test{number}/{frame:03d}", camera, frame)
    still = replace(drawn, fixed_train=tuple(at_angle(a) for a in (angles[1:] + angles[:-1]) / 2))
    for number, path in enumerate(train_cameras(still)):
        writer.shot(f"test_freeze{number}/000", path[0], middle)
    writer.close((np.concatenate(xyz), np.concatenate(rgb).clip(0, 255).astype(np.uint8)))


def figures(folder: Path, arguments: argparse.Namespace, changes: dict) -> dict[str, float]:
    """Of one training."""
    method = FourRealMethod(
        steps=arguments.steps, max_num_gaussians=arguments.gaussians,
        max_num_moving=arguments.gaussians // 3, num_nodes=128, **changes,
    )  # fmt: skip
    options = TrainOptions(
        data=folder, output_dir=arguments.output_dir / "runs", seed=arguments.seed, device="cpu",
        downscale_factor=1, evaluate=False,
    )  # fmt: skip
    run = start(method, options, announce=False)
    evaluate_run(run, device="cpu", lpips=False)
    rows = json.loads((run / "eval.json").read_text())["per_image"]
    still = [row for row in rows if row["name"].startswith("test_freeze")]
    others = [row for row in rows if row not in still]
    figures = {"freeze": (still, "mpsnr"), "freeze, moving": (still, "mpsnr_moving"),
               "all moments": (others, "mpsnr"), "all moments, still": (others, "mpsnr_still"),
               "all moments, moving": (others, "mpsnr_moving")}  # fmt: skip
    found = {name: float(np.mean([row[key] for row in of if row.get(key) is not None]))
             for name, (of, key) in figures.items()}  # fmt: skip
    return found | {"run": str(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the glTF models")
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--views", type=int, default=17)
    parser.add_argument("--arc", type=float, default=40.0, help="degrees to each side")
    parser.add_argument("--points", type=int, default=6000)
    parser.add_argument("--gaussians", type=int, default=15_000)
    parser.add_argument("--warp", type=float, default=4.0, help="pixels of 240 rows, rms")
    parser.add_argument("--colour", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=[*ARMS, "without either, clean"])
    arguments = parser.parse_args()
    arguments.output_dir = arguments.output_dir or Path(tempfile.mkdtemp(prefix="four-real-"))
    for kind in ("spoilt", "clean"):
        folder = arguments.output_dir / f"{kind}-{arguments.seed}"
        if not folder.exists():
            write(folder, arguments, clean=kind == "clean")
    for name in arguments.arms:
        arm, _, clean = name.partition(", ")
        folder = arguments.output_dir / f"{clean or 'spoilt'}-{arguments.seed}"
        found = figures(folder, arguments, ARMS[arm])
        told = {k: round(v, 3) for k, v in found.items() if isinstance(v, float)}
        print(f"{name}: {told} {found['run']}", flush=True)


if __name__ == "__main__":
    main()
