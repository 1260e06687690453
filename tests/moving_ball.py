"""A capture of a ball that crosses a checked wall, and a field small enough to learn it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.methods.dynamic_field.method import DynamicFieldMethod, OccupancyOptions

SMALL = DynamicFieldMethod(
    steps=230, rays=320, occupancy=OccupancyOptions(first=16, every=8, dynamic_from=0.9), levels=4,
    dynamic_levels=3, features=2, coarsest=8, finest=64, dynamic_finest=32, log2_rows=12,
    dynamic_log2_rows=11, neurons=16, march_steps=48, cells=16, static_until=0.4, settle=0.3,
    grid_lr=0.05, network_lr=0.01, dynamic_network_lr=0.001,
)  # fmt: skip


def look_at(eye: Tensor, target: Tensor) -> Tensor:
    """OpenGL camera-to-world, up along y."""
    back = torch.nn.functional.normalize(eye - target, dim=0)
    right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), back)
    right = torch.nn.functional.normalize(right, dim=0)
    c2w = torch.eye(4)
    c2w[:3] = torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=1)
    return c2w


def ball_picture(camera: Camera, centre: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """A red ball before a checked wall at z = -1, by intersecting rays; no alpha."""
    rays = camera_rays(camera)
    o, d = rays.origins.double(), rays.directions.double()
    at = o + d * ((-1 - o[..., 2:]) / d[..., 2:])
    check = ((at[..., :2] * 2).floor().sum(-1) % 2)[..., None]
    wall = check * torch.tensor([0.8, 0.8, 0.6]) + (1 - check) * torch.tensor([0.2, 0.4, 0.6])
    away = o - torch.tensor(centre)
    half = (away * d).sum(-1)
    inside = half**2 - (away**2).sum(-1) + 0.35**2
    hit = (inside > 0)[..., None]
    return torch.where(hit, torch.tensor([0.9, 0.1, 0.1]).double(), wall.double()), hit[..., 0]


def make_moving_ball(root: Path) -> Path:
    """One camera that sways while a ball crosses the picture: 24 frames in 2 seconds, every 8th is
    held out."""
    size, frames = 40, []
    (root / "images").mkdir()
    for i in range(24):
        eye = torch.tensor([0.8 * math.sin(i * 0.9), 0.3 * math.cos(i * 0.7), 3.0])
        c2w = look_at(eye, torch.tensor([0.0, 0.0, -0.5]))
        K = torch.tensor([[50.0, 0, size / 2], [0, 50, size / 2], [0, 0, 1]])
        camera = Camera(c2w=c2w.float(), K=K, width=size, height=size)
        rgb, _ = ball_picture(camera, (1.2 * i / 11.5 - 1.2, 0.0, 0.2))
        name = f"images/{i:03d}.png"
        Image.fromarray((rgb * 255).round().byte().numpy()).save(root / name)
        frames.append({"file_path": name, "transform_matrix": c2w.tolist(), "time": 2 * i / 23})
    (root / "transforms.json").write_text(json.dumps({
        "fl_x": 50.0, "fl_y": 50.0, "cx": size / 2, "cy": size / 2, "w": size, "h": size,
        "frames": frames,
    }))  # fmt: skip
    return root
