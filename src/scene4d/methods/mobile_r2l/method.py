"""The method ``mobile-r2l``: the network that light slabs are compared with."""

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
class MobileR2lMethod(Method):
    """MobileR2L: a deep network from points on a ray to colours, taught by a teacher."""

    name: ClassVar[str] = "mobile-r2l"
    description: ClassVar[str] = "Baseline: neural light field of MobileR2L (arXiv 2212.08057)"
    representation: ClassVar[str] = "scene4d.methods.mobile_r2l.mobile_r2l:MobileR2l"
    default_teacher: ClassVar[str | None] = SplatMethod.name

    coarsest_downscale: Annotated[int, Within(1, 8)] = 1
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    points: Annotated[int, Within(1, 256)] = 8
    """Number of points on each ray; their encoded coordinates are the network's input."""
    frequencies: Annotated[int, Within(1, 16)] = 6
    """Number of frequencies of the positional encoding, an octave apart."""
    width: Annotated[int, Within(1, 4096)] = 256
    """Channels of the residual blocks."""
    blocks: Annotated[int, Within(1, 1024)] = 29
    """Residual blocks of two 1x1 convolutions."""
    upsampling: Literal[8, 12] = 8
    """Pixels along an axis for one ray; 12 is published for forward-facing captures."""
    activation: Literal["relu", "gelu"] = "relu"
    """gelu is published for training, relu is what the published phone models have."""
    alpha: bool = True
    """Also an alpha, 17 of 4.3 million parameters; published without, on white backgrounds."""
    freeze_at: Annotated[float, Within(0.0, 2.0)] = 0.8
    """Share of training from which running statistics normalise, as in the finished network: single
    photographs' own would differ."""
    network_lr: Rate = 5e-4
    """Learning rate of the network at the start."""
    settle: Annotated[float, Within(0.0, 1.0, above=True)] = 0.05
    """The learning rate ends at this share of its start."""
    teaching: TeacherOptions = field(default_factory=lambda: TeacherOptions(end=0.8))
    photometric: PhotometricOptions = field(default_factory=lambda: PhotometricOptions(start=0.8))

    def __post_init__(self) -> None:
        least = {n: getattr(self, n) for n in ("points", "frequencies", "width", "blocks")}
        wrong = [f"{name} is {value}" for name, value in least.items() if value < 1]
        if wrong:
            raise UsageError(f"the network needs at least one of each: {', '.join(wrong)}")

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Points where the teacher shows something, or the capture's content may be."""
        networks: Any = self.representation_class()
        return networks.from_scene(task.scene, self, generator=generator, teacher=task.teacher)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The teacher's pictures, then the photographs."""
        return [self.teaching, self.photometric]

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Exponential decay."""
        return self.settle**progress


MOBILE_R2L = MobileR2lMethod
