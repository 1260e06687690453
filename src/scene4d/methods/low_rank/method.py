"""The method ``custom-diffusion``: low-rank layers fitted to one capture; ``prior customise`` runs
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from scene4d.ranges import Rate, Weight, Within
from scene4d.representations.method import (
    EarlyStopOptions,
    Method,
    ObjectiveOptions,
    StrategyOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class FittingOptions(ObjectiveOptions):
    """Noised pictures of the capture are cleaned, and compared with what they were."""

    implementation: ClassVar[str] = "scene4d.methods.low_rank.objectives:Fitting"
    pictures: Path = Path("learned")
    """Folder of the pictures, or of their latents."""
    text: str = ""
    """Of priors that read texts: that of the pictures."""
    batch: Annotated[int, Within(1, 4096)] = 2
    """Pictures a step."""


@dataclass(frozen=True, kw_only=True)
class PreservingOptions(ObjectiveOptions):
    """Keeps what the original makes of noised pictures that it drew itself."""

    implementation: ClassVar[str] = "scene4d.methods.low_rank.objectives:Preserving"
    weight: Weight = 1.0
    pictures: Path = Path("drawn")
    """Folder of these pictures, or of their latents."""
    text: str = ""
    """Of priors that read texts: that which they were drawn for."""
    batch: Annotated[int, Within(1, 4096)] = 2
    """Pictures a step."""


@dataclass(frozen=True, kw_only=True)
class FarPicturesOptions(EarlyStopOptions):
    """Ends training when far pictures are cleaned no better, and keeps the best layers."""

    implementation: ClassVar[str] = "scene4d.methods.low_rank.objectives:FarPictures"
    text: str = ""
    """Of priors that read texts: that of the pictures."""


@dataclass(frozen=True, kw_only=True)
class CustomDiffusionMethod(Method):
    """Fits low-rank layers of a diffusion model to one capture, as long as far pictures gain."""

    name: ClassVar[str] = "custom-diffusion"
    description: ClassVar[str] = "low-rank layers of a diffusion model, fitted to one capture"
    representation: ClassVar[str] = "scene4d.methods.low_rank.trainable:LowRank"
    needs_capture: ClassVar[bool] = False
    default_steps: ClassVar[int] = 400
    customiser: ClassVar[str | None] = "scene4d.methods.low_rank.customise:customise"
    customises: ClassVar[str | None] = "diffusers"

    original: Path = Path("model")
    """Folder of the model."""
    capture: tuple[str, ...] = ()
    """Name and digest of the capture, kept with the layers."""
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """How names of the linear layers end that get a low-rank one beside."""
    rank: Annotated[int, Within(1, 1024)] = 4
    """Of these layers."""
    lr: Rate = 1e-4
    """Learning rate."""
    fitting: FittingOptions = field(default_factory=FittingOptions)
    preserving: PreservingOptions = field(default_factory=PreservingOptions)
    early_stop: FarPicturesOptions = field(default_factory=FarPicturesOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """Layers that change nothing."""
        from scene4d.methods.low_rank.trainable import LowRank

        return LowRank.starting(self, generator)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The capture's pictures, and the original's own."""
        return [self.fitting, self.preserving]

    def strategy_options(self) -> StrategyOptions:
        """Early stop."""
        return self.early_stop


CUSTOM_DIFFUSION = CustomDiffusionMethod
