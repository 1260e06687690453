"""How much of what one sees of a scene each of its splats is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.undistortion import undistorted_camera
from scene4d.representations.base import Representation
from scene4d.representations.blending_weights import largest_weights
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.opened import OpenedScene
from scene4d.training.rendered_capture import rendered_capture

Shown = Callable[[], np.ndarray]
"""What gives :func:`shown_shares` of some scene when it is needed: it takes seconds."""
_LOOKS, _LOOK_PIXELS = 40, 400
"""Cameras that are asked which splats show, and the longer side of their pictures."""


def shown_shares(source: OpenedScene) -> np.ndarray:
    """[N] how much of what one sees each splat is, in small pictures from some cameras: the
    capture's, at their times, or ones around the content where it has none."""
    cameras = [frame.camera for frame in rendered_capture(source)[0].frames]
    some = [undistorted_camera(c) for c in cameras[:: math.ceil(len(cameras) / _LOOKS)]]
    small = [c.downscaled(math.ceil(max(c.width, c.height) / _LOOK_PIXELS)) for c in some]
    small = [c.to(source.device) for c in small]
    scene = source.representation
    if scene.times is not None:
        return _shown_in_time(scene, at_times(small, scene))
    splats = scene if isinstance(scene, GaussianSplats) else GaussianSplats.of(source.scene_cloud())
    return largest_weights(splats, small).cpu().numpy()


def _shown_in_time(scene: Representation, cameras: Sequence[Camera]) -> np.ndarray:
    """The same of a scene that moves, at cameras that each have a time."""
    parts = []
    for camera in cameras:
        assert camera.time is not None
        cloud = scene.splats(float(camera.time))
        assert cloud is not None
        splats = GaussianSplats.of(cloud).to(camera.c2w.device)
        parts.append(largest_weights(splats, [camera]).cpu().numpy())
    return np.sum(parts, axis=0)


def at_times(cameras: Sequence[Camera], scene: Representation) -> list[Camera]:
    """``cameras`` of a scene that moves, those without a time spread over its motion."""
    if scene.times is None:
        return list(cameras)
    times = torch.linspace(*scene.times, len(cameras))
    return [
        camera if camera.time is not None else replace(camera, time=time)
        for camera, time in zip(cameras, times, strict=True)
    ]
