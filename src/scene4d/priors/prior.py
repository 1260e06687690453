"""What a prior is: a denoiser of pictures that says which pictures, and at which noise.

Notation, everywhere in this room: a noised picture is x_t = alpha x + sigma n with standard normal
n. A prior answers with its estimate of x, the posterior mean E[x | x_t] where it is exact.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError

Kind = Literal["rgb", "depth", "normals", "xyz"]
CHANNELS: Mapping[Kind, int] = {"rgb": 3, "depth": 1, "normals": 3, "xyz": 3}
"""What pictures may hold, with the number of channels of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """What is known of the pictures that a prior is asked about; each prior reads what it can."""

    text: str | None = None
    camera: Camera | None = None
    """Of every picture of the batch, in its order: what it was rendered with, at its size."""
    background: Float[Tensor, " 3"] | None = None
    """Behind the scene, 0..1; None: nothing is known of it."""
    picture: Float[Tensor, "*batch 3 h w"] | None = None
    """Colours, -1..1, that are given: those whose depth is asked for, a video's first frame."""


NOTHING = Condition()


@dataclass(frozen=True, kw_only=True)
class PriorInfo:
    """What a prior takes and where it is valid, as plain data."""

    channels: tuple[Kind, ...] = ("rgb",)
    """In the order of a picture's channels: ("rgb", "depth") has four."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Of clean pictures."""
    ratios: tuple[float, float] = (0.0, math.inf)
    """Where it is valid: the least and the largest sigma / alpha."""
    conditions: frozenset[str] = frozenset()
    """Fields of :class:`Condition` that change its answer."""
    needs_picture: bool = False
    """Whether it only answers about a picture that is given."""
    size: tuple[int, int] | None = None
    """Width and height of its pictures; None: any."""
    longest_side: int | None = None
    """Pixels of the longer side of the pictures that it knows; None: it knows any scale."""
    frames: int | None = None
    """Pictures of a video [*batch, frames, channels, height, width]; None: single pictures
    [*batch, channels, height, width]."""
    by_time: bool = False
    """Whether what it knows of a video is how time goes on before the cameras that it learned from:
    it must be told times, and turns of a camera tell it nothing."""
    space: Literal["pixels", "latent"] = "pixels"
    latent_channels: int | None = None
    """Of what the denoiser takes, where that are latents."""

    @property
    def num_channels(self) -> int:
        """All of those that the denoiser takes."""
        if self.space == "latent" and self.latent_channels is not None:
            return self.latent_channels
        return sum(CHANNELS[kind] for kind in self.channels)


@dataclass(frozen=True, kw_only=True)
class CaptureMark:
    """Which capture a network was customised for, as plain data."""

    name: str
    digest: str
    """Of the names and sizes of its pictures' files."""


class Prior(nn.Module, ABC):
    """A distribution of pictures, known by its denoiser."""

    info: PriorInfo = PriorInfo()
    capture: CaptureMark | None = None
    """Of the capture that it was customised for."""

    @abstractmethod
    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """The clean pictures x0 behind ``x_t`` = alpha x + sigma n. One level for each picture, or
        for each video, whose pictures are one more axis before the channels."""

    @property
    def num_pictures(self) -> int | None:
        """Pictures of a video, before it is encoded; None: it knows single pictures."""
        return self.info.frames

    def of_videos(self, num_pictures: int) -> Prior:
        """The prior of videos of so many pictures, or of the most up to them. Raises
        :class:`UsageError` where it knows none."""
        if self.num_pictures != num_pictures:
            known = "single pictures" if self.info.frames is None else (
                f"videos of {self.num_pictures} pictures"
            )  # fmt: skip
            raise UsageError(f"videos of {num_pictures} pictures of a prior that knows {known}",
                             where=type(self).__name__)  # fmt: skip
        return self

    def reusing(self, most: float) -> AbstractContextManager[None]:
        """Within it, answers along one trajectory may reuse what the last one was made of, where
        what they can tell changed by a share of at most ``most``. Raises :class:`UsageError` where
        a prior has no such way."""
        raise UsageError("this prior reuses nothing from step to step", where=type(self).__name__,
                         fix="leave --reuse out")  # fmt: skip

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """:meth:`denoise`."""
        return self.denoise(*args, **kwargs)


class LatentPrior(Prior):
    """A prior whose denoiser may be one of latents: :attr:`PriorInfo.space` says so."""

    @abstractmethod
    def encode(
        self, pictures: Float[Tensor, "*batch channels h w"]
    ) -> Float[Tensor, "*batch latent_channels height width"]:
        """The latents of pictures in the prior's value range."""

    @abstractmethod
    def decode(
        self, latents: Float[Tensor, "*batch latent_channels height width"]
    ) -> Float[Tensor, "*batch channels h w"]:
        """The pictures of latents."""


def broadcast(level: Float[Tensor, " *batch"], like: Tensor) -> Tensor:
    """One number for each picture, shaped to multiply pictures."""
    return level.reshape(*level.shape, *[1] * (like.ndim - level.ndim)).to(like)


def check_pictures(prior: Prior, x: Tensor) -> None:
    """Raises :class:`UsageError` where ``x`` are no pictures of the prior's kind."""
    info = prior.info
    axes = 3 if info.frames is None else 4
    if x.ndim < axes or x.shape[-3] != info.num_channels:
        raise UsageError(
            f"pictures of shape {list(x.shape)} were given to a prior of "
            f"{'+'.join(info.channels)} ({info.num_channels} channels)",
            where=type(prior).__name__,
            fix="give [*batch, channels, height, width]"
            + ("" if info.frames is None else f", of {info.frames} frames before the channels"),
        )
    if info.frames is not None and x.shape[-4] != info.frames:
        raise UsageError(f"a video of {x.shape[-4]} frames, {info.frames} are expected",
                         where=type(prior).__name__)  # fmt: skip
    if info.size is not None and (x.shape[-1], x.shape[-2]) != info.size:
        raise UsageError(
            f"pictures of {x.shape[-1]}x{x.shape[-2]} pixels, "
            f"{info.size[0]}x{info.size[1]} are expected",
            where=type(prior).__name__,
        )


def check_of_pictures(prior: Prior, *, videos: bool = False) -> None:
    """Raises :class:`UsageError` for a prior of videos, unless these are asked for, and for one of
    what a picture that is given looks like in depth or normals, whose scale is its own."""
    info, where = prior.info, type(prior).__name__
    if info.frames is not None and not videos:
        raise UsageError(f"a prior of videos of {info.frames} frames knows no single pictures",
                         where=where, fix="give a prior of pictures")  # fmt: skip
    if info.needs_picture:
        raise UsageError(f"a prior of {'+'.join(info.channels)} of a picture that is given knows "
                         "nothing without it", where=where,
                         fix="give a prior that needs no picture")  # fmt: skip


def check_ratios(prior: Prior, alpha: Tensor, sigma: Tensor) -> None:
    """Raises :class:`UsageError` for noise at which the prior knows nothing."""
    low, high = prior.info.ratios
    ratio = sigma / alpha
    slack = 1e-5  # float32 levels that lie on the end itself
    if bool((ratio < low * (1 - slack)).any()) or bool((ratio > high * (1 + slack)).any()):
        got = f"{float(ratio.min()):.3g} to {float(ratio.max()):.3g}"
        raise UsageError(
            f"sigma/alpha of {got} lies outside of where this prior is valid, {low:g} to {high:g}",
            where=type(prior).__name__,
            fix="ask it at other noise levels",
        )
    if not bool(torch.isfinite(ratio).all()):
        raise UsageError("sigma/alpha is not finite", where=type(prior).__name__)
