"""The training cameras in the viewer: frusta with thumbnails that take one there."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import flip_yz
from scene4d.cameras.paths import focus_point
from scene4d.cameras.splines import quaternion_from_rotation

_MOST = 300
"""More frusta than this only hide each other and slow the browser down."""
_THUMBNAIL = 96
"""Pixels along the longer side."""


@runtime_checkable
class Photo(Protocol):
    """A training picture."""

    @property
    def rgb(self) -> Tensor:
        """Height, width, 3; 0..1; straight where there is alpha."""

    @property
    def alpha(self) -> Tensor | None:
        """Height, width; 0..1; None in an opaque picture."""


@runtime_checkable
class Photos(Protocol):
    """Where training pictures come from, such as the image cache."""

    def view(self, index: int) -> Photo:
        """The picture of a frame."""


class Frusta:
    """The scene's cameras as clickable objects of a viser server."""

    def __init__(
        self,
        server: Any,
        cameras: Sequence[Camera],
        indices: Sequence[int],
        photos: Photos | None,
        *,
        background: Float[Tensor, " 3"],
    ) -> None:
        """``cameras``: one for each frame index in ``indices``. Thumbnails appear one by one, on
        ``background`` where they are transparent.
        """
        step = max(1, math.ceil(len(cameras) / _MOST))
        self.cameras, self.indices = list(cameras)[::step], list(indices)[::step]
        self.background = background
        self.length = frustum_length(torch.stack([camera.position for camera in self.cameras]))
        self.handles = [
            self._add(server, camera, index)
            for camera, index in zip(self.cameras, self.indices, strict=True)
        ]
        self._closed = False
        if photos is not None:
            threading.Thread(target=self._load, args=(photos,), daemon=True).start()

    @property
    def visible(self) -> bool:
        """Whether they are shown."""
        return bool(self.handles) and bool(self.handles[0].visible)

    @visible.setter
    def visible(self, value: bool) -> None:
        for handle in self.handles:
            handle.visible = value

    def close(self) -> None:
        """Stops loading thumbnails."""
        self._closed = True

    def _add(self, server: Any, camera: Camera, index: int) -> Any:
        wxyz, position = opencv_pose(camera)
        handle = server.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=vertical_fov(camera),
            aspect=camera.width / camera.height,
            scale=self.length * viser_scale(vertical_fov(camera), camera.width / camera.height),
            thickness=1.5,
            thickness_units="screen",
            color=(240, 140, 20),
            wxyz=wxyz,
            position=position,
            cast_shadow=False,
            receive_shadow=False,
        )

        @handle.on_click
        def _(event: Any) -> None:
            move_to(event.client, camera, distance_ahead(camera, self.cameras))

        return handle

    def _load(self, photos: Photos) -> None:
        for handle, index in zip(self.handles, self.indices, strict=True):
            if self._closed:
                return
            handle.image = thumbnail(photos.view(index), self.background)


def frustum_length(positions: Float[Tensor, "num_cameras 3"]) -> float:
    """Length of the frusta: half the usual way between neighbours, within limits, scene units."""
    spread = float((positions - positions.mean(0)).norm(dim=-1).max())
    if spread < 1e-9:
        return 0.1
    distances = torch.cdist(positions, positions).fill_diagonal_(torch.inf)
    half = 0.5 * float(distances.min(dim=1).values.median())
    return min(max(half, 0.02 * spread), 0.1 * spread)


def viser_scale(fov: float, aspect: float) -> float:
    """viser's scale of a frustum of length 1: it scales the root of the volume, not the length."""
    return (math.tan(fov / 2) ** 2 * aspect / 3) ** (1 / 3)


def thumbnail(photo: Photo, background: Float[Tensor, " 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A small version of a picture, by leaving pixels out."""
    step = max(1, math.ceil(max(photo.rgb.shape[:2]) / _THUMBNAIL))
    small = photo.rgb[::step, ::step].clamp(0, 1)
    if photo.alpha is not None:
        alpha = photo.alpha[::step, ::step, None]
        small = small * alpha + background * (1 - alpha)
    return (small * 255).to(torch.uint8).cpu().numpy()


def move_to(client: Any, camera: Camera, distance: float) -> None:
    """Moves a browser's view to a camera; it then orbits around the point ``distance`` ahead."""
    wxyz, position = opencv_pose(camera)
    forward = -camera.c2w[:3, 2].double().cpu().numpy()
    with client.atomic():
        client.camera.wxyz = wxyz
        client.camera.position = position
        client.camera.look_at = position + distance * forward
        client.camera.fov = vertical_fov(camera)
    client.flush()


def distance_ahead(camera: Camera, cameras: Sequence[Camera]) -> float:
    """How far in front of a camera the point lies that all cameras look at, scene units."""
    point, mean_distance = focus_point(cameras)
    ahead = (point.float() - camera.position.cpu()) @ -camera.c2w[:3, 2].cpu()
    return max(float(ahead), 0.1 * mean_distance)


def opencv_pose(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Quaternion wxyz (OpenCV axes) and position, in double precision."""
    c2w = flip_yz(camera.c2w.detach().cpu().double())
    return quaternion_from_rotation(c2w[None, :3, :3])[0].numpy(), c2w[:3, 3].numpy()


def vertical_fov(camera: Camera) -> float:
    """Vertical field of view in radians, as if the principal point were in the middle."""
    return 2 * math.atan(camera.height / 2 / float(camera.K[1, 1]))
