"""A mesh as DEODR (BSD-2, another differentiable rasteriser) takes it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from scene4d.rendering.mesh.fragments import corners_of


def deodr_scene(vertices: Tensor, triangles: np.ndarray, colours: Tensor, view, size: int):
    """Its ``Scene2D``, with the outlines as edge flags; ``view`` is ``viewmat`` and ``K``."""
    from deodr.differentiable_renderer import Scene2D
    from deodr.triangulated_mesh import TriMesh

    corners = corners_of(vertices, *view).numpy()
    mesh = TriMesh(triangles.astype(np.uint32), vertices.numpy())
    ij = corners[:, :2] / corners[:, 2:]
    count = len(vertices)
    return Scene2D(
        faces=triangles.astype(np.uint32),
        faces_uv=triangles.astype(np.uint32),
        ij=ij,
        depths=corners[:, 2],
        textured=np.zeros(len(triangles), dtype=bool),
        uv=np.zeros((count, 2)),
        shade=np.zeros(count),
        colors=colours.numpy().astype(np.float64),
        shaded=np.zeros(len(triangles), dtype=bool),
        edgeflags=mesh.edge_on_silhouette(ij),
        height=size,
        width=size,
        nb_colors=colours.shape[1],
        texture=np.zeros((1, 1, colours.shape[1])),
        background_color=np.zeros(colours.shape[1]),
        clockwise=True,
        backface_culling=True,
        perspective_correct=False,
        integer_pixel_centers=False,
    )
