"""Our own prior: a convolutional U-Net with the preconditioning of EDM (Karras et al. 2022).

With x = x_t / alpha and s = sigma / alpha the clean picture is

    D(x; s) = c_skip x + c_out F(c_in x; c_noise),

c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2), c_noise =
ln(s) / 4 (table 1 there), d the standard deviation of the data. Each kind of channels (colour,
depth, normals) enters and leaves by blocks of its own at full size and shares all others, at one
noise level: the expert branches of HyperHuman (Liu et al. 2024). Which blocks lie
where is a plan, as AsCAN's (Kag et al. 2024): convolutions early, attention late.

A network of videos is also told the clean picture before and the time from it (SinFusion, Nikankin
et al. 2023). What it cleans then is the difference to that picture: the same formula of x - before,
with d the standard deviation of what changes, so that an untrained one expects no change.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from scene4d.errors import DataError, UsageError
from scene4d.files import is_regular_file, printable
from scene4d.plain import from_table, to_table
from scene4d.priors.built_in import BUILT_IN, found_in
from scene4d.priors.prior import (
    CHANNELS,
    NOTHING,
    Condition,
    Kind,
    Prior,
    PriorInfo,
    broadcast,
    check_ratios,
)
from scene4d.priors.tensor_files import pack_tensors, read_tensors, write_tensors
from scene4d.priors.words import LearnedWords
from scene4d.ranges import Positive, Within

FILE = "unet.safetensors"
MOST_RATIO = 80.0
"""The largest sigma / alpha: where EDM's sampling begins."""
_KEY = "scene4d_unet"
_LEAST_RATIO = 1e-3
"""Below, the network is told this; the noise is less than half a step of 8 bits."""
_GROUPS, _HEAD = 8, 32
"""Groups of channels that are normalised, and channels of an attention head."""
_WAVES = 16
"""Frequencies by which c_noise is told."""
_LAPSES = 8
"""Those by which the time from the picture before is told: few and slow, so that between two times
that were learned it answers between them."""
_MOST_BYTES = 64 << 20
_MOST_WORDS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """What a network that is told the picture before knows of time, as plain data."""

    interval: Positive
    """Seconds from one picture to the next, of most that it learned from."""
    longest: Positive
    """The most seconds between a picture and the one that it is told, either way."""
    change: Positive
    """Standard deviation of the difference between them, of pictures of -1..1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Before:
    """What a network of videos is told of each picture of a batch."""

    pictures: Float[Tensor, "batch channels height width"]
    """The clean one before, -1..1."""
    seconds: Float[Tensor, " batch"]
    """From it to the picture that is asked about; negative where it comes after."""
    known: Bool[Tensor, " batch"] | None = None
    """False: nothing is told of this one; None: all are told."""


@dataclass(frozen=True, kw_only=True)
class UnetShape:
    """How large a network is, and which pictures it knows, as plain data."""

    channels: tuple[Kind, ...] = ("rgb", "depth")
    widths: tuple[Annotated[int, Within(8, 1024)], ...] = (16, 48, 96, 128)
    """Channels at the pictures' size, at half of it, and so on."""
    down: tuple[str, ...] = ("c", "c", "cc", "cc")
    """Blocks at each size on the way down: c, two convolutions; t, attention and a layer. Those of
    the first size are each kind's own."""
    up: tuple[str, ...] = ("c", "c", "c", "c")
    """Blocks at each size on the way up, from the same first size."""
    deviation: Positive = 0.5
    """EDM's standard deviation of the data, on pictures of -1..1."""
    size: tuple[Annotated[int, Within(1, 4096)], Annotated[int, Within(1, 4096)]] | None = None
    """Width and height of pictures that are always whole, so that a place means something: it is
    told; None: crops of any size."""
    longest_side: Annotated[int, Within(1, 1 << 16)] | None = None
    """Of the pictures that crops were taken of, in pixels."""
    vocabulary: tuple[str, ...] = ()
    """Words that it reads; none: no texts."""
    word_width: Annotated[int, Within(1, 1024)] = 64
    """Numbers that stand for a word."""
    video: VideoShape | None = None
    """Of a network that is told the picture before; None: it knows single pictures."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise UsageError(f"pictures of the channels {list(self.channels)}",
                             fix="name each kind once")  # fmt: skip
        if not 2 <= levels <= 7 or any(width % _GROUPS for width in self.widths):
            raise UsageError(f"channels {list(self.widths)} of the sizes",
                             fix=f"give two to seven multiples of {_GROUPS}")  # fmt: skip
        for name, plan in (("down", self.down), ("up", self.up)):
            good = len(plan) == levels and all(len(stage) <= 16 for stage in plan)
            if not good or any(set(stage) - {"c", "t"} for stage in plan):
                raise UsageError(f"{name} {list(plan)} is no plan of blocks of {levels} sizes",
                                 fix="give c and t for each size, such as c cc ct")  # fmt: skip
            odd = [w for stage, w in zip(plan, self.widths, strict=True) if "t" in stage
                   and w % _HEAD]  # fmt: skip
            if odd:
                raise UsageError(f"attention over {odd[0]} channels",
                                 fix=f"give a multiple of {_HEAD} there")  # fmt: skip
        if len(self.vocabulary) > _MOST_WORDS:
            raise UsageError(f"{len(self.vocabulary):,} words, at most {_MOST_WORDS:,} are learned")

    @property
    def usual_size(self) -> tuple[int, int]:
        """Width and height of pictures as it knows them, in pixels."""
        longest = self.longest_side or 64
        return self.size or (longest, 3 * longest // 4)

    @property
    def info(self) -> PriorInfo:
        """What it takes and where it is valid."""
        return PriorInfo(
            channels=self.channels, ratios=(0.0, MOST_RATIO), size=self.size,
            longest_side=self.longest_side,
            conditions=frozenset({"text"} if self.vocabulary else ()),
        )  # fmt: skip


class UnetPrior(Prior):
    """Pictures as the network knows them."""

    def __init__(self, shape: UnetShape = UnetShape()) -> None:
        super().__init__()
        self.shape, self.info = shape, shape.info
        told = shape.widths[-1]
        self.noise = nn.Sequential(nn.Linear(2 * _WAVES, told), nn.SiLU(), nn.Linear(told, told))
        if shape.vocabulary:
            self.words = LearnedWords(shape.vocabulary, shape.word_width)
            self.text = nn.Linear(shape.word_width, told)
        self.lapses: Tensor
        if shape.video is not None:
            self.lapse = nn.Sequential(nn.Linear(2 * _LAPSES, told), nn.SiLU(),
                                       nn.Linear(told, told))  # fmt: skip
            self.alone = nn.Parameter(torch.zeros(told))
            slow = 0.25 * 2.0 ** torch.linspace(0, 2, _LAPSES)
            self.register_buffer("lapses", slow, persistent=False)
        self.branches = nn.ModuleList(_Branch(CHANNELS[k], shape, told) for k in shape.channels)
        widths = shape.widths[1:]
        self.down, self.up = (
            nn.ModuleList(_Blocks(p, w, told) for p, w in zip(plan[1:], widths, strict=True))
            for plan in (shape.down, shape.up)
        )
        self.fold = nn.ModuleList(_fold(a, b) for a, b in pairwise(widths))
        self.unfold = nn.ModuleList(_unfold(b, a) for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[:-1])
        self.waves: Tensor
        waves = 0.25 * 2.0 ** torch.linspace(0, 5, _WAVES)
        self.register_buffer("waves", waves, persistent=False)

    @property
    def header(self) -> tuple[str, Any]:
        """Where its file says what it is, and what that says."""
        return _KEY, to_table(self.shape)

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """The network's answer. Raises :class:`UsageError` for more noise than it knows, and for
        words that no caption had."""
        check_ratios(self, alpha, sigma)
        noisy = (x_t / broadcast(alpha, x_t)).flatten(0, -4).to(self.waves)
        ratios = (sigma / alpha).flatten().to(self.waves)
        texts = None if condition.text is None else [condition.text] * len(noisy)
        return self.cleaned(noisy, ratios, texts).reshape(x_t.shape).to(x_t)

    def cleaned(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        ratios: Float[Tensor, " batch"],
        texts: Sequence[str] | None = None,
        before: Before | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """D(x; s) of pictures x = clean + s n, each with its text; "" and None are no text.
        ``before``: of a network of videos; None: nothing is told."""
        s = broadcast(ratios, noisy)
        mean, deviation = self.expected(noisy, before)
        d, off = broadcast(deviation, noisy), noisy - mean
        total = s.square() + d * d
        told = self._told(0.25 * ratios.clamp_min(_LEAST_RATIO).log(), texts, before)
        given = [off * total.rsqrt()] if self.shape.video is None else [off * total.rsqrt(), mean]
        return mean + d * d / total * off + s * d * total.rsqrt() * self._network(given, told)

    def expected(
        self, like: Float[Tensor, "batch channels height width"], before: Before | None = None
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Mean and standard deviation of clean pictures of which nothing is seen yet: 0 and the
        data's, or the picture before and those of what changes."""
        deviation = like.new_full((len(like),), self.shape.deviation)
        if before is None:
            return torch.zeros_like(like), deviation
        assert self.shape.video is not None
        if before.known is None:
            return before.pictures.to(like), torch.full_like(deviation, self.shape.video.change)
        there = before.known[:, None, None, None]
        mean = torch.where(there, before.pictures.to(like), 0.0)
        return mean, torch.where(before.known, self.shape.video.change, deviation)

    def _told(
        self, c_noise: Float[Tensor, " batch"], texts: Sequence[str] | None, before: Before | None
    ) -> Float[Tensor, "batch told"]:
        """What every block is told: the noise, the text, and the time from the picture before."""
        told = self.noise(_waves(c_noise, self.waves))
        if self.shape.vocabulary and texts is not None:
            known = {text: self.words(text).mean(dim=0) for text in set(texts) if text}
            nothing = told.new_zeros(self.shape.word_width)
            told = told + self.text(torch.stack([known.get(text, nothing) for text in texts]))
        elif self.shape.vocabulary:
            told = told + self.text.bias
        if self.shape.video is not None:
            told = told + self._lapse(self.shape.video, before)
        return functional.silu(told)

    def _lapse(self, video: VideoShape, before: Before | None) -> Float[Tensor, "*batch told"]:
        if before is None:
            return self.alone
        seconds = before.seconds.to(self.lapses) / video.longest
        found: Tensor = self.lapse(_waves(seconds, self.lapses))
        return found if before.known is None else torch.where(
            before.known[:, None], found, self.alone.to(found)
        )  # fmt: skip

    def _network(
        self,
        given: Sequence[Float[Tensor, "batch channels height width"]],
        told: Float[Tensor, "batch told"],
    ) -> Float[Tensor, "batch channels height width"]:
        height, width = given[0].shape[-2:]
        unit = 1 << (len(self.shape.widths) - 1)
        room = (0, -width % unit, 0, -height % unit)
        sizes = [CHANNELS[kind] for kind in self.shape.channels]
        split = [functional.pad(x, room, mode="replicate").split(sizes, dim=1) for x in given]
        entered = [branch.enter(torch.cat(parts, dim=1), told)
                   for branch, parts in zip(self._branches, zip(*split, strict=True), strict=True)
                   ]  # fmt: skip
        x = torch.stack([folded for folded, _ in entered]).mean(dim=0)
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            x = blocks(x if level == 0 else self.fold[level - 1](x), told)
            kept.append(x)
        x = self.up[-1](x, told)
        for level in reversed(range(len(self.join))):
            x = torch.cat([self.unfold[level](x), kept[level]], dim=1)
            x = self.up[level](self.join[level](x), told)
        left = [branch.leave(x, own, told)
                for branch, (_, own) in zip(self._branches, entered, strict=True)]  # fmt: skip
        return torch.cat(left, dim=1)[..., :height, :width]

    @property
    def _branches(self) -> Sequence[_Branch]:
        return list(self.branches)  # type: ignore[arg-type]


