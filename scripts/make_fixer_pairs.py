"""Makes the pairs that the fixer is trained on: what few-view trainings show, and the truth.

Run: python scripts/make_fixer_pairs.py OUT --models FOLDER [--rgbd CAPTURE] [--runs 40]

Rooms and objects are drawn from the glTF models in FOLDER/kaykit, some with drawn textures. On each
of them, and on stretches of the RGB-D capture (one in four), splats are trained on 3 to 9 pictures
for a few hundred steps, half of them from jittered poses. At three moments eight pictures that are
held out are rendered, whole and with splats dropped. Pairs are written capture by capture, so that
the script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from drawn_scenes import stage_of, write_capture, write_stretch

from scene4d.methods.repair.pairs import collect, write_pairs
from scene4d.methods.splat.method import SplatMethod
from scene4d.training.options import TrainOptions

SIZE = 128
HELD_OUT = 12


def choose(folder: Path, random: np.random.Generator, *, jitter: bool) -> None:
    """Writes which 3 to 9 pictures are trained on and which are held out, the poses of the former
    turned and moved a little where ``jitter``."""
    path = folder / "transforms.json"
    document = json.loads(path.read_text())
    frames = document["frames"]
    places = np.array([f["transform_matrix"] for f in frames])[:, :3, 3]
    spread = np.linalg.norm(places - places.mean(axis=0), axis=1).max()
    count = int(random.integers(3, 10))
    if random.random() < 0.5:  # all over, or in one corner
        order = random.permutation(len(frames))
    else:
        middle = places[random.integers(len(frames))]
        order = np.argsort(np.linalg.norm(places - middle, axis=1))[: max(16, count + 4)]
        order = np.concatenate([random.permutation(order[: 2 * count]), order[2 * count :]])
    train, rest = order[:count], [i for i in range(len(frames)) if i not in order[:count]]
    test = random.permutation(rest)[:HELD_OUT]
    for index in train if jitter else ():
        pose = np.array(frames[index]["transform_matrix"])
        x, y, z = 0.004 * random.normal(size=3)
        pose[:3, :3] = pose[:3, :3] @ (np.eye(3) + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
        pose[:3, 3] += 0.003 * spread * random.normal(size=3)
        frames[index]["transform_matrix"] = pose.tolist()
    for name, chosen in (("train", train), ("test", test)):
        document[f"{name}_filenames"] = [frames[i]["file_path"] for i in chosen]
    path.write_text(json.dumps(document))


def pairs_of(folder: Path, seed: int, random: np.random.Generator, out: Path) -> int:
    """Trains on a capture and writes its pairs; returns how many there are."""
    steps = int(random.choice([200, 400, 600]))
    gaussians = int(random.choice([1500, 3000, 6000]))
    method = SplatMethod(
        steps=steps, max_num_gaussians=gaussians, num_random_points=gaussians // 2,
        sh_degree=int(random.choice([0, 1, 3])), coarsest_downscale=2,
    )  # fmt: skip
    options = TrainOptions(
        data=folder, output_dir=folder / "runs", device="cpu", seed=seed, evaluate=False,
        downscale_factor=1,
    )  # fmt: skip
    pairs = collect(method, options, at=[steps * k // 10 for k in (4, 7, 10)], seed=seed)
    write_pairs(pairs, out)
    return len(pairs["rgb"])


def main() -> None:
    """Draws, trains and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="with kaykit/")
    parser.add_argument("--rgbd", type=Path, help="a capture whose stretches are used, too")
    parser.add_argument("--runs", type=int, default=40)
    arguments = parser.parse_args()
    models = arguments.models
    files = sorted(str(f.relative_to(models)) for f in models.glob("kaykit/*/*.gltf"))
    photographs = [] if arguments.rgbd is None else sorted(arguments.rgbd.glob("color/*"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.runs):
        random, out = np.random.default_rng(number), arguments.out / f"{number:03d}.safetensors"
        if out.exists():
            continue
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "capture"
            if arguments.rgbd is not None and number % 4 == 3:
                write_stretch(folder, arguments.rgbd, random, size=SIZE)
            else:
                stage, inside = stage_of(models, files, photographs, random)
                write_capture(folder, stage, inside, random, size=SIZE)
            choose(folder, random, jitter=bool(random.random() < 0.5))
            print(f"{out}: {pairs_of(folder, number, random, out)} pairs", flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
