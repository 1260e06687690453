"""How a capture is read; torch-free for ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from scene4d.ranges import Count, Within


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How a capture is read."""

    dataparser: Literal["auto", "nerfstudio", "blender", "colmap", "llff", "nerfies"] = "auto"
    """The capture's format; auto looks at the folder."""
    downscale_factor: Annotated[int, Within(1, 64)] | None = None
    """Images are made this many times smaller; by default train chooses by their size, the time
    and the memory there are, and elsewhere they stay as they are."""
    test_every: Annotated[int, Within(0)] = 8
    """Every n-th image is held out for evaluation, unless the capture names its own test set;
    0 holds out none."""
    max_frames: Count | None = None
    """Keep at most this many frames, evenly spread, in the same train/test proportion."""
    ram_budget_gb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Largest memory for decoded images, in GB (by default half of what is free); more of them are
    kept on disk, in TMPDIR or /var/tmp."""
