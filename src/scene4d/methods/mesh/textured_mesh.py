"""Triangles with a texture, drawn by ``rendering.mesh``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.method import MeshMethod
from scene4d.methods.mesh.start import starting_mesh
from scene4d.plain import from_table
from scene4d.ranges import Rate
from scene4d.rendering.mesh.edges import Edges, edges_of
from scene4d.rendering.mesh.rasterization import Atlas, Mesh, rasterize
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.saved import Form, form
from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """Plain data of a checkpoint."""

    vertices_lr: Rate
    texture_lr: Rate


class TexturedMesh(Representation):
    """Opaque triangles, seen from both sides, whose colours are a texture's."""

    def __init__(
        self, data: MeshData, *, vertices_lr: float = 0.03, texture_lr: float = 0.01
    ) -> None:
        """Learning rates: of vertices in mean lengths of edges, of texels in 0..1."""
        super().__init__()
        self.vertices = nn.Parameter(torch.from_numpy(data.vertices).float())
        self.texture = nn.Parameter(torch.from_numpy(data.texture).float())
        self.first_vertices: Tensor
        self.triangles: Tensor
        self.uv: Tensor
        self.uv_triangles: Tensor
        self.register_buffer("first_vertices", self.vertices.detach().clone())
        self.register_buffer("triangles", torch.from_numpy(data.triangles))
        self.register_buffer("uv", torch.from_numpy(data.uv).float())
        self.register_buffer("uv_triangles", torch.from_numpy(data.uv_triangles))
        self.vertices_lr, self.texture_lr = vertices_lr, texture_lr

    @classmethod
    def from_task(cls, task: Task, options: MeshMethod) -> TexturedMesh:
        """As it is before training: see :func:`starting_mesh`."""
        data = starting_mesh(task, options)
        return cls(data, vertices_lr=options.vertices_lr, texture_lr=options.texture_lr)

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``, one or a batch."""
        batch = camera.c2w.shape[:-2]
        views = camera.viewmat.reshape(-1, 4, 4)
        intrinsics = camera.K.expand(*batch, 3, 3).reshape(-1, 3, 3)
        pictures = [
            rasterize(
                self.surface(), viewmat, K,
                width=camera.width, height=camera.height, depths=want.depth,
            )
            for viewmat, K in zip(views, intrinsics, strict=True)
        ]  # fmt: skip
        shape = (*batch, camera.height, camera.width)
        alpha = torch.stack([picture.alpha for picture in pictures]).reshape(shape)
        rgb = torch.stack([picture.rgb for picture in pictures]).reshape(*shape, 3)
        if background is not None:
            rgb = rgb + (1 - alpha)[..., None] * background
        depths = [picture.depths for picture in pictures if picture.depths is not None]
        return Render(
            rgb=rgb, alpha=alpha, depth=torch.stack(depths).reshape(shape) if depths else None
        )

    def surface(self) -> Mesh:
        """What is drawn."""
        triangles, uv_triangles = self._topology
        return Mesh(
            vertices=self.vertices,
            triangles=triangles,
            given_edges=self._edges,
            atlas=Atlas(uv=self.uv, triangles=uv_triangles, texture=self.texture),
        )

    def cut(self, gone: Bool[np.ndarray, " num_triangles"]) -> None:
        """Takes triangles away; vertices stay."""
        kept = torch.from_numpy(~gone).to(self.triangles.device)
        self.triangles, self.uv_triangles = self.triangles[kept], self.uv_triangles[kept]
        for known in ("_topology", "_edges"):
            self.__dict__.pop(known, None)

    @cached_property
    def _topology(self) -> tuple[np.ndarray, np.ndarray]:
        return self.triangles.cpu().numpy(), self.uv_triangles.cpu().numpy()

    @cached_property
    def _edges(self) -> Edges:
        return edges_of(self._topology[0])

    @property
    def edge_ends(self) -> Int[Tensor, "2 num_edges"]:
        """The two vertices of every edge."""
        return torch.from_numpy(self._edges.ends.T).to(self.vertices.device)

    @cached_property
    def edge_length(self) -> float:
        """The mean length of an edge as it was at first, scene units."""
        first, second = self.edge_ends
        lengths = (self.first_vertices[first] - self.first_vertices[second]).norm(dim=-1)
        return max(float(lengths.mean()), 1e-12)

    def mesh(self) -> MeshData:
        """The triangles and the texture, in scene coordinates; no vertices without a triangle."""
        triangles, uv_triangles = self._topology
        used, index = np.unique(triangles, return_inverse=True)
        used_uv, uv_index = np.unique(uv_triangles, return_inverse=True)
        return MeshData(
            vertices=self.vertices.detach().cpu().double().numpy()[used],
            triangles=index.reshape(-1, 3),
            uv=self.uv.cpu().double().numpy()[used_uv],
            uv_triangles=uv_index.reshape(-1, 3),
            texture=self.texture.detach().cpu().clamp(0, 1).numpy(),
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """Vertices and texture."""
        vertices_lr = self.vertices_lr * self.edge_length
        return [
            ParameterGroup(name="vertices", parameters=[self.vertices], learning_rate=vertices_lr),
            # Texels that a step hardly sees are not to move as those that it sees.
            ParameterGroup(
                name="texture", parameters=[self.texture], learning_rate=self.texture_lr, eps=1e-8
            ),
        ]

    def plain_data(self) -> Mapping[str, Any]:
        """Learning rates."""
        return {"vertices_lr": self.vertices_lr, "texture_lr": self.texture_lr}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> TexturedMesh:
        """Built again from a checkpoint. Raises :class:`DataError` for triangles of vertices that
        there are not."""
        for name, of in (("triangles", "vertices"), ("uv_triangles", "uv")):
            index, count = tensors[name], len(tensors[of])
            if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < count):
                raise DataError(f"{name} name rows beyond the {count} of {of}")
        if not tensors["texture"].numel():
            raise DataError("the texture has no texels")
        saved = from_table(_Saved, plain, where="settings")
        names = ("vertices", "triangles", "uv", "uv_triangles", "texture")
        made = cls(MeshData(**{name: tensors[name].numpy() for name in names}), **vars(saved))
        made.load_state_dict(dict(tensors))
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Any mesh's."""
        return {
            "vertices": form("v 3"),
            "first_vertices": form("v 3"),
            "triangles": form("t 3", torch.int64),
            "uv": form("u 2"),
            "uv_triangles": form("t 3", torch.int64),
            "texture": form("rows columns 3"),
        }

    def describe(self) -> dict[str, float]:
        """Triangles and texels along a side."""
        return {"triangles": len(self.triangles), "texture": len(self.texture)}
