"""The room of :mod:`room` with a card in it that moves, met by exact rays."""

from __future__ import annotations

import numpy as np
from PIL import Image
from room import FOCAL, HEIGHT, WIDTH, room_picture, texture

CARD_HALF = 0.35
"""Half the side of the square card, units of the room."""
_TEXTURE = texture(7)


def card_at(share: float) -> np.ndarray:
    """[3] the card's centre at ``share`` of its way to and fro above the corner."""
    swing = np.sin(2 * np.pi * share)
    return np.array([1.0 + 0.45 * swing, 1.0 - 0.45 * swing, 0.9 + 0.25 * np.sin(7 * share)])


def moving_room_picture(c2w: np.ndarray, centre: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """The picture, and [HEIGHT, WIDTH] bool: where the card is. It faces away from the corner."""
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    local = [(column - WIDTH / 2) / FOCAL, -(row - HEIGHT / 2) / FOCAL, -np.ones_like(row)]
    rays = np.stack(local, -1) @ c2w[:3, :3].T
    normal = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    right, up = np.array([-1.0, 1.0, 0.0]) / np.sqrt(2), np.array([0.0, 0.0, 1.0])
    depth = ((centre - c2w[:3, 3]) @ normal) / (rays @ normal)
    place = c2w[:3, 3] + rays * depth[..., None] - centre
    u, v = place @ right / CARD_HALF, place @ up / CARD_HALF
    on_card = (np.abs(u) < 1) & (np.abs(v) < 1) & (depth > 0)
    pixels = np.array(room_picture(c2w))
    index = [((np.clip(w[on_card], -1, 1) + 1) * 60).astype(int) for w in (u, v)]
    pixels[on_card] = _TEXTURE[index[0], index[1]].astype(np.uint8)
    return Image.fromarray(pixels), on_card
