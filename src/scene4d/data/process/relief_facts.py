"""What process-data says of pictures that were all taken from one place: a relief."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scene4d.data.process.moving_facts import RELIEF
from scene4d.data.process.turning import FocalSource

if TYPE_CHECKING:
    from scene4d.data.process.diagnosis import Diagnosis
    from scene4d.data.process.moving_facts import MovingFacts
    from scene4d.data.process.pictures import Picture

_FOCAL_FROM: dict[FocalSource, str] = {
    "metadata": "as the pictures' metadata say",
    "turning": "by how the picture turns",
    "guess": "a guess: nothing tells it",
}

STAYED = (
    f"from one place nothing tells how far away things are; what can be had is {RELIEF}: --relief"
    " makes it"
)
"""Advice where no poses are found for that reason."""


@dataclass(frozen=True, kw_only=True)
class ReliefFacts:
    """Of pictures from one place (``--relief``)."""

    turn_deg: float
    """The largest angle between two of the pictures' rotations; 0: the camera stands still."""
    off_px: float
    """By how much what stands still is off from turning about one place (median), pixels."""
    focal_px: float
    focal_from: FocalSource
    depth_model: str | None
    """The network that says the depth; None: a plane, with what moves a tenth nearer."""

    @property
    def reason(self) -> str:
        """What the capture is, in a line."""
        camera = "stands still" if self.turn_deg == 0 else "only turns"
        depth = (
            "depth is a plane, with what moves a tenth nearer"
            if self.depth_model is None
            else f"depth is what the network {self.depth_model} says"
        )
        return f"the camera {camera}, so this is {RELIEF}; {depth}"

    def lines(self) -> list[str]:
        """The figures, for people."""
        turned = f"turns by at most {self.turn_deg:.1f} deg" if self.turn_deg else "stands still"
        return [
            f"  the camera {turned}; all pictures have one place, to {self.off_px:.2f} px",
            f"  focal length {self.focal_px:.0f} px, {_FOCAL_FROM[self.focal_from]}; lengths are"
            " arbitrary (the median depth is 1)",
        ]

    def advice(self) -> list[str]:
        """Next steps."""
        model = [] if self.depth_model else [
            "for a relief with depth: --depth-model FILE.onnx, a network for monocular depth"
        ]  # fmt: skip
        return [
            *model,
            "for what can be looked at from other places: film again, walking sideways; depth maps,"
            " or a second camera, help as well",
        ]

    def instead_of(
        self,
        failed: Diagnosis,
        placed: Sequence[Picture],
        *,
        num_points: int,
        moving: MovingFacts | None,
        train: str,
    ) -> Diagnosis:
        """The diagnosis of pictures for which structure from motion ``failed``, with one place for
        those that are ``placed``; ``train``: the next command."""
        names = {picture.source or picture.name for picture in placed}
        return replace(
            failed,
            verdict="poor",
            reason=self.reason,
            num_registered=len(placed),
            left_out=tuple(left for left in failed.left_out if left.name not in names),
            num_points=num_points,
            num_models=1,
            findings=(self.reason, *(moving.findings() if moving else ())),
            advice=(*self.advice(), train),
            moving=moving,
            relief=self,
        )
