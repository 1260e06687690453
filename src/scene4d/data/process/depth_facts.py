"""What process-data says of depth that a network estimated: how well it fits, and where not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from scene4d.data.process.depth_model import DepthOutput

if TYPE_CHECKING:
    from scene4d.data.process.diagnosis import Diagnosis

WithoutDepth = Literal["few points", "bad fit", "reversed", "one value", "no map"]
FEWEST_POINTS = 20
"""Of a picture, outside of what moves, for two numbers to be fitted and judged."""
WORST_ERROR = 0.2
"""Median relative error at points held out above which a map says too little."""
BETTER = 0.9
"""Times the error of one depth for the whole picture; a map that is not below says nothing."""

_WHY: dict[WithoutDepth, str] = {
    "few points": f"fewer than {FEWEST_POINTS} points on what stands still",
    "bad fit": f"off by more than {WORST_ERROR:.0%}, or no better than one depth for all",
    "reversed": "larger values mean the opposite",
    "one value": "the network says one value for the whole picture",
    "no map": "the network fails",
}


@dataclass(frozen=True, kw_only=True)
class PictureDepth:
    """How a network's depth of a picture fits the points of structure from motion."""

    name: str
    points: int
    """That the picture shows outside of what moves."""
    relative_error: float | None = None
    """Median at points that were held out of the fit."""
    one_depth_error: float | None = None
    """The same of one depth for the whole picture."""
    lacks: WithoutDepth | None = None
    """Why it has no depth map."""
    why: str = ""
    """In the network's words, where it fails."""


@dataclass(frozen=True, kw_only=True)
class EstimatedDepthFacts:
    """Of pictures whose depth a network estimated (``--depth-model``)."""

    network: str
    output: DepthOutput
    pictures: tuple[PictureDepth, ...]

    @property
    def errors(self) -> list[float]:
        """Of the pictures with depth."""
        found = self.pictures
        return [p.relative_error for p in found if not p.lacks and p.relative_error is not None]

    def lines(self) -> list[str]:
        """The figures, for people."""
        total, errors = len(self.pictures), self.errors
        lines = []
        if errors:
            flat = [p.one_depth_error for p in self.pictures if p.one_depth_error is not None]
            lines.append(
                f"  depth of {len(errors)} of {total} pictures by {self.network}, off by"
                f" {np.median(errors):.1%} (median at points held out; {max(errors):.1%} in the"
                f" worst picture; one depth for all of a picture {np.median(flat):.1%}); in depth/"
            )
        for lacks, count in Counter(p.lacks for p in self.pictures).most_common():
            if lacks is not None:
                said = next(p.why for p in self.pictures if p.lacks == lacks)
                more = f" ({said})" if said else ""
                lines.append(f"  no depth of {count} of {total} pictures: {_WHY[lacks]}{more}")
        return lines

    def advice(self) -> list[str]:
        """Next steps."""
        lacking = Counter(p.lacks for p in self.pictures if p.lacks)
        if 2 * lacking["reversed"] > len(self.pictures):
            other = "disparity" if self.output == "depth" else "depth"
            return [f"larger values of the network mean the opposite: --depth-output {other}"]
        if not self.errors:
            return ["the network says nothing of these pictures: leave out --depth-model"]
        return []

    def added_to(self, diagnosis: Diagnosis) -> Diagnosis:
        """``diagnosis`` with these facts."""
        return replace(diagnosis, depth=self, advice=(*self.advice(), *diagnosis.advice))
