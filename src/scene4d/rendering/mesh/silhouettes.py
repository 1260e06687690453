"""Outlines: pixels beside an edge of the shape show a share of what lies beyond it.

That is where shapes get the gradient of being seen from. It is edge-driven: every outline is
followed, row by row and column by column, and says how far it reaches into a pixel. Asking
neighbouring *pixels* instead which triangle won them (as Laine et al., arXiv 2011.03277, do) misses
triangles that win none, so its gradients fade as meshes get finer; figures in docs/mesh.md.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    def forward(ctx, corners, edges, near, faces, depths, margin, *layers):
        places, shown = array(corners, torch.float64), (faces.numpy(), array(depths))
        height, width = shown[0].shape
        across, down = np.zeros((height, width - 1)), np.zeros((height - 1, width))
        found = kernels.outline_edges(
            places, edges.ends, edges.starts, edges.opposite, near, width, height
        )
        kernels.outlines(
            places, edges.ends, *found, *shown, across, down, _NO_SLOPES, _NO_SLOPES, _NO_GRADIENT
        )
        boundaries = [
            (shares, np.flatnonzero(shares), axis) for axis, shares in enumerate((across, down))
        ]
        pictures = [array(layer) for layer in layers]
        blended = []
        for picture in pictures:
            out = picture[margin : height - margin, margin : width - margin].copy()
            for boundary in boundaries:
                kernels.blend(picture, *boundary, margin, out)
            blended.append(torch.from_numpy(out))
        ctx.kept = places, edges, found, shown, boundaries, margin, pictures
        ctx.set_materialize_grads(False)
        return tuple(blended)

    @staticmethod
    @once_differentiable
    def backward(ctx, *g_blended):
        places, edges, found, shown, boundaries, margin, pictures = ctx.kept
        across, down = (shares for shares, *_ in boundaries)
        g_shares = np.zeros_like(across), np.zeros_like(down)
        g_layers: list[torch.Tensor | None] = []
        for picture, g in zip(pictures, g_blended, strict=True):
            if g is None:
                g_layers.append(None)
                continue
            slopes = array(g)
            g_layer = np.pad(slopes, ((margin, margin), (margin, margin), (0, 0)))
            for boundary, g_share in zip(boundaries, g_shares, strict=True):
                kernels.blend_backward(picture, *boundary, margin, slopes, g_layer, g_share)
            g_layers.append(torch.from_numpy(g_layer))
        corners = None
        if ctx.needs_input_grad[0]:
            grads = np.zeros_like(places)
            if len(grads):
                kernels.outlines(places, edges.ends, *found, *shown, across, down, *g_shares, grads)
            corners = torch.from_numpy(grads)
        return corners, None, None, None, None, None, *g_layers


def with_outlines(
    layers: Sequence[Float[Tensor, "height width _"]],
    corners: Float[Tensor, "num_vertices 3"],
    edges: Edges,
    fragments: Fragments,
    *,
    near: float,
    margin: int = 0,
) -> tuple[Float[Tensor, "_ _ _"], ...]:
    """Pictures of the same view with their outlines blended: differentiable in them, and in where
    vertices are. ``margin`` pixels on each side are blended with, and left out of what is returned.

    An edge that is nearer than ``near`` at one of its ends stays as sharp as it was.
    """
    height, width = fragments.faces.shape
    for layer in layers:
        if layer.shape[:2] != (height, width):
            raise ValueError(f"a picture of {list(layer.shape)} for {height} x {width} fragments")
    if min(height, width) <= 2 * margin:
        raise ValueError(f"a margin of {margin} pixels around {height} x {width} fragments")
    return _Outlines.apply(corners, edges, near, fragments.faces, fragments.depths, margin, *layers)
