"""What terms share that look from cameras which nobody stood at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from scene4d.cameras.between import Spread
from scene4d.cameras.beyond import CamerasBeyond, Reach
from scene4d.cameras.camera import Camera
from scene4d.representations.method import BeyondOptions
from scene4d.representations.saved import Form
from scene4d.training.objectives.base import Objective
from scene4d.training.pseudo_views import PseudoViews

_TURN = 3.0
"""Of cameras about themselves, degrees, as a teacher's."""


def cameras_beyond(
    cameras: Sequence[Camera], options: BeyondOptions, *, any_time: float = 0.0
) -> CamerasBeyond:
    """Cameras between, around and beyond those of training, as the options say."""
    spread = Spread(between=options.between, jitter=options.jitter, turn=_TURN, any_time=any_time)
    return CamerasBeyond(cameras, spread, Reach(angle=options.beyond))


def crop_within(size: int, cameras: Sequence[Camera]) -> tuple[int, int]:
    """Width and height of crops of ``size`` pixels; less where a picture is smaller."""
    return min(size, *(c.width for c in cameras)), min(size, *(c.height for c in cameras))


class OfPseudoViews(Objective):
    """A term that compares with a ring of pictures, which a checkpoint holds."""

    views: PseudoViews

    def state_tensors(self) -> dict[str, Tensor]:
        """What the ring keeps: see :meth:`PseudoViews.state_tensors`."""
        return self.views.state_tensors()

    def state_forms(self) -> Mapping[str, Form]:
        """Any number of pictures."""
        return self.views.state_forms()

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        self.views.load_state_tensors(tensors)
