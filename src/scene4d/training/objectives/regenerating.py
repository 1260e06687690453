"""Pictures that a prior makes of renders, kept and compared with until newer ones replace them.

Generate, then reconstruct: a render at a camera that nobody stood at is noised and cleaned in
several steps (SDEdit, Meng et al. 2022), as CAT4D and 4Real-Video use video models; at the most
noise nothing of the render is left, and the picture is a sample. Of a generator pictures of each
text are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.priors.levels import Times
from scene4d.priors.prior import LatentPrior
from scene4d.priors.sampling import sample
from scene4d.priors.scores import Asked, Told, decoded, encoded
from scene4d.representations.saved import Form, form


@dataclass(frozen=True, kw_only=True, eq=False)
class Regenerated:
    """A view as the prior made it."""

    camera: Camera
    """Of the small picture; one."""
    pixels: Float16[Tensor, "channels height width"]
    """All channels that the prior knows, in its range."""


class Kept:
    """The newest regenerated pictures of each text, view by view."""

    def __init__(
        self, *, count: int, texts: int, channels: int, factors: Mapping[tuple[int, int], int]
    ) -> None:
        """``count``: pictures of each text, at most. ``texts``: how many there are; 1 of a scene.
        ``factors``: by width and height of small pictures, those that there are, how many pixels of
        a render become one, along a side."""
        self.count, self.channels, self.factors = count, channels, factors
        self.views: list[list[Regenerated]] = [[] for _ in range(texts)]
        """Of each text, oldest first."""

    def __len__(self) -> int:
        return sum(map(len, self.views))

    def add(self, text: int, views: Sequence[Regenerated]) -> None:
        """Takes the views of a picture, in place of the oldest where there are too many."""
        there = self.views[text]
        there += views
        del there[: -self.count * len(views)]

    def draw(self, text: int, generator: torch.Generator) -> Regenerated | None:
        """One of the views of ``text``, if there are any; takes one random number."""
        u = float(torch.rand((), generator=generator))
        there = self.views[text]
        return there[int(u * len(there))] if there else None

    def whole(self, small: Camera) -> tuple[Camera, int]:
        """The camera that is rendered for a small one, or for a batch; and its factor."""
        factor = self.factors[small.width, small.height]
        return small.resized(small.width * factor, small.height * factor), factor

    def state_tensors(self) -> dict[str, Tensor]:
        """Views and their cameras, text by text; nothing where there are none."""
        made = [(text, view) for text, there in enumerate(self.views) for view in there]
        if not made:
            return {}
        cameras, nan = [view.camera for _, view in made], torch.tensor(torch.nan)
        return {
            "texts": torch.tensor([text for text, _ in made]),
            "sizes": torch.tensor([(c.width, c.height) for c in cameras]),
            "c2w": torch.stack([c.c2w for c in cameras]),
            "K": torch.stack([c.K for c in cameras]),
            "times": torch.stack([nan if c.time is None else c.time for c in cameras]),
            "pixels": torch.cat([view.pixels.flatten().cpu() for _, view in made]),
        }

    @staticmethod
    def state_forms() -> Mapping[str, Form]:
        """Of :meth:`state_tensors`: nothing, or one row for each view."""
        forms = {
            "texts": form("views", torch.int64, optional=True),
            "sizes": form("views 2", torch.int64, optional=True),
            "c2w": form("views 4 4", optional=True),
            "K": form("views 3 3", optional=True),
            "times": form("views", optional=True),
            "pixels": form("values", torch.float16, optional=True),
        }
        forms["times"] = replace(forms["times"], finite=False)  # NaN: a view without a time
        return forms

    def load_state_tensors(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Restores :meth:`state_tensors`. Raises ValueError for numbers that it cannot have
        given."""
        self.views = [[] for _ in self.views]
        if not tensors:
            return
        if lacking := sorted(set(self.state_forms()) - set(tensors)):
            raise ValueError(f"regenerated pictures lack {', '.join(lacking)}")
        texts, sizes = tensors["texts"].tolist(), list(map(tuple, tensors["sizes"].tolist()))
        if strange := set(sizes) - set(self.factors):
            raise ValueError(f"regenerated pictures of {strange} pixels: none has that size")
        if not all(0 <= text < len(self.views) for text in texts):
            raise ValueError(f"regenerated pictures of more than {len(self.views)} texts")
        lengths = [self.channels * width * height for width, height in sizes]
        if sum(lengths) != len(tensors["pixels"]):
            raise ValueError(f"{len(tensors['pixels'])} values of regenerated pictures, "
                             f"{sum(lengths)} wanted")  # fmt: skip
        parts = tensors["pixels"].to(device).split(lengths)
        rows = zip(texts, sizes, tensors["c2w"], tensors["K"], tensors["times"], parts, strict=True)
        for text, (width, height), c2w, K, time, pixels in rows:
            moment = None if bool(time.isnan()) else time
            camera = Camera(c2w=c2w, K=K, width=width, height=height, time=moment)
            pixels = pixels.view(self.channels, height, width)
            self.views[text].append(Regenerated(camera=camera, pixels=pixels))


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
