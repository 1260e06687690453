"""What a method declares: its representation, objectives, strategy and schedules, as plain data.

Everything here is torch-free, so that ``scene4d train METHOD --help`` answers at once. Options
*declare*; the room ``training`` *executes* them: ``implementation`` names, as an entry point does
("module:Class"), what carries an option out. It is a constant of the class, never read from a file.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

    from scene4d.data.scene import Scene
    from scene4d.representations.base import Representation


def resolve(implementation: str) -> Any:
    """The object that ``"module:attribute"`` names."""
    module, _, attribute = implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """Declares one term of the loss."""

    implementation: ClassVar[str]
    weight: float = 1.0
    """Factor of the term in the loss; 0 leaves it out."""


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """Declares how the number of primitives changes during training."""

    implementation: ClassVar[str] = "scene4d.training.strategies.base:KeepAll"


@dataclass(frozen=True, kw_only=True)
class PhotometricOptions(ObjectiveOptions):
    """Compares renders with the photographs: (1 - ssim_weight) L1 + ssim_weight D-SSIM."""

    implementation: ClassVar[str] = "scene4d.training.objectives.photometric:Photometric"
    ssim_weight: float = 0.2
    """Share of D-SSIM, from 0 (L1 alone) to 1 (3D Gaussian Splatting, eq. 7)."""


@dataclass(frozen=True, kw_only=True)
class DepthOptions(ObjectiveOptions):
    """Compares rendered with measured depth, where the capture has it."""

    implementation: ClassVar[str] = "scene4d.training.objectives.depth:Depth"
    weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A trainable method; subclasses add the fields of their representation."""

    name: ClassVar[str]
    description: ClassVar[str]

    representation: ClassVar[str]
    """Where its representation lives, as ``"module:Class"``."""
    default_steps: ClassVar[int] = 7000
    steps: int | None = None
    """Training steps; by default 7000, or as many as --max-minutes has time for."""
    batch_size: int = 1
    """Views per step."""
    coarsest_downscale: int = 4
    """Training starts on images this many times smaller (1, 2, 4 or 8); 1: full size at once."""
    full_resolution_at: float = 0.35
    """Share of training after which images have their full size."""
    refine_poses: bool = False
    """Also optimise the training cameras' poses."""
    refine_poses_lr: float = 1e-4
    """Learning rate of the poses, in radians and scene extents."""
    fit_exposure: bool = False
    """Also optimise an affine colour transform per training image."""
    fit_exposure_lr: float = 1e-3
    """Learning rate of the colour transforms."""

    @classmethod
    def representation_class(cls) -> type[Representation]:
        """The class that :attr:`representation` names."""
        return resolve(cls.representation)

    @abstractmethod
    def build(self, scene: Scene, *, generator: torch.Generator) -> Representation:
        """The untrained representation of ``scene``."""

    def build_from(
        self, teacher: Representation, scene: Scene, *, generator: torch.Generator
    ) -> Representation:
        """What training starts from where a ``teacher`` of the same scene is given; by default
        the same as without."""
        return self.build(scene, generator=generator)

    @abstractmethod
    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The terms of the loss."""

    def strategy_options(self) -> StrategyOptions:
        """How primitives come and go; by default they stay as built."""
        return StrategyOptions()

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """What multiplies a parameter group's learning rate at ``progress`` (0..1)."""
        return 1.0

    def downscale(self, progress: float) -> int:
        """How many times smaller the training images are at ``progress`` (0..1)."""
        factor = self.coarsest_downscale
        while factor > 1 and progress >= self.full_resolution_at / factor * 2:
            factor //= 2
        return max(1, factor)
