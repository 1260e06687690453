"""What somebody who makes a scene may choose; torch-free for ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from scene4d.ranges import Within

Quality = Literal["draft", "good", "best"]
MINUTES: dict[Quality, float] = {"draft": 4.0, "good": 10.0, "best": 30.0}
"""Where nobody says how long."""


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """How a scene is made, from whatever input."""

    minutes: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Time for everything together, on this machine; by default 10, for a draft 4 and for best 30.
    Poses take what they take, training and compression what is left."""
    quality: Literal["draft", "good", "best"] = "good"
    """How fine it may become: pictures of at most 800, 1600 or all pixels on their longer side, and
    how many frames of a video."""
    method: str | None = None
    """What is trained; by default splats, which are then compressed, or what moves for a scene that
    moves. 'scene4d train' lists the methods."""
    target_mb: Annotated[float, Within(0.0, 1e6, above=True)] | None = None
    """Size of the bundle in MB (10^6 bytes); by default chosen by looks."""
    resolution: Annotated[int, Within(16, 65536)] | None = None
    """Longer side in pixels of the pictures that are trained on, at most."""
    moving: Literal["auto", "yes", "no"] = "auto"
    """Whether something moves in the scene; auto: looked for in videos, and in captures with
    times, by optical flow (extra motion)."""
    depth_model: Path | None = None
    """ONNX file of a network for monocular depth, for photographs or a video that were taken from
    one place (extra onnx); without, such a scene is flat."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""

    @property
    def total_minutes(self) -> float:
        """Time for everything, also where nobody said."""
        return MINUTES[self.quality] if self.minutes is None else self.minutes
