"""A room with known cameras: three textured walls, met by exact rays."""

from __future__ import annotations

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0


def texture(seed: int, size: int = 256) -> np.ndarray:
    """[size, size, 3] blobs of several sizes, 0..255."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for cells in (16, 48, 128):
        grid = rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8)
        image = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(image, dtype=float) / 3
    return total


TEXTURES = [texture(seed) for seed in range(3)]


def room_picture(c2w: np.ndarray) -> Image.Image:
    """The corner x = 0, y = 0, z = 0 of a room of 4 units, twice supersampled."""
    hit, wall, _ = _first_wall(c2w, 2)
    result = np.zeros((*wall.shape, 3))
    for axis in range(3):
        uv = np.delete(hit, axis, axis=-1)[wall == axis]
        index = np.clip((uv / 4 * 256).astype(int), 0, 255)
        result[wall == axis] = TEXTURES[axis][index[:, 0], index[:, 1]]
    image = result.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    return Image.fromarray(image.astype(np.uint8))


def room_depth(c2w: np.ndarray) -> np.ndarray:
    """[HEIGHT, WIDTH] units along the optical axis to the walls."""
    return _first_wall(c2w, 1)[2]


def _first_wall(c2w: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each ray ends [H, W, 3], at which wall [H, W] (0 to 2), at which depth [H, W]."""
    column, row = np.meshgrid(
        (np.arange(samples * WIDTH) + 0.5) / samples, (np.arange(samples * HEIGHT) + 0.5) / samples
    )
    local = [(column - WIDTH / 2) / FOCAL, -(row - HEIGHT / 2) / FOCAL, -np.ones_like(row)]
    rays = np.stack(local, -1) @ c2w[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        depths = np.where(rays < 0, -c2w[:3, 3] / rays, np.inf)
    depth = depths.min(-1)
    return c2w[:3, 3] + rays * depth[..., None], depths.argmin(-1), depth


def looking_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera-to-world, OpenGL axes, z up."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross((0.0, 0, 1), back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return c2w


def room_cameras(count: int) -> list[np.ndarray]:
    """A quarter circle in front of the corner."""
    angles = np.linspace(0.15, np.pi / 2 - 0.15, count)
    positions = [np.array([3.4 * np.cos(a), 3.4 * np.sin(a), 1.8 + 0.3 * np.sin(5 * a)])
                 for a in angles]  # fmt: skip
    return [looking_at(p, np.array([0.7, 0.7, 0.7])) for p in positions]
