"""Drawn scenes as captures: rooms and objects of KayKit's models, and stretches of RGB-D captures.

What networks are trained on (``make_fixer_pairs.py``, ``make_rgbd_captures.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from dynamic_capture.raster import Light, Pinhole, averaged, rasterise, shade
from dynamic_capture.scene import Room, Stage, Thing, build
from make_dynamic_capture import write_depth
from PIL import Image

PICTURES = 24
"""Of a capture, at most."""
DEPTH_UNIT = 0.001
"""Of stored depth, in scene units."""
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


def write_capture(
    folder: Path,
    stage: Stage,
    inside: bool,
    random: np.random.Generator,
    *,
    size: int,
    depth: bool = False,
) -> None:
    """Square pictures of ``size`` pixels, with their depth where that is asked for, and
    transforms.json."""
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
        camera = Pinhole.looking(eye, at, focal=1.2 * size, width=size, height=size)
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
        frame = {"file_path": f"images/{number:03d}.png", "transform_matrix": c2w.tolist()}
        if depth:
            frame["depth_file_path"] = f"depth/{number:03d}.png"
            write_depth(folder / frame["depth_file_path"], seen.centres(3).depth, DEPTH_UNIT)
        frames.append(frame)
    intrinsics = {"fl_x": camera.focal, "fl_y": camera.focal, "cx": size / 2, "cy": size / 2}
    document = {"w": size, "h": size, **intrinsics, "frames": frames}
    if depth:
        document["depth_unit_scale_factor"] = DEPTH_UNIT
    (folder / "transforms.json").write_text(json.dumps(document))


def write_stretch(
    folder: Path,
    capture: Path,
    random: np.random.Generator,
    *,
    size: int,
    depth: bool = False,
    share: float = 1.0,
) -> None:
    """Pictures of an RGB-D capture that follow each other, of about ``size`` pixels, with their
    depth where that is asked for; of the first ``share`` of its training pictures."""
    document = json.loads((capture / "transforms.json").read_text())
    names = document.pop("train_filenames", None)
    document = {k: v for k, v in document.items() if not k.endswith("_filenames")}
    every = [f for f in document["frames"] if names is None or f["file_path"] in names]
    every = every[: round(share * len(every))]
    count = min(len(every), PICTURES)
    first = int(random.integers(len(every) - count + 1))
    shrink = max(1, round(max(document["w"], document["h"]) / size))
    (folder / "images").mkdir(parents=True)
    frames = []
    for number, old in enumerate(every[first : first + count]):
        image = Image.open(capture / old["file_path"]).convert("RGB").reduce(shrink)
        frame = {"file_path": f"images/{number:03d}.png",
                 "transform_matrix": old["transform_matrix"]}  # fmt: skip
        image.save(folder / frame["file_path"])
        if depth:
            frame["depth_file_path"] = f"depth/{number:03d}.png"
            whole = Image.open(capture / (old.get("depth_file_path") or old["depth_path"]))
            (folder / "depth").mkdir(exist_ok=True)
            whole.resize(image.size, Image.Resampling.NEAREST).save(
                folder / frame["depth_file_path"]
            )
        frames.append(frame)
    for name in ("w", "h"):
        document[name] //= shrink
    for name in ("fl_x", "fl_y", "cx", "cy"):
        document[name] /= shrink
    (folder / "transforms.json").write_text(json.dumps({**document, "frames": frames}))
