"""The options of a training that do not depend on the method; torch-free for ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from scene4d.data.options import SceneOptions
from scene4d.ranges import Within


@dataclass(frozen=True, kw_only=True)
class BasicOptions:
    """What most trainings need to say; first in ``--help``."""

    data: Path | None = None
    """Folder of the capture; by default a sample scene that ships with scene4d: the method's."""
    max_minutes: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Time of training, which every schedule is fitted to; compiling kernels, once on a machine,
    and the evaluation that follows are not counted."""
    viewer: bool = False
    """Watch the training in a browser, at 127.0.0.1."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""
    output_dir: Path = Path("outputs")
    """Run folders are made in OUTPUT_DIR/EXPERIMENT/METHOD/DATE_TIME."""
    experiment_name: str | None = None
    """By default the name of the capture's folder."""
    resume: Path | None = None
    """A run folder to continue, with the options it was started with."""
    teacher: Path | None = None
    """A run or splat file to learn from; without --data its own capture is used, or renders."""
    prior: str | None = None
    """What pictures look like, for where nobody photographed: patches (of the training pictures),
    unet (built in, RGB-D), patches:CAPTURE, ffdnet:FOLDER, unet:FOLDER; docs/guidance.md."""
    fixer: Path | None = None
    """A network's weights (built-in, or a fixer.safetensors, or its folder) that repairs pictures
    which nobody took, to learn from; docs/guidance.md."""


@dataclass(frozen=True, kw_only=True)
class CustomiseOptions:
    """How a trained network is fitted to a capture."""

    data: Path
    """Folder of the capture, of whose training pictures it learns."""
    steps: Annotated[int, Within(1, 1_000_000)] = 400
    """Training steps at most; it ends when pictures far from those learned from gain no more."""
    scene_steps: Annotated[int, Within(1, 1_000_000)] = 300
    """Of fixers: steps of the scene whose renders it learns to repair."""
    photographs: Annotated[int, Within(2, 100)] = 6
    """Pictures of the near half of the capture that this scene is trained on."""
    text: str = ""
    """Of diffusion models that read texts: that of the capture's pictures."""
    downscale_factor: Annotated[int, Within(1, 64)] | None = None
    """Pictures are this many times smaller; by default so that the longer side has about 128
    pixels, or as many as a diffusion model's own pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""
    output_dir: Path = Path("outputs")
    """Run folders are made in OUTPUT_DIR/EXPERIMENT/METHOD/DATE_TIME."""
    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    """Two runs with the same seed on one machine give the same result."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(SceneOptions, BasicOptions):
    """Where a training reads and writes, on what, and for how long."""

    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    """Two runs with the same seed and number of steps on one machine give the same result."""
    checkpoint_every_s: Annotated[float, Within(0.0, 1e9)] = 60.0
    """Seconds between checkpoints, at least; more between large ones, 100 MB a minute."""
    keep_checkpoints: Annotated[int, Within(1, 1_000_000)] | None = None
    """Newest checkpoints to keep; by default 2, of those larger than 100 MB the newest alone."""
    evaluate: bool = True
    """Evaluate on the held-out images at the end and write a report."""
    viewer_port: Annotated[int, Within(0, 65535)] = 0
    """Port of the live viewer; 0: a free one."""
    tensorboard: bool = False
    """Also write TensorBoard events, where the package is installed."""
