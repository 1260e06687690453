"""A static and a dynamic radiance field as one representation (DpDy, Wang et al. 2024).

Source: "Diffusion Priors for Dynamic View Synthesis from Monocular Videos" (arXiv 2401.05583),
section 3.1. Both fields give density and colour at every place that a ray looks at; densities add,
colours are mixed by density (``rendering/fields/volume.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.methods.dynamic_field.parts import (
    DYNAMIC_AXES,
    STATIC_AXES,
    Field,
    PlainGrid,
    plain_grid,
)
from scene4d.methods.dynamic_field.place import Place, find_place
from scene4d.plain import from_table
from scene4d.ranges import NotNegative, Within
from scene4d.rendering.fields.hash_grid import GridShape, contracted
from scene4d.rendering.fields.networks import harmonics
from scene4d.rendering.fields.occupancy import DYNAMIC, STATIC, OccupancyGrid
from scene4d.rendering.fields.samplers import march_edges
from scene4d.rendering.fields.volume import RayPixels, RaySamples, volume_render
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation, Sampling
from scene4d.representations.saved import Form, module_forms

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.dynamic_field.method import DynamicFieldMethod

RAYS_AT_ONCE = 4096
"""Rays of a chunk: some 300 MB while nothing is known to be empty."""
EXPLORE = 32
"""Parts of a ray, one of which is looked at in training even where nothing seems to be."""
_PARTS = ("static", "dynamic")
_FIRST_DENSITY = (0.5, 0.05)
"""Of the static and the dynamic field, per radius: a ray through the ball is far from opaque."""
_LEAST_ALPHA = 0.003
"""A cell is empty where a step through it, and through the cells around it, adds less."""
_OPAQUE = 9.0
"""Optical depth of the static part behind which nothing is looked at: 0.01% gets through."""
_TINY = 1e-6
_LAYERS = 12
"""Stretches of time in the occupancy grid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldSamples:
    """What was seen along some rays: for the terms of the loss that look at it."""

    places: RaySamples
    """Distances in radii of the content."""
    density: Float[Tensor, "n 2"]
    """Static and dynamic, per radius."""
    weights: Float[Tensor, " n"]
    unit: float
    """The content's radius in scene units."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """:meth:`DynamicField.plain_data`, as it may be."""

    place: Place
    static_grid: PlainGrid
    dynamic_grid: PlainGrid
    neurons: Annotated[int, Within(1, 1024)]
    view_degree: Annotated[int, Within(0, 3)]
    appearance: Annotated[int, Within(0, 64)]
    times: Annotated[int, Within(1, 1_000_000)]
    """Training times, each with a code of its own."""
    march_steps: Annotated[int, Within(1, 4096)]
    cells: Annotated[int, Within(1, 512)]
    static_until: NotNegative
    rays: Annotated[int, Within(1, 1_000_000)]
    pictures: Annotated[int, Within(1, 4096)]
    grid_lr: NotNegative
    network_lr: NotNegative
    dynamic_network_lr: NotNegative


_SAME = (
    "neurons", "view_degree", "appearance", "march_steps", "cells", "static_until", "rays",
    "pictures", "grid_lr", "network_lr", "dynamic_network_lr",
)  # fmt: skip
"""Settings that are options of the method by the same names."""


def settings_of(options: DynamicFieldMethod, *, place: Place, times: int) -> Settings:
    """What the method's options make of a field at ``place``, with so many training times."""
    last = options.time_cells or max(2, times // 2)
    static = GridShape.growing(
        levels=options.levels,
        features=options.features,
        coarsest=options.coarsest,
        finest=options.finest,
        max_rows=1 << options.log2_rows,
    )
    dynamic = GridShape.growing(
        levels=options.dynamic_levels,
        features=options.features,
        coarsest=options.coarsest,
        finest=options.dynamic_finest,
        max_rows=1 << options.dynamic_log2_rows,
        last=(min(4, last), last),
    )
    return Settings(
        place=place,
        static_grid=PlainGrid(**vars(static)),
        dynamic_grid=PlainGrid(**vars(dynamic)),
        times=times,
        **{name: getattr(options, name) for name in _SAME},
    )


class DynamicField(Representation):
    """A static and a dynamic field of densities and colours; pictures by volume rendering.

    Rendering draws no random numbers: samples lie in the middles of their steps; in training mode,
    at one phase of them for all rays, which :meth:`on_progress` moves.
    """

    codes: nn.Parameter | None
    seconds: Tensor
    moves: Tensor
    """Whether the dynamic part takes part yet."""

    def __init__(self, settings: Settings, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.sampling = Sampling(of="rays", count=settings.rays, pictures=settings.pictures)
        options = {"neurons": settings.neurons, "seen": self._seen_width(settings)}
        static, dynamic = settings.static_grid.shape(), settings.dynamic_grid.shape()
        self.static = Field(
            static, STATIC_AXES, first_density=_FIRST_DENSITY[0], generator=generator, **options
        )
        self.dynamic = Field(
            dynamic, DYNAMIC_AXES, first_density=_FIRST_DENSITY[1], generator=generator, **options
        )
        place = settings.place
        edges = march_edges(place.near, place.far, place.uniform_to, settings.march_steps)
        self.edges = edges.tolist()
        self.occupancy = OccupancyGrid(
            cells=settings.cells,
            dynamic_cells=max(1, settings.cells // 2),
            layers=_LAYERS,
            least=_LEAST_ALPHA / (self.edges[1] - self.edges[0]),
        )
        self.register_buffer("seconds", torch.zeros(settings.times))
        shape = (settings.times, settings.appearance)
        self.codes = nn.Parameter(torch.zeros(shape)) if settings.appearance else None
        self.register_buffer("moves", torch.tensor(True))
        self.phase = 0.5
        self.eval()  # until it is told of training's progress

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        options: DynamicFieldMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> DynamicField:
        """Untrained: thin fog around the content."""
        place = find_place(scene, teacher)
        seconds = {float(c.time) for c in scene.train_cameras() if c.time is not None} or {0.0}
        settings = settings_of(options, place=place, times=len(seconds))
        field = cls(settings, generator=generator)
        field.seconds.copy_(torch.tensor(sorted(seconds)))
        return field

    # Rendering

    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """The picture at ``camera``; in chunks of rays, so that memory is bounded. With gradients,
        more than one chunk is rendered again on the way back.

        ``static`` and ``dynamic`` are each field alone. ``extras["samples"]``, where gradients are
        taken, holds a :class:`FieldSamples` of each chunk.
        """
        rays = camera_rays(camera)
        shape = rays.origins.shape[:-1]
        place = self.settings.place
        centre = rays.origins.new_tensor(place.centre)
        origins = ((rays.origins - centre) / place.radius).reshape(-1, 3)
        directions = rays.directions.reshape(-1, 3)
        seconds = self._seconds(camera, shape)
        names = tuple(name for name in _PARTS if name in want.parts)
        chunks = [
            self._chunk(origins[i : i + RAYS_AT_ONCE], directions[i : i + RAYS_AT_ONCE],
                        seconds[i : i + RAYS_AT_ONCE], names, len(origins) > RAYS_AT_ONCE)
            for i in range(0, len(origins), RAYS_AT_ONCE)
        ]  # fmt: skip
        pixels = torch.cat([chunk[0] for chunk in chunks])  # [rays, 1 + parts, 6]
        samples = [chunk[1] for chunk in chunks] if torch.is_grad_enabled() else []
        forward = -camera.c2w[..., None, None, :3, 2]
        along = (rays.directions * forward).sum(dim=-1) * place.radius
        renders = [
            _as_render(pixels[:, part].reshape(*shape, 6), along, want.depth)
            for part in range(pixels.shape[1])
        ]
        whole, moving = renders[0], pixels[:, 0, 5].reshape(shape)
        rgb = whole.rgb
        if background is not None:
            rgb = rgb + (1 - whole.alpha)[..., None] * background
        return Render(
            rgb=rgb,
            alpha=whole.alpha,
            depth=whole.depth,
            parts=dict(zip(names, renders[1:], strict=True)),
            shares={"static": whole.alpha - moving, "dynamic": moving} if want.shares else {},
            extras={"samples": samples} if samples else {},
        )

    def _seconds(self, camera: Camera, shape: torch.Size) -> Float[Tensor, " rays"]:
        device = camera.c2w.device
        if camera.time is None:
            return torch.full((shape.numel(),), self.settings.place.start_s, device=device)
        return camera.time.to(torch.float32)[..., None, None].expand(shape).reshape(-1)

    def _chunk(
        self,
        origins: Tensor,
        directions: Tensor,
        seconds: Tensor,
        names: Sequence[str],
        again: bool,
    ) -> tuple[Float[Tensor, "rays parts 6"], FieldSamples]:
        place = self.settings.place
        unit_time = (seconds - place.start_s) / max(place.duration_s, 1e-9)
        places, which = self._march(origins, directions, unit_time, hidden=bool(names))
        arguments = (origins, directions, seconds, unit_time)
        if again and torch.is_grad_enabled():
            pixels, density, weights = checkpoint(
                self._pixels, *arguments, places, which, names, use_reentrant=False
            )
        else:
            pixels, density, weights = self._pixels(*arguments, places, which, names)
        return pixels, FieldSamples(
            places=places, density=density, weights=weights, unit=place.radius
        )

    @torch.no_grad()
    def _march(
        self, origins: Tensor, directions: Tensor, unit_time: Tensor, *, hidden: bool
    ) -> tuple[RaySamples, UInt8[Tensor, " n"]]:
        """The samples in occupied cells, without those that the static part hides unless ``hidden``
        (each part alone needs them)."""
        media = STATIC | DYNAMIC if bool(self.moves) else STATIC
        explore = EXPLORE if self.training else 0
        places, which = self.occupancy.march(
            origins, directions, unit_time, torch.tensor(self.edges),
            phase=self.phase if self.training else 0.5, media=media, explore=explore,
        )  # fmt: skip
        if hidden:
            return places, which
        still = torch.nonzero(which & STATIC)[:, 0]
        density = torch.zeros_like(places.middles)
        unit = _unit_places(origins, directions, places)[still]
        density.index_copy_(0, still, self.static.density(unit))
        return places.before(density, _OPAQUE, which)

    def _pixels(
        self,
        origins: Tensor,
        directions: Tensor,
        seconds: Tensor,
        unit_time: Tensor,
        places: RaySamples,
        which: Tensor,
        names: Sequence[str],
    ) -> tuple[Tensor, Tensor, Tensor]:
        rays = places.rays()
        unit = _unit_places(origins, directions, places)
        seen = self._seen(directions, seconds)
        still = torch.nonzero(which & STATIC)[:, 0]
        moving = torch.nonzero(which & DYNAMIC)[:, 0]
        at_time = torch.cat([unit[moving], unit_time[rays[moving], None]], dim=1)
        found = [_among(places.count, still, self.static(unit[still], seen[rays[still]]))]
        # What is not asked at all has no gradient, so that Adam does not count the step.
        nothing = unit.new_zeros(0), unit.new_zeros(0, 3)
        of_moving = self.dynamic(at_time, seen[rays[moving]]) if len(moving) else nothing
        found.append(_among(places.count, moving, of_moving))
        density = torch.stack([d for d, _ in found], dim=1)
        colour = torch.stack([c for _, c in found], dim=1)
        whole = volume_render(density, colour, places)
        shown = whole.weights * dynamic_share(density)
        pixels = [_packed(whole, seen.new_zeros(len(origins)).index_add(0, rays, shown))]
        for i in map(_PARTS.index, names):
            alone = volume_render(density[:, i : i + 1], colour[:, i : i + 1], places)
            pixels.append(_packed(alone, alone.alpha))
        return torch.stack(pixels, dim=1), density, whole.weights

    def _seen(self, directions: Tensor, seconds: Tensor) -> Float[Tensor, "rays seen"]:
        told = harmonics(directions)[:, : (self.settings.view_degree + 1) ** 2]
        if self.codes is None:
            return told
        codes = self.codes
        if not self.training:
            return torch.cat([told, codes.new_zeros(len(told), codes.shape[1])], dim=1)
        nearest = (seconds[:, None] - self.seconds).abs().argmin(dim=1)
        return torch.cat([told, codes[nearest]], dim=1)

    @staticmethod
    def _seen_width(settings: Settings) -> int:
        return (settings.view_degree + 1) ** 2 + settings.appearance

    # Training

    @torch.no_grad()
    def look(
        self, medium: int, *, share: float, decay: float, generator: torch.Generator, turn: int = 0
    ) -> None:
        """Tells the occupancy grid the densities in some of its cells."""
        cells, places = self.occupancy.cells_to_look_at(medium, share, generator, turn=turn)
        field, width = (self.static, 3) if medium == STATIC else (self.dynamic, 4)
        density = [field.density(some[:, :width]) for some in places.split(1 << 16)]
        self.occupancy.update(medium, cells, torch.cat(density), decay=decay)

    def on_progress(self, progress: float) -> None:
        """The dynamic field takes part after a while; samples move within their steps."""
        self.train(progress < 1.0)
        self.moves.fill_(progress >= self.settings.static_until)
        # Any two steps' phases are far from each other: multiples of an irrational number, of a
        # progress that is finer than any step.
        self.phase = (0.5 + progress * 61803.39887) % 1.0

    @property
    def times(self) -> tuple[float, float]:
        """The capture's first and last second."""
        place = self.settings.place
        return place.start_s, place.start_s + place.duration_s

    def parameter_groups(self) -> list[ParameterGroup]:
        """Tables, networks, and codes of times."""
        settings = self.settings
        still, moving = (
            [p for n, p in part.named_parameters() if "network" in n]
            for part in (self.static, self.dynamic)
        )
        still += [] if self.codes is None else [self.codes]
        slow = settings.dynamic_network_lr
        return [
            ParameterGroup(name="static_grids", parameters=[self.static.grids.table],
                           learning_rate=settings.grid_lr),
            ParameterGroup(name="dynamic_grids", parameters=[self.dynamic.grids.table],
                           learning_rate=settings.grid_lr),
            ParameterGroup(name="networks", parameters=still, learning_rate=settings.network_lr),
            ParameterGroup(name="dynamic_networks", parameters=moving, learning_rate=slow),
        ]  # fmt: skip

    def plain_data(self) -> Mapping[str, Any]:
        """Sizes and places."""
        table = {name: getattr(self.settings, name) for name in Settings.__dataclass_fields__}
        table["place"] = {**asdict(self.settings.place), "centre": [*self.settings.place.centre]}
        for name in ("static_grid", "dynamic_grid"):
            table[name] = plain_grid(table[name].shape())
        return table

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> DynamicField:
        """Built again from a checkpoint."""
        field = cls(from_table(Settings, plain, where="settings"))
        field.load_state_dict(dict(tensors))
        return field

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """As the sizes say."""
        settings = from_table(Settings, plain, where="settings")
        return module_forms(lambda: cls(settings))

    def describe(self) -> dict[str, float]:
        """Shares of the occupancy grid that are sampled."""
        return {
            "occupied": self.occupancy.share(STATIC),
            "occupied_dynamic": self.occupancy.share(DYNAMIC),
        }


def _unit_places(origins: Tensor, directions: Tensor, places: RaySamples) -> Float[Tensor, "n 3"]:
    """Samples' places in contracted space."""
    rays = places.rays()
    points = origins[rays] + places.middles[:, None] * directions[rays]
    return contracted(points, points.new_zeros(3), 1.0)


def _among(
    count: int, index: Tensor, found: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, " {count}"], Float[Tensor, "{count} 3"]]:
    """Densities and colours among all samples, nothing where a field was not asked."""
    density, colour = found
    if len(index) == count:
        return density, colour
    return (
        density.new_zeros(count).index_copy(0, index, density),
        colour.new_zeros(count, 3).index_copy(0, index, colour),
    )


def dynamic_share(density: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Of the density at each sample."""
    return density[:, 1] / density.sum(dim=1).clamp_min(_TINY)


def _packed(pixels: RayPixels, moving: Float[Tensor, " rays"]) -> Float[Tensor, "rays 6"]:
    columns = [pixels.alpha, pixels.distance, moving]
    return torch.cat([pixels.rgb, torch.stack(columns, dim=1)], dim=1)


def _as_render(pixels: Float[Tensor, "*b 6"], along: Tensor, depth: bool) -> Render:
    alpha = pixels[..., 3]
    found = pixels[..., 4] / alpha.clamp_min(1e-6) * along if depth else None
    return Render(rgb=pixels[..., :3], alpha=alpha, depth=found)
