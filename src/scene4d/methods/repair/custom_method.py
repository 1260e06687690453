"""The method ``custom-fixer``: a trained fixer fitted to one capture; ``prior customise`` runs
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from scene4d.methods.repair.method import FixerMethod, PairsOptions
from scene4d.ranges import Rate, Weight
from scene4d.representations.method import (
    EarlyStopOptions,
    ObjectiveOptions,
    StrategyOptions,
)

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class PreservingOptions(PairsOptions):
    """Keeps what the original makes of renders beside photographs that do not belong to them."""

    implementation: ClassVar[str] = "scene4d.methods.repair.custom:Preserving"
    weight: Weight = 1.0
    original: Path = Path("fixer.safetensors")
    """The weights that training starts from; the method's own ``original``."""


@dataclass(frozen=True, kw_only=True)
class FarPairsOptions(EarlyStopOptions):
    """Ends training when pairs of far pictures gain no more, and keeps the best network."""

    implementation: ClassVar[str] = "scene4d.methods.repair.custom:FarPairs"


@dataclass(frozen=True, kw_only=True)
class CustomFixerMethod(FixerMethod):
    """Fits a trained fixer to one capture: few layers, as long as far pictures gain."""

    name: ClassVar[str] = "custom-fixer"
    description: ClassVar[str] = "a trained fixer fitted to one capture"
    representation: ClassVar[str] = "scene4d.methods.repair.custom:CustomFixer"
    default_steps: ClassVar[int] = 400
    customiser: ClassVar[str | None] = None

    original: Path = Path("fixer.safetensors")
    """The weights that training starts from."""
    capture: tuple[str, ...] = ()
    """Name and digest of the capture, kept with the weights."""
    layers: tuple[str, ...] = ("up", "leave")
    """Names of the layers that are trained, or how they begin; the others stay."""
    lr: Rate = 3e-4
    """Learning rate, after a warm-up over a fiftieth of the training; it falls as a cosine."""
    preserving: PreservingOptions = field(default_factory=PreservingOptions)
    early_stop: FarPairsOptions = field(default_factory=FarPairsOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """The original."""
        from scene4d.methods.repair.custom import CustomFixer

        return CustomFixer.starting(self)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """The capture's pairs, and what the original makes of others."""
        kept = replace(self.preserving, original=self.original, pairs=self.repairing.pairs)
        return [self.repairing, kept]

    def strategy_options(self) -> StrategyOptions:
        """Early stop."""
        return self.early_stop


CUSTOM_FIXER = CustomFixerMethod
