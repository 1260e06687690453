"""A fixer that is fitted to one capture: few layers of it, preserved elsewhere, stopped early."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError, UsageError
from scene4d.methods.repair.custom_method import (
    CustomFixerMethod,
    EarlyStopOptions,
    PreservingOptions,
)
from scene4d.methods.repair.pairs import Pairs, read_pairs
from scene4d.methods.repair.trainable import FixerTraining
from scene4d.priors.fixer import FILE, CaptureMark, Fixer, load_fixer, save_fixer, shape_from
from scene4d.representations.base import ParameterGroup
from scene4d.representations.saved import Form, module_forms
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy


class CustomFixer(FixerTraining):
    """The network that is trained, and the best one so far: at first the original."""

    def __init__(
        self,
        fixer: Fixer,
        learning_rate: float,
        *,
        layers: tuple[str, ...],
        mark: CaptureMark | None,
    ) -> None:
        """Raises :class:`UsageError` for layers that there are not."""
        super().__init__(fixer, learning_rate)
        self.kept = copy.deepcopy(fixer).requires_grad_(False)
        self.layers, self.mark = layers, mark
        names = [name for name, _ in fixer.named_parameters()]
        for layer in layers:
            if not any(name.startswith(layer) for name in names):
                parts = sorted({name.partition(".")[0] for name in names})
                raise UsageError(f"a fixer has no layers {layer!r}",
                                 fix=f"its layers are {', '.join(parts)}")  # fmt: skip
        self.far_psnr: tuple[float, float] | None = None
        """Of far pictures, dB: by the original, and by the best one."""

    @classmethod
    def starting(cls, method: CustomFixerMethod) -> CustomFixer:
        """The original. Raises :class:`DataError` where there is none."""
        fixer = load_fixer(method.original).requires_grad_(True)
        mark = CaptureMark(name=method.capture[0], digest=method.capture[1]) if (
            len(method.capture) == 2
        ) else None  # fmt: skip
        return cls(fixer, method.lr, layers=method.layers, mark=mark)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the chosen layers."""
        chosen = [p for name, p in self.fixer.named_parameters() if name.startswith(self.layers)]
        return [ParameterGroup(name="weights", parameters=chosen, eps=1e-8,
                               learning_rate=self.learning_rate)]  # fmt: skip

    def describe(self) -> dict[str, float]:
        """What far pictures are worth."""
        if self.far_psnr is None:
            return {}
        return {"far_psnr_before": self.far_psnr[0], "far_psnr": self.far_psnr[1]}

    def write(self, folder: Any) -> Any:
        """The best one, in half precision, with the mark of its capture."""
        self.kept.capture = self.mark
        save_fixer(self.kept, folder / FILE)
        return folder / FILE

    def plain_data(self) -> Mapping[str, Any]:
        """The shape, the learning rate, what is trained and for which capture."""
        mark = [] if self.mark is None else [self.mark.name, self.mark.digest]
        return {**super().plain_data(), "layers": list(self.layers), "capture": mark}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> CustomFixer:
        """Built again."""
        layers, told = plain.get("layers"), plain.get("capture")
        for name, values in (("layers", layers), ("capture", told)):
            if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                raise DataError(f"{name} are no list of texts", where="settings")
        assert isinstance(layers, list) and isinstance(told, list)
        mark = CaptureMark(name=told[0], digest=told[1]) if len(told) == 2 else None
        made = cls(Fixer(shape_from(plain)), float(plain["learning_rate"]), layers=tuple(layers),
                   mark=mark)  # fmt: skip
        made.load_state_dict(tensors)
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Two networks of this shape."""
        return {
            name: form
            for within in ("fixer", "kept")
            for name, form in module_forms(lambda: Fixer(shape_from(plain)), within=within).items()
        }


class Preserving(Objective):
    """The mean absolute difference to what the original makes of renders beside photographs of
    other pictures: there a capture has nothing to teach (prior preservation, after DreamBooth, Ruiz
    et al. 2023)."""

    options: PreservingOptions
    needs_views = False

    def __init__(self, options: PreservingOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` where there is no original, or no pairs."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.pairs = read_pairs(options.pairs)
        self.original = load_fixer(options.original).to(inputs.device)

    def __call__(self, step: Step) -> Term:
        """The term."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, CustomFixer)
        crops = self.pairs.crops(options.batch, options.crop_size, self.generator)
        crops = crops.to(self.device)
        told = (crops.rgb, crops.alpha, crops.references.roll(1, dims=0))
        with torch.no_grad():
            wanted = self.original(*told)
        made = trained.fixer(*told)
        loss = (made.rgb - wanted.rgb).abs().mean() + (made.error - wanted.error).abs().mean()
        return Term(loss=loss, log={"preserving": loss.detach()})


class EarlyStop(Strategy):
    """Looks at far pairs now and then, keeps the best network, and ends when none is better."""

    options: EarlyStopOptions
    representation: CustomFixer

    def __init__(self, options, representation, optimiser, generator) -> None:
        """Raises :class:`DataError` where there are no far pairs."""
        super().__init__(options, representation, optimiser, generator)
        self.far = read_pairs(options.far)
        self.first = self.best = mean_psnr(representation.kept, self.far)
        self.without = 0
        """Looks since there was a gain."""
        self._tell()

    def after_step(self, step: Step) -> None:
        """A look, every few steps."""
        if (step.number + 1) % self.options.every:
            return
        found = mean_psnr(self.representation.fixer, self.far)
        if found > self.best:
            self.best, self.without = found, 0
            self.representation.kept.load_state_dict(self.representation.fixer.state_dict())
        else:
            self.without += 1
        self.finished = self.without >= self.options.patience
        self._tell()

    def state_tensors(self) -> dict[str, Tensor]:
        """What was found so far."""
        return {"found": torch.tensor([self.first, self.best, float(self.without)])}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        self.first, self.best, without = tensors["found"].tolist()
        if without < 0:
            raise ValueError(f"{without:g} looks were without a gain")
        self.without = int(without)
        self.finished = self.without >= self.options.patience
        self._tell()

    def _tell(self) -> None:
        self.representation.far_psnr = (self.first, self.best)


@torch.no_grad()
def mean_psnr(fixer: Fixer, pairs: Pairs) -> float:
    """Of whole pictures, repaired, dB: the mean over them."""
    device = next(fixer.parameters()).device
    found: list[Float[Tensor, " n"]] = []
    for tensors in pairs.captures:
        for rows in torch.arange(len(tensors["rgb"])).split(8):
            part = {name: value[rows].to(device).float() / 255 for name, value in tensors.items()}
            made = fixer(part["rgb"], part["alpha"], part["references"]).rgb.clamp(0, 1)
            squared = (made - part["clean"]).square().flatten(1).mean(dim=1)
            found.append(-10 * squared.clamp_min(1e-10).log10())
    return float(torch.cat(found).mean())
