"""Photographs as a fixer sees them: the nearest ones, at the surfaces that a render shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.evaluation.protocol import composited
from scene4d.priors.fixer import REFERENCE_CHANNELS, Fixed, Fixer
from scene4d.rendering.render import DEPTH, Render, Want
from scene4d.rendering.warping import warped
from scene4d.representations.base import Representation
from scene4d.representations.task import Task
from scene4d.training.step import evaluating

_DEPTH_SIDE = 160
"""Pixels of the longer side of a photograph's depth map, at most."""


class References:
    """Some pictures of one scene, and which of them show what another camera sees."""

    def __init__(self, task: Task) -> None:
        """The training pictures of the task, on the scene's background. Raises
        :class:`UsageError` where there are none."""
        scene, images = task.scene, task.images
        self.indices = list(scene.train_indices)
        if not self.indices:
            raise UsageError("a fixer looks at training pictures, and there are none")
        self.images = images
        self.background = torch.tensor(task.world.background or (0.0, 0.0, 0.0))
        cameras = [images.camera(i).to("cpu") for i in self.indices]
        self.cameras = cameras
        self._positions = torch.stack([c.c2w[:3, 3] for c in cameras]).double()
        self._looks = torch.stack([c.c2w[:3, 2] for c in cameras]).double()
        self._unit = task.world.extent
        times = [c.time for c in cameras if c.time is not None]
        self._times = torch.stack(times).double() if len(times) == len(cameras) else None

    def nearest(self, camera: Camera, count: int) -> list[int]:
        """Places in :attr:`cameras`: by distance (in scene extents) and by the turn of the viewing
        axis (radians) together; of scenes that move also by time, as a share of all of it."""
        position, look = camera.c2w[:3, 3].double().cpu(), camera.c2w[:3, 2].double().cpu()
        far = (self._positions - position).norm(dim=-1) / self._unit
        far = far + (self._looks @ look).clamp(-1, 1).acos()
        if self._times is not None and camera.time is not None:
            span = float(self._times.max() - self._times.min()) or 1.0
            far = far + (self._times - camera.time.double().cpu()).abs() / span
        return far.argsort()[:count].tolist()

    @torch.no_grad()
    def seen(self, scene: Representation, camera: Camera, count: int) -> tuple[Render, Tensor]:
        """The render with depth on the scene's background, and what a fixer reads of ``count``
        pictures [channels, height, width], see :data:`REFERENCE_CHANNELS`: the nearest first, and
        nothing known of those that there are not. Raises :class:`UsageError` for a scene that
        renders no depth."""
        background = self.background.to(camera.c2w.device)
        with evaluating(scene):
            render = scene.render(camera, background=background, want=DEPTH)
            if render.depth is None:
                raise UsageError(
                    f"{type(scene).__name__} renders no depth, by which a fixer finds what "
                    "photographs show",
                    fix="leave --fixer out, or train another method",
                )
            return render, self._warped(scene, camera, render, count)

    def _warped(
        self, scene: Representation, camera: Camera, render: Render, count: int
    ) -> Float[Tensor, "channels height width"]:
        found = []
        device = render.rgb.device
        for place in self.nearest(camera, count):
            view = self.images.view(self.indices[place])
            picture = composited(view, self.background).to(device)
            there = _smaller(view.camera).to(device)
            seen = scene.render(there, want=DEPTH)
            colours, known = warped(picture, view.camera.to(device), seen, camera, render)
            found.append(torch.cat([colours.permute(2, 0, 1), known[None].to(colours)]))
        missing = render.rgb.new_zeros(
            REFERENCE_CHANNELS * (count - len(found)), *render.alpha.shape
        )
        return torch.cat([*found, missing])


@dataclass(kw_only=True, eq=False)
class FixedScene:
    """A scene as a fixer shows it."""

    fixer: Fixer
    references: References
    scene: Representation | None = None
    """As it is now."""

    def fixed(self, camera: Camera) -> tuple[Render, Fixed]:
        """The render on the scene's background, see :meth:`References.seen`, and what the fixer
        makes of it."""
        assert self.scene is not None
        with torch.no_grad():
            render, near = self.references.seen(self.scene, camera, self.fixer.shape.references)
            return render, self.fixer(*inputs_of(render), near[None])

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = DEPTH
    ) -> Render:
        """The repaired picture, on the scene's own background whatever is asked for, with the alpha
        and the depth of the scene, and :attr:`Fixed.confidence` among the extras."""
        render, made = self.fixed(camera)
        return Render(
            rgb=made.rgb[0].permute(1, 2, 0).clamp(0, 1), alpha=render.alpha, depth=render.depth,
            extras={"confidence": made.confidence[0, 0]},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Confident:
    """The pictures of a fixed scene as the ring of pseudo-views keeps them."""

    scene: FixedScene

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = DEPTH
    ) -> Render:
        """In place of alpha, how confident the fixer is."""
        render = self.scene.render(camera)
        return Render(rgb=render.rgb, alpha=render.extras["confidence"])


def inputs_of(render: Render) -> tuple[Tensor, Tensor]:
    """Colour and alpha of a render as a batch of one."""
    return render.rgb.permute(2, 0, 1)[None], render.alpha[None, None]


def _smaller(camera: Camera) -> Camera:
    shrink = max(1.0, max(camera.width, camera.height) / _DEPTH_SIDE)
    sides: Sequence[int] = [max(1, round(n / shrink)) for n in (camera.width, camera.height)]
    return camera.resized(*sides)
