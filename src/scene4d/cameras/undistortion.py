"""Pictures without lens distortion: the camera they have, and where their pixels come from.

Pictures are undistorted by sampling: each pixel of the undistorted picture looks up where the lens
put it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import distort, injective_radius, undistort

_FISHEYE_MAX_HALF_ANGLE = math.radians(55.0)
"""Beyond it a pinhole picture spends most of its pixels on the stretched rim."""


def undistorted_camera(camera: Camera) -> Camera:
    """The pinhole camera of the undistorted picture: the same pose, size and principal point.

    The OpenCV model keeps K, so that the centre keeps its resolution. A fisheye's focal length is
    shortened (both axes alike) until the middle of each border is in view, but not so far that the
    picture ends more than 55 degrees off the axis.
    """
    distortion = camera.distortion
    if distortion is None:
        return camera
    if float(camera.K[0, 1]) != 0:  # slanted pixels become upright ones
        K = camera.K.clone()
        K[0, 1] = 0
        camera = replace(camera, K=K)
    if distortion.model == "opencv":
        return replace(camera, distortion=None)
    K = camera.K.double()
    slopes = K.new_tensor([camera.width / 2, camera.height / 2]) / K[[0, 1], [0, 1]]
    edges = torch.diag(slopes)  # the middles of the right and lower border
    seen = undistort(edges, distortion).norm(dim=-1).nan_to_num(nan=math.inf)
    fits = (slopes / seen).min()
    narrow = slopes.max() / math.tan(_FISHEYE_MAX_HALF_ANGLE)
    shrink = torch.maximum(fits, narrow).clamp_max(1.0)
    K = K * torch.stack([shrink, shrink, torch.ones_like(shrink)])[:, None]
    K[:2, 2] = camera.K[:2, 2].double()
    return replace(camera, K=K.to(camera.K.dtype), distortion=None)


def undistortion_grid(
    camera: Camera,
) -> tuple[Float[Tensor, "height width 2"], Bool[Tensor, "height width"]]:
    """Where each undistorted pixel lies in the distorted picture, and whether it lies inside.

    The grid is for ``torch.nn.functional.grid_sample(..., align_corners=False)``: -1 and 1 are
    the picture's outer borders.
    """
    if camera.distortion is None:
        raise ValueError("the camera has no distortion")
    target = undistorted_camera(camera)
    size = camera.K.new_tensor([camera.width, camera.height], dtype=torch.float64)
    ys, xs = torch.meshgrid(
        torch.arange(camera.height, dtype=torch.float64) + 0.5,
        torch.arange(camera.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    K_target, K = target.K.double(), camera.K.double()
    xy = (torch.stack([xs, ys], -1) - K_target[:2, 2]) / K_target[[0, 1], [0, 1]]
    lens = distort(xy, camera.distortion)
    pixels = lens * K[[0, 1], [0, 1]] + K[:2, 2]
    pixels[..., 0] += K[0, 1] * lens[..., 1]
    inside = ((pixels >= 0) & (pixels <= size)).all(-1)
    inside &= xy.norm(dim=-1) < injective_radius(camera.distortion)
    return (pixels / size * 2 - 1).float(), inside
