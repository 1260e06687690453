"""Outlines: pixels beside an edge of the shape show a share of what lies beyond it.

That is where shapes get the gradient of being seen from. It is edge-driven: every outline is
followed, row by row and column by column, and says how far it reaches into a pixel. Asking
neighbouring *pixels* instead which triangle won them (as Laine et al., arXiv 2011.03277, do) misses
triangles that win none, so its gradients fade as meshes get finer; figures in docs/mesh.md.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.rendering.mesh import kernels
from scene4d.rendering.mesh.edges import Edges
from scene4d.rendering.mesh.fragments import Fragments, array

_NO_GRADIENT = np.empty((0, 3))
_NO_SLOPES = np.empty((0, 0))


class _Outlines(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image, corners, edges, near, faces, depths):
        picture, places = array(image), array(corners, torch.float64)
        shown = faces.numpy(), array(depths)
        height, width = shown[0].shape
        across, down = np.zeros((height, width - 1)), np.zeros((height - 1, width))
        kernels.outlines(
            places, edges.ends, edges.starts, edges.opposite, near, *shown, across, down,
            _NO_SLOPES, _NO_SLOPES, _NO_GRADIENT,
        )  # fmt: skip
        out = picture.copy()
        kernels.blend(picture, across, down, out)
        ctx.kept = picture, places, edges, near, shown, across, down
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        picture, places, edges, near, shown, across, down = ctx.kept
        slopes = array(g_out)
        g_image = slopes.copy()
        g_across, g_down = np.zeros_like(across), np.zeros_like(down)
        kernels.blend_backward(picture, across, down, slopes, g_image, g_across, g_down)
        grads = None
        if ctx.needs_input_grad[1]:
            grads = np.zeros_like(places)
            if len(grads):
                kernels.outlines(
                    places, edges.ends, edges.starts, edges.opposite, near, *shown, across, down,
                    g_across, g_down, grads,
                )  # fmt: skip
        corners = None if grads is None else torch.from_numpy(grads)
        return torch.from_numpy(g_image), corners, None, None, None, None


def with_outlines(
    image: Float[Tensor, "height width channels"],
    corners: Float[Tensor, "num_vertices 3"],
    edges: Edges,
    fragments: Fragments,
    *,
    near: float,
) -> Float[Tensor, "height width channels"]:
    """The picture with its outlines blended: differentiable in it, and in where vertices are.

    An edge that is nearer than ``near`` at one of its ends stays as sharp as it was.
    """
    height, width = fragments.faces.shape
    if image.shape[:2] != (height, width):
        raise ValueError(f"a picture of {list(image.shape)} for {height} x {width} fragments")
    return _Outlines.apply(image, corners, edges, near, fragments.faces, fragments.depths)
