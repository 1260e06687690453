"""The record of a trained scene: what opening a run, a splat file or a bundle gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.frame import inverted
from scene4d.errors import UsageError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import GaussianSplats


def identity() -> Float[Tensor, "4 4"]:
    """The way home of a scene that was not moved, float64."""
    return torch.eye(4, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneCameras:
    """What is known of the capture that a scene was made from, without its pictures."""

    train: Sequence[Camera] = ()
    """In scene coordinates, as all cameras here."""
    test: Sequence[Camera] = ()
    start: Camera | None = None
    """Where a bundle says that looking starts, if nobody took a picture there."""
    train_names: Sequence[str] = ()
    test_names: Sequence[str] = ()
    background: Float[Tensor, " 3"] | None = None
    source_from_scene: Float[Tensor, "4 4"] = field(default_factory=identity)
    """The similarity back to the input's frame, float64."""
    bounds: tuple[float, float] | None = None
    """Near and far in scene units, where the capture stated them."""
    split_rule: str = ""
    photographed: bool = True
    """False: the pictures were renders of a teacher, from cameras that nobody stood at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedScene:
    """A scene that renders, from where it was seen, and the way back to its input's frame."""

    path: Path
    """Run folder or file, for messages."""
    representation: Representation
    cameras: SceneCameras = field(default_factory=SceneCameras)

    @property
    def source_from_scene(self) -> Float[Tensor, "4 4"]:
        """The similarity back to the input's frame, float64, which every exporter applies."""
        return self.cameras.source_from_scene

    @property
    def device(self) -> torch.device:
        """Where it renders: cameras have to be there, too."""
        return next((p.device for p in self.representation.parameters()), torch.device("cpu"))

    def scene_cloud(self) -> SplatCloud:
        """Its splats in scene coordinates. Raises :class:`UsageError` when there are none."""
        cloud = self.representation.splats()
        if cloud is None:
            raise UsageError(
                f"holds {type(self.representation).__name__}, which is not made of Gaussian splats",
                where=self.path,
                fix="export it as a mesh, or train the method 'splat'",
            )
        return cloud

    def at_time(self, time: float) -> OpenedScene:
        """Its splats as they are at ``time`` (seconds), standing still.

        Raises :class:`UsageError` where nothing moves, at another time, or without splats.
        """
        times = self.representation.times
        if times is None:
            raise UsageError("nothing in it moves", where=self.path, fix="leave --at-time out")
        if not times[0] <= time <= times[1]:
            raise UsageError(
                f"lasts from {times[0]:g} to {times[1]:g} s, so there is nothing at {time:g} s",
                where=self.path,
            )
        cloud = self.representation.splats(time)
        return self if cloud is None else replace(self, representation=GaussianSplats.of(cloud))

    def cloud(self) -> SplatCloud:
        """Its splats in the input's frame. Raises :class:`UsageError` when there are none."""
        return self.scene_cloud().transformed(self.source_from_scene.double().numpy())

    def in_frame(self, source_from_scene: Float[Tensor, "4 4"]) -> Representation:
        """What renders, in the coordinates of another scene with the same input frame.

        Raises :class:`UsageError` where it would have to move and cannot.
        """
        move = (inverted(source_from_scene) @ self.source_from_scene.double()).numpy()
        if np.allclose(move, np.eye(4), atol=1e-6):
            return self.representation
        try:
            return self.representation.moved(move)
        except UsageError as error:
            raise UsageError(
                "lies in other coordinates than the capture, and only splats can be moved",
                where=self.path,
            ) from error
