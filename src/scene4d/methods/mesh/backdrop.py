"""What closes the holes of a mesh whose pictures have none: smooth sheets behind it.

Depths of a short training agree too little for a surface where few cameras look, at the far end
of a room or between leaves. There the pictures still show something, and black would be worse than
the right colour at about the right depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_dilation, gaussian_filter

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.exporters.mesh import spread
from scene4d.rendering.mesh.fragments import corners_of, draw
from scene4d.rendering.mesh.rasterization import near_plane
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import Representation

_LOOKS, _WIDTH = 32, 96
"""Pictures that are looked at, and about how many pixels wide."""
_BLUR = 0.04
"""Of depths, standard deviation as a share of the width."""
_RIM = 2
"""Pixels that a sheet reaches behind what is there, and beyond the picture."""
_BEHIND = 1.03
"""Depth of a sheet's rim at least, in depths of what it lies behind."""
_OPEN = 0.003
"""Share of a picture that is worth a sheet."""
_ONE_WAY = 0.7
"""Length of the mean viewing direction; 0.57 of a circle of cameras that look down 35 degrees."""


def look_one_way(cameras: Sequence[Camera]) -> bool:
    """Whether there is a behind: a sheet behind a table stands before those who look from there."""
    ahead = torch.stack([camera.c2w[:3, 2] for camera in cameras]).mean(dim=0)
    return float(ahead.norm()) > _ONE_WAY


def with_backdrop(
    vertices: np.ndarray, triangles: np.ndarray, teacher: Representation, cameras: Sequence[Camera]
) -> tuple[np.ndarray, np.ndarray]:
    """The mesh, and in each of some pictures in turn a sheet where it shows nothing yet, at the
    teacher's depths without their detail."""
    for camera in spread(cameras, _LOOKS):
        small = camera.downscaled(max(1, camera.width // _WIDTH))
        size = small.width + 2 * _RIM, small.height + 2 * _RIM
        small = small.cropped(-_RIM, -_RIM, *size)
        corners = corners_of(torch.from_numpy(vertices), small.viewmat, small.K)
        seen = draw(
            corners, triangles, near=near_plane(corners), width=small.width, height=small.height
        )
        with torch.no_grad():
            depth = teacher.render(small, want=DEPTH).depth
        assert depth is not None, "fused_surface() asks for it"
        sheet = _sheet(small, seen.depths.numpy(), depth.cpu().numpy())
        if sheet is not None:
            triangles = np.concatenate([triangles, len(vertices) + sheet[1]])
            vertices = np.concatenate([vertices, sheet[0]])
    return vertices, triangles


def _sheet(
    camera: Camera, there: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices and triangles of the pixels where nothing is ``there`` (depth 0), and of a rim; the
    picture has one, too."""
    is_open = np.zeros(there.shape, dtype=bool)
    inside = (slice(_RIM, -_RIM),) * 2
    is_open[inside] = there[inside] <= 0
    known = is_open & np.isfinite(depth) & (depth > 0)
    if is_open.mean() < _OPEN or not known.any():
        return None
    width = _BLUR * camera.width
    shares = gaussian_filter(known.astype(np.float64), width) + 1e-12
    logs = np.log(np.where(known, depth, 1.0))
    mean = float(logs[known].mean())
    smooth = np.exp(mean + gaussian_filter(np.where(known, logs - mean, 0.0), width) / shares)
    smooth = np.maximum(smooth, _BEHIND * there)
    covered = binary_dilation(is_open, iterations=_RIM)
    return surface_at(camera, smooth, covered)


def surface_at(
    camera: Camera, depth: np.ndarray, covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of the ``covered`` pixels [H, W], joined to their neighbours, at
    ``depth`` [H, W] along the viewing axis."""
    number = np.arange(covered.size).reshape(covered.shape)
    quads = covered[1:, 1:] & covered[1:, :-1] & covered[:-1, 1:] & covered[:-1, :-1]
    a, b, c, d = (
        n[quads] for n in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:])
    )
    found = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    used, triangles = np.unique(found, return_inverse=True)
    rays = camera_rays(camera)
    forward = -camera.c2w[:3, 2]
    along = (rays.directions @ forward).numpy()
    away = (depth / along)[..., None] * rays.directions.numpy()
    places = (rays.origins.numpy() + away).reshape(-1, 3)[used]
    return places.astype(np.float64), triangles.reshape(-1, 3)
