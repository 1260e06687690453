"""Pictures of a representation along cameras: colour, depth and opacity as 8-bit images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.paths import focus_point
from scene4d.rendering.colormap import colour_depth, depth_range
from scene4d.rendering.render import DEPTH, Render, Renders, Want

Output = Literal["rgb", "depth", "alpha"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

_SAMPLES = 8
"""Cameras that are looked through to find the range of depths of a whole path."""
_SEEN = 0.5
_ABOUT = 1.5
"""The axes' meeting point may be nearer or farther than most of what is seen by this factor."""


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
            raise ValueError("the render has no depth: ask for it with want=DEPTH")
        limits = depth_range(render.depth, render.alpha) if limits is None else limits
        colours = colour_depth(render.depth, render.alpha, limits)
    return to_bytes(colours)


def to_bytes(
    colours: Float[Tensor, "height width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Colours 0..1 as bytes, rounded; values outside are clamped and NaN becomes 0."""
    clean = torch.nan_to_num(colours.detach(), nan=0.0).clamp(0, 1)
    return (clean * 255 + 0.5).to(torch.uint8).cpu().numpy()


def path_depth_range(representation: Renders, cameras: Sequence[Camera]) -> tuple[float, float]:
    """One range of depths for a whole path, from small renders at some of its cameras.

    A range per frame would make the colours of a video flicker.
    """
    depths, alphas = _looks(representation, cameras)
    return depth_range(depths, alphas) if len(depths) else (0.0, 1.0)


def focus_distance(representation: Renders, cameras: Sequence[Camera]) -> float | None:
    """How far before the cameras the content lies that a path should look at; None where nothing is
    seen.

    Where their axes meet if something is seen about there; otherwise the median depth.
    """
    depths, alphas = _looks(representation, cameras)
    depths = depths[(alphas > _SEEN) & torch.isfinite(depths) & (depths > 0)]
    if not len(depths):
        return None
    low, middle, high = (float(depths.quantile(share)) for share in (0.1, 0.5, 0.9))
    meet = focus_point(cameras)[1]
    return meet if low / _ABOUT <= meet <= high * _ABOUT else middle


def _looks(
    representation: Renders, cameras: Sequence[Camera]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Depths and alphas of small renders at some of the cameras."""
    step = max(1, len(cameras) // _SAMPLES)
    depths, alphas = [torch.empty(0)], [torch.empty(0)]
    for camera in cameras[::step]:
        shrink = max(1.0, max(camera.width, camera.height) / 160)
        small = camera.resized(
            max(1, round(camera.width / shrink)), max(1, round(camera.height / shrink))
        )
        with torch.no_grad():
            render = representation.render(small, want=DEPTH)
        if render.depth is not None:
            depths.append(render.depth.flatten().cpu())
            alphas.append(render.alpha.flatten().cpu())
    return torch.cat(depths), torch.cat(alphas)


def render_frames(
    representation: Renders,
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
            render = representation.render(camera, background=background, want=Want(depth=depth))
        yield {output: picture(render, output, limits=limits) for output in outputs}
