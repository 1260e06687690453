"""A predictor of frames: what a picture becomes a moment later, or was a moment before.

SinFusion's idea (Nikankin et al. 2023): a diffusion model of one picture of a video, which is told
the picture before and the signed time between them, learns from pairs of pictures of a single
video. The network is that of :mod:`scene4d.priors.unet`. It knows what the cameras that it learned
from saw: where they moved, their own way is part of what "a moment later" means.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError, UsageError
from scene4d.files import is_regular_file, printable
from scene4d.priors.prior import (
    CHANNELS,
    NOTHING,
    Condition,
    Prior,
    broadcast,
    check_pictures,
    check_ratios,
)
from scene4d.priors.sampling import sample
from scene4d.priors.unet import Before, UnetPrior, read_unet

FILE = "frames.safetensors"
FRAMES = 4
"""Pictures of a video where nobody says how many."""


class FramesPrior(Prior):
    """Videos of any length: each picture by the one before it.

    Of noised videos the picture before is the clean one that the predictor just made of its own
    noised picture: what it was trained on are clean ones, and so what is given at the start, the
    first picture, reaches all others. At much noise these are means, which blur from one picture to
    the next.
    """

    def __init__(self, network: UnetPrior, frames: int = FRAMES) -> None:
        super().__init__()
        assert network.shape.video is not None
        self.network, self.video = network, network.shape.video
        self.info = replace(
            network.info, frames=frames, by_time=True, conditions=frozenset({"picture", "camera"})
        )

    def of_videos(self, num_pictures: int) -> FramesPrior:
        """That of so many."""
        return FramesPrior(self.network, num_pictures)

    def after(self, picture: Float[Tensor, "channels height width"], seconds: float) -> NextPicture:
        """What ``picture`` is ``seconds`` later, or was before. Raises :class:`UsageError` for
        longer times than were learned."""
        return NextPicture(self.network, picture, float(self._learned(torch.tensor(seconds))))

    def denoise(
        self,
        x_t: Float[Tensor, "*batch frames channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch frames channels height width"]:
        """Clean videos. ``condition``: the pictures' cameras, whose times count and nothing else,
        and the colours of the first picture; without these it is cleaned alone.

        Raises :class:`UsageError` without times, for times between pictures that were not learned,
        and for a first picture of another size.
        """
        check_pictures(self, x_t)
        check_ratios(self, alpha, sigma)
        noisy = (x_t / broadcast(alpha, x_t)).reshape(-1, *x_t.shape[-4:])
        ratios = (sigma / alpha).reshape(-1).to(noisy)
        steps = self._steps(condition, len(noisy)).to(noisy)
        found = [self._first(noisy[:, 0], ratios, condition.picture)]
        for number in range(1, noisy.shape[1]):
            before = Before(pictures=found[-1], seconds=steps[:, number - 1])
            found.append(self.network.cleaned(noisy[:, number], ratios, before=before))
        return torch.stack(found, dim=1).reshape(x_t.shape).to(x_t)

    def _first(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        ratios: Float[Tensor, " batch"],
        colours: Float[Tensor, "*batch 3 high wide"] | None,
    ) -> Float[Tensor, "batch channels height width"]:
        """The first picture: cleaned alone, with the colours that are given in place of its own."""
        if colours is None:
            return self.network.cleaned(noisy, ratios)
        if colours.shape[-2:] != noisy.shape[-2:]:
            raise UsageError(f"a first picture of {colours.shape[-1]}x{colours.shape[-2]} pixels "
                             f"of a video of {noisy.shape[-1]}x{noisy.shape[-2]}",
                             where=type(self).__name__)  # fmt: skip
        colours = colours.reshape(-1, *colours.shape[-3:]).to(noisy)
        if self.info.channels == ("rgb",):
            return colours.expand(noisy.shape)
        parts = self.network.cleaned(noisy, ratios).split(
            [CHANNELS[kind] for kind in self.info.channels], dim=1
        )
        return torch.cat([
            colours.expand(part.shape) if kind == "rgb" else part
            for kind, part in zip(self.info.channels, parts, strict=True)
        ], dim=1)  # fmt: skip

    def _steps(self, condition: Condition, videos: int) -> Float[Tensor, "batch steps"]:
        """Seconds from each picture to the next."""
        frames = self.info.frames
        assert frames is not None
        if frames == 1:
            return torch.zeros(videos, 0)
        if condition.camera is None or condition.camera.time is None:
            raise UsageError("a predictor of frames has to be told when pictures were taken",
                             where=type(self).__name__,
                             fix="give cameras with times, or a prior of pictures")  # fmt: skip
        times = condition.camera.time.reshape(-1, frames)
        return self._learned(times.diff()).expand(videos, -1)

    def _learned(self, seconds: Tensor) -> Tensor:
        longest = self.video.longest
        if bool((seconds.abs() > longest * (1 + 1e-3)).any()):  # times may be float32
            raise UsageError(
                f"{float(seconds.abs().max()):.3g} s from one picture to the next of a predictor "
                f"that learned up to {longest:.3g} s", where=type(self).__name__,
                fix="ask for shorter times or more pictures",
            )  # fmt: skip
        return seconds


class NextPicture(Prior):
    """Pictures some time after one that is known."""

    def __init__(
        self, network: UnetPrior, picture: Float[Tensor, "channels height width"], seconds: float
    ) -> None:
        super().__init__()
        self.network, self.info = network, network.info
        self.picture, self.seconds = picture, seconds

    def denoise(
        self,
        x_t: Float[Tensor, "batch channels height width"],
        alpha: Float[Tensor, " batch"],
        sigma: Float[Tensor, " batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "batch channels height width"]:
        """The network's answer; ``condition`` is not read."""
        check_pictures(self, x_t)
        check_ratios(self, alpha, sigma)
        ratios = (sigma / alpha).to(x_t)
        seconds = ratios.new_full((len(x_t),), self.seconds)
        before = Before(pictures=self.picture.expand(x_t.shape), seconds=seconds)
        return self.network.cleaned(x_t / broadcast(alpha, x_t), ratios, before=before)


