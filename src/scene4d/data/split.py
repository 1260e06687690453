"""Which frames are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of frames to train on and of frames held out, and the rule in words."""

    train: Sequence[int]
    test: Sequence[int]
    rule: str


def every_nth(num_frames: int, test_every: int) -> Split:
    """Holds out frames 0, n, 2n, ... in the order of their names; 0 holds out none."""
    if test_every < 0 or test_every == 1:
        raise ValueError(f"test_every must be 0 or at least 2, not {test_every}")
    if test_every == 0:
        return Split(train=range(num_frames), test=(), rule="no image held out")
    return Split(
        train=[i for i in range(num_frames) if i % test_every],
        test=range(0, num_frames, test_every),
        rule=f"every {ordinal(test_every)} image in the order of names held out, from the first",
    )


def ordinal(number: int) -> str:
    """``8th`` for 8."""
    suffix = (
        "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    )
    return f"{number}{suffix}"
