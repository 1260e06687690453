"""Which process of several this is, where torchrun started it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those that run the same command; the only one where nobody says more."""

    number: int = 0
    """From 0."""
    count: int = 1
    local_number: int = 0
    """Among those on the same machine."""
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and talks."""
        return self.number == 0


def this_process() -> Place:
    """This process's, as the environment has it: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE."""
    count = _read("WORLD_SIZE", 1)
    if count < 2:
        return Place()
    number = _read("RANK", 0)
    return Place(
        number=number,
        count=count,
        local_number=_read("LOCAL_RANK", number),
        local_count=_read("LOCAL_WORLD_SIZE", count),
    )


def _read(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
