"""Pictures of a representation along cameras: colour, depth and opacity as 8-bit images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.rendering.colormap import colour_depth, depth_range
from scene4d.rendering.render import Render
from scene4d.representations.base import Representation

Output = Literal["rgb", "depth", "alpha"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

_SAMPLES = 8
"""Cameras that are looked through to find the range of depths of a whole path."""


def picture(
    render: Render, output: Output, *, limits: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """One output of a single camera's render as an 8-bit RGB image.

    ``limits``: the depths shown blue and red; by default the 2nd and 98th percentile.
    """
    if output == "rgb":
        colours = render.rgb
    elif output == "alpha":
        colours = render.alpha[..., None].expand(*render.alpha.shape, 3)
    else:
        if render.depth is None:
            raise ValueError("the render has no depth: ask for it with depth=True")
        limits = depth_range(render.depth, render.alpha) if limits is None else limits
        colours = colour_depth(render.depth, render.alpha, limits)
    return to_bytes(colours)


def to_bytes(
    colours: Float[Tensor, "height width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Colours 0..1 as bytes, rounded; values outside are clamped and NaN becomes 0."""
    clean = torch.nan_to_num(colours.detach(), nan=0.0).clamp(0, 1)
    return (clean * 255 + 0.5).to(torch.uint8).cpu().numpy()


def path_depth_range(
    representation: Representation, cameras: Sequence[Camera]
) -> tuple[float, float]:
    """One range of depths for a whole path, from small renders at some of its cameras.

    A range per frame would make the colours of a video flicker.
    """
    step = max(1, len(cameras) // _SAMPLES)
    depths, alphas = [], []
    for camera in cameras[::step]:
        shrink = max(1.0, max(camera.width, camera.height) / 160)
        small = camera.resized(
            max(1, round(camera.width / shrink)), max(1, round(camera.height / shrink))
        )
        with torch.no_grad():
            render = representation.render(small, depth=True)
        if render.depth is not None:
            depths.append(render.depth.flatten())
            alphas.append(render.alpha.flatten())
    if not depths:
        return 0.0, 1.0
    return depth_range(torch.cat(depths), torch.cat(alphas))


def render_frames(
    representation: Representation,
    cameras: Sequence[Camera],
    *,
    outputs: Sequence[Output] = ("rgb",),
    background: Float[Tensor, " 3"] | None = None,
) -> Iterator[dict[Output, UInt8[np.ndarray, "height width 3"]]]:
    """Renders camera by camera and yields each one's pictures, by output."""
    depth = "depth" in outputs
    limits = path_depth_range(representation, cameras) if depth else None
    for camera in cameras:
        with torch.no_grad():
            render = representation.render(camera, background=background, depth=depth)
        yield {output: picture(render, output, limits=limits) for output in outputs}
