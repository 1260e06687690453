"""The method ``mesh``: photographs to a textured triangle mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.methods.splat.method import SplatMethod
from scene4d.ranges import Count, Positive, Rate, Share, Weight, Within
from scene4d.representations.method import (
    Method,
    ObjectiveOptions,
    OutlinesOptions,
    PhotometricOptions,
    StrategyOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class SmoothnessOptions(ObjectiveOptions):
    """Lets neighbouring vertices move together, away from where they began."""

    implementation: ClassVar[str] = "scene4d.methods.mesh.smoothness:Smoothness"
    weight: Weight = 0.02


@dataclass(frozen=True, kw_only=True)
class CuttingOptions(StrategyOptions):
    """Cuts out triangles that photographs with alpha see through."""

    implementation: ClassVar[str] = "scene4d.methods.mesh.cutting:Cutting"


@dataclass(frozen=True, kw_only=True)
class MeshMethod(Method):
    """Textured mesh: what phones, shops and games take, from photographs."""

    name: ClassVar[str] = "mesh"
    description: ClassVar[str] = "Triangles with a texture from the photographs"
    representation: ClassVar[str] = "scene4d.methods.mesh.textured_mesh:TexturedMesh"
    default_teacher: ClassVar[str | None] = SplatMethod.name
    default_teacher_share: ClassVar[float] = 0.6
    default_steps: ClassVar[int] = 1000

    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    start: Literal["auto", "teacher", "hull", "sphere"] = "auto"
    """Where triangles come from: the surface that the teacher's depths show; an object's visual
    hull, by alpha or by masks; a ball around what all cameras look at, which takes the outline's
    shape slowly. Hull and ball need no teacher. auto: the first, and of an object with outlines the
    first, the hull, or what the teacher's depths leave of it: what looks most like the
    photographs."""
    max_triangles: Annotated[int, Within(4, 2_000_000)] = 20_000
    """Most triangles; phones draw 100,000 at ease."""
    texture_size: Annotated[int, Within(16, 8192)] = 2048
    """Most texels along a side of the texture; fewer where the photographs show less."""
    oversampling: Annotated[float, Within(0.25, 8.0)] = 1.5
    """Texels along a side for each pixel of the photograph that shows a place largest."""
    voxel: Positive | None = None
    """Edge of a voxel in scene units, of the volume that depths are fused in; None: 1.5 pixels
    wide at the median depth."""
    min_cluster: Share | None = None
    """Connected parts with fewer triangles than this share of the largest part's are dropped; None:
    0.05 of an object, 0.002 of a scene that fills its pictures."""
    backdrop: bool = True
    """Where a scene fills its pictures and its surface does not, and cameras look one way, close
    the holes with smooth sheets at about the depth of the teacher."""
    gaps: bool = True
    """Where a scene fills its pictures and cameras look one way, cut out what photographs see
    through, such as gaps between leaves, before a smooth surface behind all."""
    masked_out: Share = 0.5
    """What masks leave out in more than this share of the pictures is not part of the mesh, such as
    what stands around an object; 1: masks are only holes in photographs."""
    even_exposure: bool = True
    """Give photographs of other exposures the same brightness before they are mixed."""
    smoothing: Annotated[int, Within(0, 1000)] = 2
    """Rounds of smoothing of the fused surface, before it is simplified."""
    padding: Count = 4
    """Texels between the charts of the texture."""
    vertices_lr: Rate = 0.03
    """Learning rate of vertices, in mean lengths of edges."""
    texture_lr: Rate = 0.01
    """Learning rate of texels."""
    cut: bool = True
    """Cut out triangles that photographs with alpha see through, such as those between slats: where
    what lies behind is more like them."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.05
    """Learning rates end at this share of their start."""
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)
    outlines: OutlinesOptions = field(default_factory=OutlinesOptions)
    smoothness: SmoothnessOptions = field(default_factory=SmoothnessOptions)

    @property
    def starts_from_teacher(self) -> bool:
        """Whether triangles come from a teacher."""
        return self.start in ("auto", "teacher")

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Triangles as :attr:`start` says, with a texture baked from the photographs."""
        meshes: Any = self.representation_class()
        return meshes.from_task(task, self)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The photographs, outlines, and smooth moves."""
        return [self.photometric, self.outlines, self.smoothness]

    def strategy_options(self) -> StrategyOptions:
        """Triangles go, or all stay."""
        return CuttingOptions() if self.cut else StrategyOptions()

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Exponential decay."""
        return self.settle**progress


MESH = MeshMethod
