"""The method ``dynamic-field``: a static and a dynamic radiance field, composited by density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from scene4d.errors import UsageError
from scene4d.ranges import Count, Rate, Share, Weight, Within
from scene4d.representations.method import (
    Method,
    ObjectiveOptions,
    StrategyOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task

_OBJECTIVES = "scene4d.methods.dynamic_field.objectives"


@dataclass(frozen=True, kw_only=True)
class SquaredErrorOptions(ObjectiveOptions):
    """Compares rays with the photographs' pixels: mean squared error, as NeRF does."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:SquaredError"


@dataclass(frozen=True, kw_only=True)
class LineOfSightOptions(ObjectiveOptions):
    """Where the capture has depth, rays end there, and nothing is before (DS-NeRF)."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:LineOfSight"
    weight: Weight = 1e-2
    margin: Annotated[float, Within(1.0, 100.0)] = 1.5
    """How far from the measured distance still counts, in steps along the ray."""


@dataclass(frozen=True, kw_only=True)
class SkewedEntropyOptions(ObjectiveOptions):
    """Each place is either static or dynamic: binary entropy of (the dynamic share of its density)
    to the power of ``skew`` (D2NeRF, Wu et al. 2022, eq. 8), by the places' weights in pixels."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:SkewedEntropy"
    weight: Weight = 1e-3
    start: Share = 0.6
    skew: Annotated[float, Within(1.0, 10.0)] = 1.75
    """Larger: more is static."""


@dataclass(frozen=True, kw_only=True)
class DynamicRaysOptions(ObjectiveOptions):
    """Few rays meet anything dynamic: the square of each ray's largest dynamic share (D2NeRF,
    eq. 9)."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:DynamicRays"
    weight: Weight = 1e-3
    start: Share = 0.6


@dataclass(frozen=True, kw_only=True)
class DynamicSparsityOptions(ObjectiveOptions):
    """Little is dynamic: the dynamic part's mean optical depth along rays (after EmerNeRF, Yang et
    al. 2023, section 3.4)."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:DynamicSparsity"
    weight: Weight = 1e-3
    start: Share = 0.6


@dataclass(frozen=True, kw_only=True)
class DistortionOptions(ObjectiveOptions):
    """A ray's weight is in one place (Mip-NeRF 360, eq. 15), in radii of the content."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:Distortion"
    weight: Weight = 1e-3


@dataclass(frozen=True, kw_only=True)
class OccupancyOptions(StrategyOptions):
    """How the grid learns which parts of space are worth a look."""

    implementation: ClassVar[str] = (
        "scene4d.methods.dynamic_field.occupancy_updates:OccupancyUpdates"
    )
    every: Count = 12
    """Steps between looks."""
    first: Count = 24
    """Steps before the first look. What nobody looked at is sampled."""
    share: Annotated[float, Within(0.0, 1.0, above=True)] = 0.5
    """Share of the static part's cells that a look asks."""
    dynamic_from: Annotated[float, Within(0.0, 1.0)] = 0.6
    """Share of training from which on the dynamic part is looked at."""
    dynamic_share: Annotated[float, Within(0.0, 1.0, above=True)] = 0.25
    """Share of the dynamic part's cells, of which there is a grid for each stretch of time."""
    decay: Share = 0.7
    """What is left of a cell's density when it is looked at again and is emptier."""


