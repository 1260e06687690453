"""MobileR2L's network: 1x1 convolutions on a coarse bundle of rays, then transposed convolutions.

Cao et al., "Real-Time Neural Light Field on Mobile Devices", CVPR 2023, arXiv 2212.08057: section
3.2, figure 2; sizes as in its released code. One thing differs. Published pictures are padded with
zeros where transposed convolutions reach beyond them; here the bundle has a ring of further rays,
so that a part of a picture is decoded as that part of the whole (with running statistics), and
small crops teach what whole pictures show.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.ranges import Within

HALO = 1
"""Rays of the bundle beyond each edge: transposed convolutions of 4 reach 1/2 + 1/4 + 1/8."""
COARSE = (64, 64)
"""Channels after each doubling but the last step."""
FINE = 16
"""Channels at the picture's resolution."""
BLOCKS_A_STEP = 2


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Sizes of the network."""

    inputs: Annotated[int, Within(1, 1 << 16)] = 312
    """8 points of 3 coordinates, each with sine and cosine of 6 octaves."""
    width: Annotated[int, Within(1, 4096)] = 256
    blocks: Annotated[int, Within(1, 1024)] = 29
    upsampling: Literal[8, 12] = 8
    outputs: Literal[3, 4] = 3
    """3 as published; 4 with alpha."""
    activation: Literal["relu", "gelu"] = "relu"

    def plain(self) -> dict[str, Any]:
        """As numbers and strings."""
        return asdict(self)

    def bundle(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of rays for a picture, rounded up, without the halo."""
        return -(-width // self.upsampling), -(-height // self.upsampling)

    def parameters(self) -> int:
        """Weights, biases and normalisations, in closed form."""

        def block(c: int) -> int:
            return 2 * (c * c + c) + 2 * 2 * c

        total = (self.inputs + 1) * self.width + self.blocks * block(self.width)
        into = self.width
        for out, kernel, _ in self.steps():
            total += into * out * kernel * kernel + out + BLOCKS_A_STEP * block(out)
            into = out
        return total + (into + 1) * self.outputs

    def macs(self, width: int, height: int) -> int:
        """Multiply-accumulates for a picture, without the halo: what was published."""
        columns, rows = self.bundle(width, height)
        rays = columns * rows
        total = rays * self.width * (self.inputs + 2 * self.blocks * self.width)
        into = self.width
        for out, kernel, stride in self.steps():
            total += rays * into * out * kernel * kernel
            rays *= stride * stride
            total += rays * BLOCKS_A_STEP * 2 * out * out
            into = out
        return total + rays * into * self.outputs

    def steps(self) -> list[tuple[int, int, int]]:
        """Channels, kernel and stride of each transposed convolution."""
        last = (FINE, 4, 2) if self.upsampling == 8 else (FINE, 3, 3)
        return [*((channels, 4, 2) for channels in COARSE), last]


class Network(nn.Module):
    """From encoded rays to colours."""

    def __init__(self, shape: NetworkShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.head = nn.Conv2d(shape.inputs, shape.width, 1)
        self.body = nn.Sequential(*(_Block(shape.width, shape) for _ in range(shape.blocks)))
        self.ups, self.refine = nn.ModuleList(), nn.ModuleList()
        self.strides = [stride for _, _, stride in shape.steps()]
        into = shape.width
        for out, kernel, stride in shape.steps():
            padding = (kernel - stride) // 2
            self.ups.append(nn.ConvTranspose2d(into, out, kernel, stride, padding))
            self.refine.append(nn.Sequential(*(_Block(out, shape) for _ in range(BLOCKS_A_STEP))))
            into = out
        self.last = nn.Conv2d(into, shape.outputs, 1)
        self._start(generator)

    def forward(
        self, encoded: Float[Tensor, "n inputs rows columns"]
    ) -> Float[Tensor, "n outputs height width"]:
        """Values 0..1 of the picture within the halo."""
        x = _activated(self.head(encoded), self.shape)
        x = x + self.body(x)
        for step, up in enumerate(self.ups):
            x = up(x)
            # One sample of the halo is true at the finer resolution; the others met padding.
            drop = self.strides[step] * HALO - (0 if step == len(self.ups) - 1 else HALO)
            x = x[..., drop : x.shape[-2] - drop, drop : x.shape[-1] - drop]
            x = self.refine[step](x)
        return torch.sigmoid(self.last(x))

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """torch's own bounds of uniform weights and biases, from the run's generator."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                bound = layer.weight[0].numel() ** -0.5
                for parameter in (layer.weight, layer.bias):
                    assert parameter is not None
                    noise = torch.rand(parameter.shape, generator=generator)
                    parameter.copy_((2 * noise - 1) * bound)


class _Block(nn.Module):
    """x + norm(conv(act(norm(conv(x)))))."""

    def __init__(self, channels: int, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.into, self.out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norm_into, self.norm_out = _Norm(channels), _Norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = _activated(self.norm_into(self.into(x)), self.shape)
        return x + self.norm_out(self.out(inner))


class _Norm(nn.BatchNorm2d):
    """Statistics of the batch where gradients are taken in training, else the running ones: a
    picture looked at during training neither depends on its neighbours nor changes anything."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            training=self.training and torch.is_grad_enabled(), momentum=0.1, eps=self.eps,
        )  # fmt: skip


def _activated(x: Tensor, shape: NetworkShape) -> Tensor:
    return F.gelu(x) if shape.activation == "gelu" else torch.relu(x)
