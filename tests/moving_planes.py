"""Captures whose flow is exact: textured planes that face the camera, one of which moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from room import texture

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene

WIDTH, HEIGHT, FOCAL = 128, 96, 120.0
WALL, CARD = 8.0, 4.0
"""Distances of the planes from the camera's plane, units."""
CARD_HALF = 0.9
"""Half the side of the square card in front of the wall."""
TEXTURES = [texture(seed).mean(-1) for seed in (11, 12)]


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Pictures of the wall and the card, and what is true of them."""

    scene: Scene
    cards: list[np.ndarray]
    """[H, W] bool for each frame: where the card is seen."""
    centres: list[np.ndarray]
    """[2] pixels of the card's centre in each frame."""


def planes(
    root: Path,
    cameras: Sequence[tuple[float, float]],
    cards: Sequence[tuple[float, float]],
    *,
    names: Sequence[str] | None = None,
    times: Sequence[float] | None = None,
    depth: bool = False,
) -> Planes:
    """``cameras``: x and y of each, which look along -z; ``cards``: the card's centre then."""
    frames, seen, centres = [], [], []
    for i, ((x, y), card) in enumerate(zip(cameras, cards, strict=True)):
        name = f"images/{i:03d}.png" if names is None else names[i]
        pixels, on_card = _picture(x, y, card)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(pixels[..., None], 3, axis=-1)).save(root / name)
        depth_path = root / f"depth_{i:03d}.npy" if depth else None
        if depth_path is not None:
            np.save(depth_path, np.where(on_card, CARD, WALL).astype(np.float32))
        time = 0.1 * i if times is None else times[i]
        frames.append(_frame(root / name, name, (x, y), time, depth_path))
        seen.append(on_card)
        offset = np.array([card[0] - x, -(card[1] - y)])
        centres.append(np.array([WIDTH / 2, HEIGHT / 2]) + FOCAL * offset / CARD)
    everything = range(len(frames))
    scene = Scene(
        root=root, dataparser="nerfstudio", frames=frames, train_indices=everything,
        test_indices=(), split_rule="none",
    )  # fmt: skip
    return Planes(scene=scene, cards=seen, centres=centres)


def _frame(
    path: Path, name: str, place: tuple[float, float], time: float, depth: Path | None
) -> Frame:
    c2w = torch.eye(4)
    c2w[:2, 3] = torch.tensor(place)
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    camera = Camera(c2w=c2w, K=K, width=WIDTH, height=HEIGHT, time=torch.tensor(time))
    return Frame(name=name, camera=camera, image_path=path, depth_path=depth, depth_unit_m=1.0)


def _picture(x: float, y: float, card: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Grey values, 2x2 samples a pixel, and where the card is."""
    column, row = np.meshgrid(
        (np.arange(2 * WIDTH) + 0.5) / 2 - WIDTH / 2, (np.arange(2 * HEIGHT) + 0.5) / 2 - HEIGHT / 2
    )
    right, up = column / FOCAL, -row / FOCAL
    wall = _looked_up(TEXTURES[0], (x + WALL * right) / 12, (y + WALL * up) / 12)
    u, v = x + CARD * right - card[0], y + CARD * up - card[1]
    on_card = (np.abs(u) < CARD_HALF) & (np.abs(v) < CARD_HALF)
    values = np.where(on_card, _looked_up(TEXTURES[1], u / 6, v / 6), wall)
    grey = values.reshape(HEIGHT, 2, WIDTH, 2).mean((1, 3))
    return grey.round().astype(np.uint8), on_card[::2, ::2]


def _looked_up(values: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear, the texture repeated."""
    size = len(values)
    u, v = (np.mod(w, 1.0) * size for w in (u, v))
    i, j = u.astype(int), v.astype(int)
    a, b = u - i, v - j
    i, j, i1, j1 = i % size, j % size, (i + 1) % size, (j + 1) % size
    upper = values[i, j] * (1 - a) + values[i1, j] * a
    return upper * (1 - b) + (values[i, j1] * (1 - a) + values[i1, j1] * a) * b
