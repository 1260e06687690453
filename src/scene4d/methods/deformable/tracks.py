"""The objective of 2D tracks: what is seen at a track's pixel is, at other times, where it goes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.rays import project
from scene4d.data.tracks import Tracks
from scene4d.methods.deformable.method import TrackOptions
from scene4d.methods.deformable.observed import observed
from scene4d.rendering.render import Want
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_FARTHEST = 8
"""Frames between the two ends of a track that are compared."""
_ROUND = 2.0
"""Pixels below which Huber's distance is quadratic."""


class TrackTerm(Objective):
    """Distance between where a track goes and where the surface at its pixel goes, in hundredths of
    the picture's diagonal: ``Render.positions`` at another time, seen by the camera of then."""

    options: TrackOptions

    def __init__(self, options: TrackOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.generator = inputs.generator
        self.images = inputs.task.images
        found = observed(
            inputs.task.scene, self.images, options.moving_masks, by_network=options.by_network
        )
        self.masks = found.around
        self.where: dict[int, tuple[Tracks, int]] = {
            index: (tracks, k) for tracks in found.tracks for k, index in enumerate(tracks.frames)
        }

    def __call__(self, step: Step) -> Term:
        """The mean over the tracks of one view, every few steps."""
        nothing = step.background.sum() * 0.0
        found = [(v, i) for v in step.views if isinstance(i := v.index, int) and i in self.where]
        if step.number % self.options.every or not found:
            return Term(loss=nothing)
        view, index = found[0]
        tracks, at = self.where[index]
        other = self._other(len(tracks.frames), at)
        here, there, good = self._ends(tracks, at, other)
        then = self.images.camera(tracks.frames[other]).to(step.background.device)
        if not bool(good.any()) or then.time is None:
            return Term(loss=nothing)
        want = Want(positions_at=(float(then.time),))
        render = step.render(view.camera, want=want, picture=index)
        assert render.positions is not None
        full = self.images.camera(index)
        places, opaque = _sampled(
            render.positions[0], render.alpha, here[good], full.width, full.height
        )
        pixels, depth = project(then, places)
        off = (pixels - there[good].to(pixels)).norm(dim=-1)
        huber = torch.where(off < _ROUND, 0.5 * off * off / _ROUND, off - 0.5 * _ROUND)
        valid = (opaque > 0.5) & (depth > 0)
        diagonal = 0.01 * (full.width**2 + full.height**2) ** 0.5
        loss = (huber * valid).sum() / (valid.sum().clamp_min(1) * diagonal)
        return Term(loss=loss, log={"tracks": loss.detach()})

    def _other(self, count: int, at: int) -> int:
        """A frame near ``at``, but not that."""
        low, high = max(0, at - _FARTHEST), min(count - 1, at + _FARTHEST)
        drawn = low + int(torch.randint(max(1, high - low), (1,), generator=self.generator))
        return drawn + 1 if drawn >= at else drawn

    def _ends(
        self, tracks: Tracks, at: int, other: int
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """Pixels of the tracks in both frames, and which are seen in both and may move."""
        here, there = tracks.xy[:, at], tracks.xy[:, min(other, tracks.xy.shape[1] - 1)]
        good = tracks.visible[:, at] & tracks.visible[:, min(other, tracks.xy.shape[1] - 1)]
        mask = self.masks[tracks.frames[at]]
        x = here[:, 0].long().clamp(0, mask.shape[1] - 1)
        y = here[:, 1].long().clamp(0, mask.shape[0] - 1)
        return here, there, good & mask[y, x]


def _sampled(
    positions: Float[Tensor, "height width 3"],
    alpha: Float[Tensor, "height width"],
    xy: Float[Tensor, "n 2"],
    width: int,
    height: int,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Positions and alpha at pixels of the picture in full size, bilinear."""
    size = xy.new_tensor([width, height])
    grid = (2.0 * xy / size - 1.0).to(positions)[None, :, None]
    maps = torch.cat([positions, alpha[..., None]], dim=-1).permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(
        maps, grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0, :, :, 0].T
    return found[:, :3], found[:, 3]
