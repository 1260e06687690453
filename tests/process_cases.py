"""What the tests of process-data share: videos, models whose cameras are known, and facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optional_packages import import_or_skip
from PIL import Image
from room import HEIGHT, WIDTH, looking_at

from scene4d.data.process import SfmOptions
from scene4d.data.process.matches import PairFacts
from scene4d.data.process.pictures import Picture
from scene4d.data.process.sfm import SfmImage, SfmModel, SfmResult, plain_camera
from scene4d.files import read_json

pycolmap = import_or_skip("pycolmap")

PINHOLE = SfmOptions(camera_model="pinhole")


def pose_errors(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Largest rotation error in degrees, and position error over the cameras' extent, once the
    best similarity is undone (rotation from orientations, scale and shift from positions)."""
    u, _, vt = np.linalg.svd(sum(t[:3, :3] @ f[:3, :3].T for f, t in zip(found, true, strict=True)))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    relative = [(turn @ f[:3, :3]).T @ t[:3, :3] for f, t in zip(found, true, strict=True)]
    angles = [np.degrees(np.arccos(np.clip((np.trace(r) - 1) / 2, -1, 1))) for r in relative]
    a, b = found[:, :3, 3] @ turn.T, true[:, :3, 3]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = (a * b).sum() / (a * a).sum()
    extent = np.linalg.norm(b, axis=1).max()
    return max(angles), float(np.linalg.norm(scale * a - b, axis=1).max() / extent)


def frame_poses(output: Path) -> tuple[list[str], np.ndarray]:
    frames = read_json(output / "transforms.json")["frames"]
    names = [frame["file_path"] for frame in frames]
    return names, np.array([frame["transform_matrix"] for frame in frames])


def write_video(path: Path, pictures: list[Image.Image], rate: int = 10) -> None:
    av = import_or_skip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale:v": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 8_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def model_seen_from(poses: list[np.ndarray], seed: int = 0) -> SfmModel:
    """Cameras (OpenGL c2w) that all see the same points around (0, 0, 0)."""
    xyz = np.random.default_rng(seed).uniform(-0.5, 0.5, (100, 3))
    flip = np.diag([1.0, -1, -1, 1])
    images = [
        SfmImage(
            name=f"{i}.png",
            camera_id=1,
            viewmat=np.linalg.inv(pose @ flip),
            point_indices=np.arange(100),
            xy=np.zeros((100, 2)),
        )
        for i, pose in enumerate(poses)
    ]
    camera = pycolmap.Camera.create_from_model_name(1, "PINHOLE", 300.0, WIDTH, HEIGHT)
    return SfmModel(
        cameras={1: plain_camera(camera)},
        images=images,
        xyz=xyz,
        rgb=np.zeros((100, 3), np.uint8),
        errors_px=np.full(100, 0.5),
        track_lengths=np.full(100, len(poses)),
    )


def moving(step: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    return [looking_at(*step(i)) for i in range(12)]


ZERO = np.zeros(3)
AWAY = np.array([4.0, 0, 0])
MOTIONS: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "around": lambda i: (4 * np.array([np.cos(i / 2), np.sin(i / 2), 0.1]), ZERO),
    "sideways": lambda i: (np.array([4, 0.1 * i, 0]), np.array([0, 0.1 * i, 0])),
    "forward": lambda i: ((4 - 0.15 * i) * np.array([1, 0, 0.0]), ZERO),
    "turning only": lambda i: (AWAY, np.array([0, 0.1 * i, 0])),
    "none": lambda i: (np.array([4, 1e-3 * i, 0]), ZERO),
}


def picture(name: str, **fields: Any) -> Picture:
    usual = Picture(name=name, width=640, height=480, sharpness=1, brightness=0.5, digest=name)
    return replace(usual, **fields)


def result_with(model: SfmModel | None, **fields: Any) -> SfmResult:
    empty = np.empty((0, 3))
    usual = SfmResult(
        model=model,
        xyz=model.xyz if model else empty,
        rgb=model.rgb if model else empty.astype(np.uint8),
        other_models=[],
        num_features={},
        pairs={},
        attempts=["usual settings"],
    )
    return replace(usual, **fields)


def facts(inliers: int, **fields: Any) -> PairFacts:
    usual = PairFacts(inliers=inliers, displacement=0.1, turned_only=False, angle_deg=10.0)
    return replace(usual, **fields)