class _Branch(nn.Module):
    """The way of one kind of channels into the shared network and out of it, at full size."""

    def __init__(self, channels: int, shape: UnetShape, told: int) -> None:
        super().__init__()
        width, below = shape.widths[:2]
        self.placed = shape.size is not None
        given = channels * (1 if shape.video is None else 2) + 2 * self.placed
        self.first = nn.Conv2d(given, width, 3, padding=1)
        self.down, self.up = (_Blocks(plan[0], width, told) for plan in (shape.down, shape.up))
        self.fold, self.unfold = _fold(width, below), _unfold(below, width)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.last = _zero(nn.Conv2d(width, channels, 3, padding=1))

    def enter(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The features at half the size, and those that are kept for the way out."""
        if self.placed:
            across, down = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[:-3:-1])
            places = torch.stack(torch.meshgrid(down, across, indexing="ij"))
            x = torch.cat([x, places.to(x).expand(len(x), -1, -1, -1)], dim=1)
        own = self.down(self.first(x), told)
        return self.fold(own), own

    def leave(self, x: Tensor, own: Tensor, told: Tensor) -> Tensor:
        """The channels."""
        x = self.up(self.join(torch.cat([self.unfold(x), own], dim=1)), told)
        made: Tensor = self.last(functional.silu(self.norm(x)))
        return made


class _Blocks(nn.Module):
    """Blocks of one size, as a plan has them."""

    def __init__(self, plan: str, width: int, told: int) -> None:
        super().__init__()
        kinds = {"c": _Convolutions, "t": _Attention}
        self.blocks = nn.ModuleList(kinds[letter](width, told) for letter in plan)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, told)
        return x


class _Modulated(nn.Module):
    """Normalised channels, scaled and shifted by what is told (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.tell = _zero(nn.Linear(told, 2 * width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.tell(told)[..., None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class _Convolutions(nn.Module):
    """Two convolutions; at first the identity."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.into = nn.Conv2d(width, width, 3, padding=1)
        self.modulated = _Modulated(width, told)
        self.out = _zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        inner = self.into(functional.silu(self.norm(x)))
        made: Tensor = x + self.out(functional.silu(self.modulated(inner, told)))
        return made


class _Attention(nn.Module):
    """Attention of all places to each other beside a layer on each, with one way out; at first the
    identity."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.modulated = _Modulated(width, told)
        self.heads = width // _HEAD
        self.into = nn.Linear(width, 5 * width)
        self.out = _zero(nn.Linear(3 * width, width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        width = x.shape[1]
        places = self.modulated(x, told).flatten(2).mT
        triple, each = self.into(places).split([3 * width, 2 * width], dim=-1)
        heads = triple.unflatten(-1, (3, self.heads, _HEAD)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        made = self.out(torch.cat([seen, functional.silu(each)], dim=-1))
        return x + made.mT.unflatten(2, x.shape[-2:])


def _waves(
    values: Float[Tensor, " batch"], frequencies: Float[Tensor, " waves"]
) -> Float[Tensor, "batch two_waves"]:
    angles = 2 * math.pi * values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _fold(width: int, below: int) -> nn.Module:
    """To half the size."""
    return nn.Conv2d(width, below, 2, stride=2)


def _unfold(below: int, width: int) -> nn.Module:
    """To twice the size."""
    return nn.Sequential(nn.Conv2d(below, 4 * width, 1), nn.PixelShuffle(2))


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def shape_from(plain: Any, *, where: object) -> UnetShape:
    """The shape that plain data tells. Raises :class:`DataError` for one that cannot be."""
    return from_table(UnetShape, plain, where=where)


def save_unet(prior: UnetPrior, path: Path) -> None:
    """Writes the weights in half precision, with the shape beside them."""
    write_tensors(path, pack_tensors(prior.state_dict(), *prior.header))


def load_unet(path: Path) -> UnetPrior:
    """The prior of a file, of a folder with :data:`FILE`, or the package's own (``BUILT_IN``).
    Raises :class:`DataError` for anything else, and for weights that do not belong to the shape
    beside them."""
    made = read_unet(path, FILE)
    if made.shape.video is not None:
        raise DataError("knows videos, not single pictures", where=path,
                        fix=f"give frames:{printable(path)}")  # fmt: skip
    return made


def read_unet(path: Path, name: str) -> UnetPrior:
    """The network of a file, or of a folder with one of this name, of pictures or of videos. Raises
    as :func:`load_unet`."""
    file = found_in(path, name)
    if not os.path.exists(file):
        raise DataError("no network is here", where=printable(file),
                        fix=f"give a file of weights, or a folder with {name}")  # fmt: skip
    tensors, plain = read_tensors(file, _KEY, what="file of weights", most_bytes=_MOST_BYTES)
    if not isinstance(plain, Mapping):
        raise DataError("holds weights, but not those of a U-Net prior", where=file,
                        fix="give one that scene4d prior train made")  # fmt: skip
    shape = shape_from(plain, where=f"{printable(file)}: shape")
    with torch.device("meta"):
        forms = {n: tuple(v.shape) for n, v in UnetPrior(shape).state_dict().items()}
    if forms != {name: tuple(value.shape) for name, value in tensors.items()}:
        raise DataError("holds other tensors than its shape asks for", where=file)
    if not all(t.is_floating_point() and bool(t.isfinite().all()) for t in tensors.values()):
        raise DataError("holds weights that are not finite numbers", where=file)
    made = UnetPrior(shape)
    made.load_state_dict({name: value.float() for name, value in tensors.items()})
    return made.eval().requires_grad_(False)


class UnetKind:
    """Our own networks as ``--prior`` finds them."""

    description = (
        f"our own RGB-D prior, or a file that scene4d prior train made, {FILE}, or its folder"
    )

    def takes(self, place: Path) -> bool:
        """Whether it is such a file by name, or holds one."""
        return place.name == FILE or is_regular_file(place / FILE)

    def load(self, place: Path | None, task: object) -> UnetPrior:
        """The prior; without a place the package's own."""
        return load_unet(BUILT_IN if place is None else place)
