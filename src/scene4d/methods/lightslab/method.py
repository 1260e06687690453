"""The method ``lightslab``: a light field on slabs, distilled from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from scene4d.errors import UsageError
from scene4d.methods.splat.method import SplatMethod
from scene4d.ranges import Rate, Within
from scene4d.representations.method import (
    Method,
    ObjectiveOptions,
    PhotometricOptions,
    TeacherOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class LightSlabMethod(Method):
    """Light slabs: one pass of a small network a picture, at constant cost."""

    name: ClassVar[str] = "lightslab"
    description: ClassVar[str] = "Neural light field on light slabs (LightSpeed, arXiv 2310.16832)"
    representation: ClassVar[str] = "scene4d.methods.lightslab.light_slabs:LightSlabs"
    default_teacher: ClassVar[str | None] = SplatMethod.name

    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    placement: Literal["auto", "forward", "cube", "kmeans", "cameras"] = "auto"
    """Slabs at clusters of cameras (auto, with MPIs), one along the cameras or clusters of
    viewing directions (auto, without), or the faces of a cube."""
    max_slabs: Annotated[int, Within(1, 64)] = 48
    """Most slabs at clusters of cameras, 1 to 64."""
    depths: Annotated[int, Within(2, 64)] | None = None
    """Parallel planes of a slab, 2 to 64, by default as many as parallax asks for; LightSpeed has
    2."""
    mpi: bool = True
    """A multiplane image for each slab, started from the teacher; the decoder adds to it."""
    mpi_scale: Annotated[float, Within(0.0, 16.0, above=True)] = 1.5
    """Most texels of an MPI plane for each pixel of the photographs, along an axis."""
    max_blocks: Annotated[int, Within(1, 200_000)] = 196_608
    """Most blocks of 8 x 8 texels that MPIs store, up to 200,000: each takes about 0.3 kB while it
    is shown, 6 kB in training."""
    mpi_lr: Rate = 3e-3
    """Learning rate of the MPIs."""
    featured: Annotated[int, Within(1, 64)] = 8
    """How many of a slab's planes have features for the decoder."""
    crossed: bool = False
    """Also planes over one coordinate of the first plane and one of the last, as in LightSpeed."""
    features: Annotated[int, Within(1, 256)] = 4
    """Number of features that each plane has at each level."""
    resolutions: tuple[Annotated[int, Within(2, 1 << 14)], ...] = (32, 128)
    """Samples along an axis of the parallel planes, level by level."""
    crossed_resolutions: tuple[Annotated[int, Within(2, 1 << 14)], ...] = (16, 64)
    """Samples along an axis of the crossed planes."""
    max_mb: Annotated[float, Within(0.0, 1e4, above=True)] = 3.9
    """Size of the exported bundle, about, in MB (10^6 bytes): MPIs get coarser and planes fewer
    samples until they fit. 0.9 is the tiny tier."""
    samples: Annotated[int, Within(1, 4)] = 2
    """Rays along an axis that are looked up for one of the decoder's: 1, 2 or 4."""
    encoded: Annotated[int, Within(1, 4096)] = 16
    """Channels that the decoder makes of each ray that is looked up."""
    width: Annotated[int, Within(1, 4096)] = 64
    """Channels of the decoder."""
    blocks: Annotated[int, Within(0, 256)] = 3
    """Number of residual blocks of two layers in the decoder."""
    channels: tuple[Annotated[int, Within(1, 4096)], ...] = (32, 16)
    """Channels after each doubling of the decoder's picture but the last: two for rays 8 times
    coarser than the picture."""
    quantise_at: Annotated[float, Within(0.0, 2.0)] = 0.7
    """Share of training at which planes are rounded."""
    bits: Annotated[int, Within(2, 8)] = 8
    """Bits that a value of a plane is rounded to, 2 to 8."""
    planes_lr: Rate = 0.05
    """Learning rate of the planes' features."""
    decoder_lr: Rate = 2e-3
    """Learning rate of the decoder."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.05
    """Learning rates end at this share of their start."""
    teaching: TeacherOptions = field(
        default_factory=lambda: TeacherOptions(end=0.8, between=0.6, jitter=0.5, turn=6.0)
    )
    photometric: PhotometricOptions = field(default_factory=lambda: PhotometricOptions(start=0.8))

    def __post_init__(self) -> None:
        positive = ("featured", "max_slabs", "features", "width", "encoded")
        least = {**dict.fromkeys(positive, 1), "blocks": 0}
        wrong = [f"{n} is {getattr(self, n)}" for n, v in least.items() if getattr(self, n) < v]
        if self.depths is not None and not 2 <= self.depths <= 64:  # bundles have no more
            wrong.append(f"depths is {self.depths}")
        # Bundles have no more of either.
        wrong += [f"max_slabs is {self.max_slabs}"] if self.max_slabs > 64 else []
        wrong += [] if 1 <= self.max_blocks <= 200_000 else [f"max_blocks is {self.max_blocks}"]
        wrong += [f"bits is {self.bits}"] if not 2 <= self.bits <= 8 else []
        wrong += [f"samples is {self.samples}"] if self.samples not in (1, 2, 4) else []
        if self.samples > 2 ** len(self.channels):
            wrong.append(f"samples is {self.samples} with {len(self.channels)} channels")
        sizes = [*self.resolutions, *self.crossed_resolutions, 2]
        wrong += [f"a plane has {min(sizes)} samples along an axis"] if min(sizes) < 2 else []
        if wrong or not self.resolutions:
            raise UsageError(f"light slabs cannot have these sizes: {', '.join(wrong)}")

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Slabs along the training cameras, planes from the depths that the teacher renders, or
        where the content may be."""
        fields: Any = self.representation_class()
        return fields.from_scene(task.scene, self, generator=generator, teacher=task.teacher)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The teacher's pictures, then the photographs."""
        return [self.teaching, self.photometric]

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Every rate decays exponentially."""
        return self.settle**progress


LIGHT_SLAB = LightSlabMethod
