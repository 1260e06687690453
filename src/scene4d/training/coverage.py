"""Which pixels of any camera show what training cameras see, by the scene's own depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import project, unproject
from scene4d.errors import UsageError
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import Representation
from scene4d.representations.saved import Form, form

MOST_CAMERAS = 32
_WIDTH = 64
"""Pixels across the training cameras' depth maps."""
_NEARER = 1.05
"""A surface is the one that a training camera sees where it lies at most 5% behind it."""
_OPAQUE = 0.5
_REFRESH = 100
"""Steps after which the training cameras' depth is rendered again."""


class Coverage:
    """Depth maps of some training cameras, rendered from what is trained."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        """``cameras``: of training; at most :data:`MOST_CAMERAS` of them, evenly, are used."""
        every = -(-len(cameras) // MOST_CAMERAS)
        self.cameras = [_small(camera) for camera in cameras[::every]]
        self._maps: list[tuple[Tensor, Tensor]] = []
        """Depth and alpha of each."""
        self._step = -1

    @torch.no_grad()
    def refresh(self, representation: Representation, step: int, device: torch.device) -> None:
        """Renders the maps where they are older than a hundred steps. Raises :class:`UsageError`
        for a representation without depth."""
        if self._maps and step - self._step < _REFRESH:
            return
        maps = []
        for camera in self.cameras:
            render = representation.render(camera.to(device), want=DEPTH)
            if render.depth is None:
                raise UsageError(
                    f"{type(representation).__name__} renders no depth, so what training cameras "
                    "see is not known",
                    fix="leave unseen_only out",
                )
            maps.append((render.depth, render.alpha))
        self._maps, self._step = maps, step

    @torch.no_grad()
    def seen(
        self,
        camera: Camera,
        depth: Float[Tensor, "height width"],
        alpha: Float[Tensor, "height width"],
    ) -> Bool[Tensor, "height width"]:
        """Pixels of ``camera`` that show a surface which a training camera sees, too.

        Where nothing is rendered (alpha below 0.5) nothing is seen. A point counts as seen through
        air: where a training camera's own picture is empty at its place. Of scenes that move, the
        training cameras look at their own times.
        """
        points = unproject(camera, depth).flatten(0, 1)
        found = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        for other, (distance, opacity) in zip(self.cameras, self._maps, strict=True):
            xy, away = project(other.to(points.device), points)
            column, row = xy.nan_to_num(-1.0).floor().clamp(-1, 1 << 20).long().unbind(-1)
            inside = (away > 0) & (column >= 0) & (column < other.width)
            inside &= (row >= 0) & (row < other.height)
            at = row.clamp(0, other.height - 1), column.clamp(0, other.width - 1)
            hidden = (away > _NEARER * distance[at]) & (opacity[at] > _OPAQUE)
            found |= inside & ~hidden
        return found.unflatten(0, depth.shape) & (alpha > _OPAQUE)

    def state_tensors(self) -> dict[str, Tensor]:
        """The maps, one after the other, and the step that they are of; nothing before the first:
        a training that goes on sees what one that was not stopped sees."""
        if not self._maps:
            return {}
        flat = [torch.stack([values.flatten() for values in maps], dim=-1) for maps in self._maps]
        return {"coverage_maps": torch.cat(flat), "coverage_step": torch.tensor(self._step)}

    def state_forms(self) -> Mapping[str, Form]:
        """Of :meth:`state_tensors`: nothing, or all of it."""
        pixels = sum(camera.width * camera.height for camera in self.cameras)
        return {
            "coverage_maps": form(f"{pixels} 2", optional=True),
            "coverage_step": form("", torch.int64, optional=True),
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Restores :meth:`state_tensors`. Raises ValueError for half of it."""
        missing = [name for name in self.state_forms() if name not in tensors]
        if len(missing) == 1:
            raise ValueError(f"of the maps of coverage {missing[0]!r} is missing")
        if missing:
            return
        maps, start = tensors["coverage_maps"].to(device), 0
        self._maps = []
        for camera in self.cameras:
            count = camera.width * camera.height
            part = maps[start : start + count].unflatten(0, (camera.height, camera.width))
            self._maps.append((part[..., 0], part[..., 1]))
            start += count
        self._step = int(tensors["coverage_step"])


def _small(camera: Camera) -> Camera:
    width = min(_WIDTH, camera.width)
    return camera.resized(width, max(1, round(camera.height * width / camera.width)))
