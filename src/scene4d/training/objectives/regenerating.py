"""Pictures that a prior makes of renders, kept and compared with until newer ones replace them.

Generate, then reconstruct: a render at a camera that nobody stood at is noised and cleaned in
several steps (SDEdit, Meng et al. 2022), as CAT4D and 4Real-Video use video models. Small pictures,
as the prior knows them, lie in the ring of pseudo-views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.priors.levels import Times
from scene4d.priors.prior import LatentPrior
from scene4d.priors.sampling import sample
from scene4d.priors.scores import Asked, Told, decoded, encoded
from scene4d.rendering.render import RGB, Render, Want
from scene4d.training.pseudo_views import PseudoViews


@dataclass(frozen=True, kw_only=True, eq=False)
class Regenerated:
    """A scene as a prior shows it, for the ring of pseudo-views."""

    picture: Callable[[Camera], Float[Tensor, "3 height width"]]
    """What the prior makes of the render at a camera of a small picture, 0..1."""

    def render(
        self, camera: Camera, *, background: Float[Tensor, " 3"] | None = None, want: Want = RGB
    ) -> Render:
        """In place of alpha, 1 where the prior's answer is finite; elsewhere all is 0."""
        rgb = self.picture(camera).permute(1, 2, 0)
        good = rgb.isfinite().all()
        alpha = good.expand(rgb.shape[:2]).to(rgb)
        return Render(rgb=rgb if bool(good) else torch.zeros_like(rgb), alpha=alpha)


@dataclass(kw_only=True, eq=False)
class Kept:
    """The ring of regenerated pictures, whose cameras are those of the prior's small pictures."""

    views: PseudoViews
    size: tuple[int, int]
    """Width and height that are compared at a time."""
    factors: dict[tuple[int, int], int] = field(default_factory=dict)
    """By width and height: how many pixels of a render become one of the small picture's, along a
    side."""

    @classmethod
    def of(
        cls, source: Regenerated, cameras: Sequence[tuple[Camera, int]], *, count: int,
        device: torch.device,
    ) -> Kept:  # fmt: skip
        """``cameras``: one of each size that there will be, and its factor. ``count``: pictures
        that are kept."""
        small = [camera for camera, _ in cameras]
        largest = max(c.width * c.height for c in small)
        size = (min(c.width for c in small), min(c.height for c in small))
        views = PseudoViews(
            source, small, budget_bytes=4.0 * largest * count, cell=max(1, min(size) // 2),
            device=device, kept=True,
        )  # fmt: skip
        return cls(views=views, size=size, factors={(c.width, c.height): f for c, f in cameras})

    def whole(self, camera: Camera, of: Camera) -> tuple[Camera, int]:
        """The camera that is rendered for a small one, which is a part of the picture of ``of``."""
        factor = self.factors[of.width, of.height]
        return camera.resized(camera.width * factor, camera.height * factor), factor


@torch.no_grad()
def regenerated(
    asked: Asked,
    x: Float[Tensor, "1 channels height width"],
    *,
    scale: float,
    times: Times,
    steps: int,
    progress: float,
    reuse: float = 0.0,
    generator: torch.Generator,
) -> Float[Tensor, "1 channels height width"]:
    """What the prior makes of ``x`` (in its own range) from the noise of a time drawn from
    ``times``, in ``steps`` steps.

    ``scale``: k of x0_0 + k (x0_y - x0_0); ``reuse``: as of :func:`sample`. Raises
    :class:`UsageError` where the prior is valid at none of the times.
    """
    prior = asked.prior
    within = times.within(asked.path, prior.info.ratios)
    time = float(within.draw(1, progress, generator)[0, 0])
    latent = prior if isinstance(prior, LatentPrior) and prior.info.space == "latent" else None
    found = sample(
        Told(asked, scale), x if latent is None else encoded(latent, x), steps=steps, time=time,
        path=asked.path, reuse=reuse, generator=generator,
    )  # fmt: skip
    return found if latent is None else decoded(latent, found, like=x)
