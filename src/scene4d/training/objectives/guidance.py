"""Guidance: a prior is asked what renders at cameras that nobody stood at should look like.

One render gives all channels that the prior knows, normals and places by its depth. It is
down-sampled to the prior's size after a random shift or crop, noised, denoised, and pulled by the
gradient of a score loss (:mod:`scene4d.priors.scores`). Where poses are batches of cameras, their
pictures are a video, if the prior is one of videos, or are shown as one, tiled. The memory is that
of a crop: see :meth:`Step.deferred`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scene4d.cameras.camera import Camera
from scene4d.cameras.flights import Flight, Flights
from scene4d.errors import UsageError
from scene4d.priors.prior import CHANNELS, Condition, Prior
from scene4d.priors.score_loss import Role
from scene4d.priors.scores import (
    Asked,
    Score,
    check_asked,
    inject,
    latent_gradient,
    score_gradient,
)
from scene4d.rendering.depth_normals import normals_of_depth
from scene4d.rendering.render import Render, Want
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.saved import Form, like
from scene4d.representations.task import Poses, Task
from scene4d.training.coverage import Coverage
from scene4d.training.objectives.away import cameras_beyond
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.objectives.first_frames import FirstFrames
from scene4d.training.objectives.guided_by import (
    check_prior,
    check_times,
    guider_of,
    loss_of,
    of_length,
)
from scene4d.training.objectives.places import place_code, places_seen
from scene4d.training.objectives.regenerating import Kept, Regenerated, regenerated
from scene4d.training.parallel import ALONE
from scene4d.training.step import Step, evaluating

_SIZE = 64
_OF_DEPTH = {"depth", "normals", "xyz"}
"""Channels that are made of a render's depth."""


