"""The fixer: one step from a render and the photographs around it to a clean picture.

F(render, nearest photographs warped by the render's depth, masks of where the warps are valid) ->
what the picture should show, and how far off that is expected to be. A small U-Net without
normalisation, so that a crop and a whole picture are treated alike. The kind of network is that of
Difix3D+ (Wu et al. 2025), which is a diffusion model distilled to one step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from scene4d.errors import DataError
from scene4d.files import printable
from scene4d.plain import from_table, to_table
from scene4d.priors.built_in import BUILT_IN, found_in
from scene4d.priors.prior import CaptureMark
from scene4d.priors.tensor_files import pack_tensors, read_tensors, write_tensors

REFERENCE_CHANNELS = 4
"""Of each photograph: colour where it is valid, else 0, and where it is valid."""
FILE = "fixer.safetensors"
_KEY = "scene4d_fixer"
_MOST_BYTES = 64 << 20
_MOST = 1024
"""Channels of a level that a file may ask for."""
_LEAST_ERROR = 0.005
"""That is ever expected, about a step of 8 bits: less would weigh a surprise without bound."""
_CONFIDENT = 0.05
"""Mean absolute error at which confidence has fallen to 1/e."""


@dataclass(frozen=True, kw_only=True)
class FixerShape:
    """How large a fixer is, as plain data."""

    references: int = 2
    """Photographs that it looks at."""
    widths: tuple[int, ...] = (32, 64, 96, 128)
    """Channels at half the resolution, a quarter, and so on."""

    @property
    def num_inputs(self) -> int:
        """Colour and alpha of the render, and the photographs."""
        return 4 + REFERENCE_CHANNELS * self.references


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixed:
    """What a fixer makes of renders."""

    rgb: Float[Tensor, "batch 3 height width"]
    """Not clamped."""
    error: Float[Tensor, "batch 1 height width"]
    """The mean absolute error of a colour that is expected there."""

    @property
    def confidence(self) -> Float[Tensor, "batch 1 height width"]:
        """1 where no error is expected, falling to 0."""
        return (-self.error / _CONFIDENT).exp()


class Fixer(nn.Module):
    """A U-Net on blocks of 2x2 pixels. It answers how much of each pixel is the render's and how
    much each photograph's, where that is known, what to add, and whether: so sharp detail need not
    pass through the network, and an empty background stays one."""

    capture: CaptureMark | None = None
    """Of the capture that it was customised for."""

    def __init__(self, shape: FixerShape = FixerShape()) -> None:
        super().__init__()
        self.shape = shape
        widths = shape.widths
        self.enter = nn.Conv2d(4 * shape.num_inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList([_Block(width) for width in widths])
        self.fold = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths)])
        self.unfold = nn.ModuleList([nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([_Block(width) for width in widths[:-1]])
        self.leave = nn.Conv2d(widths[0], 4 * (6 + shape.references), 3, padding=1)
        with torch.no_grad():  # an untrained fixer changes little
            self.leave.weight.mul_(0.1)
            assert self.leave.bias is not None
            self.leave.bias.zero_()
            self.leave.bias[12:16] = -3.0  # errors begin at 0.05
            self.leave.bias[20:24] = 3.0  # the render's share; 0.9 beside two photographs

    @property
    def header(self) -> tuple[str, Any]:
        """Where its file says what it is, and what that says."""
        plain = plain_of(self.shape)
        mark = {} if self.capture is None else {"capture": to_table(self.capture)}
        return _KEY, {**plain, **mark}

    def forward(
        self,
        rgb: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"],
        references: Float[Tensor, "batch channels height width"],
    ) -> Fixed:
        """Colours 0..1 on the scene's background; ``references`` as :data:`REFERENCE_CHANNELS`
        says, the nearest first. Sides of any length."""
        height, width = rgb.shape[-2:]
        unit = 2 ** len(self.shape.widths)
        whole = torch.cat([rgb, alpha, references], dim=1) - 0.5
        room = (0, -width % unit, 0, -height % unit)
        features = self.enter(functional.pixel_unshuffle(functional.pad(whole, room), 2))
        kept = []
        for level, block in enumerate(self.down):
            features = block(features)
            if level < len(self.fold):
                kept.append(features)
                features = self.fold[level](features)
        for level in reversed(range(len(self.up))):
            features = functional.pixel_shuffle(self.unfold[level](features), 2) + kept[level]
            features = self.up[level](features)
        out = functional.pixel_shuffle(self.leave(features), 2)[..., :height, :width]
        near = references.unflatten(1, (-1, REFERENCE_CHANNELS))
        known = torch.cat([torch.ones_like(alpha), near[:, :, 3]], dim=1)
        shares = out[:, 5:].softmax(dim=1) * known
        shares = shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-6)
        mixed = shares[:, :1] * rgb + (shares[:, 1:, None] * near[:, :, :3]).sum(dim=1)
        added = out[:, 4:5].sigmoid() * out[:, :3]  # so that it can be nothing
        return Fixed(rgb=mixed + added, error=_LEAST_ERROR + out[:, 3:4].clamp(max=2).exp())


class _Block(nn.Module):
    """Two residual pairs of convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = nn.ModuleList([
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
                          nn.Conv2d(width, width, 3, padding=1))
            for _ in range(2)
        ])  # fmt: skip
        with torch.no_grad():
            for pair in self.pairs:
                pair[2].weight.mul_(0.1)  # type: ignore[index]
                pair[2].bias.zero_()  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        for pair in self.pairs:
            x = x + pair(x)
        return x


