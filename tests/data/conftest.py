"""Small captures, generated."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene4d.cameras.conventions import invert_rigid


def look_at(position, target=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Camera-to-world with OpenGL axes at ``position``, +z of the world upwards."""
    position = np.asarray(position, dtype=np.float64)
    back = position - np.asarray(target)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return c2w


def ring(count: int) -> list[np.ndarray]:
    """Poses on a circle of radius 4, looking at the origin."""
    angles = np.arange(count) * 2 * np.pi / count
    return [look_at((4 * np.cos(a), 4 * np.sin(a), 1.5)) for a in angles]


def save_image(path: Path, width: int, height: int, seed: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)


@pytest.fixture
def make_capture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a nerfstudio capture of ``count`` images of 24x16; ``change(meta)`` edits its json."""

    def make(count: int = 9, change=None, folder: str = "capture") -> Path:
        root = tmp_path / folder
        frames = []
        for i, c2w in enumerate(ring(count)):
            save_image(root / "images" / f"{i:03d}.png", 24, 16, seed=i)
            frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": c2w.tolist()})
        meta = {"fl_x": 30.0, "fl_y": 31.0, "cx": 12.5, "cy": 7.5, "w": 24, "h": 16}
        meta["frames"] = frames
        if change is not None:
            change(meta)
        (root / "transforms.json").write_text(json.dumps(meta))
        return root

    return make


@pytest.fixture
def make_colmap(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COLMAP text model with images of 24x16; ``lens`` is its line in cameras.txt."""

    def make(lens: str = "1 PINHOLE 24 16 30 31 12.5 7.5", count: int = 5) -> Path:
        root = tmp_path / "colmap"
        model = root / "sparse" / "0"
        model.mkdir(parents=True)
        (model / "cameras.txt").write_text(f"# Camera list\n{lens}\n")
        lines = ["# Image list"]
        # Written in descending order of names: the parser has to sort.
        for i, c2w in reversed(list(enumerate(ring(count)))):
            save_image(root / "images" / f"a_{i}.png", 24, 16, seed=i)
            viewmat = invert_rigid(torch.from_numpy(c2w * np.array([1.0, -1.0, -1.0, 1.0])))
            pose = [*quaternion(viewmat[:3, :3].numpy()), *viewmat[:3, 3].tolist()]
            lines.append(f"{i + 1} {' '.join(repr(float(v)) for v in pose)} 1 a_{i}.png")
            lines.append("5.0 6.0 1 7.0 8.0 -1" if i % 2 else "")
        (model / "images.txt").write_text("\n".join(lines) + "\n")
        (model / "points3D.txt").write_text(
            "# 3D points\n1 0.1 -0.2 0.3 10 20 30 0.5 2 0 4 0\n2 1.0 2.0 3.0 255 0 7 0.1\n"
        )
        return root

    return make


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz of a rotation: the eigenvector of Bar-Itzhack's matrix (2000)."""
    r = rotation
    matrix = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]
