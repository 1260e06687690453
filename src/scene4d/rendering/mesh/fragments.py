"""Which triangle each pixel of a picture shows, and where in it: differentiable in the vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene4d.rendering.mesh import kernels
from scene4d.rendering.threads import KERNEL_LOCK

NEAR = 1e-3
"""Share of the median depth of the vertices before the camera that is too near to be drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fragments:
    """What a picture of triangles shows, pixel by pixel."""

    faces: Int[Tensor, "height width"]
    """The triangle, int32; -1: none."""
    weights: Float[Tensor, "height width 3"]
    """Perspective-correct weights of its corners; 0 where there is none."""
    depths: Float[Tensor, "height width"]
    """Along the viewing axis, scene units; 0 where there is none."""


def array(tensor: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """The tensor's numbers for a kernel, on the CPU."""
    return tensor.detach().to("cpu", dtype).contiguous().numpy()


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx, corners, triangles, near, height, width):
        places = array(corners, torch.float64)
        faces = np.full((height, width), -1, np.int32)
        weights = np.empty((height, width, 3), np.float32)
        depths = np.zeros((height, width), np.float32)
        with KERNEL_LOCK:
            kernels.draw(places, triangles, near, faces, weights, depths)
        ctx.kept = places, triangles, faces, weights, depths
        ctx.set_materialize_grads(False)
        shown = torch.from_numpy(faces)
        ctx.mark_non_differentiable(shown)
        return shown, torch.from_numpy(weights), torch.from_numpy(depths)

    @staticmethod
    @once_differentiable
    def backward(ctx, _, g_weights, g_depths):
        places, triangles, faces, weights, depths = ctx.kept
        if g_weights is None and g_depths is None:
            return None, None, None, None, None
        of_weights = np.zeros_like(weights) if g_weights is None else array(g_weights)
        of_depths = np.zeros_like(depths) if g_depths is None else array(g_depths)
        grads = np.zeros_like(places)
        kernels.draw_backward(
            places, triangles, faces, weights, depths, of_weights, of_depths, grads
        )
        return torch.from_numpy(grads), None, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weights, triangles, faces):
        numbers, shares, shown = array(values), array(weights), faces.numpy()
        out = np.empty((*shown.shape, numbers.shape[1]), np.float32)
        with KERNEL_LOCK:
            kernels.interpolate(numbers, triangles, shown, shares, out)
        ctx.kept = numbers, shares, triangles, shown
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_out):
        numbers, shares, triangles, shown = ctx.kept
        g_weights = np.empty_like(shares)
        grads = np.zeros_like(numbers)
        kernels.interpolate_backward(
            numbers, triangles, shown, shares, array(g_out), g_weights, grads
        )
        return torch.from_numpy(grads), torch.from_numpy(g_weights), None, None


def corners_of(
    vertices: Float[Tensor, "num_vertices 3"],
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
) -> Float[Tensor, "num_vertices 3"]:
    """``K`` times camera coordinates, float64: (x z, y z, z) of a vertex seen at pixel (x, y).

    ``viewmat``: world to camera, OpenCV axes. Without skew.
    """
    pose, intrinsics = viewmat.double(), K.double()
    whole = intrinsics @ pose[:3]
    return vertices.double() @ whole[:, :3].T + whole[:, 3]


def draw(
    corners: Float[Tensor, "num_vertices 3"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    *,
    near: float,
    width: int,
    height: int,
) -> Fragments:
    """The nearest triangle at each pixel centre, and where in it; both of its sides are drawn.

    ``corners`` as :func:`corners_of` makes them; what is nearer than ``near`` is not drawn, nor
    are triangles whose area is 0 or whose corners are not finite.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels")
    check_triangles(triangles, len(corners))
    faces, weights, depths = _Draw.apply(corners, triangles, near, height, width)
    return Fragments(faces=faces, weights=weights, depths=depths)


def interpolate(
    values: Float[Tensor, "num_values channels"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    fragments: Fragments,
) -> Float[Tensor, "height width channels"]:
    """Attributes of vertices at each pixel, perspective-correct; 0 where there is no triangle.

    ``triangles`` may be others than those that were drawn: the same corners, of other vertices.
    """
    check_triangles(triangles, len(values))
    return _Interpolate.apply(values, fragments.weights, triangles, fragments.faces)


def check_triangles(triangles: np.ndarray, count: int) -> None:
    """Raises ValueError for other than whole numbers of ``count`` vertices: kernels trust them."""
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype != np.int64:
        raise ValueError(
            f"triangles are {triangles.dtype}{list(triangles.shape)}, not int64 [T, 3]"
        )
    # Of unsigned numbers one below 0 is large, too.
    if len(triangles) and not int(triangles.view(np.uint64).max()) < count:
        raise ValueError(f"triangles name vertices beyond the {count} that there are")
