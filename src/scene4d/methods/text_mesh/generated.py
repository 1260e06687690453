"""A scene as the network made it: a triplane field whose planes gradients flow through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.textured_mesh import MeshData
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.texture_atlas import painted
from scene4d.representations.triplane_field import FieldSurface, TriplaneField, TriplaneNetworks
from scene4d.representations.triplane_rendering import (
    Box,
    Fog,
    fog_picture,
    mesh_picture,
    rough_distances,
)

_ROUGH = 24
"""Cubes along a side of the grid that says where fog is."""
_STEPS = 48
"""Of a ray through fog."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How a scene is drawn."""

    cells: int
    """Cubes along a side, of which the surface is made."""
    texture_size: int
    blur: float | None
    """Of the surface as fog, scene units; None: the mesh is drawn."""
    phase: float = 0.5
    """Where in its part of a ray a sample lies, 0..1."""


class GeneratedScene(Representation):
    """Signed distances and colours in the cube from -1 to 1, from planes that are no parameters."""

    def __init__(
        self,
        planes: Float[Tensor, "3 features size size"],
        networks: TriplaneNetworks,
        drawing: Drawing,
    ) -> None:
        super().__init__()
        self.field = TriplaneField.of_planes([planes], networks)
        self.drawing = drawing
        self.box = Box(centre=(0.0, 0.0, 0.0), half=1.0)
        self._surface: tuple[bool, FieldSurface] | None = None
        """Whether it has gradients, and the mesh."""

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``, one or a batch: of fog, or of the mesh."""
        if self.drawing.blur is None:
            return mesh_picture(
                self.field, self.box, camera, self.surface, background=background, want=want
            )
        fog = Fog(blur=self.drawing.blur, steps=_STEPS, phase=self.drawing.phase, rough=self._rough)
        return fog_picture(self.field, self.box, camera, fog, background=background, want=want)

    @property
    def surface(self) -> FieldSurface:
        """The mesh, made once for all pictures; once more where gradients are taken of what was
        made without."""
        graded = torch.is_grad_enabled()
        if self._surface is None or (graded and not self._surface[0]):
            self._surface = (graded, self.field.surface(self.drawing.cells))
        return self._surface[1]

    @cached_property
    def _rough(self) -> Float[Tensor, "n n n"]:
        return rough_distances(self.field, _ROUGH)

    @torch.no_grad()
    def mesh(self) -> MeshData:
        """The surface with the field's colours as a texture. Raises :class:`DataError` where there
        is none."""
        found = self.surface.mesh
        if not len(found.triangles):
            raise DataError("what was made of the text has no surface", fix="train longer")
        vertices = found.vertices.cpu().double().numpy()
        return painted(vertices, found.triangles, self._colour, size=self.drawing.texture_size)

    def _colour(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return self.field.colour(places.to(self.field.table)).cpu()

    def parameter_groups(self) -> list[ParameterGroup]:
        """None: its generator is trained."""
        return []

    def plain_data(self) -> Mapping[str, Any]:
        """None: its generator is saved."""
        return {}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> GeneratedScene:
        """Never: its generator is saved."""
        raise TypeError("a generated scene is not saved: its generator is")
