"""What fittings of trained networks to one capture share: which pictures are far, and when to end.

Nothing is learned from far pictures; they tell when to stop, as a network that learns a capture by
heart still gains near what it learns from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from scene4d.data.scene import Scene
from scene4d.representations.base import PriorNetwork
from scene4d.representations.method import EarlyStopOptions
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy


def from_the_first(scene: Scene) -> list[int]:
    """The training frames, by their distance from the first one's camera."""
    train = list(scene.train_indices)
    first = scene.frames[train[0]].camera.position
    return sorted(train, key=lambda i: float((scene.frames[i].camera.position - first).norm()))


class CustomNetwork(PriorNetwork):
    """A network that is fitted to a capture, and the best one so far: at first the original."""

    far: tuple[float, float] | None = None
    """What far pictures are worth: of the original, and of the best one."""

    @abstractmethod
    def keep(self) -> None:
        """Makes the best one what is trained now."""


class EarlyStop(Strategy):
    """Looks at far pictures now and then, keeps the best network, and ends when none is better."""

    options: EarlyStopOptions
    representation: CustomNetwork

    def __init__(self, options, representation, optimiser, generator) -> None:
        """Raises :class:`DataError` where there are no far pictures."""
        super().__init__(options, representation, optimiser, generator)
        self.read()
        self.first = self.best = self.worth()
        self.without = 0
        """Looks since there was a gain."""
        self._tell()

    @abstractmethod
    def read(self) -> None:
        """Reads the far pictures."""

    @abstractmethod
    def worth(self) -> float:
        """What far pictures are worth by the network as it is now: more is better."""

    def after_step(self, step: Step) -> None:
        """A look, every few steps."""
        if (step.number + 1) % self.options.every:
            return
        found = self.worth()
        if found > self.best:
            self.best, self.without = found, 0
            self.representation.keep()
        else:
            self.without += 1
        self.finished = self.without >= self.options.patience
        self._tell()

    def state_tensors(self) -> dict[str, Tensor]:
        """What was found so far."""
        found = [self.first, self.best, float(self.without)]
        return {"found": torch.tensor(found, dtype=torch.float64)}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        self.first, self.best, without = tensors["found"].tolist()
        if without < 0:
            raise ValueError(f"{without:g} looks were without a gain")
        self.without = int(without)
        self.finished = self.without >= self.options.patience
        self._tell()

    def _tell(self) -> None:
        self.representation.far = (self.first, self.best)