class Guidance(Objective):
    """A prior's pull on pictures; built from :class:`GuidanceOptions`.

    Gradients are means over the values of a picture, so that the weight means the same at any size.
    Where the gradient of a picture is not finite, the picture is left out and counted.
    """

    options: GuidanceOptions
    needs_views = False

    def __init__(self, options: GuidanceOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`UsageError` for a prior of other pictures than renders are, for texts that
        it does not read, and where there is nowhere to look from."""
        super().__init__(options, inputs)
        task = inputs.task
        assert isinstance(task.prior, Prior)
        self.prior = of_length(task.prior, options)
        self.generator, self.device = inputs.generator, inputs.device
        self.own = inputs.processes.rows(options.pictures, "guided pictures (--guidance.pictures)")
        self.conditions = task.conditions
        self.background, self.extent = task.world.background, task.world.extent
        self.settled = None if task.world.times is None else task.world.times[0]
        """The second at which a scene that moves is where priors of xyz know it."""
        self.loss = loss_of(options)
        check_prior(self.prior, options)
        check_times(self.prior, task.world, options)
        self.first_frames = FirstFrames.of(task, self.prior.info)
        """Where videos begin, of priors that go on from a picture."""
        self.poses = _poses(task, options, self.prior.num_pictures, self.first_frames)
        if not self.conditions:
            told = Asked(prior=self.prior, texts=self._texts(None), guider=guider_of(options))
            check_asked(self.loss, told)
        self.coverage = None
        if options.unseen_only:
            if self.conditions:
                raise UsageError("no camera sees a generator's many scenes",
                                 fix="leave unseen_only out")  # fmt: skip
            if not task.training_cameras:
                raise UsageError("there are no training cameras that could see anything",
                                 fix="leave unseen_only out")  # fmt: skip
            self.coverage = Coverage(task.training_cameras)
        self.left_out = torch.zeros((), dtype=torch.int64)
        """Pictures whose gradient was not finite, or that were regenerated as such."""
        self.kept: Kept | None = None
        if options.target == "regenerate":
            self.kept = self._empty_ring(() if task.poses else task.training_cameras)
        self._log: dict[str, Tensor] = {}
        """Of the last guided step: lines of the log rarely fall on one."""

    @classmethod
    def applies_to(cls, inputs: ObjectiveInputs) -> bool:
        """Whether there is a prior."""
        return inputs.task.prior is not None

    def __call__(self, step: Step) -> Term:
        """The term, whose gradients are propagated already; in the log its root mean square
        gradient, the mean time, and how many pictures were left out up to now."""
        if step.number % self.options.every:
            return Term(loss=None, log=self._log)
        if self.coverage is not None:
            self.coverage.refresh(step.scene(), step.number, self.device)
        texts = [0] * self.options.pictures
        if (count := len(self.conditions)) > 0:
            texts = torch.randint(count, (len(texts),), generator=self.generator).tolist()
        if self.kept is not None:
            return self._towards_kept(step, self.kept, texts)
        cameras = self.poses.draw(self.generator, self.options.pictures)
        # Of each picture's own, so that a process need not draw those of others' pictures.
        seeds = torch.randint(1 << 62, (len(cameras),), generator=self.generator).tolist()
        own = list(zip(cameras, texts, seeds, strict=True))[self.own]
        with _apart(step, len(own)):
            part = [
                self._picture(step, self._timed(camera), self._text(number), seed)
                for camera, number, seed in own
            ]
        found = step.processes.gathered(torch.stack(part))
        counted = found[~found.isnan().any(dim=1)]
        self.left_out = self.left_out + len(found) - len(counted)
        log = {"guidance": counted[:, 0].sum() / len(found), "guidance_left_out": self.left_out}
        if len(counted):
            log["guidance_gradient"], log["guidance_time"] = counted[:, 1:].mean(dim=0)
        self._log = log
        return Term(loss=None, log=log)

    def state_tensors(self) -> dict[str, Tensor]:
        """How many pictures were left out, what the training cameras see, and what is kept."""
        maps = {} if self.coverage is None else self.coverage.state_tensors()
        kept = {} if self.kept is None else self.kept.state_tensors()
        return {"left_out": self.left_out, **maps, **kept}

    def state_forms(self) -> Mapping[str, Form]:
        """The number; maps and pictures where there are some."""
        maps = {} if self.coverage is None else self.coverage.state_forms()
        kept = {} if self.kept is None else self.kept.state_forms()
        return {**like({"left_out": self.left_out}), **maps, **kept}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores :meth:`state_tensors`."""
        if int(tensors["left_out"]) < 0:
            raise ValueError(f"{int(tensors['left_out'])} pictures were left out")
        self.left_out = tensors["left_out"].clone()
        if self.coverage is not None:
            self.coverage.load_state_tensors(tensors, self.device)
        if self.kept is not None:
            names = self.kept.state_forms()
            kept = {name: value for name, value in tensors.items() if name in names}
            self.kept.load_state_tensors(kept, self.device)

    def _text(self, number: int) -> str | None:
        """One of a generator's texts; None of a scene."""
        return self.conditions[number] if self.conditions else None

    def _timed(self, camera: Camera) -> Camera:
        at = self.options.at_time
        if at is None or camera.time is None:
            return camera
        return replace(camera, time=torch.full_like(camera.time, at))

    def _texts(self, text: str | None) -> dict[Role, str]:
        """What the prior is told: the options' texts; a generator's text goes before them."""
        options = self.options
        said: dict[Role, str] = {
            "y": text or options.prompt, "negative": options.negative_prompt, "now": options.now,
        }  # fmt: skip
        return {role: words for role, words in said.items() if words}

    def _picture(
        self, step: Step, camera: Camera, text: str | None, seed: int
    ) -> Float[Tensor, " 3"]:
        """Propagates one picture's part; its loss, the root mean square of its gradient and the
        mean time: NaN where it was left out."""
        generator = torch.Generator().manual_seed(seed)
        cut, factor = self._region(camera, generator)
        cut = cut.to(self.device)
        small = cut.downscaled(factor)
        first = self._first_frame(camera, cut, factor)
        told = [torch.tensor(torch.nan), torch.tensor(torch.nan)]

        def score(render: Render) -> Float[Tensor, ""]:
            x = self._seen_by_prior(render, cut, factor, step.background)
            found = None
            if bool(torch.isfinite(x).all()):
                asked = self._asked(small, text, x, first)
                found = self._score(x.detach(), asked, step.progress, generator)
            if found is None or not bool(torch.isfinite(found.gradient).all()):
                return torch.zeros((), device=x.device)
            gradient = found.gradient * self._guided(render, small, factor)
            told[:] = gradient.square().mean().sqrt(), found.times.mean()
            return inject(x, gradient) / x.numel()

        loss = step.deferred(
            cut, score, chunk_pixels=self.options.chunk_pixels, condition=text, want=self._want()
        )
        return torch.stack([value.detach().cpu() for value in (loss, *told)])

    def _region(self, camera: Camera, generator: torch.Generator) -> tuple[Camera, int]:
        """A part of the camera's picture, and how many of its pixels become one of the prior's."""
        size, side = self.prior.info.size, 1
        if self.prior.info.frames is None:
            side = math.isqrt(camera.c2w.shape[:-2].numel())
        longest = self.options.size or (self.prior.info.longest_side or _SIZE) // side
        size = None if size is None else (size[0] // side, size[1] // side)
        u = torch.rand(2, generator=generator).tolist()
        return region(camera, size or longest, self.options.crop, (u[0], u[1]))

    def _first_frame(self, flight: Camera, cut: Camera, factor: int) -> Tensor | None:
        if self.first_frames is None:
            return None
        behind = torch.tensor(self.background or (0.0, 0.0, 0.0), device=self.device)
        latent = self.prior.info.space == "latent"
        return self.first_frames.picture(flight, cut, factor, behind, latent=latent)

    def _asked(
        self, camera: Camera, text: str | None, like: Tensor, picture: Tensor | None = None
    ) -> Asked:
        """The prior, and what it is told of a picture of ``camera``."""
        background = None if self.background is None else like.new_tensor(self.background)
        known = Condition(camera=camera, background=background, picture=picture)
        return Asked(
            prior=self.prior, known=known,
            texts=self._texts(text), path=self.options.noise_schedule,
            guider=guider_of(self.options),
        )  # fmt: skip

    def _done(self, progress: float) -> float:
        """Share of the term's own time that is over."""
        options = self.options
        done = (progress - options.start) / max(options.end - options.start, 1e-9)
        return min(max(done, 0.0), 1.0)

    def _empty_ring(self, cameras: Sequence[Camera]) -> Kept:
        """Where regenerated pictures are kept."""
        apart = torch.Generator()
        sizes = [self._region(c, apart) for c in cameras or self.poses.draw(apart, 1)]
        small = [(cut.downscaled(factor), factor) for cut, factor in sizes]
        return Kept(
            count=self.options.kept, texts=len(self.conditions) or 1,
            channels=sum(CHANNELS[kind] for kind in self.prior.info.channels),
            factors={(c.width, c.height): factor for c, factor in small},
        )  # fmt: skip

    def _towards_kept(self, step: Step, kept: Kept, texts: Sequence[int]) -> Term:
        """Propagates the difference to regenerated pictures, a view for each text; in the log its
        mean."""
        options = self.options
        due = step.number // options.every % options.refresh_every == 0
        for number in texts:
            if due or not kept.views[number]:
                kept.add(number, self._regenerated(step, kept, self._text(number)))
        drawn = [(kept.draw(number, self.generator), self._text(number)) for number in texts]
        own = drawn[self.own]
        with _apart(step, len(own)):
            part = [self._difference(step, kept, view, text) for view, text in own]
        found = step.processes.gathered(torch.stack(part))
        self._log = {"guidance": found.mean(), "guidance_left_out": self.left_out}
        return Term(loss=None, log=self._log)

    def _difference(
        self, step: Step, kept: Kept, view: Regenerated | None, text: str | None
    ) -> Float[Tensor, ""]:
        """Propagates the difference to one view."""
        if view is None:
            return torch.zeros(())
        small, target = view.camera.to(self.device), view.pixels.float()[None]
        cut, factor = kept.whole(small)
        low, high = self.prior.info.value_range
        squared = self.options.difference == "squared"

        def apart(render: Render) -> Float[Tensor, ""]:
            seen = self._seen_by_prior(render, cut, factor, step.background)
            off = self._guided(render, small, factor) * (seen - target) / (high - low)
            return off.square().mean() if squared else off.abs().mean()

        return step.deferred(
            cut, apart, chunk_pixels=self.options.chunk_pixels, condition=text, want=self._want()
        ).cpu()  # fmt: skip

    @torch.no_grad()
    def _regenerated(self, step: Step, kept: Kept, text: str | None) -> list[Regenerated]:
        """The views of what the prior makes of the scene at a camera; none where it is not
        finite."""
        options = self.options
        (camera,) = self.poses.draw(self.generator, 1)
        cut, factor = self._region(self._timed(camera), self.generator)
        small = cut.downscaled(factor)
        cut, _ = kept.whole(small.to(self.device))
        with evaluating(step.trainable):
            with torch.enable_grad():
                step.scene(text)  # which the gradients of this step flow through
            render = step.render(cut, condition=text, want=self._want())
        x = self._seen_by_prior(render, cut, factor, step.background)
        found = regenerated(
            self._asked(small, text, x), x, scale=options.scale, times=self.loss.times,
            steps=options.sampling_steps, progress=self._done(step.progress),
            reuse=options.reuse, generator=self.generator,
        )  # fmt: skip
        if not bool(found.isfinite().all()):
            self.left_out = self.left_out + 1
            return []
        pixels = untiled(found, small.width, small.height).half()
        step.processes.alike([pixels])
        cameras = [small] if small.c2w.ndim == 2 else [
            small.chosen(torch.tensor(i)) for i in range(len(pixels))
        ]  # fmt: skip
        return [Regenerated(camera=c, pixels=p) for c, p in zip(cameras, pixels, strict=True)]

    def _want(self) -> Want:
        """What is rendered for the prior."""
        needed = _OF_DEPTH & set(self.prior.info.channels)
        at = () if self.settled is None or "xyz" not in needed else (self.settled,)
        return Want(depth=bool(needed) or self.coverage is not None, positions_at=at)

    def _score(
        self,
        x: Float[Tensor, "1 *frames channels h w"],
        asked: Asked,
        progress: float,
        generator: torch.Generator,
    ) -> Score:
        ask = score_gradient
        if self.prior.info.space == "latent":
            through = self.options.through_encoder
            ask = partial(latent_gradient, through_encoder=through)
        return ask(self.loss, asked, x, generator=generator, progress=self._done(progress))

    def _seen_by_prior(
        self, render: Render, camera: Camera, factor: int, background: Float[Tensor, " 3"]
    ) -> Float[Tensor, "1 *frames channels h w"]:
        """The picture as the prior knows pictures: its channels, its range, its size."""

        def smaller(pixels: Float[Tensor, "*views height width channels"]) -> Tensor:
            return avg_pool2d(pixels.movedim(-1, -3), factor)

        rgb = smaller(render.rgb)
        # a step's is drawn at random where pictures have alpha, whatever is declared behind them
        there = rgb.new_tensor(self.background or (0.0, 0.0, 0.0))
        if bool((there != background).any()):
            beside = 1 - smaller(render.alpha[..., None])
            rgb = rgb + beside * (there - background)[:, None, None]
        maps = {"rgb": 2 * rgb - 1}
        if _OF_DEPTH & set(self.prior.info.channels):
            if render.depth is None:
                kinds = "+".join(self.prior.info.channels)
                raise UsageError(f"the scene renders no depth, and the prior is of {kinds}")
            coded = depth_code(render.depth, self.extent)
            maps["depth"] = smaller((render.alpha * coded + 1 - render.alpha)[..., None])
            maps["normals"] = smaller(normals_of_depth(render.depth, render.alpha, camera.K))
        if "xyz" in self.prior.info.channels:
            places = places_seen(render, camera, settled=self.settled is not None)
            maps["xyz"] = smaller(render.alpha[..., None] * place_code(places, self.extent))
        whole = torch.cat([maps[kind] for kind in self.prior.info.channels], dim=-3)
        film = self.prior.info.frames is not None
        small = whole if film else tiled(whole)
        low, high = self.prior.info.value_range
        found = low + (small + 1) * (0.5 * (high - low))
        return found[None] if film else found

    def _guided(self, render: Render, camera: Camera, factor: int) -> Tensor:
        """1 where the gradient counts, else 0: [1, channels, h, w], or what becomes it."""
        kinds = self.prior.info.channels
        chosen = self.options.channels
        on = [float(chosen in ("all", kind)) for kind in kinds for _ in range(CHANNELS[kind])]
        return render.rgb.new_tensor(on)[:, None, None] * self._unseen(render, camera, factor)

    def _unseen(self, render: Render, camera: Camera, factor: int) -> Tensor:
        """1 where pixels count: of surfaces that no training camera sees, if that is asked for."""
        if self.coverage is None:
            return render.rgb.new_ones(())
        assert render.depth is not None
        half, (high, wide) = factor // 2, (camera.height, camera.width)
        depth, alpha = (
            value.detach()[..., half::factor, half::factor][..., :high, :wide]
            for value in (render.depth, render.alpha)
        )
        if camera.c2w.ndim == 2:
            return (~self.coverage.seen(camera, depth, alpha)).to(render.rgb)
        rows = torch.arange(len(depth)).unbind()
        seen = [self.coverage.seen(camera.chosen(i), depth[i], alpha[i]) for i in rows]
        return (~torch.stack(seen)).to(render.rgb)[:, None]


@contextmanager
def _apart(step: Step, count: int) -> Iterator[None]:
    """A step of a process's own ``count`` pictures, whose views it renders alone; they weigh as
    their mean."""
    before = step.weight, step.processes
    step.weight, step.processes = step.weight / count, ALONE
    yield
    step.weight, step.processes = before


def tiled(
    pictures: Float[Tensor, "*views channels height width"],
) -> Float[Tensor, "1 channels high wide"]:
    """Pictures of one view, or of a square number of them as one: row by row, side by side."""
    side = math.isqrt(pictures.shape[:-3].numel())
    height, width = pictures.shape[-2:]
    tiles = pictures.reshape(side, side, -1, height, width).permute(2, 0, 3, 1, 4)
    return tiles.reshape(1, -1, side * height, side * width)


def untiled(
    picture: Float[Tensor, "1 channels high wide"], width: int, height: int
) -> Float[Tensor, "views channels height width"]:
    """The pictures of ``width`` x ``height`` that :func:`tiled` made one of."""
    tiles = picture[0].unflatten(2, (-1, width)).unflatten(1, (-1, height))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)


def depth_code(depth: Float[Tensor, " *pixels"], unit: float) -> Float[Tensor, " *pixels"]:
    """Depth as priors know it: 2 d / (d + unit) - 1, from -1 (here) to 1 (infinitely far)."""
    return 2 * depth / (depth + unit) - 1


def region(
    camera: Camera, size: int | tuple[int, int], crop: str, u: tuple[float, float]
) -> tuple[Camera, int]:
    """The part of a picture that is shown, and how many of its pixels become one along a side.

    ``size``: the longer side of the smaller picture, or its exact width and height. ``u``: where
    the part lies, 0..1 of the room there is. Raises :class:`UsageError` where an exact size is
    larger than the picture.
    """
    sides = (camera.width, camera.height)
    if isinstance(size, tuple):
        factor = min(side // wanted for side, wanted in zip(sides, size, strict=True))
        if factor < 1:
            raise UsageError(f"pictures of {sides[0]}x{sides[1]} are smaller than the prior's, "
                             f"{size[0]}x{size[1]}", fix="train at a larger size")  # fmt: skip
        factor = max(1, factor // 2) if crop == "half" else factor
        small = size
    elif crop == "half":
        factor = _factor(max(sides) / 2 / size, sides)
        small = (max(1, sides[0] // 2 // factor), max(1, sides[1] // 2 // factor))
    else:
        factor = _factor(max(sides) / size, sides)
        room = factor - 1 if crop == "shift" else 0
        small = (max(1, (sides[0] - room) // factor), max(1, (sides[1] - room) // factor))
    width, height = (min(n * factor, side) for n, side in zip(small, sides, strict=True))
    free = (sides[0] - width, sides[1] - height)
    if crop == "none":
        u = (0.5, 0.5)
    x, y = (min(int(place * (room + 1)), room) for place, room in zip(u, free, strict=True))
    return camera.cropped(x, y, width, height), factor


def _factor(wanted: float, sides: tuple[int, int]) -> int:
    return max(1, min(round(wanted), *sides))


def _poses(
    task: Task, options: GuidanceOptions, frames: int | None, first: FirstFrames | None
) -> Poses:
    """Cameras around and beyond those of training, or the task's own; of a prior of videos of
    ``frames`` pictures flights that begin there, or at photographs."""
    if task.poses is not None:
        return task.poses
    if not task.training_cameras:
        raise UsageError("guidance has nowhere to look from",
                         fix="give a capture, or a method with poses")  # fmt: skip
    cameras = cameras_beyond(task.training_cameras, options, any_time=options.any_time)
    if frames is None:
        return cameras
    flight = Flight(
        frames=frames, sweep=options.sweep, frozen=options.frozen, seconds=options.seconds
    )
    times = cameras.between.times
    return Flights(first or cameras, flight, distance=cameras.distance, times=times)
