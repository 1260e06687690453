"""How much of what one sees of a scene each of its splats is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scene4d.cameras.undistortion import undistorted_camera
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
    capture's, or ones around the content where it has none."""
    cameras = [frame.camera for frame in rendered_capture(source)[0].frames]
    some = [undistorted_camera(c) for c in cameras[:: math.ceil(len(cameras) / _LOOKS)]]
    small = [c.downscaled(math.ceil(max(c.width, c.height) / _LOOK_PIXELS)) for c in some]
    splats = source.representation
    if not isinstance(splats, GaussianSplats):
        splats = GaussianSplats.of(source.scene_cloud())
    return largest_weights(splats, [c.to(source.device) for c in small]).cpu().numpy()
