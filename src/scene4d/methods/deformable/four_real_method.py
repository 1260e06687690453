"""The method ``four-real``: deformable splats from a grid of frames, views by times, with holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from scene4d.errors import UsageError
from scene4d.methods.deformable.method import DeformableMethod
from scene4d.ranges import Rate, Share, Weight, Within
from scene4d.representations.method import ObjectiveOptions

if TYPE_CHECKING:
    from scene4d.data.scene import Scene


@dataclass(frozen=True, kw_only=True)
class DisagreementOptions(ObjectiveOptions):
    """Keeps small what each picture may have apart from the others: deformation and colour."""

    implementation: ClassVar[str] = "scene4d.methods.deformable.disagreement:Disagreement"
    weight: Weight = 0.05
    """Weight of the mean absolute displacement (hundredths of the scene's extent) and turn
    (hundredths of a radian) of a step's pictures."""
    colour: Weight = 0.1
    """Weight of the mean absolute change of colour (hundredths), beside these."""


@dataclass(frozen=True, kw_only=True)
class FourRealMethod(DeformableMethod):
    """Splats that move, from generated videos: a grid of cameras by times with holes."""

    name: ClassVar[str] = "four-real"
    description: ClassVar[str] = (
        "Deformable splats from a reference and a freeze-time video (after 4Real)"
    )
    representation: ClassVar[str] = "scene4d.methods.deformable.four_real:FourRealSplats"

    full_resolution_at: Share = 0.15
    """Share of training after which images have their full size: before the shape is told."""
    temporal_opacity: bool = False
    """Moving Gaussians come and go: a plateau of opacity with two soft edges."""
    fit_exposure: bool = True
    """Also optimise an affine colour transform per training image."""
    fit_exposure_lr: Rate = 3e-3
    """Learning rate of the colour transforms."""
    own_deformation: bool = True
    """Give each picture of a moment that three cameras show, but for those of videos, a deformation
    of its own, which is left out when training is over."""
    own_cells: Annotated[int, Within(2, 64)] = 10
    """Points along each side of the lattice of a picture's deformation."""
    own_lr: Rate = 1e-3
    """Learning rate of the deformations, in scene extents and radians."""
    shape_until: Share = 0.3
    """Share of training that looks only at moments that three cameras show."""
    motion_until: Share = 0.5
    """Share of training until which, after that, only the motion is trained, by the other
    pictures; then all by all."""
    disagreement: DisagreementOptions = field(default_factory=DisagreementOptions)

    def __post_init__(self) -> None:
        if self.shape_until > self.motion_until:
            raise UsageError(
                f"shape until {self.shape_until:g} of training, motion until {self.motion_until:g}",
                fix="give 0 <= shape_until <= motion_until <= 1",
            )

    def seeding(self, scene: Scene) -> Sequence[int]:
        """Those of moments that three cameras show, where there are such."""
        from scene4d.methods.deformable.cells import cells_of

        return cells_of(scene).shape or super().seeding(scene)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """Those of deformable splats, and what keeps disagreement small."""
        return [*super().objectives(), self.disagreement]


FOUR_REAL = FourRealMethod
