"""A triangle mesh with a texture, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshData:
    """What files of textured meshes hold."""

    vertices: Float[np.ndarray, "num_vertices 3"]
    triangles: Int[np.ndarray, "num_triangles 3"]
    """Counter-clockwise as seen from outside."""
    uv: Float[np.ndarray, "num_uv 2"]
    """0..1, (0, 0) the upper left corner of the texture, as in glTF."""
    uv_triangles: Int[np.ndarray, "num_triangles 3"]
    """Rows of ``uv`` for the corners of each triangle."""
    texture: Float[np.ndarray, "rows columns 3"]
    """0..1, as in pictures (sRGB)."""

    def transformed(self, similarity: Float[np.ndarray, "4 4"]) -> MeshData:
        """In the coordinates that ``similarity`` leads to."""
        moved = self.vertices @ similarity[:3, :3].T + similarity[:3, 3]
        return replace(self, vertices=moved)

    def one_index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices [N, 3], uv [N, 2] and triangles [T, 3] of rows that both share, as GPUs read
        them: a vertex for each of its places in the texture."""
        pairs = np.stack([self.triangles.ravel(), self.uv_triangles.ravel()], axis=1)
        rows, triangles = np.unique(pairs, axis=0, return_inverse=True)
        return self.vertices[rows[:, 0]], self.uv[rows[:, 1]], triangles.reshape(-1, 3)
