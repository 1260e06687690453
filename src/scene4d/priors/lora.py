"""Low-rank layers merged into a network once: W + strength (alpha / rank) B A (LoRA, Hu et al.
2021).

Files name layers as diffusers, peft or kohya's scripts do, by the names that the network itself
has. A merged network costs what it did before, and no package is needed.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import DataError
from scene4d.plain import from_table, to_table
from scene4d.priors.prior import CaptureMark
from scene4d.priors.tensor_files import read_tensors

_MOST_BYTES = 1 << 32
_ENDINGS = {
    ".lora_A.weight": "down", ".lora_B.weight": "up",  # peft, and diffusers today
    ".lora.down.weight": "down", ".lora.up.weight": "up",  # diffusers before
    ".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha",  # kohya
}  # fmt: skip
_KOHYA = "lora_unet_"
_CAPTURE = "scene4d_capture"
_TEXTS = ("text_encoder", "lora_te")
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A file of low-rank layers, and how much of it counts."""

    path: Path
    strength: float = 1.0


@torch.no_grad()
def merge(lora: Lora, networks: Mapping[str, nn.Module]) -> int:
    """Adds the layers of a file to the networks' weights; the number of layers.

    ``networks``: by their names in a folder of diffusers (``unet``, ``transformer``,
    ``transformer_2``). Layers of text encoders are left out with a note, as texts are embedded
    before. Raises :class:`DataError` for what is no such file, and for layers that the networks do
    not have; nothing is merged then.
    """
    changes = []
    for (part, name), layer in _layers_of(lora.path, networks).items():
        weight = networks[part].get_submodule(name).weight
        assert isinstance(weight, Tensor)
        change = layer.change() if layer.whole else None
        if change is None or change.shape != weight.flatten(1).shape:
            got = "half a layer" if change is None else f"one of {list(change.shape)} weights"
            raise DataError(f"holds {got} for {name}, whose weights are {list(weight.shape)}",
                            where=lora.path, fix="give the model that it was fitted to"
                            )  # fmt: skip
        changes.append((weight, change.view_as(weight)))
    for weight, change in changes:
        weight.copy_(weight.float() + lora.strength * change.to(weight.device))
    _log.info("merged %d low-rank layers of %s", len(changes), lora.path)
    return len(changes)


def save_lora(
    layers: Mapping[str, tuple[Float[Tensor, "rank given"], Float[Tensor, "out rank"]]],
    path: Path,
    *,
    capture: CaptureMark | None = None,
) -> None:
    """A file of the layers A, B by network and name (``unet.NAME``), as diffusers names them.
    ``capture``: that which they were fitted to, kept beside."""
    from safetensors.torch import save_file

    tensors = {}
    for name, (down, up) in layers.items():
        for ending, half in ((".lora_A.weight", down), (".lora_B.weight", up)):
            tensors[name + ending] = half.detach().cpu().float().contiguous()
    told = {} if capture is None else {_CAPTURE: json.dumps(to_table(capture))}
    save_file(tensors, path, metadata=told)


def capture_of(path: Path) -> CaptureMark | None:
    """The capture that a file's layers were fitted to, where it says. Raises :class:`DataError`."""
    _, told = read_tensors(path, _CAPTURE, what="file of low-rank layers", most_bytes=_MOST_BYTES)
    return None if told is None else from_table(CaptureMark, told, where=f"{path}: capture")


@dataclass(kw_only=True, eq=False)
class _Layer:
    """What a file says of one layer."""

    alpha: float | None
    """None: the rank."""
    root: bool
    """Over the root of the rank (rank-stabilised, Kalajdzievski 2023)."""
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether both halves are there, and of one rank."""
        if not {"down", "up"} <= set(self.parts):
            return False
        return self.parts["up"].flatten(1).shape[-1] == len(self.parts["down"])

    def change(self) -> Float[Tensor, "out given"]:
        """(alpha / rank) B A; of a convolution the kernel is flattened."""
        down, up = self.parts["down"].float(), self.parts["up"].float()
        rank = len(down)
        alpha = float(self.parts["alpha"]) if "alpha" in self.parts else self.alpha
        scale = (rank if alpha is None else alpha) / (math.sqrt(rank) if self.root else rank)
        return scale * (up.flatten(1) @ down.flatten(1))


def _layers_of(path: Path, networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], _Layer]:
    """By network and name of the layer."""
    tensors, told = read_tensors(
        path, "lora_adapter_metadata", what="file of low-rank layers", most_bytes=_MOST_BYTES
    )
    settings = told if isinstance(told, dict) else {}
    places = {
        written: (part, name)
        for part, network in networks.items()
        for name, layer in network.named_modules()
        if hasattr(layer, "weight")
        for written in _written(part, name, first=part == next(iter(networks)))
    }
    found: dict[tuple[str, str], _Layer] = {}
    strange, texts = [], 0
    for key, tensor in tensors.items():
        ending = next((e for e in _ENDINGS if key.endswith(e)), None)
        place = places.get(key.removesuffix(ending)) if ending else None
        if key.startswith(_TEXTS):
            texts += 1
        elif ending is None or place is None or (ending == ".alpha" and tensor.numel() != 1):
            strange.append(key)
        else:
            layer = found.setdefault(place, _settled(settings, *place, path=path))
            layer.parts[_ENDINGS[ending]] = tensor
    ends = [end for part in networks for end in _alphas(settings, part)]  # peft's may be patterns
    strange += [e for e in ends if not any(f".{n}".endswith(f".{e}") for _, n in found)]
    if strange or not found or any(settings.get(f"{part}.use_dora") for part in networks):
        what = f"{strange[0]!r} is none" if strange else "there is none, or more than that"
        raise DataError(
            f"holds other things than low-rank layers of this network: {what}", where=path,
            fix="give a file for this model in diffusers' names: its pipelines' load_lora_weights "
            "and save_lora_weights convert many others (with peft)",
        )  # fmt: skip
    if texts:
        _log.warning("note: %s: %d tensors are of text encoders, and left out: texts are embedded "
                     "before", path, texts)  # fmt: skip
    return found


def _written(part: str, name: str, *, first: bool) -> list[str]:
    """How files name a layer; only the ``first`` network's goes without saying which it is."""
    alone = [name, f"base_model.model.{name}", _KOHYA + name.replace(".", "_")] if first else []
    return [f"{part}.{name}", *alone]


def _settled(settings: Mapping[str, Any], part: str, name: str, *, path: Path) -> _Layer:
    """A layer as peft's settings, which diffusers keeps beside, tell."""
    alphas = _alphas(settings, part)
    own = next((alpha for end, alpha in alphas.items() if f".{name}".endswith(f".{end}")), None)
    alpha = settings.get(f"{part}.lora_alpha") if own is None else own
    if not isinstance(alpha, int | float | None):
        raise DataError(f"tells no number as the alpha of {name}", where=path)
    return _Layer(alpha=alpha, root=bool(settings.get(f"{part}.use_rslora")))


def _alphas(settings: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """alpha of single layers, by the end of their names."""
    found = settings.get(f"{part}.alpha_pattern")
    return found if isinstance(found, dict) else {}
