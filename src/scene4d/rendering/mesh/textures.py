"""Textures: a pyramid of levels, read bilinearly and linearly between levels, with gradients.

Texture coordinates are glTF's: (0, 0) is the upper left corner of the picture, (1, 1) the lower
right one. Beyond them the border goes on.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.rendering.mesh import texture_kernels as kernels
from scene4d.rendering.mesh.fragments import Fragments, array, check_triangles
from scene4d.rendering.threads import KERNEL_LOCK

LEVELS = 6
"""Of a pyramid at most: coarser ones would mix what lies apart in the atlas."""


def level_sizes(rows: int, columns: int, most: int) -> Int[np.ndarray, "levels 2"]:
    """Rows and columns of each level, finest first; an odd last row or column is left out."""
    sizes = [(rows, columns)]
    while len(sizes) < most and min(sizes[-1]) >= 2:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return np.array(sizes, dtype=np.int64)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, texture, uv, level, faces, most):
        rows, columns, channels = texture.shape
        sizes = level_sizes(rows, columns, most)
        starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
        pyramid = np.empty((starts[-1], channels), np.float32)
        pyramid[: rows * columns] = array(texture).reshape(-1, channels)
        places, at, shown = array(uv), array(level), faces.numpy()
        out = np.empty((*shown.shape, channels), np.float32)
        with KERNEL_LOCK:
            kernels.build(pyramid, sizes, starts)
            kernels.sample(pyramid, sizes, starts, shown, places, at, out)
        ctx.kept = pyramid, sizes, starts, shown, places, at
        ctx.shape = texture.shape
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        pyramid, sizes, starts, shown, places, at = ctx.kept
        grads = np.zeros_like(pyramid if ctx.needs_input_grad[0] else pyramid[:0])
        g_uv = np.empty_like(places)
        kernels.sample_backward(
            pyramid, sizes, starts, shown, places, at, array(g_out), grads, g_uv
        )
        if len(grads):
            with KERNEL_LOCK:
                kernels.build_backward(grads, sizes, starts)
        texture = None
        if len(grads):
            texture = torch.from_numpy(grads[: sizes[0].prod()].reshape(ctx.shape))
        return texture, torch.from_numpy(g_uv), None, None, None


def texture_levels(
    corners: Float[Tensor, "num_vertices 3"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    fragments: Fragments,
    *,
    uv: Float[Tensor, "num_uv 2"],
    uv_triangles: Int[np.ndarray, "num_triangles 3"],
    at: Float[Tensor, "height width 2"],
    size: tuple[int, int],
) -> Float[Tensor, "height width"]:
    """log2 of how many texels of a texture of ``size`` (rows, columns) a pixel is wide, where it is
    widest: which level of the pyramid it reads. Without a gradient.

    ``at``: the texture coordinates of each pixel, as interpolated.
    """
    check_triangles(triangles, len(corners))
    check_triangles(uv_triangles, len(uv))
    faces = fragments.faces.numpy()
    out = np.empty(faces.shape, np.float32)
    with KERNEL_LOCK:
        kernels.levels(
            array(corners, torch.float64), triangles, faces, array(fragments.depths), uv_triangles,
            array(uv), array(at), *size, out,
        )  # fmt: skip
    return torch.from_numpy(out)


def sample(
    texture: Float[Tensor, "rows columns channels"],
    uv: Float[Tensor, "height width 2"],
    level: Float[Tensor, "height width"],
    fragments: Fragments,
    *,
    most_levels: int = LEVELS,
) -> Float[Tensor, "height width channels"]:
    """The texture at ``uv``: bilinear in the two levels around ``level``, linear between them.

    0 where no triangle is seen. Differentiable in the texture and in ``uv``.
    """
    if min(texture.shape) < 1 or uv.shape[:2] != fragments.faces.shape:
        raise ValueError(f"a texture of {list(texture.shape)} at places {list(uv.shape)}")
    return _Sample.apply(texture, uv, level, fragments.faces, most_levels)
