"""The method ``triplane-mesh``: signed distances on three planes, seen as fog, then as a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from scene4d.errors import UsageError
from scene4d.ranges import Count, Positive, Rate, Share, Weight, Within
from scene4d.representations.method import (
    Method,
    ObjectiveOptions,
    PhotometricOptions,
    SilhouetteOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task

_OBJECTIVES = "scene4d.methods.triplane_mesh.objectives"


@dataclass(frozen=True, kw_only=True)
class EikonalOptions(ObjectiveOptions):
    """Distances grow by as much as one goes away (Gropp et al. 2020, arXiv 2002.10099)."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:Eikonal"
    weight: Weight = 0.05
    points: Count = 512
    """Places a step, half of them anywhere in the box, half near the surface."""


@dataclass(frozen=True, kw_only=True)
class EvenFacesOptions(ObjectiveOptions):
    """Vertices of the mesh lie evenly between the crossings of their cube: L_dev of FlexiCubes."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:EvenFaces"
    weight: Weight = 0.02


@dataclass(frozen=True, kw_only=True)
class FewSignsOptions(ObjectiveOptions):
    """Few changes of sign: against surfaces within surfaces, which no picture shows."""

    implementation: ClassVar[str] = f"{_OBJECTIVES}:FewSigns"
    weight: Weight = 0.002


@dataclass(frozen=True, kw_only=True)
class TriplaneMeshMethod(Method):
    """One object as a closed textured mesh, from photographs or a teacher."""

    name: ClassVar[str] = "triplane-mesh"
    description: ClassVar[str] = "SDF on three planes: fog first, then a FlexiCubes mesh"
    representation: ClassVar[str] = "scene4d.methods.triplane_mesh.triplane_mesh:TriplaneMesh"
    default_steps: ClassVar[int] = 3000

    coarsest_downscale: Annotated[int, Within(1, 8)] = 2
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    full_resolution_at: Share = 0.3
    """Share of training after which images have their full size."""
    mesh_from: Share = 0.3
    """Share of training that is volume rendered; the mesh is drawn from then on."""
    shape_from: Share = 0.05
    """Share of training in which pictures teach colours alone: a grey start would be pulled to
    other shapes."""
    half_side: Positive | None = None
    """Half a side of the cube that holds the object, in scene units; None: what alpha and masks
    leave of the space that all pictures show, else where surfaces are known to be."""
    grid: Annotated[int, Within(8, 512)] = 64
    """Cubes of the mesh along a side, an even number."""
    resolutions: tuple[Annotated[int, Within(2, 2048)], ...] = (32, 128)
    """Texels along the sides of the planes, level by level."""
    channels: Annotated[int, Within(2, 64)] = 8
    """Features of a texel, half of them of distances, half of colours."""
    neurons: Annotated[int, Within(1, 512)] = 32
    """Width of the networks' hidden layers."""
    hidden_layers: Annotated[int, Within(1, 4)] = 1
    """Hidden layers of the networks."""
    bends_cubes: bool = False
    """Also learn FlexiCubes' weights and moves of corners, for sharp edges."""
    rays: Annotated[int, Within(16, 1_000_000)] = 1024
    """Pixels that a step looks at while the field is volume rendered."""
    pictures: Annotated[int, Within(1, 4096)] = 16
    """Photographs that these pixels are of."""
    march_steps: Annotated[int, Within(8, 4096)] = 96
    """Parts of a ray within the box; those where nothing is are skipped."""
    first_blur: Annotated[float, Within(1e-4, 10.0)] = 0.03
    """How far the surface is blurred at first (1 / s of NeuS), in half sides of the box."""
    last_blur: Annotated[float, Within(1e-4, 10.0)] = 0.008
    """How far it is blurred when the mesh takes over."""
    planes_lr: Rate = 5e-3
    """Learning rate of the planes' texels."""
    networks_lr: Rate = 5e-3
    """Learning rate of the networks."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.1
    """Share of their start at which learning rates end."""
    texture_size: Annotated[int, Within(16, 8192)] = 1024
    """Texels along a side of the texture that is written to files."""
    photometric: PhotometricOptions = field(default_factory=PhotometricOptions)
    silhouette: SilhouetteOptions = field(default_factory=SilhouetteOptions)
    eikonal: EikonalOptions = field(default_factory=EikonalOptions)
    even_faces: EvenFacesOptions = field(default_factory=EvenFacesOptions)
    few_signs: FewSignsOptions = field(default_factory=FewSignsOptions)
    teaching: TeacherOptions = field(
        default_factory=lambda: TeacherOptions(weight=0.0, crops=4, crop_size=48)
    )

    def __post_init__(self) -> None:
        if self.grid % 2:
            raise UsageError(
                f"the mesh's grid has {self.grid} cubes along a side", fix="give an even number"
            )
        if not self.resolutions:
            raise UsageError("planes without a level", fix="give --resolutions, such as 32 128")

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """A grey ball where the object is."""
        meshes: Any = self.representation_class()
        return meshes.from_task(task, self, generator=generator)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The photographs, the teacher, and what makes a surface of distances."""
        return [
            self.photometric, self.silhouette, self.eikonal, self.even_faces, self.few_signs,
            self.teaching,
        ]  # fmt: skip

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Exponential decay."""
        return self.settle**progress


TRIPLANE_MESH = TriplaneMeshMethod
