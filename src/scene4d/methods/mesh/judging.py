"""What photographs say of a mesh: which triangles they see through, and how unlike them it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.evaluation.protocol import composited
from scene4d.exporters.mesh import spread
from scene4d.formats.textured_mesh import MeshData
from scene4d.rendering.mesh.rasterization import Atlas, Mesh, Picture, rasterize
from scene4d.representations.task import Task

_LEAST_LOOKS = 2
"""Pictures that a triangle is judged by, at least."""
_LOOKS = 32
"""Photographs that a mesh is compared with, at most."""


class Judgement:
    """Of each triangle, how much more the pictures that show it look like what lies behind: the sum
    of squared differences over its pixels, and in how many pictures these are."""

    def __init__(self, count: int) -> None:
        self.gains = torch.zeros(count, dtype=torch.float64)
        self.looks = torch.zeros(count, dtype=torch.int64)

    def look(
        self,
        faces: Int[Tensor, "height width"],
        counts: Bool[Tensor, "height width"],
        *,
        photograph: Float[Tensor, "height width 3"],
        shown: Float[Tensor, "height width 3"],
        behind: Float[Tensor, "height width 3"],
    ) -> None:
        """One picture more: ``faces`` are the triangles that are ``shown``, and ``counts`` the
        pixels that say something, all of which have a triangle."""
        here, there = ((seen - photograph).square().sum(-1)[counts] for seen in (shown, behind))
        of = faces[counts].cpu().long()
        self.gains.index_add_(0, of, (here - there).cpu().double())
        self.looks[of.unique()] += 1

    def seen_through(self) -> Bool[Tensor, " num_triangles"]:
        """The triangles that at least two pictures show, all in all as what they are not."""
        return (self.gains > 0) & (self.looks >= _LEAST_LOOKS)


def picture_of(mesh: MeshData, camera: Camera) -> Picture:
    """The mesh, drawn on black."""
    atlas = Atlas(
        uv=torch.from_numpy(mesh.uv).float(),
        triangles=mesh.uv_triangles,
        texture=torch.from_numpy(mesh.texture).float(),
    )
    shown = Mesh(
        vertices=torch.from_numpy(mesh.vertices).float(), triangles=mesh.triangles, atlas=atlas
    )
    return rasterize(
        shown, camera.viewmat, camera.K, width=camera.width, height=camera.height, depths=False
    )


def difference(
    mesh: MeshData, task: Task, outlines: Mapping[int, Bool[Tensor, "height width"]]
) -> float:
    """Mean squared error of colours and of what is covered, over the photographs with ``outlines``;
    beyond these all is black and uncovered."""
    found = []
    for index in spread(list(outlines), _LOOKS):
        view, inside = task.images.view(index), outlines[index][..., None]
        drawn = picture_of(mesh, view.camera)
        photograph = composited(view, torch.zeros(3)) * inside
        colours = (drawn.rgb - photograph).square().sum(-1)
        found.append((colours + (drawn.alpha - inside[..., 0].float()).square()).mean() / 4)
    return float(torch.stack(found).mean())
