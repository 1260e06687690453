"""The mesh rasteriser in plain torch: any float type, differentiable throughout, slow.

It says in the plainest way what the kernels do; they are checked against it, and it against
``gradcheck`` in float64. ``corners`` are as in ``fragments.corners_of``.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.rendering.mesh.edges import Edges
from scene4d.rendering.mesh.fragments import Fragments
from scene4d.rendering.mesh.textures import LEVELS, level_sizes


def _solutions(corners: Tensor, triangles: Tensor, at: Tensor) -> Tensor:
    """l [..., 3] of [a b c] l = (x, y, 1), for triangles [..., 3] at pixels (x, y, 1): Cramer."""
    a, b, c = corners[triangles].unbind(dim=-2)
    cross = torch.linalg.cross
    sides = torch.stack([cross(b, c), cross(c, a), cross(a, b)], dim=-2)
    return (sides * at[..., None, :]).sum(-1) / (a * sides[..., 0, :]).sum(-1, keepdim=True)


def pixel_centres(height: int, width: int, like: Tensor) -> Float[Tensor, "height width 3"]:
    """(x, y, 1) of every pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x + 0.5, y + 0.5, torch.ones_like(x)], dim=-1).to(like)


def draw(
    corners: Float[Tensor, "num_vertices 3"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    *,
    near: float,
    width: int,
    height: int,
) -> Fragments:
    """Every triangle at every pixel; the nearest is kept."""
    index = torch.from_numpy(triangles)
    at = pixel_centres(height, width, corners)
    with torch.no_grad():
        shares = _solutions(corners, index, at[:, :, None])
        total = shares.sum(-1)
        hit = (shares >= 0).all(-1) & (total > 0) & (1 / total >= near)
        nearest = torch.where(hit, 1 / total, torch.inf).argmin(dim=-1)
        faces = torch.where(hit.any(-1), nearest, -1).int()
    return at_faces(corners, triangles, faces)


def at_faces(
    corners: Float[Tensor, "num_vertices 3"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    faces: Int[Tensor, "height width"],
) -> Fragments:
    """The fragments of a picture that shows ``faces``."""
    shown = torch.from_numpy(triangles)[faces.long().clamp_min(0)]
    shares = _solutions(corners, shown, pixel_centres(faces.shape[0], faces.shape[1], corners))
    total = shares.sum(-1, keepdim=True)
    seen = faces >= 0
    return Fragments(
        faces=faces,
        weights=torch.where(seen[..., None], shares / total, 0.0),
        depths=torch.where(seen, 1 / total[..., 0], 0.0),
    )


def interpolate(
    values: Float[Tensor, "num_values channels"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    fragments: Fragments,
) -> Float[Tensor, "height width channels"]:
    """The weighted mean of the corners' values."""
    of_corners = values[torch.from_numpy(triangles)[fragments.faces.long().clamp_min(0)]]
    mean = (fragments.weights[..., None] * of_corners).sum(dim=-2)
    return torch.where(fragments.faces[..., None] >= 0, mean, 0.0)


def texture_levels(
    corners: Float[Tensor, "num_vertices 3"],
    triangles: Int[np.ndarray, "num_triangles 3"],
    fragments: Fragments,
    *,
    uv: Float[Tensor, "num_uv 2"],
    uv_triangles: Int[np.ndarray, "num_triangles 3"],
    size: tuple[int, int],
) -> Float[Tensor, "height width"]:
    """log2 of the longer of the two derivatives of texels by pixels, by forward differentiation."""
    height, width = fragments.faces.shape
    shown = fragments.faces.long().clamp_min(0)
    index, of_uv = torch.from_numpy(triangles)[shown], torch.from_numpy(uv_triangles)[shown]
    texels = uv[of_uv] * uv.new_tensor([size[1], size[0]])

    def place(at: Tensor) -> Tensor:
        shares = _solutions(corners, index, at)
        return ((shares / shares.sum(-1, keepdim=True))[..., None] * texels).sum(-2)

    at = pixel_centres(height, width, corners)
    moves = [torch.zeros_like(at).index_fill(-1, torch.tensor(axis), 1.0) for axis in (0, 1)]
    slopes = [torch.func.jvp(place, (at,), (move,))[1].norm(dim=-1) for move in moves]
    level = torch.log2(torch.maximum(*slopes).clamp_min(1e-6))
    return torch.where(fragments.faces >= 0, level, 0.0)


def sample(
    texture: Float[Tensor, "rows columns channels"],
    uv: Float[Tensor, "height width 2"],
    level: Float[Tensor, "height width"],
    fragments: Fragments,
    *,
    most_levels: int = LEVELS,
) -> Float[Tensor, "height width channels"]:
    """Means of 2 x 2, each level read by ``grid_sample``, mixed by hat functions of the level."""
    at, total = level, torch.zeros(())
    sizes = level_sizes(texture.shape[0], texture.shape[1], most_levels)
    picture = texture.permute(2, 0, 1)[None]
    at = level.clamp(0, len(sizes) - 1)
    for number in range(len(sizes)):
        if number:
            picture = torch.nn.functional.avg_pool2d(picture, 2)
        read = torch.nn.functional.grid_sample(
            picture, 2 * uv[None] - 1, padding_mode="border", align_corners=False
        )[0].permute(1, 2, 0)
        total = total + (1 - (at - number).abs()).clamp_min(0)[..., None] * read
    return torch.where(fragments.faces[..., None] >= 0, total, 0.0)


def with_outlines(
    image: Float[Tensor, "height width channels"],
    corners: Float[Tensor, "num_vertices 3"],
    edges: Edges,
    fragments: Fragments,
    *,
    near: float,
) -> Float[Tensor, "height width channels"]:
    """Every outline's crossings of the middles of rows and columns, one after the other."""
    shares: dict[tuple[int, int, int], Tensor] = {}
    depths = torch.where(fragments.faces >= 0, fragments.depths.detach(), torch.inf)
    for number, (a, b) in enumerate(edges.ends.tolist()):
        if not bool((corners[[a, b], 2] >= near).all()):
            continue
        p, q = corners[a, :2] / corners[a, 2], corners[b, :2] / corners[b, 2]
        opposite = edges.opposite[edges.starts[number] : edges.starts[number + 1]].tolist()
        sides = {float(torch.linalg.det(corners[[a, b, c]].detach()).sign()) for c in opposite}
        if len(sides) != 1 or sides == {0.0}:
            continue
        for axis in (0, 1):
            _cross(shares, axis, (p, q), corners[[a, b], 2].detach(), sides.copy().pop(),
                   fragments.faces, depths)  # fmt: skip
    out = image.clone()
    for (axis, row, column), share in shares.items():
        r, c = (row, column + 1) if axis == 0 else (row + 1, column)
        clamped = share + (share.clamp(-0.5, 0.5) - share).detach()
        moved = clamped * (image[r, c] - image[row, column])
        target = (row, column) if float(share.detach()) > 0 else (r, c)
        change = torch.zeros_like(image)
        change[target] = 1.0
        out = out + change * moved
    return out


def _cross(
    shares: dict[tuple[int, int, int], Tensor],
    axis: int,
    ends: tuple[Tensor, Tensor],
    ends_z: Tensor,
    side: float,
    faces: Tensor,
    depths: Tensor,
) -> None:
    """Adds one edge's crossings of rows (axis 0) or columns (axis 1)."""
    p, q = ends
    height, width = faces.shape
    lines, cells = (height, width) if axis == 0 else (width, height)
    d = (q - p).detach()
    along, inward = float(d[1 - axis]), side * float(-d[1] if axis == 0 else d[0])
    if along == 0.0:
        return
    weight = along**2 / float(d @ d)
    for line in range(lines):
        middle = line + 0.5
        low, high = sorted((float(p[1 - axis].detach()), float(q[1 - axis].detach())))
        if not low <= middle < high:
            continue
        f = (middle - p[1 - axis]) / (q[1 - axis] - p[1 - axis])
        at = p[axis] + f * (q[axis] - p[axis])
        i = int(torch.floor(at - 0.5))
        if not 0 <= i < cells - 1:
            continue
        row, column = (line, i) if axis == 0 else (i, line)
        there = (line, i + 1) if axis == 0 else (i + 1, line)
        z = 1 / ((1 - f.detach()) / ends_z[0] + f.detach() / ends_z[1])
        if faces[row, column] == faces[there] or z > torch.maximum(
            depths[row, column], depths[there]
        ):
            continue
        nearer = 1 if depths[there] < depths[row, column] else -1
        sign = 1 if nearer * inward > 0 else -1
        key = (axis, row, column)
        shares[key] = shares.get(key, at.new_zeros(())) + sign * weight * (i + 1 - at)
