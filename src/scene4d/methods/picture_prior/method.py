"""``scene4d prior train unet``: our own prior, of captures or of prepared pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from scene4d.ranges import Positive, Rate, Share, Within
from scene4d.representations.method import Method, ObjectiveOptions, StrategyOptions

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class DenoisingOptions(ObjectiveOptions):
    """Cleans noised pictures, at all levels of noise."""

    implementation: ClassVar[str] = "scene4d.methods.picture_prior.objective:Denoising"
    captures: tuple[Path, ...] = ()
    """Captures whose training pictures are learned from, with depth where all of them have it."""
    pictures: Path | None = None
    """Folder of prepared pictures, .safetensors or .npz, with or without captions;
    docs/guidance.md."""
    near_half: bool = False
    """Learn only from those pictures of a capture that prior check does not ask about: three of
    four in the half of its cameras about the first one."""
    longest_side: Annotated[int, Within(8, 4096)] = 64
    """To which pictures of captures are reduced, about, in pixels: by a whole number."""
    crop_size: Annotated[int, Within(8, 4096)] = 64
    """Width and height of crops in pixels; less where a picture is smaller."""
    batch: Annotated[int, Within(1, 4096)] = 16
    """Crops a step."""
    mirrored: Share = 0.5
    """Share of crops of captures that are mirrored; prepared pictures stay as they are."""
    noise_mean: Annotated[float, Within(-10.0, 10.0)] = -1.2
    """Mean of the natural logarithm of sigma / alpha."""
    noise_spread: Annotated[float, Within(0.0, 10.0, above=True)] = 1.2
    """Standard deviation of that logarithm."""
    forget_text: Share = 0.1
    """Share of pictures that are learned without their caption, for classifier-free guidance."""
    half_precision: bool = False
    """Whether the network computes in bfloat16, which is faster where the processor knows it."""
    teacher: Path | None = None
    """A trained network, such as unet.safetensors, whose guided answers are learned in place of the
    pictures: one answer then does the work of two."""
    scale: Annotated[float, Within(-1000.0, 1000.0)] = 3.0
    """k of the teacher's x0_0 + k (x0_y - x0_0)."""


@dataclass(frozen=True, kw_only=True)
class AveragingOptions(StrategyOptions):
    """Keeps a moving average of the weights, which is what comes out."""

    implementation: ClassVar[str] = "scene4d.methods.picture_prior.trainable:Averaging"
    decay: Share = 0.999
    """What each step keeps of the average; less at first."""


@dataclass(frozen=True, kw_only=True)
class UnetMethod(Method):
    """A diffusion prior of colour, depth and normals: EDM, one trunk and a branch for each kind."""

    name: ClassVar[str] = "unet"
    description: ClassVar[str] = "a small diffusion prior of captures or prepared pictures"
    representation: ClassVar[str] = "scene4d.methods.picture_prior.trainable:UnetTraining"
    needs_capture: ClassVar[bool] = False
    default_steps: ClassVar[int] = 6000

    start: Path | None = None
    """A trained network, built-in or a unet.safetensors, that training goes on with, to fit it to
    other pictures of the same kinds; sizes and words are its own."""
    widths: tuple[Annotated[int, Within(8, 1024)], ...] = (16, 48, 96, 128)
    """Channels at the pictures' size, at half of it, and so on."""
    down: tuple[str, ...] = ("c", "c", "cc", "cc")
    """Blocks at each size on the way down: c, two convolutions; t, attention. Those of the first
    size are each kind's own."""
    up: tuple[str, ...] = ("c", "c", "c", "c")
    """Blocks at each size on the way up, from the same first size."""
    deviation: Positive = 0.5
    """Standard deviation of pictures of -1..1 that the network reckons with."""
    word_width: Annotated[int, Within(1, 1024)] = 64
    """Numbers that stand for a word of the captions."""
    lr: Rate = 1e-3
    """Learning rate, after a warm-up over a fiftieth of the training; it falls as a cosine."""
    denoising: DenoisingOptions = field(default_factory=DenoisingOptions)
    averaging: AveragingOptions = field(default_factory=AveragingOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """An untrained network for the pictures that there are, or the one to start with."""
        from scene4d.methods.picture_prior.pictures import read_pictures
        from scene4d.methods.picture_prior.trainable import UnetTraining
        from scene4d.priors.unet import UnetShape, load_unet

        found = read_pictures(self.denoising)
        if self.start is not None:
            return UnetTraining(load_unet(self.start).requires_grad_(True), self.lr)
        shape = UnetShape(
            channels=found.channels, widths=self.widths, down=self.down, up=self.up,
            deviation=self.deviation, size=found.whole(self.denoising.crop_size),
            longest_side=found.longest_side, vocabulary=found.vocabulary(),
            word_width=self.word_width,
        )  # fmt: skip
        return UnetTraining.made(shape, self.lr, generator)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """One term."""
        return [self.denoising]

    def strategy_options(self) -> StrategyOptions:
        """The average."""
        return self.averaging

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Up, then down to a hundredth."""
        return up_and_down(progress)


def up_and_down(progress: float) -> float:
    """Share of the learning rate: up over a fiftieth of the training, then down as a cosine to a
    hundredth."""
    return min(1.0, progress / 0.02) * (0.01 + 0.495 * (1 + math.cos(math.pi * progress)))


UNET = UnetMethod
