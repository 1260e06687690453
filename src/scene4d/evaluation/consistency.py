"""View consistency: how much a picture changes from frame to frame beyond what its motion explains.

A frame is warped into the one before it by depth (of a reference scene, whose geometry is
trusted), and the two are compared where both see the same surface; the warped error of Lai et al.,
"Learning Blind Video Temporal Consistency" (2018), with geometry in place of optical flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import project, unproject

SAME_SURFACE = 0.02
"""Relative difference of depth up to which two frames see the same surface."""


def warped(
    picture: Float[Tensor, "height width channels"],
    its_camera: Camera,
    its_depth: Float[Tensor, "height width"],
    camera: Camera,
    depth: Float[Tensor, "height width"],
) -> tuple[Float[Tensor, "height width channels"], Bool[Tensor, "height width"]]:
    """``picture`` as ``camera`` sees it, and where that is known.

    Depths are along the viewing axes, in scene units, 0 where nothing is seen. Unknown: pixels
    without depth, those that fall outside the picture, and those whose surface is hidden there or
    lies next to an edge of depth.
    """
    points = unproject(camera, depth)
    position, distance = project(its_camera, points.reshape(-1, 3))
    size = position.new_tensor([its_camera.width, its_camera.height])
    grid = (position / size * 2 - 1).reshape(1, *depth.shape, 2)
    sources = torch.cat([picture, its_depth[..., None]], dim=-1).permute(2, 0, 1)[None]
    found = grid_sample(sources, grid, mode="bilinear", padding_mode="border", align_corners=False)[
        0
    ].permute(1, 2, 0)
    distance = distance.reshape(depth.shape)
    known = (depth > 0) & (distance > 0) & (grid[0].abs() <= 1).all(dim=-1)
    known &= (found[..., -1] - distance).abs() <= SAME_SURFACE * distance.abs()
    return found[..., :-1], known


def consistency(
    pictures: Sequence[Float[Tensor, "height width 3"]],
    depths: Sequence[Float[Tensor, "height width"]],
    cameras: Sequence[Camera],
) -> float:
    """dB between each frame and the next one warped into it, over all pixels that both see.

    ``pictures`` in 0..1. Higher is steadier; a scene whose surfaces shine in the direction of view
    has a limit below infinity, so compare with the reference's own figure. NaN where no two frames
    see the same surface. Raises :class:`ValueError` with fewer than two frames.
    """
    if not len(pictures) == len(depths) == len(cameras) > 1:
        raise ValueError("consistency needs two or more frames, each with depth and camera")
    total, count = 0.0, 0
    for i in range(len(pictures) - 1):
        later, known = warped(pictures[i + 1], cameras[i + 1], depths[i + 1], cameras[i], depths[i])
        total += float((later - pictures[i]).square().mean(dim=-1)[known].double().sum())
        count += int(known.sum())
    if not count:
        return float("nan")
    return float(-10 * torch.tensor(max(total / count, 1e-10)).log10())
