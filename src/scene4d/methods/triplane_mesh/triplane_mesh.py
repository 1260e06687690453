"""A triplane field as a representation: volume rendered first, then drawn as its mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.triplane_mesh.method import TriplaneMeshMethod
from scene4d.methods.triplane_mesh.place import find_place
from scene4d.plain import from_table
from scene4d.ranges import Finite, Positive, Rate, Within
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import IMAGES, ParameterGroup, Representation, Sampling
from scene4d.representations.saved import Form, module_forms
from scene4d.representations.task import Task
from scene4d.representations.texture_atlas import painted
from scene4d.representations.triplane_field import (
    FieldSurface,
    TriplaneField,
    TriplaneNetworks,
    TriplaneShape,
)
from scene4d.representations.triplane_rendering import (
    Box,
    Fog,
    fog_picture,
    mesh_picture,
    rough_distances,
)

_ROUGH = 32
"""Cubes along a side of the grid that says where fog is."""
_AT_ONCE = 1 << 16
"""Texels that are painted at a time."""
_SHAPE_STEPS, _SHAPE_PLACES, _SHAPE_LR, _SHAPE_NEAR = 300, 4096, 0.01, 0.1
"""Of fitting a shape that is known."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """:meth:`TriplaneMesh.plain_data`, as it may be."""

    centre: tuple[Finite, Finite, Finite]
    half: Positive
    shape: TriplaneShape
    grid: Annotated[int, Within(8, 512)]
    mesh_from: Annotated[float, Within(0.0, 1.0)]
    shape_from: Annotated[float, Within(0.0, 1.0)]
    rays: Annotated[int, Within(1, 1_000_000)]
    pictures: Annotated[int, Within(1, 4096)]
    march_steps: Annotated[int, Within(1, 4096)]
    first_blur: Positive
    last_blur: Positive
    planes_lr: Rate
    networks_lr: Rate
    texture_size: Annotated[int, Within(1, 8192)]


_SAME = (
    "grid", "mesh_from", "shape_from", "rays", "pictures", "march_steps", "first_blur",
    "last_blur", "planes_lr", "networks_lr", "texture_size",
)  # fmt: skip
"""Settings that are options of the method by the same names."""


class TriplaneMesh(Representation):
    """Signed distances and colours in a box, on three planes, and the mesh of their surface."""

    meshed: Tensor
    """Whether the mesh is drawn yet."""
    blur: Tensor

    def __init__(self, settings: Settings, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.box = Box(centre=settings.centre, half=settings.half)
        planes = settings.shape.planes
        table = 1e-3 * torch.randn(planes.texels, planes.features, generator=generator)
        self.table = nn.Parameter(table)
        self.networks = TriplaneNetworks(settings.shape, generator=generator)
        self.register_buffer("meshed", torch.tensor(settings.mesh_from <= 0))
        self.register_buffer("blur", torch.tensor(settings.first_blur))
        self.phase, self.shape_moves = 0.5, True
        self._drawn: tuple[tuple[int, ...], FieldSurface] | None = None
        self._painted: tuple[tuple[int, ...], MeshData] | None = None
        self.eval()  # until it is told of training's progress

    @classmethod
    def from_task(
        cls, task: Task, options: TriplaneMeshMethod, *, generator: torch.Generator
    ) -> TriplaneMesh:
        """As it is before training, grey: the visual hull where there is one, or else a ball."""
        outlines = options.silhouette.weight > 0
        place = find_place(task, options.half_side, outlines=outlines)
        box = place.box
        shape = TriplaneShape(
            resolutions=options.resolutions,
            channels=options.channels,
            neurons=options.neurons,
            hidden_layers=options.hidden_layers,
            bends_cubes=options.bends_cubes,
        )
        same = {name: getattr(options, name) for name in _SAME}
        settings = Settings(centre=box.centre, half=box.half, shape=shape, **same)
        made = cls(settings, generator=generator)
        if place.hull is not None:
            made.take_shape(place.hull, generator=generator)
        return made

    def take_shape(self, distances: Float[Tensor, "n n n"], *, generator: torch.Generator) -> None:
        """Fits the field's distances to those of a grid over the box, by some steps of Adam."""
        optimiser = torch.optim.Adam(self.parameters(), lr=_SHAPE_LR)
        volume = distances.permute(2, 1, 0)[None, None]  # grid_sample's x is the last axis
        for step in range(_SHAPE_STEPS):
            places = 2 * torch.rand(_SHAPE_PLACES, 3, generator=generator) - 1
            wanted = grid_sample(volume, places[None, None, None], align_corners=True).reshape(-1)
            # Far from the surface it does not matter how far.
            weight = 1 / (1 + (wanted / _SHAPE_NEAR) ** 2)
            error = self.field.distance(places) - wanted
            optimiser.param_groups[0]["lr"] = _SHAPE_LR * (1 - step / _SHAPE_STEPS)
            optimiser.zero_grad()
            (weight * error.square()).mean().backward()
            optimiser.step()
        optimiser.zero_grad()

    @property
    def field(self) -> TriplaneField:
        """Distances and colours in the box."""
        return TriplaneField(self.table, self.networks)

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """The picture at ``camera``, one or a batch: of fog, or of the mesh. With gradients,
        ``extras["surface"]`` is the mesh's :class:`FieldSurface`."""
        if not bool(self.meshed):
            fog = Fog(
                blur=float(self.blur),
                steps=self.settings.march_steps,
                phase=self.phase if self.training else 0.5,
                rough=rough_distances(self.field, _ROUGH),
                shape_moves=self.shape_moves,
            )
            return fog_picture(self.field, self.box, camera, fog, background=background, want=want)
        surface = self.surface()
        if self.training and not len(surface.mesh.triangles):
            raise DataError(
                "no surface is left to draw",
                fix="train longer before --mesh-from, or lower --eikonal.weight and learning rates",
            )
        return mesh_picture(self.field, self.box, camera, surface, background=background, want=want)

    def surface(self) -> FieldSurface:
        """The mesh in the box; anew where gradients are taken. Raises :class:`DataError` for
        distances that are not finite."""
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters()):
            raise DataError(
                "the planes or networks have numbers that are not finite",
                fix="lower --planes-lr and --networks-lr",
            )
        learning = self.training and self.settings.shape.bends_cubes
        if torch.is_grad_enabled():
            return self.field.surface(self.settings.grid, centres=learning)
        state = self._state()
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = (state, self.field.surface(self.settings.grid, centres=learning))
        return self._drawn[1]

    def _state(self) -> tuple[int, ...]:
        """Another one whenever torch has written to a parameter."""
        places = [(p.data_ptr(), p._version) for p in self.parameters()]
        return (int(self.training), *(number for pair in places for number in pair))

    @torch.no_grad()
    def mesh(self) -> MeshData:
        """The surface with the field's colours as a texture, in scene coordinates. Raises
        :class:`DataError` where there is no surface."""
        state = self._state()
        if self._painted is None or self._painted[0] != state:
            found = self.field.surface(self.settings.grid).mesh
            if not len(found.triangles):
                raise DataError("the field has no surface to make a mesh of", fix="train it longer")
            vertices = self.box.outside(found.vertices.cpu().double()).numpy()
            data = painted(vertices, found.triangles, self._colour, size=self.settings.texture_size)
            self._painted = (state, data)
        return self._painted[1]

    def _colour(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        inside = self.box.inside(places).to(self.table)
        return torch.cat([self.field.colour(some).cpu() for some in inside.split(_AT_ONCE)])

    def on_progress(self, progress: float) -> None:
        """From fog to mesh; fog clears, and samples move within their steps."""
        self.train(progress < 1.0)
        self._drawn = self._painted = None  # an optimiser may write past a tensor's version
        settings = self.settings
        self.meshed.fill_(progress >= settings.mesh_from)
        done = min(1.0, progress / max(settings.mesh_from, 1e-6))
        self.blur.fill_(settings.first_blur * (settings.last_blur / settings.first_blur) ** done)
        self.shape_moves = progress >= settings.shape_from
        rays = Sampling(of="rays", count=settings.rays, pictures=settings.pictures)
        self.sampling = IMAGES if progress >= settings.mesh_from else rays
        # Any two steps' phases are far from each other: multiples of an irrational number.
        self.phase = (0.5 + progress * 61803.39887) % 1.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """Planes and networks."""
        return [
            ParameterGroup(
                name="planes", parameters=[self.table], learning_rate=self.settings.planes_lr
            ),
            ParameterGroup(
                name="networks",
                parameters=list(self.networks.parameters()),
                learning_rate=self.settings.networks_lr,
            ),
        ]

    def plain_data(self) -> Mapping[str, Any]:
        """Sizes and the box."""
        table = asdict(self.settings)
        table["centre"] = list(self.settings.centre)
        table["shape"]["resolutions"] = list(self.settings.shape.resolutions)
        return table

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> TriplaneMesh:
        """Built again from a checkpoint."""
        made = cls(from_table(Settings, plain, where="settings"))
        made.load_state_dict(dict(tensors))
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """As the sizes say."""
        settings = from_table(Settings, plain, where="settings")
        return module_forms(lambda: cls(settings))

    def describe(self) -> dict[str, float]:
        """How far the surface is blurred, while it is; then how many triangles it has."""
        if not bool(self.meshed):
            return {"blur": float(self.blur)}
        with torch.no_grad():
            return {"triangles": len(self.surface().mesh.triangles)}
