"""What a training is about: a world, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene, ViewSource
from scene4d.errors import UsageError
from scene4d.representations.base import Representation


@runtime_checkable
class Poses(Protocol):
    """A distribution of cameras, their times included."""

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` cameras of one size; takes the same random numbers for each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """The space that a scene lives in, whether anybody photographed it or not."""

    extent: float = 1.0
    """Scene units in the unit of position learning rates: see :attr:`Scene.extent`."""
    background: tuple[float, float, float] | None = None
    """The colour behind the scene when it is judged; None: it fills its pictures."""
    bounds: tuple[float, float] | None = None
    """Near and far in scene units, where they are known."""
    times: tuple[float, float] | None = None
    """First and last second of a scene that moves."""
    source_from_scene: Float[Tensor, "4 4"] = field(
        default_factory=lambda: torch.eye(4, dtype=torch.float64)
    )
    """The similarity that maps scene coordinates back to the input's own frame; float64."""

    @classmethod
    def of(cls, scene: Scene) -> World:
        """That of a capture."""
        times = [float(f.camera.time) for f in scene.frames if f.camera.time is not None]
        return cls(
            extent=scene.extent,
            background=scene.background,
            bounds=scene.bounds,
            times=(min(times), max(times)) if times else None,
            source_from_scene=scene.source_from_scene,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a training is about. Nothing but the world is always there."""

    world: World
    capture: Scene | None = None
    """With the cameras of the pictures that are trained on, and their pixels."""
    teacher: Representation | None = None
    """In the world's coordinates."""
    prior: nn.Module | None = None
    """A :class:`scene4d.priors.prior.Prior` of what is rendered."""
    fixer: nn.Module | None = None
    """A :class:`scene4d.priors.fixer.Fixer` of what is rendered."""
    conditions: Sequence[str] = ()
    """What a generator is trained for, such as texts."""
    poses: Poses | None = None
    """Where a scene without photographs is looked at from."""

    @property
    def scene(self) -> Scene:
        """The capture. Raises :class:`UsageError` where there is none."""
        if self.capture is None:
            raise UsageError("this training has no capture", fix="name one with --data")
        return self.capture

    @property
    def images(self) -> ViewSource:
        """The capture's pictures. Raises :class:`UsageError` where there is no capture."""
        pictures = self.scene.pictures
        assert pictures is not None, "a task's capture comes with its pictures"
        return pictures

    @property
    def training_cameras(self) -> list[Camera]:
        """Of the training pictures: undistorted, at the size of training; none without a
        capture."""
        return [] if self.capture is None else self.capture.train_cameras()
