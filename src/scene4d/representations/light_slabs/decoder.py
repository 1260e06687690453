"""From features of a coarse bundle of rays to a picture: 1x1 convolutions, then sub-pixel steps.

LightSpeed (arXiv 2310.16832) after R2L (arXiv 2203.17261); sub-pixel convolution of Shi et al.
2016. Convolutions are unpadded and the bundle reaches beyond the picture (``halo``), so that what
is decoded for a part of a picture is that part of what is decoded for the whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

OUTPUTS = 5
"""Red, green, blue, alpha, disparity."""


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder."""

    inputs: int
    """Features of a ray of the bundle."""
    width: int = 128
    blocks: int = 4
    """Residual blocks of two 1x1 convolutions."""
    channels: tuple[int, ...] = (32, 16)
    """After each doubling of the resolution but the last: the bundle is 2^(n+1) times coarser than
    the picture."""
    skips: tuple[int, ...] = ()
    """Features that come in at each of these resolutions, coarse to fine; () for none."""

    @property
    def upsampling(self) -> int:
        """Pixels along an axis for one ray of the bundle."""
        return 2 ** (len(self.channels) + 1)

    @property
    def halo(self) -> int:
        """Rays of the bundle beyond each edge of the picture: the 3x3 convolutions at 2, 4, ...
        times its resolution reach 1/2 + 1/4 + ... of its rays."""
        return 1

    def halo_at(self, stage: int) -> int:
        """The same in samples of the resolution after ``stage`` + 1 doublings, as the convolution
        there takes them."""
        rings = self.halo
        for _ in range(stage):
            rings = 2 * rings - 1
        return 2 * rings

    def plain(self) -> dict[str, Any]:
        """As numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> DecoderShape:
        """From :meth:`plain`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})

    def macs(self, width: int, height: int) -> int:
        """Multiply-accumulates for a picture, its halo included."""
        step = self.upsampling
        across, down = -(-width // step) + 2 * self.halo, -(-height // step) + 2 * self.halo
        first = self.channels[0] if self.channels else OUTPUTS
        per_ray = self.width * (self.inputs + 2 * self.blocks * self.width + 4 * first)
        total = across * down * per_ray
        outs = [*self.channels[1:], OUTPUTS]
        for stage, channels in enumerate(self.channels):
            across, down = 2 * across - 2, 2 * down - 2
            into = channels + (self.skips[stage] if self.skips else 0)
            total += across * down * 9 * into * 4 * outs[stage]
        return total


class Decoder(nn.Module):
    """The network of every slab of a scene."""

    def __init__(self, shape: DecoderShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.first = nn.Linear(shape.inputs, shape.width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Linear(shape.width, shape.width) for _ in range(2)])
            for _ in range(shape.blocks)
        )
        outs = [*shape.channels, OUTPUTS]
        self.last = nn.Linear(shape.width, 4 * outs[0])
        self.sharpen = nn.ModuleList(
            nn.Conv2d(c + (shape.skips[i] if shape.skips else 0), 4 * outs[i + 1], 3)
            for i, c in enumerate(shape.channels)
        )
        self._start(generator)

    def forward(
        self,
        features: Float[Tensor, "n rows columns inputs"],
        skips: tuple[Tensor, ...] = (),
    ) -> Float[Tensor, "n outputs height width"]:
        """Raw outputs (before sigmoids) of the picture within the halo.

        ``skips``: features [n, rows, columns, channels] at the resolution of each stage, with the
        rings of :meth:`DecoderShape.halo_at`.
        """
        x = self.first(features)
        for into, out in self.blocks:
            x = x + out(torch.relu(into(torch.relu(x))))
        x = self.last(torch.relu(x)).permute(0, 3, 1, 2)  # channels last in memory
        x = pixel_shuffle(x, 2)
        for stage, conv in enumerate(self.sharpen):
            x = torch.relu(x)
            if skips:
                x = torch.cat([x, skips[stage].permute(0, 3, 1, 2)], dim=1)
            x = pixel_shuffle(conv(x.contiguous(memory_format=torch.channels_last)), 2)
        ring = self.shape.halo_at(len(self.sharpen))
        return x[..., ring : x.shape[-2] - ring, ring : x.shape[-1] - ring]

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """He's variance; the blocks' second layers small, so that they start near the identity."""
        layers = [m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        small = [block[1] for block in self.blocks]
        for layer in layers:
            fan = layer.weight[0].numel()
            std = (2.0 / fan) ** 0.5 * (0.2 if layer in small else 1.0)
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(noise * std)
            nn.init.zeros_(layer.bias)
