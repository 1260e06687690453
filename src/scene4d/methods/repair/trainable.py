"""The fixer as a trainer fits it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from scene4d.priors.fixer import FILE, Fixer, FixerShape, plain_of, save_fixer, shape_from
from scene4d.representations.base import ParameterGroup, PriorNetwork
from scene4d.representations.saved import Form, module_forms


class FixerTraining(PriorNetwork):
    """A :class:`Fixer` with its learning rate."""

    option: ClassVar[str] = "--fixer"

    def __init__(self, fixer: Fixer, learning_rate: float) -> None:
        super().__init__()
        self.fixer, self.learning_rate = fixer, learning_rate

    @classmethod
    def made(
        cls, shape: FixerShape, learning_rate: float, generator: torch.Generator
    ) -> FixerTraining:
        """Untrained, its weights drawn by ``generator``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
            return cls(Fixer(shape), learning_rate)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All weights alike."""
        group = ParameterGroup(
            name="weights", parameters=list(self.fixer.parameters()), eps=1e-8,
            learning_rate=self.learning_rate,
        )  # fmt: skip
        return [group]

    def write(self, folder: Path) -> Path:
        """In half precision."""
        save_fixer(self.fixer, folder / FILE)
        return folder / FILE

    def plain_data(self) -> Mapping[str, Any]:
        """The shape, and the learning rate."""
        return {**plain_of(self.fixer.shape), "learning_rate": self.learning_rate}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> FixerTraining:
        """Built again."""
        made = cls(Fixer(shape_from(plain)), float(plain["learning_rate"]))
        made.load_state_dict(tensors)
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Those of a network of this shape."""
        return module_forms(lambda: Fixer(shape_from(plain)), within="fixer")
