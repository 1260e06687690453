"""What process-data says of a video of something that moves: how much moves, and whether the
camera moves enough to tell where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scene4d.data.process.diagnosis import Verdict

TRACE = 0.005
"""Share of the pixels; less hardly disturbs poses, and is what flow takes for motion by mistake."""
_MOST = 0.5
"""Share of the pixels above which the camera may have been found relative to what moves."""
_SLOW_DEG_PER_S = 1.5
"""Of omega: within a second what moves is then seen under less than the angle at which depth is
vague for still points, too (the verdict's limit)."""
RELIEF = "a relief, which looks right from near the camera's way alone"


@dataclass(frozen=True, kw_only=True)
class MovingFacts:
    """Of a video that was processed with ``--moving``."""

    share: float
    """Of the pixels of all pictures with a pose, those that show what moves at some time."""
    largest_share: float
    """The same of the picture with most of them."""
    omega_deg_per_s: float | None
    """How fast the camera turns around what it looks at, see
    :func:`scene4d.data.camera_rate.camera_rate`."""
    poses: str
    """What was done about features on what moves, and why."""

    @property
    def slow(self) -> bool:
        """Whether the camera moves too little to tell how far away what moves is."""
        return self.omega_deg_per_s is not None and self.omega_deg_per_s < _SLOW_DEG_PER_S

    def lines(self) -> list[str]:
        """The figures, for people."""
        found = [
            f"  {self.share:.1%} of the pixels show what moves (in one picture"
            f" {self.largest_share:.1%}); their masks are in dynamic/",
            f"  {self.poses}",
        ]
        if self.omega_deg_per_s is not None:
            found.append(
                f"  the camera turns around what it looks at by {self.omega_deg_per_s:.3g} degrees"
                " a second (omega)"
            )
        return found

    def findings(self) -> list[str]:
        """What limits a training, the most serious first."""
        found = []
        if self.share > _MOST:
            found.append(
                f"{self.share:.0%} of the pixels move against the found camera: it may have been"
                " found relative to what moves, not to the background"
            )
        if self.slow:
            found.append(
                f"the camera turns by {self.omega_deg_per_s:.2g} degrees a second around what it"
                f" looks at: too little (below {_SLOW_DEG_PER_S:g}) to tell how far away what moves"
                f" is; what can be had is {RELIEF}"
            )
        if self.share < TRACE:
            found.append(f"hardly anything moves ({self.share:.1%} of the pixels)")
        return found

    def advice(self) -> list[str]:
        """Next steps."""
        found = []
        if self.share > _MOST:
            found.append("film again from farther away: a still background should fill the picture")
        if self.slow:
            found.append(
                "film again, walking around what moves by some ten degrees a second; depth maps, or"
                " a second camera, help as well"
            )
        return found

    def limited(self, verdict: Verdict) -> Verdict:
        """``verdict``, or a worse one."""
        if verdict == "failed":
            return verdict
        if self.share > _MOST:
            return "poor"
        return "usable" if self.slow and verdict == "good" else verdict
