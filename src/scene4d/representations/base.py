"""What is trained: representations, which render, and generators, which make representations.

The trainer, the optimiser and checkpoints touch a :class:`Trainable`; renderers, exporters and the
viewer a :class:`Representation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.textured_mesh import MeshData
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.saved import Form


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that share one learning rate."""

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float
    """At the start, before the method's schedule for this group multiplies it."""
    eps: float = 1e-15


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which part of the photographs a step looks at."""

    of: Literal["images", "crops", "rays"] = "images"
    """Whole pictures, as many as the method's batch; crops of pictures; or single pixels. Crops and
    rays come as one batch of small cameras: a ray is a camera of 1 x 1 pixel."""
    count: int = 4096
    """Crops or rays a step."""
    size: int = 64
    """Width and height of a crop in pixels."""
    pictures: int = 8
    """Photographs that a step's crops or rays are of."""
    among: frozenset[int] | None = None
    """Indices of the training pictures that are looked at now; None: all of them."""

    def __post_init__(self) -> None:
        if min(self.count, self.size, self.pictures) < 1:
            raise ValueError(f"nothing to sample: {self}")


IMAGES = Sampling()


class Trainable(nn.Module, ABC):
    """What a trainer fits, and a checkpoint holds."""

    sampling: Sampling = IMAGES
    """How it wants to be asked during training."""
    certain: frozenset[int] = frozenset()
    """Indices of training pictures whose poses and colours are right as they are: where those of
    others are refined, these keep all from drifting together."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter, once. Groups that are new since the last step (a second stage)
        join the optimiser."""

    @abstractmethod
    def plain_data(self) -> Mapping[str, Any]:
        """What beside ``state_dict`` is needed to build it again: numbers, strings, lists only."""

    @classmethod
    @abstractmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Trainable:
        """Built again from ``state_dict`` tensors and :meth:`plain_data`."""

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form] | None:
        """Names, shapes and types of the ``state_dict`` tensors that belong to ``plain``: what a
        file holds is compared with it before :meth:`from_saved` sees it.

        By default None: what was built is compared afterwards, which is early enough where building
        runs nothing compiled. May raise :class:`DataError` for plain data that cannot be.
        """
        return None

    def on_progress(self, progress: float) -> None:
        """Told the share of training that is done (0..1) before each step, for coarse-to-fine."""

    def describe(self) -> dict[str, float]:
        """Numbers for the log, such as how many Gaussians there are."""
        return {}


class PriorNetwork(Trainable):
    """A network that is no scene, but of use to trainings of scenes."""

    @abstractmethod
    def write(self, folder: Path) -> Path:
        """Writes its weights, as trainings read them, into ``folder``; returns the file."""

    @abstractmethod
    def use_of(self, weights: Path) -> str:
        """The command that trains a scene with them."""


class Representation(Trainable):
    """A neural scene that renders itself."""

    graph_pixels: int = 1 << 16
    """Pixels of a picture whose graph may be kept at once, where a term renders in pieces: what is
    kept of a pixel, of most representations, is hundreds of numbers."""

    @abstractmethod
    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """The picture at ``camera`` (one or a batch), differentiable in the representation's
        parameters and in ``camera.c2w``; a function of these, of the camera and of the last
        progress told, which writes nothing. ``background`` None means black; ``want`` asks for
        more than colour and alpha."""

    @property
    def times(self) -> tuple[float, float] | None:
        """First and last second of what moves; None: nothing does."""
        return None

    def as_in(self, picture: int) -> Representation:
        """As the training picture of that index shows it, where what pictures disagree in is
        learned apart: of the same parameters, for training alone. Otherwise itself."""
        return self

    def splats(self, time: float | None = None) -> SplatCloud | None:
        """The Gaussians that are drawn, where it is made of such; if they move as they are at
        ``time`` (seconds), by default at the first."""
        return None

    def mesh(self) -> MeshData | None:
        """The triangles and the texture that are drawn, where it is made of such, in scene
        coordinates."""
        return None

    def moved(self, similarity: np.ndarray) -> Representation:
        """The same scene in other coordinates, which ``similarity`` [4, 4] leads to. Raises
        :class:`UsageError` where it cannot be moved."""
        raise UsageError(f"{type(self).__name__} cannot be moved to other coordinates; splats can")


class Generator(Trainable):
    """A network that makes a scene of a condition, such as a text."""

    @property
    def conditions(self) -> Sequence[str]:
        """Some that it was trained for; the first stands for them all where one is looked at."""
        return ()

    @abstractmethod
    def code(self, condition: str) -> Tensor:
        """What it has understood; between two codes of one shape lie those of scenes between.
        Raises :class:`UsageError` for a condition that it cannot read."""

    @abstractmethod
    def decoded(self, code: Tensor) -> Representation:
        """The scene of a code, differentiable in the generator's parameters."""

    def scene(self, condition: str) -> Representation:
        """The scene of ``condition``."""
        return self.decoded(self.code(condition))
