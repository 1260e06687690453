"""From features of a coarse bundle of rays to a picture: 1x1 convolutions, then sub-pixel steps.

LightSpeed (arXiv 2310.16832) after R2L (arXiv 2203.17261); sub-pixel convolution of Shi et al.
2016. Convolutions are unpadded and the bundle reaches beyond the picture (``halo``), so that what
is decoded for a part of a picture is that part of what is decoded for the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from scene4d.plain import from_table
from scene4d.ranges import Within

OUTPUTS = 5
"""Red, green, blue, alpha, disparity."""


HALO = 1
"""Rays of the bundle beyond each edge of the picture: 3x3 convolutions at 2, 4, ... times its
resolution reach 1/2 + 1/4 + ... of its rays."""
RING = 2
"""The same in samples at each of those resolutions: doubled, then 1 less for the convolution."""


Channels = Annotated[int, Within(1, 4096)]


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder."""

    inputs: Annotated[int, Within(1, 1 << 16)]
    """Features of a sample."""
    samples: Annotated[int, Within(1, 16)] = 4
    """Along each axis for one ray of the bundle: a power of 2, at most half of ``upsampling``."""
    encoded: Channels = 16
    """Channels of a sample."""
    width: Channels = 128
    blocks: Annotated[int, Within(0, 256)] = 4
    """Residual blocks of two 1x1 convolutions."""
    channels: tuple[Channels, ...] = (32, 16)
    """After each doubling of the resolution but the last: the bundle is 2^(n+1) times coarser than
    the picture."""

    def __post_init__(self) -> None:
        if len(self.channels) > 5:
            raise ValueError(f"{len(self.channels)} doublings of the resolution")
        if self.samples not in [2**i for i in range(len(self.channels) + 1)]:
            raise ValueError(f"{self.samples} samples do not fit {self.upsampling} pixels")

    @property
    def upsampling(self) -> int:
        """Pixels along an axis for one ray of the bundle."""
        return 2 ** (len(self.channels) + 1)

    @property
    def skip(self) -> int | None:
        """The step whose convolution also sees the samples, which have its resolution."""
        return None if self.samples == 1 else self.samples.bit_length() - 2

    def plain(self) -> dict[str, Any]:
        """As numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> DecoderShape:
        """From :meth:`plain`."""
        return from_table(cls, plain, where="decoder")

    def convolutions(self) -> list[tuple[int, int]]:
        """Channels in and out of the 3x3 convolutions; a quarter of those out after doubling."""
        outs = [*self.channels[1:], OUTPUTS]
        extra = [self.encoded if step == self.skip else 0 for step in range(len(outs))]
        ins = [a + b for a, b in zip(self.channels, extra, strict=False)]
        return [(i, 4 * o) for i, o in zip(ins, outs, strict=False)]

    @property
    def values(self) -> int:
        """Weights and biases."""
        first = self.channels[0] if self.channels else OUTPUTS
        layers = [(self.inputs, self.encoded), (self.encoded * self.samples**2, self.width)]
        layers += [(self.width, self.width)] * (2 * self.blocks) + [(self.width, 4 * first)]
        layers += [(9 * i, o) for i, o in self.convolutions()]
        return sum((i + 1) * o for i, o in layers)

    def macs(self, width: int, height: int) -> int:
        """Multiply-accumulates for a picture, its halo included."""
        step, samples = self.upsampling, self.samples**2
        across, down = -(-width // step) + 2 * HALO, -(-height // step) + 2 * HALO
        first = self.channels[0] if self.channels else OUTPUTS
        trunk = samples * self.encoded + 2 * self.blocks * self.width + 4 * first
        total = across * down * (samples * self.inputs * self.encoded + self.width * trunk)
        for into, out in self.convolutions():
            across, down = 2 * across - 2, 2 * down - 2
            total += across * down * 9 * into * out
        return total


class Decoder(nn.Module):
    """The network of every slab of a scene."""

    def __init__(self, shape: DecoderShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.encode = nn.Linear(shape.inputs, shape.encoded)
        self.first = nn.Linear(shape.encoded * shape.samples**2, shape.width)
        self.blocks = nn.ModuleList(Residual(shape.width) for _ in range(shape.blocks))
        self.last = nn.Linear(shape.width, 4 * (shape.channels[0] if shape.channels else OUTPUTS))
        self.sharpen = nn.ModuleList(nn.Conv2d(i, o, 3) for i, o in shape.convolutions())
        self._start(generator)

    def forward(
        self, features: Float[Tensor, "n down across inputs"]
    ) -> Float[Tensor, "n outputs height width"]:
        """Raw outputs (before sigmoids) of the picture within the halo.

        ``features``: of the samples, HALO rays of the bundle beyond each edge included.
        """
        n, down, across, _ = features.shape
        per = self.shape.samples
        encoded = torch.relu(self.encode(features))
        blocks = encoded.view(n, down // per, per, across // per, per, -1).transpose(2, 3)
        x = self.first(blocks.flatten(3))
        for block in self.blocks:
            x = block(x)
        x = self.last(torch.relu(x)).permute(0, 3, 1, 2)  # channels last in memory
        x = pixel_shuffle(x, 2)
        for step, conv in enumerate(self.sharpen):
            x = torch.relu(x)
            if step == self.shape.skip:
                x = torch.cat([x, inner(encoded.permute(0, 3, 1, 2), per * HALO - RING)], dim=1)
            x = pixel_shuffle(conv(x.contiguous(memory_format=torch.channels_last)), 2)
        return inner(x, RING)

    @torch.no_grad()
    def start_from_nothing(self) -> None:
        """The last layer gives 0, whatever comes in."""
        last = self.sharpen[-1] if self.sharpen else self.last
        assert isinstance(last, nn.Conv2d | nn.Linear)
        last.weight.zero_()

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """He's variance; the blocks' second layers small, so that they start near the identity."""
        for name, layer in self.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            std = (2.0 / layer.weight[0].numel()) ** 0.5 * (0.2 if name.endswith(".out") else 1.0)
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(noise * std)
            if layer.bias is not None:
                layer.bias.zero_()


class Residual(nn.Module):
    """Two 1x1 convolutions of every ray, added to what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*rays width"]) -> Float[Tensor, "*rays width"]:
        """The sum."""
        return x + self.out(torch.relu(self.into(torch.relu(x))))


def inner(
    picture: Float[Tensor, "n channels height width"], ring: int
) -> Float[Tensor, "n channels inner_height inner_width"]:
    """What is left without the outermost ``ring`` pixels."""
    height, width = picture.shape[-2:]
    return picture[..., ring : height - ring, ring : width - ring]
