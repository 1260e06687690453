"""``scene4d prior train frames``: a predictor of frames, of captures that move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from scene4d.methods.picture_prior.method import AveragingOptions, up_and_down
from scene4d.ranges import Positive, Rate, Share, Within
from scene4d.representations.method import Method, ObjectiveOptions, StrategyOptions

if TYPE_CHECKING:
    import torch

    from scene4d.representations.base import Trainable
    from scene4d.representations.task import Task


@dataclass(frozen=True, kw_only=True)
class PredictingOptions(ObjectiveOptions):
    """Cleans noised pictures of a video, told the one before and the time between them."""

    implementation: ClassVar[str] = "scene4d.methods.picture_prior.predicting:Predicting"
    captures: tuple[Path, ...] = ()
    """Captures whose training pictures are learned from, with depth where all of them have it.
    Their pictures need times."""
    earlier: bool = False
    """Learn only from the first four fifths of what each camera took: prior check asks about the
    rest."""
    apart: Annotated[int, Within(1, 64)] = 3
    """Pictures of a camera that lie at most so many of its usual steps apart are pairs, each with
    itself, too."""
    longest_side: Annotated[int, Within(8, 4096)] = 64
    """To which pictures are reduced, about, in pixels: by a whole number."""
    crop_size: Annotated[int, Within(8, 4096)] = 48
    """Width and height of crops in pixels, the same of both pictures; less where they are
    smaller."""
    batch: Annotated[int, Within(1, 4096)] = 16
    """Pairs a step."""
    mirrored: Share = 0.0
    """Share of pairs that are mirrored: then motion to the right is learned as motion to the left,
    too."""
    forget: Share = 0.1
    """Share of pictures that are learned without the one before, so that a first one can be
    drawn."""
    noise_mean: Annotated[float, Within(-10.0, 10.0)] = -1.0
    """Mean of the natural logarithm of sigma / alpha."""
    noise_spread: Annotated[float, Within(0.0, 10.0, above=True)] = 1.6
    """Standard deviation of that logarithm: wide, as the next picture is drawn from noise alone."""
    half_precision: bool = False
    """Whether the network computes in bfloat16, which is faster where the processor knows it."""


@dataclass(frozen=True, kw_only=True)
class FramesMethod(Method):
    """A predictor of frames: SinFusion's diffusion model of the next picture, in our U-Net."""

    name: ClassVar[str] = "frames"
    description: ClassVar[str] = "a predictor of the next frame, of captures that move"
    representation: ClassVar[str] = "scene4d.methods.picture_prior.trainable:FramesTraining"
    needs_capture: ClassVar[bool] = False
    default_steps: ClassVar[int] = 6000

    start: Path | None = None
    """A trained predictor, such as frames.safetensors, that training goes on with; sizes and times
    are its own."""
    widths: tuple[Annotated[int, Within(8, 1024)], ...] = (16, 48, 96, 128)
    """Channels at the pictures' size, at half of it, and so on."""
    down: tuple[str, ...] = ("c", "c", "cc", "cc")
    """Blocks at each size on the way down: c, two convolutions; t, attention. Those of the first
    size are each kind's own."""
    up: tuple[str, ...] = ("c", "c", "c", "c")
    """Blocks at each size on the way up, from the same first size."""
    deviation: Positive = 0.5
    """Standard deviation of pictures of -1..1 that the network reckons with where it is not told
    the one before; that of what changes is measured."""
    lr: Rate = 1e-3
    """Learning rate, after a warm-up over a fiftieth of the training; it falls as a cosine."""
    predicting: PredictingOptions = field(default_factory=PredictingOptions)
    averaging: AveragingOptions = field(default_factory=AveragingOptions)

    def build(self, task: Task, *, generator: torch.Generator) -> Trainable:
        """An untrained network for the videos that there are, or the one to start with."""
        from scene4d.methods.picture_prior.trainable import FramesTraining
        from scene4d.methods.picture_prior.videos import read_videos
        from scene4d.priors.frames import load_frames
        from scene4d.priors.unet import UnetShape

        videos = read_videos(self.predicting)
        if self.start is not None:
            network = load_frames(self.start).network
            return FramesTraining(network.requires_grad_(True), self.lr)
        shape = UnetShape(
            channels=videos.channels, widths=self.widths, down=self.down, up=self.up,
            deviation=self.deviation, longest_side=videos.longest_side, video=videos.shape(),
        )  # fmt: skip
        return FramesTraining.made(shape, self.lr, generator)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """One term."""
        return [self.predicting]

    def strategy_options(self) -> StrategyOptions:
        """The average."""
        return self.averaging

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Up, then down to a hundredth."""
        return up_and_down(progress)


FRAMES = FramesMethod
