"""Pairs of pictures that a predictor of frames is trained on: of one camera, shortly after each
other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.data.scene import Scene
from scene4d.data.trajectories import time_of, trajectories
from scene4d.errors import DataError, UsageError
from scene4d.methods.picture_prior.frames_method import PredictingOptions
from scene4d.methods.picture_prior.pictures import Reduced, scenes_of
from scene4d.priors.prior import Kind
from scene4d.priors.unet import VideoShape
from scene4d.training.next_frames import late_of

_LEAST_CHANGE = 0.005
"""Of the deviation of what changes: a step of 8 bits is 0.008 of -1..1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """What one camera took, in the order of time."""

    pictures: Float[Tensor, "n channels height width"]
    """-1..1, all kinds in order."""
    known: Float[Tensor, "n channels height width"]
    """1 where a value says something, else 0."""
    seconds: Float[Tensor, " n"]
    """When; float64."""

    @property
    def interval(self) -> float:
        """Seconds from one to the next, of most."""
        return float(self.seconds.diff().median())

    def pairs(self, apart: int) -> Int[Tensor, "pairs 2"]:
        """Rows of the picture before and of the one that is asked about, each within so many usual
        steps of the other, either way."""
        lapse = self.seconds[None, :] - self.seconds[:, None]
        return (lapse.abs() <= (apart + 0.5) * self.interval).nonzero()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """A batch."""

    before: Float[Tensor, "batch channels height width"]
    pictures: Float[Tensor, "batch channels height width"]
    known: Float[Tensor, "batch channels height width"]
    """Of the pictures; 1 where a value says something, else 0."""
    seconds: Float[Tensor, " batch"]
    """From the one before; negative where it comes after."""


class Videos:
    """All that is learned from: :class:`Film` of two pictures or more."""

    def __init__(
        self, channels: tuple[Kind, ...], films: Sequence[Film], longest_side: int, apart: int
    ) -> None:
        self.channels, self.films, self.longest_side = channels, films, longest_side
        self._pairs = [film.pairs(apart) for film in films]
        self._ends = torch.tensor([len(pairs) for pairs in self._pairs]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def longest(self) -> float:
        """The most seconds between two pictures of a pair."""
        return max(
            float((film.seconds[pairs[:, 1]] - film.seconds[pairs[:, 0]]).max())
            for film, pairs in zip(self.films, self._pairs, strict=True)
        )

    def shape(self) -> VideoShape:
        """Times, and how much changes in a pair, as a root mean square."""
        squares, count = 0.0, 0.0
        for film, pairs in zip(self.films, self._pairs, strict=True):
            for before, after in pairs.tolist():
                known = film.known[before] * film.known[after]
                off = (film.pictures[after] - film.pictures[before]) * known
                squares, count = squares + float(off.square().sum()), count + float(known.sum())
        change = max((squares / max(count, 1.0)) ** 0.5, _LEAST_CHANGE)
        interval = median(film.interval for film in self.films)
        return VideoShape(interval=interval, longest=self.longest, change=change)

    def pairs(
        self, count: int, size: int, generator: torch.Generator, *, mirrored: float = 0.0
    ) -> Pairs:
        """``count`` pairs drawn evenly, both pictures cut alike, to ``size`` pixels or as many as
        the smallest picture has; takes the same random numbers for each."""
        sides = (min(size, *(f.pictures.shape[axis] for f in self.films)) for axis in (-1, -2))
        width, height = sides
        u = torch.rand(count, 4, generator=generator, dtype=torch.float64)
        rows = [self._pair(row, width, height, mirrored) for row in u.tolist()]
        before, pictures, known, seconds = zip(*rows, strict=True)
        return Pairs(
            before=torch.stack(before), pictures=torch.stack(pictures), known=torch.stack(known),
            seconds=torch.stack(seconds).float(),
        )  # fmt: skip

    def _pair(
        self, u: Sequence[float], width: int, height: int, mirrored: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        number = min(int(u[0] * len(self)), len(self) - 1)
        place = int((self._ends <= number).sum())
        film, pairs = self.films[place], self._pairs[place]
        i, j = pairs[number - int(self._ends[place]) + len(pairs)].tolist()
        high, wide = film.pictures.shape[-2:]
        x, y = int(u[1] * (wide - width + 1)), int(u[2] * (high - height + 1))
        cut = [
            part[..., y : y + height, x : x + width]
            for part in (film.pictures[i], film.pictures[j], film.known[j])
        ]
        before, picture, known = (p.flip(-1) for p in cut) if u[3] < mirrored else cut
        return before, picture, known, film.seconds[j] - film.seconds[i]


def read_videos(options: PredictingOptions) -> Videos:
    """What the options name. Raises :class:`UsageError` where they name none, and
    :class:`DataError` for a capture without times, and where no camera took two pictures."""
    if not options.captures:
        raise UsageError("there is nothing to learn from",
                         fix="name captures that move with --predicting.captures")  # fmt: skip
    scenes, kinds = scenes_of(options.captures)
    films = [film for scene in scenes for film in _films(scene, kinds, options)]
    longest = max(max(film.pictures.shape[-2:]) for film in films)
    return Videos(kinds, films, longest, options.apart)


def _films(scene: Scene, kinds: tuple[Kind, ...], options: PredictingOptions) -> list[Film]:
    """Of each camera that took two training pictures or more."""
    if any(scene.frames[i].camera.time is None for i in scene.train_indices):
        raise DataError("tells no times of its pictures", where=scene.root,
                        fix="give a capture that moves, with a time for each frame")  # fmt: skip
    chosen = set(scene.train_indices)
    if options.earlier:
        chosen -= set(late_of(scene))
    paths = [p for p in trajectories(scene, chosen) if time_of(scene, p[0]) < time_of(scene, p[-1])]
    if not paths:
        raise DataError("has no camera that took two training pictures at two times",
                        where=scene.root, fix="give a video")  # fmt: skip
    every = sorted(index for path in paths for index in path)
    reduced = Reduced.of(scene, kinds, every, options.longest_side)
    return [_film(scene, reduced, path) for path in paths]


def _film(scene: Scene, reduced: Reduced, path: Sequence[int]) -> Film:
    rows = [reduced.maps(index) for index in path]
    pictures = [torch.cat([maps[kind] for kind in reduced.kinds]) for maps, _ in rows]
    known = [
        torch.cat([there[kind].expand(maps[kind].shape) for kind in reduced.kinds]).float()
        for maps, there in rows
    ]
    seconds = torch.tensor([time_of(scene, index) for index in path], dtype=torch.float64)
    return Film(pictures=torch.stack(pictures), known=torch.stack(known), seconds=seconds)
