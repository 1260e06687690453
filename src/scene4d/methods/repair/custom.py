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
    FarPairsOptions,
    PreservingOptions,
)
from scene4d.methods.repair.pairs import Pairs, read_pairs
from scene4d.methods.repair.trainable import FixerTraining
from scene4d.priors.fixer import FILE, Fixer, load_fixer, save_fixer, shape_from
from scene4d.priors.prior import CaptureMark
from scene4d.representations.base import ParameterGroup
from scene4d.representations.saved import Form, module_forms
from scene4d.training.customising import CustomNetwork, EarlyStop
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step


class CustomFixer(FixerTraining, CustomNetwork):
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
        """PSNR of far pictures, dB."""
        if self.far is None:
            return {}
        return {"far_psnr_before": self.far[0], "far_psnr": self.far[1]}

    def keep(self) -> None:
        """What is trained."""
        self.kept.load_state_dict(self.fixer.state_dict())

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


class FarPairs(EarlyStop):
    """By the mean PSNR of far pictures, repaired."""

    options: FarPairsOptions
    representation: CustomFixer

    def read(self) -> None:
        """Their pairs."""
        self.pairs = read_pairs(self.options.far)

    def worth(self) -> float:
        """dB."""
        return mean_psnr(self.representation.fixer, self.pairs)


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
