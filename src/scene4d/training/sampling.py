"""Which views a step looks at."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class ViewSampler:
    """Every training view once in random order, then again in another."""

    def __init__(self, indices: Sequence[int], generator: torch.Generator) -> None:
        self.indices = list(indices)
        self.generator = generator
        self.pending: list[int] = []
        """Views still to come in this round; part of a checkpoint."""

    def next(self, count: int) -> list[int]:
        """The next ``count`` views, without repetition unless there are fewer in all."""
        chosen: list[int] = []
        while len(chosen) < min(count, len(self.indices)):
            if not self.pending:
                order = torch.randperm(len(self.indices), generator=self.generator)
                self.pending = [self.indices[i] for i in order.tolist()]
            candidate = self.pending.pop()
            if candidate not in chosen:
                chosen.append(candidate)
        return chosen
