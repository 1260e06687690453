"""``scene4d prior train fixer``: a network that repairs renders, fitted to pairs of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from scene4d.ranges import Rate, Share, Weight, Within
from scene4d.representations.method import Method, ObjectiveOptions

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ObjectiveOptions):
    """Compares what the network makes of damaged pictures with the clean ones."""

    implementation: ClassVar[str] = "scene4d.methods.repair.objective:Repairing"
    pairs: Path = Path("pairs")
    """Folder of pairs, as scripts/make_fixer_pairs.py writes them."""
    batch: Annotated[int, Within(1, 4096)] = 8
    """Crops a step."""
    crop_size: Annotated[int, Within(16, 1024)] = 64
    """Width and height of a crop in pixels."""
    error_weight: Weight = 0.02
    """Of the likelihood of the errors that the network expects of itself."""
    perceptual_weight: Weight = 0.03
    """Of LPIPS, which keeps repaired pictures sharp and costs PSNR; of crops of at least 32
    pixels."""
    adversarial_weight: Weight = 0.0
    """Of a critic, which learns to tell repaired crops from clean ones by the features of LPIPS's
    network (after SF-V): sharper, and further from the truth; of crops of at least 32 pixels."""
    half_precision: bool = False
    """Whether the network computes in bfloat16, which is faster where the processor knows it."""
    forget: Share = 0.1
    """Probability with which a photograph is left out of what the network sees."""


@dataclass(frozen=True, kw_only=True)
class FixerMethod(Method):
    """Repairs what trainings from few photographs leave: floaters, holes, blur."""

    name: ClassVar[str] = "fixer"
    description: ClassVar[str] = "a one-step network from render and photographs to a clean picture"
    representation: ClassVar[str] = "scene4d.methods.repair.trainable:FixerTraining"
    needs_capture: ClassVar[bool] = False
    default_steps: ClassVar[int] = 3000
    customiser: ClassVar[str | None] = "scene4d.methods.repair.customise:customise"

    references: Annotated[int, Within(1, 16)] = 2
    """Photographs that the network looks at."""
    widths: tuple[Annotated[int, Within(1, 1024)], ...] = (32, 64, 96, 128)
    """Channels at half the resolution, a quarter, and so on."""
    lr: Rate = 5e-4
    """Learning rate, after a warm-up over a fiftieth of the training; it falls as a cosine."""
    repairing: PairsOptions = field(default_factory=PairsOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """An untrained network, which changes nothing."""
        from scene4d.methods.repair.trainable import FixerTraining
        from scene4d.priors.fixer import FixerShape

        shape = FixerShape(references=self.references, widths=self.widths)
        return FixerTraining.made(shape, self.lr, generator)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """One term."""
        return [self.repairing]

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Up, then down to a hundredth."""
        return min(1.0, progress / 0.02) * (0.01 + 0.495 * (1 + math.cos(math.pi * progress)))


FIXER = FixerMethod