@dataclass(frozen=True, kw_only=True)
class DynamicFieldMethod(Method):
    """A static and a dynamic radiance field: the way of priors and GPUs, slow on a CPU."""

    name: ClassVar[str] = "dynamic-field"
    description: ClassVar[str] = "Static + dynamic radiance field (DpDy); slow on a CPU"
    representation: ClassVar[str] = "scene4d.methods.dynamic_field.field:DynamicField"
    uses_time: ClassVar[bool] = True
    sample_scene: ClassVar[str] = "dance_room"

    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    rays: Annotated[int, Within(16, 1_000_000)] = 2048
    """Pixels that a step looks at."""
    pictures: Annotated[int, Within(1, 4096)] = 16
    """Photographs that a step's pixels are of."""

    levels: Annotated[int, Within(1, 24)] = 8
    """Levels of the static hash grid."""
    dynamic_levels: Annotated[int, Within(1, 24)] = 4
    """Levels of each of the hash grids over (x, y, t), (x, z, t) and (y, z, t)."""
    features: Annotated[int, Within(1, 16)] = 4
    """Features of each level."""
    coarsest: Annotated[int, Within(1, 4096)] = 16
    """Cells of the first level along an axis of contracted space, whose middle half is the
    content's ball."""
    finest: Annotated[int, Within(1, 65536)] = 1024
    """Cells of the static grid's last level."""
    dynamic_finest: Annotated[int, Within(1, 65536)] = 256
    """Cells of the dynamic grids' last level along the axes of space."""
    time_cells: Annotated[int, Within(1, 65536)] | None = None
    """Cells of the dynamic grids' last level in time; by default half as many as there are
    times."""
    log2_rows: Annotated[int, Within(4, 24)] = 16
    """Rows of a static level's table, as a power of two."""
    dynamic_log2_rows: Annotated[int, Within(4, 24)] = 15
    """Rows of a dynamic level's table, as a power of two."""
    neurons: Annotated[int, Within(8, 1024)] = 32
    """Width of the networks' hidden layers."""
    view_degree: Annotated[int, Within(0, 3)] = 1
    """Degree of the spherical harmonics that tell networks of colours the direction; 0: none.
    Higher ones let the static part paint each picture of one moving camera apart."""
    appearance: Annotated[int, Within(0, 64)] = 0
    """Channels of a code of each training time's look, which is off when the training is over."""
    march_steps: Annotated[int, Within(8, 4096)] = 128
    """Parts of a ray from near to far; those in empty cells of the occupancy grid are skipped."""
    cells: Annotated[int, Within(4, 512)] = 48
    """Cells of the occupancy grid along an axis."""
    static_until: Annotated[float, Within(0.0, 0.9)] = 0.4
    """Share of training with the static part alone."""
    grid_lr: Rate = 1e-2
    """Learning rate of the hash grids' tables."""
    network_lr: Rate = 2e-3
    """Learning rate of the static part's networks."""
    dynamic_network_lr: Rate = 2e-4
    """Learning rate of the dynamic part's networks. As fast as the static ones they turn the whole
    part off, as most places want, before its tables find where something moves."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.05
    """Share of their start at which learning rates end."""
    photometric: SquaredErrorOptions = field(default_factory=SquaredErrorOptions)
    depth: LineOfSightOptions = field(default_factory=LineOfSightOptions)
    entropy: SkewedEntropyOptions = field(default_factory=SkewedEntropyOptions)
    dynamic_rays: DynamicRaysOptions = field(default_factory=DynamicRaysOptions)
    sparsity: DynamicSparsityOptions = field(default_factory=DynamicSparsityOptions)
    distortion: DistortionOptions = field(default_factory=DistortionOptions)
    teaching: TeacherOptions = field(
        default_factory=lambda: TeacherOptions(weight=0.0, crops=32, crop_size=8)
    )
    occupancy: OccupancyOptions = field(default_factory=OccupancyOptions)

    def __post_init__(self) -> None:
        if self.finest < self.coarsest or self.dynamic_finest < self.coarsest:
            raise UsageError(
                f"the grids' last levels have {self.finest} and {self.dynamic_finest} cells, the "
                f"first {self.coarsest}",
                fix="give last levels that are no coarser",
            )

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Thin fog where the teacher shows something, or the capture's content may be."""
        fields: Any = self.representation_class()
        return fields.from_scene(task.scene, self, generator=generator, teacher=task.teacher)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The photographs, and what parts static from dynamic."""
        return [
            self.photometric, self.depth, self.entropy, self.dynamic_rays, self.sparsity,
            self.distortion, self.teaching,
        ]  # fmt: skip

    def strategy_options(self) -> StrategyOptions:
        """The occupancy grid is kept up to date."""
        return self.occupancy

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Exponential decay; of the dynamic part from when it takes part."""
        if group.startswith("dynamic"):
            progress = max(0.0, progress - self.static_until) / (1 - self.static_until)
        return self.settle**progress


DYNAMIC_FIELD = DynamicFieldMethod
