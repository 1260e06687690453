"""A browser's view as a camera, and at how many pixels it is worth rendering."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import flip_yz
from scene4d.cameras.quaternions import rotation_from_quat

MOVING_SECONDS = 1 / 15
"""A render while the camera moves should not take longer than this."""
_SMALLEST_SIDE = 48
_FIRST_GUESS = 5e-7
"""Seconds per pixel, before anything was measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScreenView:
    """Where a browser looks from, in OpenCV axes, and its size in pixels."""

    wxyz: np.ndarray
    position: np.ndarray
    fov: float
    """Vertical field of view in radians."""
    width: int
    height: int

    def camera(self, width: int, height: int, *, time: float | None = None) -> Camera:
        """The pinhole camera of this view at another size of the same shape."""
        c2w = torch.eye(4, dtype=torch.float64)
        quaternion = torch.as_tensor(np.asarray(self.wxyz, dtype=np.float64))
        c2w[:3, :3] = rotation_from_quat(quaternion[None])[0]
        c2w[:3, 3] = torch.as_tensor(np.asarray(self.position, dtype=np.float64))
        focal = height / 2 / math.tan(self.fov / 2)
        # Pixels stay square on the screen although width / height was rounded
        focal_x = focal * (width / height) / (self.width / self.height)
        intrinsics = [[focal_x, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]
        return Camera(
            c2w=flip_yz(c2w).float(),
            K=torch.tensor(intrinsics),
            width=width,
            height=height,
            time=None if time is None else torch.tensor(time),
        )


@dataclass(kw_only=True)
class Resolution:
    """Chooses render sizes: full at rest, as many pixels as there is time for while moving."""

    seconds_per_pixel: float = field(default=_FIRST_GUESS)
    """Measured, as a running mean."""

    def size(self, view: ScreenView, *, longest_side: int, moving: bool) -> tuple[int, int]:
        """Width and height for a view, at most ``longest_side`` and the view's own size."""
        longest = max(view.width, view.height)
        scale = min(1.0, longest_side / longest)
        if moving:
            affordable = MOVING_SECONDS / max(self.seconds_per_pixel, 1e-12)
            scale = min(scale, math.sqrt(affordable / (view.width * view.height)))
            scale = max(scale, min(1.0, _SMALLEST_SIDE / longest))
        return max(1, round(view.width * scale)), max(1, round(view.height * scale))

    def measured(self, seconds: float, pixels: int) -> None:
        """Takes the time of one render into account."""
        self.seconds_per_pixel += 0.3 * (seconds / max(pixels, 1) - self.seconds_per_pixel)
