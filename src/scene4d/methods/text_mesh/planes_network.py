"""A network from words to three planes of features.

As AToM's text-to-triplane network (Qian et al. 2024, arXiv 2402.00867, section 3.1) it starts from
learned planes that the text modulates and doubles their size stage by stage; its blocks are placed
as AsCAN's (Kag et al. 2024, arXiv 2411.04967): asymmetric, convolutions first, attention last. The
sizes are ours: the papers' own are for GPUs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import UsageError
from scene4d.ranges import Within

_PLANES = 3
_GROUPS = 8
"""Of normalised channels."""
_HEAD = 32
"""Channels of an attention head."""
_FIRST_CHANNEL = 0.1
"""What the first channel is multiplied by: distances take it as it is, so that noise in it would
leave nothing of the ball that training starts from."""


@dataclass(frozen=True, kw_only=True)
class PlanesShape:
    """Sizes of the network."""

    words: Annotated[int, Within(1, 1 << 14)]
    """Numbers that stand for a word."""
    channels: Annotated[int, Within(8, 4096)] = 64
    plan: tuple[str, ...] = ("cc", "ct", "ct")
    """Blocks of each stage: c, convolutions within the planes; t, attention over all three and the
    words. Each stage but the first begins with planes of twice the size."""
    first: Annotated[int, Within(1, 64)] = 4
    """Texels along a side in the first stage."""
    features: Annotated[int, Within(1, 256)] = 16
    """Channels of the planes that come out."""

    def __post_init__(self) -> None:
        if not self.plan or any(not stage or set(stage) - {"c", "t"} for stage in self.plan):
            raise UsageError(
                f"the plan of blocks {list(self.plan)} is none",
                fix="give c and t for each stage, such as cc ct tt",
            )
        if len(self.plan) > 7:
            raise UsageError(f"{len(self.plan)} stages; at most 7 are possible")
        if self.channels % _HEAD:
            raise UsageError(f"{self.channels} channels", fix=f"give a multiple of {_HEAD}")

    @property
    def size(self) -> int:
        """Texels along a side of what comes out: twice those of the last stage."""
        return self.first << len(self.plan)

    def plain(self) -> dict[str, Any]:
        """As numbers and strings."""
        return {**asdict(self), "plan": list(self.plan)}


class PlanesNetwork(nn.Module):
    """From words to planes."""

    def __init__(self, shape: PlanesShape) -> None:
        super().__init__()
        self.shape = shape
        channels = shape.channels
        self.start = nn.Parameter(torch.zeros(_PLANES, channels, shape.first, shape.first))
        self.read = nn.Linear(shape.words, channels)
        self.pooled = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.SiLU(), nn.LayerNorm(channels)
        )
        self.begin = nn.Linear(channels, self.start.numel())
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Convolutions(channels) if c == "c" else _Attention(channels) for c in s)
            for s in shape.plan
        )
        self.grow = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in shape.plan[1:]
        )
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.last = nn.Conv2d(channels, 4 * shape.features, 3, padding=1)
        gains = torch.ones(shape.features, 1, 1)
        gains[0] = _FIRST_CHANNEL
        self.gains: Tensor
        self.register_buffer("gains", gains, persistent=False)

    def forward(self, words: Float[Tensor, "words width"]) -> Float[Tensor, "3 features size size"]:
        """The planes over xy, xz and yz."""
        told = self.read(words)
        pooled = self.pooled(told.mean(dim=0))
        x = self.start + self.begin(pooled).view_as(self.start)
        for number, blocks in enumerate(self.blocks):
            if number:
                x = self.grow[number - 1](F.interpolate(x, scale_factor=2, mode="nearest"))
            for block in blocks.children():
                x = block(x, told, pooled)
        return self.gains * F.pixel_shuffle(self.last(F.silu(self.norm(x))), 2)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Weights from the run's generator; blocks begin as the identity."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = (3.0 / layer.weight[0].numel()) ** 0.5
                noise = torch.rand(layer.weight.shape, generator=generator)
                layer.weight.copy_((2 * noise - 1) * bound)
                if layer.bias is not None:
                    layer.bias.zero_()
        for block in self.modules():
            if isinstance(block, _Convolutions | _Attention):
                block.out.weight.zero_()
        self.start.copy_(torch.randn(self.start.shape, generator=generator))


class _Modulated(nn.Module):
    """Normalised channels, scaled and shifted as the text has it (FiLM, Perez et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.tell = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        scale, shift = self.tell(pooled)[:, None, None].chunk(2)
        return self.norm(x) * (1 + scale) + shift


class _Convolutions(nn.Module):
    """Two convolutions, the same for each plane."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _Modulated(channels), _Modulated(channels)
        self.into = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor, pooled: Tensor) -> Tensor:
        inner = self.into(F.silu(self.first(x, pooled)))
        return x + self.out(F.silu(self.second(inner, pooled)))


class _Attention(nn.Module):
    """Attention of all texels of all planes to each other and to the words, then a layer on each;
    in parallel, with one way out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _Modulated(channels)
        self.heads = channels // _HEAD
        self.query = nn.Linear(channels, channels)
        self.keys = nn.Linear(channels, 2 * channels)
        self.words = nn.Linear(channels, 2 * channels)
        self.each = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(3 * channels, channels)

    def forward(self, x: Tensor, told: Tensor, pooled: Tensor) -> Tensor:
        planes, channels, rows, columns = x.shape
        texels = self.norm(x, pooled).permute(0, 2, 3, 1).reshape(-1, channels)
        pairs = torch.cat([self.keys(texels), self.words(told)])
        key, value = pairs.chunk(2, dim=-1)
        seen = F.scaled_dot_product_attention(
            self._split(self.query(texels)), self._split(key), self._split(value)
        )
        seen = seen[0].transpose(0, 1).reshape(-1, channels)
        inner = torch.cat([seen, F.silu(self.each(texels))], dim=-1)
        made = self.out(inner).view(planes, rows, columns, channels)
        return x + made.permute(0, 3, 1, 2)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(1, len(x), self.heads, -1).transpose(1, 2)
