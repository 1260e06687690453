"""Our own priors as a trainer fits them: a network, and the moving average of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from scene4d.exporters.frames import to_bytes
from scene4d.files import atomic_path
from scene4d.methods.picture_prior.method import AveragingOptions
from scene4d.plain import to_table
from scene4d.priors import frames
from scene4d.priors.frames import FramesPrior, continued
from scene4d.priors.sampling import sample
from scene4d.priors.shown import sheet
from scene4d.priors.unet import FILE, UnetPrior, UnetShape, save_unet, shape_from
from scene4d.representations.base import ParameterGroup, PriorNetwork
from scene4d.representations.saved import Form, module_forms
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy

SAMPLES = "samples.png"
_COUNT, _STEPS = 8, 30
"""Pictures in it, and steps from noise to them."""


class UnetTraining(PriorNetwork):
    """A :class:`UnetPrior` with its average and its learning rate."""

    def __init__(self, prior: UnetPrior, learning_rate: float) -> None:
        super().__init__()
        self.prior, self.learning_rate = prior, learning_rate
        self.averaged = copy.deepcopy(prior).eval().requires_grad_(False)

    @classmethod
    def made(
        cls, shape: UnetShape, learning_rate: float, generator: torch.Generator
    ) -> UnetTraining:
        """Untrained, its weights drawn by ``generator``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
            return cls(UnetPrior(shape), learning_rate)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All weights alike."""
        group = ParameterGroup(
            name="weights", parameters=list(self.prior.parameters()), eps=1e-8,
            learning_rate=self.learning_rate,
        )  # fmt: skip
        return [group]

    def write(self, folder: Path) -> Path:
        """The average in half precision, and beside it pictures that it thinks of."""
        save_unet(self.averaged, folder / FILE)
        width, height = self.prior.shape.usual_size
        like = next(self.averaged.parameters())
        found = sample(
            self.averaged, None, shape=(_COUNT, self.averaged.info.num_channels, height, width),
            steps=_STEPS, generator=torch.Generator().manual_seed(0),
        ).to(like)  # fmt: skip
        self._show(found, folder)
        return folder / FILE

    def _show(self, pictures: Tensor, folder: Path) -> None:
        with atomic_path(folder / SAMPLES) as file:
            image = Image.fromarray(to_bytes(sheet(pictures, self.averaged.info)))
            image.save(file, format="PNG")

    def use_of(self, weights: Path) -> str:
        """They are given as a prior."""
        return f"scene4d train METHOD --data CAPTURE --prior {weights}"

    def plain_data(self) -> Mapping[str, Any]:
        """The shape, and the learning rate."""
        return {"shape": to_table(self.prior.shape), "learning_rate": self.learning_rate}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> UnetTraining:
        """Built again."""
        made = cls(UnetPrior(_shape_of(plain)), float(plain["learning_rate"]))
        made.load_state_dict(tensors)
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Two networks of this shape."""
        shape = _shape_of(plain)
        return {
            name: form
            for within in ("prior", "averaged")
            for name, form in module_forms(lambda: UnetPrior(shape), within=within).items()
        }


class FramesTraining(UnetTraining):
    """As :class:`UnetTraining`, of a network that is told the picture before."""

    def write(self, folder: Path) -> Path:
        """The average in half precision, and beside it a video that it thinks of."""
        save_unet(self.averaged, folder / frames.FILE)
        found = continued(
            FramesPrior(self.averaged), None, count=_COUNT, size=self.prior.shape.usual_size,
            steps=_STEPS, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        self._show(found, folder)
        return folder / frames.FILE

    def use_of(self, weights: Path) -> str:
        """They are given as a prior, of flights whose cameras stand still."""
        return f"{super().use_of(weights)} --guidance.sweep 0 --guidance.frozen 0"


class Averaging(Strategy):
    """Moves the average after each step."""

    options: AveragingOptions
    representation: UnetTraining

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """The average keeps ``decay`` of itself, less in the first steps."""
        decay = min(self.options.decay, (1 + step.number) / (10 + step.number))
        trained = self.representation
        for kept, new in zip(
            trained.averaged.parameters(), trained.prior.parameters(), strict=True
        ):
            kept.lerp_(new, 1 - decay)


def _shape_of(plain: Mapping[str, Any]) -> UnetShape:
    return shape_from(plain.get("shape"), where="settings: shape")
