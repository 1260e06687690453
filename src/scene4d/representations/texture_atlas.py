"""Textures of meshes: where triangles lie in one, where its texels lie in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from scene4d.formats.textured_mesh import MeshData
from scene4d.optional import import_optional
from scene4d.rendering.mesh.fragments import draw
from scene4d.rendering.mesh.rasterization import face_normals

PADDING = 4
"""Texels between the charts of a texture."""


def flattened(
    vertices: np.ndarray, triangles: np.ndarray, *, size: int, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the triangles in a texture of ``size``: uv [U, 2] and their rows [T, 3].

    Charts by xatlas (MIT), which turns none of them over.
    """
    xatlas = import_optional("xatlas", extra="mesh", needed_for="meshes with a texture")
    centre, scale = vertices.mean(axis=0), max(np.ptp(vertices, axis=0).max(), 1e-12)
    atlas = xatlas.Atlas()
    near = (100 * (vertices - centre) / scale).astype(np.float32)  # it takes small for nothing
    atlas.add_mesh(near, triangles.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, padding, True
    atlas.generate(xatlas.ChartOptions(), packing)
    _, indices, uv = atlas[0]
    return np.asarray(uv, dtype=np.float64), np.asarray(indices, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Texels:
    """Those that triangles cover."""

    index: np.ndarray
    """[N] flat in the texture."""
    places: np.ndarray
    """[N, 3] float64, scene coordinates."""
    normals: np.ndarray
    """[N, 3] outwards."""


def texels_of(mesh: MeshData) -> Texels:
    """The texture's own picture of its triangles."""
    rows, columns = mesh.texture.shape[:2]
    flat = np.concatenate([mesh.uv * [columns, rows], np.ones((len(mesh.uv), 1))], axis=1)
    shown = draw(torch.from_numpy(flat), mesh.uv_triangles, near=0.5, width=columns, height=rows)
    faces = shown.faces.numpy().ravel()
    index = np.flatnonzero(faces >= 0)
    corners = mesh.vertices[mesh.triangles[faces[index]]]
    weights = shown.weights.numpy().reshape(-1, 3)[index].astype(np.float64)
    normals = face_normals(torch.from_numpy(mesh.vertices), mesh.triangles).numpy()
    return Texels(
        index=index,
        places=(weights[:, :, None] * corners).sum(axis=1),
        normals=normals[faces[index]],
    )


def filled(texture: np.ndarray) -> np.ndarray:
    """Texels without a colour take that of the nearest that has one; grey where none has."""
    lacking = np.isnan(texture).any(axis=-1)
    if lacking.all():
        return np.full_like(texture, 0.5)
    nearest = ndimage.distance_transform_edt(lacking, return_distances=False, return_indices=True)
    return texture[tuple(nearest)]


def painted(
    vertices: np.ndarray,
    triangles: np.ndarray,
    colour: Callable[[Tensor], Tensor],
    *,
    size: int,
) -> MeshData:
    """The mesh with a texture of ``size`` squared that shows ``colour`` ([N, 3] of float64 places
    [N, 3], 0..1) of its surface."""
    uv, uv_triangles = flattened(vertices, triangles, size=size, padding=PADDING)
    bare = MeshData(
        vertices=vertices, triangles=triangles, uv=uv, uv_triangles=uv_triangles,
        texture=np.full((size, size, 3), np.nan, np.float32),
    )  # fmt: skip
    texels = texels_of(bare)
    texture = bare.texture.reshape(-1, 3)
    texture[texels.index] = colour(torch.from_numpy(texels.places)).float().numpy()
    return MeshData(**{**vars(bare), "texture": filled(bare.texture)})
