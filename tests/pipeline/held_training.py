"""The stage train, held at a checkpoint until a file is there, and then soon over: for workers of
Ray, where a node is to be lost in the middle of a training."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

from scene4d.pipeline import stages
from scene4d.pipeline.stage import Work
from scene4d.training.trainer import Trainer

GO = "HELD_UNTIL"
"""The variable that names the file."""
HELD = "held"
"""What is written beside the run once it is held."""
_STEPS = 20
"""Before it is held: what is left must be recognised as the scene that it is of."""


def train(work: Work) -> dict[str, Any]:
    """As the stage does."""
    save, until = Trainer.save, time.monotonic() + 120
    held: list[int] = []

    def saving(self: Trainer) -> Path:
        path = save(self)
        if self.step >= _STEPS and not held:
            held.append(self.step)
            (work.folder / HELD).touch()
            while not Path(os.environ[GO]).exists() and time.monotonic() < until:
                time.sleep(0.05)
            self.budget.max_seconds = self.budget.elapsed + 0.5
        return path

    with mock.patch.object(Trainer, "save", saving):
        return stages.train(work)
