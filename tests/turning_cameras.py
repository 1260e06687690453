"""Cameras on a circle around the origin, with times, and a capture of them without pictures."""

import math
from pathlib import Path

import torch

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene

WIDTH, HEIGHT = 40, 32


def looking(degrees, time, *, radius=2.0):
    """At the origin from a circle around y."""
    angle = math.radians(degrees)
    s, c = math.sin(angle), math.cos(angle)
    c2w = torch.tensor(
        [[c, 0, s, radius * s], [0, 1, 0, 0], [-s, 0, c, radius * c], [0, 0, 0, 1.0]]
    )
    K = torch.tensor([[30.0, 0, WIDTH / 2], [0, 30.0, HEIGHT / 2], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=WIDTH, height=HEIGHT, time=torch.tensor(time))


def scene(cameras, held_out=()):
    frames = [
        Frame(name=f"{i}.png", camera=c, image_path=Path(f"{i}.png")) for i, c in enumerate(cameras)
    ]
    train = [i for i in range(len(cameras)) if i not in held_out]
    return Scene(root=Path("capture"), dataparser="nerfstudio", frames=frames, train_indices=train,
                 test_indices=list(held_out), split_rule="")  # fmt: skip