def continued(
    prior: FramesPrior,
    colours: Float[Tensor, "3 height width"] | None,
    *,
    count: int,
    size: tuple[int, int],
    seconds: float | None = None,
    steps: int = 50,
    generator: torch.Generator,
) -> Float[Tensor, "count channels height width"]:
    """A video that goes on picture after picture, each drawn out of noise.

    ``colours``: its first picture, -1..1; None: the predictor draws one, of the width and height
    ``size``. ``seconds``: from one to the next, negative: backwards; None: the usual. Raises
    :class:`UsageError` for longer times than were learned.
    """
    seconds = prior.video.interval if seconds is None else seconds
    channels, (width, height) = prior.info.num_channels, size
    if colours is not None:
        height, width = colours.shape[-2:]
    shape = (1, channels, height, width)
    known = Condition(picture=None if colours is None else colours[None])
    first = sample(
        prior.of_videos(1), None, shape=(1, *shape), steps=steps, condition=known,
        generator=generator,
    )  # fmt: skip
    pictures = [first[0, 0]]
    while len(pictures) < count:
        after = prior.after(pictures[-1], seconds)
        pictures.append(sample(after, None, shape=shape, steps=steps, generator=generator)[0])
    return torch.stack(pictures)


def load_frames(path: Path) -> FramesPrior:
    """The prior of a file, or of a folder with :data:`FILE`. Raises :class:`DataError` for anything
    else, such as a network of single pictures."""
    network = read_unet(path, FILE)
    if network.shape.video is None:
        raise DataError("knows single pictures, not videos", where=path,
                        fix=f"give unet:{printable(path)}")  # fmt: skip
    return FramesPrior(network)


class FramesKind:
    """Predictors of frames as ``--prior`` finds them."""

    description = f"a predictor of frames that scene4d prior train made, {FILE}, or its folder"

    def takes(self, place: Path) -> bool:
        """Whether it is such a file by name, or holds one."""
        return place.name == FILE or is_regular_file(place / FILE)

    def load(self, place: Path | None, task: object) -> FramesPrior:
        """The prior. Raises :class:`UsageError` without a place."""
        if place is None:
            raise UsageError("a predictor of frames needs its weights", where="--prior",
                             fix="give frames:FOLDER, or the folder alone")  # fmt: skip
        return load_frames(place)
