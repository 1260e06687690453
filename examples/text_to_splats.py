"""A method without any capture: words in, a scene out, trained by a judge that looks from anywhere.

One network serves every text ("a large red ball"); of one that it was never shown, it gets the
colour right and the size about so. What a diffusion model would say of a noised picture, a
closed form says here: the posterior mean under a Gaussian around how the ball looks, ray by ray.
The objective is that of any prior, ``Guidance`` with score distillation.
The shape is that of amortised text-to-3D (ATT3D, Lorraine et al. 2023). See also
docs/add-a-representation.md.

    [project.entry-points."scene4d.methods"]
    text-to-splats = "text_to_splats:TextToSplatsMethod"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.errors import UsageError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.prior import Condition, Prior
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import Generator, ParameterGroup, Representation
from scene4d.representations.gaussians import SH_C0, render_gaussians
from scene4d.representations.method import GuidanceOptions, Method, ObjectiveOptions
from scene4d.representations.task import Poses, Task

COLOURS = {
    "red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.2, 0.9),
    "yellow": (0.9, 0.8, 0.1), "white": (0.9, 0.9, 0.9),
}  # fmt: skip
RADII = {"small": 0.4, "medium": 0.6, "large": 0.8}
UNSEEN = "a large blue ball"
TEXTS = [f"a {size} {colour} ball" for size in RADII for colour in COLOURS]
WORDS = sorted({word for text in TEXTS for word in text.split()})


class Splats(Representation):
    """Gaussians as a network made them: plain tensors, through which gradients flow."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tensors = dict(tensors)

    def render(
        self, camera: Camera, *, background: Tensor | None = None, want: Want = RGB
    ) -> Render:
        """Rasterises them."""
        return render_gaussians(
            self.tensors, camera, background=background, depth=want.depth, sh_degree=0,
            antialiased=False, near=0.01,
        )  # fmt: skip

    def splats(self, time: float | None = None) -> SplatCloud:
        """As a file holds them."""
        held = {name: value.detach().cpu().numpy() for name, value in self.tensors.items()}
        return SplatCloud(
            means=held["means"],
            quats=held["quats"],
            log_scales=held["scales"],
            logit_opacities=np.log(held["alphas"] / (1 - held["alphas"])),
            sh=held["sh0"],
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """None: its generator is trained."""
        return []

    plain_data = from_saved = None  # type: ignore[assignment]  # its generator is saved


class TextToSplats(Generator):
    """Words, their mean embedding, a small network, Gaussians."""

    def __init__(self, num_gaussians: int, rate: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.num_gaussians, self.rate = num_gaussians, rate
        self.words = nn.Embedding(len(WORDS), 16)
        self.network = nn.Sequential(
            nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(),
            nn.Linear(64, num_gaussians * 8),
        )  # fmt: skip
        for parameter in self.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.0
            with torch.no_grad():
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))

    @property
    def conditions(self) -> Sequence[str]:
        """All texts but one."""
        return [text for text in TEXTS if text != UNSEEN]

    def code(self, condition: str) -> Tensor:
        """The mean of its words."""
        words = condition.split()
        unknown = sorted(set(words) - set(WORDS))
        if unknown or not words:
            raise UsageError(f"knows no word {unknown}", fix=f"use some of: {', '.join(WORDS)}")
        return self.words(torch.tensor([WORDS.index(word) for word in words])).mean(dim=0)

    def decoded(self, code: Tensor) -> Splats:
        """The ball that the words describe."""
        made = self.network(code).view(self.num_gaussians, 8)
        upright = made.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(self.num_gaussians, 1)
        return Splats(
            {
                "means": made[:, :3].tanh(),
                "quats": upright,
                "scales": made[:, 3:4].repeat(1, 3) - 1.5,
                "alphas": made[:, 4].sigmoid().clamp(1e-4, 1 - 1e-4),
                "sh0": (made[:, 5:].sigmoid() - 0.5)[:, None] / SH_C0,
                "shN": made.new_zeros(self.num_gaussians, 0, 3),
            }
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group."""
        parameters = list(self.parameters())
        return [ParameterGroup(name="network", parameters=parameters, learning_rate=self.rate)]

    def plain_data(self) -> dict[str, Any]:
        """Sizes."""
        return {"num_gaussians": self.num_gaussians, "rate": self.rate}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> TextToSplats:
        """Built again."""
        made = cls(plain["num_gaussians"], plain["rate"], None)
        made.load_state_dict(dict(tensors))
        return made


def ball(condition: str, camera: Camera, background: Tensor) -> Tensor:
    """What a text means, as a picture: [n, height, width, 3] of a ball around the origin."""
    radius = next(RADII[word] for word in condition.split() if word in RADII)
    colour = next(COLOURS[word] for word in condition.split() if word in COLOURS)
    rays = camera_rays(camera)
    nearest = rays.origins - (rays.origins * rays.directions).sum(-1, keepdim=True) * (
        rays.directions / rays.directions.square().sum(-1, keepdim=True)
    )
    hit = nearest.norm(dim=-1, keepdim=True) < radius
    return torch.where(hit, torch.tensor(colour), background)


def looks_like_the_text(condition: Condition) -> Tensor:
    """The mean picture of a prior: [n, 3, height, width] in -1..1, on black."""
    assert condition.text is not None and condition.camera is not None
    picture = ball(condition.text, condition.camera, torch.zeros(3))
    return 2 * picture.movedim(-1, -3) - 1


@dataclass(frozen=True, kw_only=True)
class TextToSplatsMethod(Method):
    """Balls from words: one network for all texts, no photograph."""

    name: ClassVar[str] = "text-to-splats"
    description: ClassVar[str] = "A network from words to splats (example)"
    representation: ClassVar[str] = "text_to_splats:TextToSplats"
    needs_capture: ClassVar[bool] = False

    num_gaussians: int = 48
    network_lr: float = 5e-3
    guidance: GuidanceOptions = field(
        default_factory=lambda: GuidanceOptions(
            weight=1.0, start=0.0, loss="sds", least_time=0.3, most_time=0.7, annealed=False,
            size=32, pictures=2, crop="none",
        )
    )  # fmt: skip
    """Two pictures a step."""

    def build(self, task: Task, *, generator: torch.Generator) -> TextToSplats:
        """Small Gaussians anywhere."""
        return TextToSplats(self.num_gaussians, self.network_lr, generator)

    def conditions(self) -> Sequence[str]:
        """All texts but one."""
        return [text for text in TEXTS if text != UNSEEN]

    def poses(self) -> Poses:
        """On a sphere around the ball, 32 x 32 pixels."""
        return CamerasOnSphere(distance=3.0, view_angle=0.8, size=32)

    def objectives(self) -> Sequence[ObjectiveOptions]:
        """None but guidance."""
        return []

    def own_prior(self) -> Prior:
        """Pictures like what the text means, up to a standard deviation of 0.05."""
        return GaussianPrior(looks_like_the_text, 0.05**2, conditions=frozenset({"text", "camera"}))

    def learning_rate_factor(self, group: str, progress: float) -> float:
        """Exponential decay."""
        return 0.2**progress
