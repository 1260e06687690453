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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from dynamic_capture.raster import Light, Pinhole, averaged, rasterise, shade
from dynamic_capture.scene import Room, Stage, Thing, build
from PIL import Image

from scene4d.methods.repair.pairs import collect, write_pairs
from scene4d.methods.splat.method import SplatMethod
from scene4d.training.options import TrainOptions

SIZE = 128
PICTURES = 24
HELD_OUT = 12
CORNERS = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenCV's camera axes to OpenGL's."""


def stage_of(
    models: Path, files: Sequence[str], photographs: Sequence[Path], random: np.random.Generator
) -> tuple[Stage, bool]:
    """Things in a room, or on nothing; whether there is a room."""
    inside = bool(random.random() < 0.5)
    things = []
    for _ in range(int(random.integers(3, 8) if inside else random.integers(1, 4))):
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(0, 2.0 if inside else 0.6)
        things.append(Thing(
            file=str(random.choice(files)), yaw_deg=float(random.uniform(0, 360)),
            at=(far * np.cos(angle), 0.0, far * np.sin(angle)),
        ))  # fmt: skip
    room = Room(seed=int(random.integers(1 << 30)), cell=float(random.uniform(0.3, 1.2)))
    stage = build([_fitted(t, models, random) for t in things], room if inside else None, models)
    return _textured(stage, photographs, random), inside


def _fitted(thing: Thing, models: Path, random: np.random.Generator) -> Thing:
    """At a size of about 1."""
    positions, _ = build([replace(thing, at=(0.0, 0.0, 0.0))], None, models).at(0.0)
    sides = np.ptp(positions.reshape(-1, 3), axis=0)
    return replace(thing, scale=float(random.uniform(0.7, 1.4) / max(sides.max(), 1e-6)))


def _textured(stage: Stage, photographs: Sequence[Path], random: np.random.Generator) -> Stage:
    """With drawn textures, or pieces of photographs, on some of the surfaces, laid on along the
    axes."""
    surfaces, (positions, _) = stage.surfaces, stage.at(0.0)
    for index in range(len(surfaces.textures)):
        if random.random() < 0.5:
            continue
        of_photograph = photographs and random.random() < 0.4
        surfaces.textures[index] = _piece(photographs, random) if of_photograph else _drawn(random)
        here = surfaces.texture == index
        corners = positions[here]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        across = np.argsort(-np.abs(normal), axis=1)[:, 1:]
        laid = np.take_along_axis(corners, np.repeat(across[:, None], 3, axis=1), axis=2)
        surfaces.uv[here] = (0.35 * laid) % 1.0 if len(laid) > 1000 else 0.35 * laid
    return stage


def _piece(photographs: Sequence[Path], random: np.random.Generator) -> np.ndarray:
    """A square of a photograph, its colours exchanged."""
    image = Image.open(photographs[random.integers(len(photographs))]).convert("RGB")
    side = int(random.uniform(0.3, 0.9) * min(image.size))
    x, y = (int(random.integers(n - side + 1)) for n in image.size)
    piece = image.crop((x, y, x + side, y + side)).resize((256, 256), Image.Resampling.BICUBIC)
    return np.asarray(piece)[..., random.permutation(3)]


def _drawn(random: np.random.Generator) -> np.ndarray:
    """Noise of several sizes between two or three colours."""
    side, value = 256, np.zeros((256, 256))
    for octave in range(2, 8):
        coarse = random.normal(size=(2**octave, 2**octave)).astype(np.float32)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        value += np.asarray(image) * random.uniform(0.3, 0.8) ** octave * 4
    value = 1 / (1 + np.exp(-value * random.uniform(1, 6)))
    if random.random() < 0.4:
        stripes = np.sin(np.arange(side) * 2 * np.pi * random.integers(3, 20) / side)
        value = 0.6 * value + 0.4 * (stripes > 0)[:, None]
    one, other = random.uniform(0, 1, (2, 3))
    return ((one + (other - one) * value[..., None]) * 255).round().astype(np.uint8)


def write_capture(folder: Path, stage: Stage, inside: bool, random: np.random.Generator) -> None:
    """Pictures and transforms.json."""
    (folder / "images").mkdir(parents=True)
    positions, normals = stage.at(0.0)
    light = Light(towards=tuple(random.uniform((-1, 0.3, -1), (1, 1, 1))))
    frames = []
    for number in range(PICTURES):
        if inside:
            turn, up = random.uniform(-0.9, 0.9), random.uniform(0.1, 0.6)
            far, at = random.uniform(2.5, 4.0), random.uniform((-0.8, 0.3, -1), (0.8, 1.2, 0.5))
        else:
            turn, up = random.uniform(0, 2 * np.pi), random.uniform(-0.2, 1.0)
            far, at = random.uniform(1.6, 2.8), random.uniform((-0.1, 0.2, -0.1), (0.1, 0.5, 0.1))
        eye = at + far * np.array(
            [np.sin(turn) * np.cos(up), np.sin(up), np.cos(turn) * np.cos(up)]
        )
        camera = _looking(eye, at)
        seen = rasterise(positions.reshape(-1, 3), stage.faces, camera, samples=3)
        sky = np.array([0.6, 0.7, 0.8]) if inside else np.zeros(3)
        colours = averaged(shade(seen, normals, stage.surfaces, light, sky), 3)
        if not inside:
            there = np.repeat((seen.face >= 0)[..., None], 3, axis=-1)
            alpha = averaged(there.astype(float), 3)[..., :1]
            colours = np.concatenate([colours / np.maximum(alpha, 1e-6), alpha], axis=-1)
        pixels = (np.clip(colours, 0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:03d}.png")
        c2w = np.linalg.inv(camera.world_to_camera) @ CORNERS
        frames.append({"file_path": f"images/{number:03d}.png", "transform_matrix": c2w.tolist()})
    intrinsics = {"fl_x": camera.focal, "fl_y": camera.focal, "cx": SIZE / 2, "cy": SIZE / 2}
    document = {"w": SIZE, "h": SIZE, **intrinsics, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(document))


def _looking(eye: np.ndarray, target: np.ndarray) -> Pinhole:
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    return Pinhole(world_to_camera=matrix, focal=1.2 * SIZE, width=SIZE, height=SIZE)


def write_cut(folder: Path, capture: Path, random: np.random.Generator) -> None:
    """A stretch of the RGB-D capture, without its depth, at about :data:`SIZE` pixels."""
    document = json.loads((capture / "transforms.json").read_text())
    count = min(len(document["frames"]), PICTURES)
    first = int(random.integers(len(document["frames"]) - count + 1))
    frames = document["frames"][first : first + count]
    shrink = max(1, round(max(document["w"], document["h"]) / SIZE))
    (folder / "images").mkdir(parents=True)
    for number, frame in enumerate(frames):
        image = Image.open(capture / frame["file_path"]).convert("RGB").reduce(shrink)
        frame["file_path"] = f"images/{number:03d}.png"
        image.save(folder / frame["file_path"])
    for name in ("w", "h"):
        document[name] //= shrink
    for name in ("fl_x", "fl_y", "cx", "cy"):
        document[name] /= shrink
    plain = [{n: f[n] for n in ("file_path", "transform_matrix")} for f in frames]
    (folder / "transforms.json").write_text(json.dumps({**document, "frames": plain}))


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
                write_cut(folder, arguments.rgbd, random)
            else:
                write_capture(folder, *stage_of(models, files, photographs, random), random)
            choose(folder, random, jitter=bool(random.random() < 0.5))
            print(f"{out}: {pairs_of(folder, number, random, out)} pairs", flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
