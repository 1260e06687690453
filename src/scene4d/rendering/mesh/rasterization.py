"""The door of the mesh rasteriser: a mesh and a camera become colour, alpha, depth, normals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.rendering.mesh.edges import Edges, edges_of
from scene4d.rendering.mesh.fragments import NEAR, Fragments, corners_of, draw, interpolate
from scene4d.rendering.mesh.silhouettes import with_outlines
from scene4d.rendering.mesh.textures import sample, texture_levels

_MARGIN = 1
"""Pixels drawn around the picture, so that its border is blended with what lies beyond."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """How a texture lies on a mesh."""

    uv: Float[Tensor, "num_uv 2"]
    """0..1, (0, 0) the upper left corner of the texture, as in glTF."""
    triangles: Int[np.ndarray, "num_triangles 3"]
    """Rows of ``uv`` for the corners of each triangle."""
    texture: Float[Tensor, "rows columns 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """Triangles, drawn from both sides, with a texture, or with the colours of vertices or of
    places."""

    vertices: Float[Tensor, "num_vertices 3"]
    triangles: Int[np.ndarray, "num_triangles 3"]
    """Counter-clockwise as seen from outside; int64."""
    colours: Float[Tensor, "num_vertices 3"] | None = None
    atlas: Atlas | None = None
    """Where colours of vertices are given, too, this is what is drawn."""
    paint: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None = None
    """Colours of the places that pixels show, differentiable; drawn where it is given."""
    given_edges: Edges | None = None
    """Those of ``triangles``, where they are known."""

    @cached_property
    def edges(self) -> Edges:
        """Those of ``triangles``."""
        return edges_of(self.triangles) if self.given_edges is None else self.given_edges


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a camera sees of a mesh."""

    rgb: Float[Tensor, "height width 3"]
    """On black."""
    alpha: Float[Tensor, "height width"]
    depths: Float[Tensor, "height width"] | None
    """Where they were asked for: along the viewing axis, scene units; 0 where alpha is 0."""
    faces: Int[Tensor, "height width"]
    """The triangle at the pixel's centre, int32; -1: none."""
    normals: Float[Tensor, "height width 3"] | None = None
    """Unit, world axes, toward the camera; 0 where there is no triangle at the centre."""


def rasterize(
    mesh: Mesh,
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    *,
    width: int,
    height: int,
    depths: bool = True,
    normals: bool = False,
) -> Picture:
    """Draws ``mesh``, opaque, with blended outlines; on the CPU, wherever its tensors are.

    Differentiable in vertices, colours or texture, and ``viewmat``. ``viewmat``: world to camera,
    OpenCV axes; ``K`` in pixels from the upper left corner, pixel centres at +0.5, without skew.
    Visibility itself has no slope: it is outlines that move.
    """
    device = mesh.vertices.device
    shift = torch.zeros(3, 3, dtype=torch.float64)
    shift[0, 2] = shift[1, 2] = _MARGIN
    corners = corners_of(mesh.vertices.cpu(), viewmat.cpu(), K.double().cpu() + shift)
    near = near_plane(corners)
    fragments = draw(
        corners, mesh.triangles, near=near, width=width + 2 * _MARGIN, height=height + 2 * _MARGIN
    )
    layers = [_colours(mesh, corners, fragments), (fragments.faces >= 0).float()[..., None]]
    layers += [fragments.depths[..., None]] if depths else []
    rgb, covered, *deep = with_outlines(
        layers, corners, mesh.edges, fragments, near=near, margin=_MARGIN
    )
    alpha = covered[..., 0]
    seen_at = None
    if depths:
        mean = deep[0][..., 0] / torch.where(alpha > 0, alpha, 1.0)
        seen_at = torch.where(alpha > 0, mean, 0.0).to(device)
    inside = slice(_MARGIN, -_MARGIN)
    return Picture(
        rgb=rgb.to(device),
        alpha=alpha.to(device),
        depths=seen_at,
        faces=fragments.faces[inside, inside].to(device),
        normals=_normals(mesh, viewmat, fragments)[inside, inside].to(device) if normals else None,
    )


def near_plane(corners: Float[Tensor, "num_vertices 3"]) -> float:
    """What is nearer to the camera is not drawn: a small share of where the mesh is."""
    z = corners[:, 2].detach()
    before = z[(z > 0) & (z < torch.inf)]
    return NEAR * float(before.median()) if len(before) else 1.0


def _colours(mesh: Mesh, corners: Tensor, fragments: Fragments) -> Float[Tensor, "height width 3"]:
    atlas = mesh.atlas
    if mesh.paint is not None:
        places = interpolate(mesh.vertices.cpu(), mesh.triangles, fragments)
        seen = fragments.faces >= 0
        found = mesh.paint(places[seen].to(mesh.vertices.device)).cpu()
        return torch.zeros_like(places).masked_scatter(seen[..., None], found)
    if atlas is None:
        if mesh.colours is None:
            raise ValueError("a mesh without colours and without a texture")
        return interpolate(mesh.colours.cpu(), mesh.triangles, fragments)
    uv = atlas.uv.cpu()
    at = interpolate(uv, atlas.triangles, fragments)
    rows, columns = atlas.texture.shape[:2]
    level = texture_levels(
        corners, mesh.triangles, fragments,
        uv=uv, uv_triangles=atlas.triangles, at=at, size=(rows, columns),
    )  # fmt: skip
    return sample(atlas.texture.cpu(), at, level, fragments)


def face_normals(
    vertices: Float[Tensor, "num_vertices 3"], triangles: Int[np.ndarray, "num_triangles 3"]
) -> Float[Tensor, "num_triangles 3"]:
    """Unit normals, outwards; 0 of triangles without area."""
    a, b, c = (vertices[torch.from_numpy(triangles[:, i])] for i in range(3))
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)


def _normals(mesh: Mesh, viewmat: Tensor, fragments: Fragments) -> Float[Tensor, "height width 3"]:
    vertices = mesh.vertices.cpu()
    shown = fragments.faces.long()
    found = face_normals(vertices, mesh.triangles)[shown.clamp_min(0)]
    pose = viewmat.to(vertices)
    centre = -pose[:3, :3].T @ pose[:3, 3]
    some = vertices[torch.from_numpy(mesh.triangles[:, 0])][shown.clamp_min(0)]
    away = ((some - centre) * found).sum(-1, keepdim=True) > 0
    return torch.where(shown[..., None] >= 0, torch.where(away, -found, found), 0.0)
