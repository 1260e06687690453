"""What low-rank layers are fitted by: pictures of the capture, and the original's own; and when to
stop."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError
from scene4d.files import printable
from scene4d.methods.low_rank.method import FarPicturesOptions, FittingOptions, PreservingOptions
from scene4d.methods.low_rank.trainable import LowRank
from scene4d.priors.diffusion import DiffusionPrior
from scene4d.priors.levels import Path as NoisePath
from scene4d.priors.levels import Times, levels_at
from scene4d.priors.predictions import output_from
from scene4d.priors.prior import Condition, broadcast
from scene4d.priors.tensor_files import read_tensors
from scene4d.training.customising import EarlyStop
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

FILE = "pictures.safetensors"
_MOST_BYTES = 1 << 34
_FAR_TIMES = (0.2, 0.4, 0.6, 0.8)
"""Noise at which far pictures are looked at."""


class Fitting(Objective):
    """The mean squared error of the network's own answer (the noise, v or the flow) to noised
    pictures of the capture: the loss that it was trained by."""

    options: FittingOptions
    needs_views = False

    def __init__(self, options: FittingOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` where there are no pictures."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.pictures = read_pictures(options.pictures)

    def __call__(self, step: Step) -> Term:
        """The term."""
        trained = step.trainable
        assert isinstance(trained, LowRank)
        noised = Noised.drawn(
            trained.model, self.pictures, self.options.batch, self.generator, self.device
        )
        loss = noised.error(trained.model, noised.clean, self.options.text)
        return Term(loss=loss, log={"fitting": loss.detach()})


class Preserving(Objective):
    """The mean squared difference to the original's answer to noised pictures that it drew: prior
    preservation (DreamBooth, Ruiz et al. 2023), with the original's answer in place of the
    noise."""

    options: PreservingOptions
    needs_views = False

    def __init__(self, options: PreservingOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` where there are no pictures."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.pictures = read_pictures(options.pictures)

    def __call__(self, step: Step) -> Term:
        """The term."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, LowRank)
        model = trained.model
        noised = Noised.drawn(model, self.pictures, options.batch, self.generator, self.device)
        with torch.no_grad(), trained.left_out():
            wanted = noised.answer(model, options.text)
        loss = noised.error(model, wanted, options.text)
        return Term(loss=loss, log={"preserving": loss.detach()})


class FarPictures(EarlyStop):
    """By the loss of :class:`Fitting` on far pictures, at four levels of noise that stay."""

    options: FarPicturesOptions
    representation: LowRank

    def read(self) -> None:
        """Their latents, or the pictures."""
        self.pictures = read_pictures(self.options.far)

    @torch.no_grad()
    def worth(self) -> float:
        """The loss, negative."""
        model, generator = self.representation.model, torch.Generator().manual_seed(0)
        device = self.representation.trained.down[0].device
        found = []
        for picture in self.pictures:
            for share in _FAR_TIMES:
                times = torch.tensor([share], dtype=torch.float64)
                clean = picture[None].to(device)
                noised = Noised(clean, *_within(model, times), generator)
                found.append(float(noised.error(model, clean, self.options.text)))
        return -sum(found) / len(found)


class Noised:
    """Pictures, and what noise makes of them."""

    def __init__(
        self,
        clean: Float[Tensor, "batch channels h w"],
        alpha: Float[Tensor, " batch"],
        sigma: Float[Tensor, " batch"],
        generator: torch.Generator,
    ) -> None:
        self.clean, self.alpha, self.sigma = clean, alpha.to(clean), sigma.to(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        self.x_t = broadcast(self.alpha, clean) * clean + broadcast(self.sigma, clean) * noise

    @classmethod
    def drawn(
        cls, model: DiffusionPrior, pictures: Float[Tensor, "n channels h w"], count: int,
        generator: torch.Generator, device: torch.device,
    ) -> Noised:  # fmt: skip
        """Some pictures, at times that are drawn evenly."""
        rows = torch.randint(len(pictures), (count,), generator=generator)
        times = torch.rand(count, generator=generator, dtype=torch.float64)
        return cls(pictures[rows].to(device), *_within(model, times), generator)

    def answer(self, model: DiffusionPrior, text: str) -> Tensor:
        """The clean pictures that the model sees in them."""
        condition = Condition(text=text) if "text" in model.info.conditions else Condition()
        return model.denoise(self.x_t, self.alpha, self.sigma, condition)

    def error(self, model: DiffusionPrior, wanted: Tensor, text: str) -> Float[Tensor, ""]:
        """The mean square of the difference to what the network would answer for ``wanted``."""
        off = self.answer(model, text) - wanted
        nothing = torch.zeros_like(off)
        # answers are linear in x0: the difference of two is that of a difference, without x_t
        answers = output_from(model.prediction, off, nothing, self.alpha, self.sigma)
        return answers.square().mean()


def _within(model: DiffusionPrior, shares: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
    """alpha and sigma of shares (0..1) of the times at which the model is valid."""
    path: NoisePath = "flow" if model.family.flow else "cosine"
    times = Times().within(path, model.info.ratios)
    alpha, sigma = levels_at(path, times.low + (times.high - times.low) * shares)
    return alpha.float(), sigma.float()


def read_pictures(folder: Path) -> Float[Tensor, "n channels h w"]:
    """Those of :data:`FILE`. Raises :class:`DataError` where there are none."""
    if not (folder / FILE).is_file():
        raise DataError("holds no pictures to learn from", where=printable(folder),
                        fix="scene4d prior customise writes them")  # fmt: skip
    tensors, _ = read_tensors(folder / FILE, "", what="file of pictures", most_bytes=_MOST_BYTES)
    pictures = tensors.get("pictures")
    if pictures is None or pictures.ndim != 4 or not len(pictures):
        raise DataError("holds no pictures [n, channels, height, width]", where=folder / FILE)
    return pictures.float()


def write_pictures(pictures: Float[Tensor, "n channels h w"], folder: Path) -> None:
    """As :func:`read_pictures` reads them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"pictures": pictures.detach().cpu().float().contiguous()}, folder / FILE)
