"""Photographs as the first frames of videos that a prior is asked about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scene4d.cameras.camera import Camera
from scene4d.data.scene import ViewSource
from scene4d.evaluation.protocol import composited
from scene4d.priors.prior import PriorInfo
from scene4d.priors.scores import LATENT_SIDE, padded
from scene4d.representations.task import Task


class FirstFrames:
    """The training photographs of a capture: draws their cameras, and finds them by these."""

    def __init__(self, images: ViewSource, indices: Sequence[int]) -> None:
        self.images, self.indices = images, list(indices)
        self.cameras = [images.camera(index) for index in self.indices]

    @classmethod
    def of(cls, task: Task, info: PriorInfo) -> FirstFrames | None:
        """Those of a task, for a prior of videos that goes on from a picture."""
        if info.frames is None or "picture" not in info.conditions or task.poses is not None:
            return None
        capture = task.capture
        if capture is None or capture.pictures is None:
            return None
        return cls(capture.pictures, capture.train_indices)

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` cameras of photographs, each as likely as any other."""
        which = torch.randint(len(self.cameras), (count,), generator=generator)
        return [self.cameras[i] for i in which.tolist()]

    def picture(
        self,
        flight: Camera,
        cut: Camera,
        factor: int,
        background: Float[Tensor, " 3"],
        *,
        latent: bool,
    ) -> Float[Tensor, "1 3 height width"]:
        """The part ``cut`` of the photograph where ``flight`` begins, -1..1, ``factor`` times
        smaller along a side. ``latent``: padded as it is before it is encoded."""
        first = flight.chosen(torch.tensor(0))
        at = next(n for n, c in enumerate(self.cameras) if _same(c, first))
        view = self.images.view(self.indices[at])
        rgb = composited(view, background.to(view.rgb)).to(background)
        x, y = (flight.K - cut.K.to(flight.K)).reshape(-1, 3, 3)[0, :2, 2].round().int().tolist()
        part = rgb[y : y + cut.height, x : x + cut.width].permute(2, 0, 1)[None]
        small = 2 * avg_pool2d(part, factor) - 1
        return padded(small, LATENT_SIDE) if latent else small


def _same(one: Camera, other: Camera) -> bool:
    times = one.time is None or other.time is None or bool(one.time == other.time)
    return times and bool((one.c2w.cpu() == other.c2w.cpu()).all())