def plain_of(shape: FixerShape) -> dict[str, Any]:
    """What :func:`shape_from` reads."""
    return {"references": shape.references, "widths": list(shape.widths)}


def shape_from(plain: Mapping[str, Any]) -> FixerShape:
    """The shape that plain data tells. Raises :class:`DataError` for one that cannot be."""
    references: Any = plain.get("references")
    widths: Any = plain.get("widths")
    good = type(references) is int and 1 <= references <= 16 and isinstance(widths, (list, tuple))
    if not good or not all(type(w) is int and 1 <= w <= _MOST for w in widths) or not (
        1 <= len(widths) <= 8
    ):  # fmt: skip
        raise DataError(f"a fixer of {references} photographs and the widths {widths} cannot be")
    return FixerShape(references=references, widths=tuple(widths))


def save_fixer(fixer: Fixer, path: Path) -> None:
    """Writes the weights in half precision, with the shape beside them."""
    write_tensors(path, pack_tensors(fixer.state_dict(), *fixer.header))


def load_fixer(path: Path) -> Fixer:
    """The fixer of a file, of a folder with :data:`FILE`, or the package's own (``BUILT_IN``).
    Raises :class:`DataError` for anything else, and for weights that do not belong to the shape
    beside them."""
    file = found_in(path, FILE)
    if not os.path.exists(file):
        raise DataError("no fixer is here", where=printable(file),
                        fix=f"give its file, a folder with {FILE}, or {BUILT_IN}")  # fmt: skip
    tensors, plain = read_tensors(file, _KEY, what="file of weights", most_bytes=_MOST_BYTES)
    if not isinstance(plain, dict):
        raise DataError("holds weights, but not those of a fixer", where=file,
                        fix="give one that scene4d prior train fixer made")  # fmt: skip
    with torch.device("meta"):
        made = Fixer(shape_from(plain))
    forms = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if forms != found:
        raise DataError("holds other tensors than its shape asks for", where=file)
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in tensors.values()):
        raise DataError("holds weights that are not finite numbers", where=file)
    made = Fixer(shape_from(plain))
    made.load_state_dict({name: value.float() for name, value in tensors.items()})
    if "capture" in plain:
        made.capture = from_table(
            CaptureMark, plain["capture"], where=f"{printable(file)}: capture"
        )
    return made.eval().requires_grad_(False)
