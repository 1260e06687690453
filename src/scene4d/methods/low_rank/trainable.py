"""Low-rank layers beside those of a frozen diffusion model (LoRA, Hu et al. 2021)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import DataError, UsageError
from scene4d.plain import from_table, to_table
from scene4d.priors.diffusion import LORA, DiffusionPrior, index_of, load_folder, network_of
from scene4d.priors.lora import save_lora
from scene4d.priors.prior import CaptureMark, check_of_pictures
from scene4d.representations.base import ParameterGroup
from scene4d.representations.saved import Form, module_forms
from scene4d.training.customising import CustomNetwork

if TYPE_CHECKING:
    from scene4d.methods.low_rank.method import CustomDiffusionMethod

_MOST = 1 << 20
"""Inputs or outputs of a layer that a file may ask for."""


@dataclass(frozen=True)
class Place:
    """A linear layer of the model, as plain data."""

    name: str
    given: int
    out: int


class Halves(nn.Module):
    """A and B of each layer."""

    def __init__(self, places: Sequence[Place], rank: int, generator: torch.Generator) -> None:
        super().__init__()

        def drawn(place: Place) -> Tensor:
            return torch.randn(rank, place.given, generator=generator) / place.given**0.5

        self.down = nn.ParameterList([nn.Parameter(drawn(p)) for p in places])
        self.up = nn.ParameterList([nn.Parameter(torch.zeros(p.out, rank)) for p in places])


class LowRank(CustomNetwork):
    """The layers that are trained, and the best ones so far; the model itself is no part of it, and
    is read when it is first asked."""

    def __init__(
        self,
        original: Path,
        places: Sequence[Place],
        *,
        rank: int,
        learning_rate: float,
        mark: CaptureMark | None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.original, self.places, self.rank = original, tuple(places), rank
        self.learning_rate, self.mark = learning_rate, mark
        self.trained = Halves(places, rank, generator or torch.Generator())
        self.kept = copy.deepcopy(self.trained).requires_grad_(False)
        self._models: list[DiffusionPrior] = []  # in a list: no part of what is saved
        self._beside = True

    @classmethod
    def starting(cls, method: CustomDiffusionMethod, generator: torch.Generator) -> LowRank:
        """Layers that change nothing. Raises :class:`UsageError` for a model without layers of the
        names that the method says, and :class:`DataError` for none."""
        model = load_original(method.original)
        ends = tuple(f".{end}" for end in method.layers)
        places = [
            Place(name, layer.in_features, layer.out_features)
            for name, layer in model.network.named_modules()
            if isinstance(layer, nn.Linear) and f".{name}".endswith(ends)
        ]
        if not places:
            raise UsageError(f"the model has no linear layers {', '.join(method.layers)}",
                             where=method.original, fix="name others with --layers")  # fmt: skip
        told = method.capture
        mark = CaptureMark(name=told[0], digest=told[1]) if len(told) == 2 else None
        made = cls(method.original, places, rank=method.rank, learning_rate=method.lr, mark=mark,
                   generator=generator)  # fmt: skip
        made._attach(model)
        return made

    @property
    def model(self) -> DiffusionPrior:
        """The model with the layers beside, on their device."""
        if not self._models:
            self._attach(load_original(self.original))
        (model,) = self._models
        return model.to(self.trained.down[0].device)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside, :attr:`model` is the original."""
        self._beside = False
        try:
            yield
        finally:
            self._beside = True

    def _attach(self, model: DiffusionPrior) -> None:
        for number, place in enumerate(self.places):
            layer = model.network.get_submodule(place.name)
            layer.register_forward_hook(partial(self._add, number))
        self._models.append(model)

    def _add(self, number: int, layer: nn.Module, given: Any, output: Tensor) -> Tensor:
        if not self._beside:
            return output
        down, up = self.trained.down[number], self.trained.up[number]
        return output + (given[0].to(down) @ down.mT @ up.mT).to(output)

    def keep(self) -> None:
        """What is trained."""
        self.kept.load_state_dict(self.trained.state_dict())

    def parameter_groups(self) -> list[ParameterGroup]:
        """All layers alike."""
        return [ParameterGroup(name="layers", parameters=list(self.trained.parameters()), eps=1e-8,
                               learning_rate=self.learning_rate)]  # fmt: skip

    def describe(self) -> dict[str, float]:
        """How far off far pictures are, as the network's own loss tells."""
        if self.far is None:
            return {}
        return {"far_error_before": -self.far[0], "far_error": -self.far[1]}

    def write(self, folder: Path) -> Path:
        """The best ones, in the names that diffusers reads, with the mark of the capture."""
        part = network_of(index_of(self.original))[0]
        layers: dict[str, tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]] = {
            f"{part}.{place.name}": (self.kept.down[i], self.kept.up[i])
            for i, place in enumerate(self.places)
        }
        save_lora(layers, folder / LORA, capture=self.mark)
        return folder / LORA

    def use_of(self, weights: Path) -> str:
        """The layers lie in the folder of the model."""
        return (f"cp {weights} {self.original}\n"
                f"  scene4d train METHOD --data CAPTURE --prior {self.original}")  # fmt: skip

    def plain_data(self) -> Mapping[str, Any]:
        """Which model, which layers, and for which capture."""
        places = [[p.name, p.given, p.out] for p in self.places]
        mark = None if self.mark is None else to_table(self.mark)
        return {"original": str(self.original), "places": places, "rank": self.rank,
                "learning_rate": self.learning_rate, "capture": mark or {}}  # fmt: skip

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> LowRank:
        """Built again."""
        places, rank = _settled(plain)
        told = plain.get("capture")
        mark = from_table(CaptureMark, told, where="settings: capture") if told else None
        made = cls(Path(str(plain["original"])), places, rank=rank,
                   learning_rate=float(plain["learning_rate"]), mark=mark)  # fmt: skip
        made.load_state_dict(tensors)
        return made

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Two sets of layers."""
        places, rank = _settled(plain)
        forms: dict[str, Form] = {}
        for within in ("trained", "kept"):
            forms |= module_forms(lambda: Halves(places, rank, torch.Generator()), within=within)
        return forms


def load_original(folder: Path) -> DiffusionPrior:
    """The model without low-rank layers, with its texts. Raises :class:`UsageError` for one of
    other things than pictures."""
    model = load_folder(folder, loras=())
    check_of_pictures(model)
    return model.requires_grad_(False)


def _settled(plain: Mapping[str, Any]) -> tuple[list[Place], int]:
    """Where layers are, and their rank. Raises :class:`DataError` for what cannot be."""
    rank: Any = plain.get("rank")
    places: Any = plain.get("places")
    good = isinstance(places, list) and all(_is_place(place) for place in places)
    if not good or type(rank) is not int or not 1 <= rank <= _MOST:
        raise DataError(f"layers of rank {rank} at {str(places)[:80]} cannot be", where="settings")
    return [Place(*place) for place in places], rank


def _is_place(told: Any) -> bool:
    if not isinstance(told, list) or len(told) != 3 or not isinstance(told[0], str):
        return False
    return all(type(n) is int and 1 <= n <= _MOST for n in told[1:])
