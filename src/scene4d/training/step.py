"""One step of a training: what is rendered in it, who watches, and gradients in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import Generator, Representation, Trainable
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.parallel import ALONE, Processes

_PIECES = ("rgb", "alpha", "depth", "positions", "features")
"""What :meth:`Step.deferred` carries gradients of."""
_ALIGN = 24
"""Pixels: networks that make blocks of pixels (of 8 or 12 a side) make the same ones of a crop that
begins between two blocks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """A render that was made to learn from."""

    camera: Camera
    render: Render
    num_pictures: int = 1
    """Pictures that the term of the loss is the mean of: a gradient times this is one picture's."""


@dataclass(kw_only=True)
class Step:
    """One step as objectives and strategies see it."""

    number: int
    progress: float
    """Share of training that is done, 0..1."""
    trainable: Trainable
    background: Float[Tensor, " 3"]
    views: Sequence[View] = ()
    """Of photographs; none where no term that counts looks at them."""
    adjustments: CameraAdjustments | None = None
    """Of the views' cameras and colours."""
    want: Want = RGB
    """What all terms together ask of renders of the views, which are made once and shared."""
    watch: Callable[[Shot], None] = lambda shot: None
    """Told of each render, before anything is propagated through it."""
    weight: float = 1.0
    """Of the term that is being computed: what it propagates itself is multiplied by it."""
    processes: Processes = ALONE
    """Which share the step: renders of batches and of views are complete, in every process, but for
    their ``extras``, which are of its own part."""
    shots: list[Shot] = field(default_factory=list)
    """Every render of this step that has gradients."""
    propagated: float = 0.0
    """The part of the loss whose gradients are there already."""
    _views: dict[int, Render] = field(default_factory=dict)
    _scenes: dict[str, Representation] = field(default_factory=dict)

    @property
    def representation(self) -> Representation:
        """What is trained, where it is a scene itself. Raises :class:`UsageError` for a
        generator."""
        if not isinstance(self.trainable, Representation):
            raise UsageError(
                f"a term of the loss renders {type(self.trainable).__name__} as it is, "
                "which makes a scene of a condition"
            )
        return self.trainable

    def scene(self, condition: str | None = None) -> Representation:
        """What is trained, or the scene that the generator makes of ``condition``, once a step.
        Raises :class:`UsageError` where there is a condition and no generator, or the reverse."""
        if condition is None:
            return self.representation
        if not isinstance(self.trainable, Generator):
            raise UsageError(f"{type(self.trainable).__name__} takes no condition")
        if condition not in self._scenes:
            self._scenes[condition] = self.trainable.scene(condition)
        return self._scenes[condition]

    def view(self, view: View) -> Render:
        """The render of a photograph's (refined) camera, on this step's background."""
        key = _key(view)
        if key not in self._views and view.camera.c2w.ndim > 2:
            self._views[key] = self._photograph(view)  # crops or rays are shared as they are
        elif key not in self._views:
            renders = self.processes.pictures(self.views, self._photograph)
            self._views = dict(zip(map(_key, self.views), renders, strict=True))
        return self._views[key]

    def _photograph(self, view: View) -> Render:
        camera = view.camera
        if self.adjustments is not None:
            camera = self.adjustments.refined(camera, view.index)
        return self.render(camera, want=self.want, num_pictures=len(self.views), picture=view.index)

    def render(
        self,
        camera: Camera,
        *,
        condition: str | None = None,
        want: Want = RGB,
        num_pictures: int | None = None,
        picture: int | Tensor | None = None,
    ) -> Render:
        """The render at any camera (one or a batch), on this step's background.

        ``num_pictures``: see :attr:`Shot.num_pictures`; by default as many as cameras. ``picture``:
        the photograph that it is compared with, see :meth:`Representation.as_in`; not of a batch.
        """
        scene = self.scene(condition)
        if isinstance(picture, int):
            scene = scene.as_in(picture)
        render = self.processes.batch(
            camera, lambda part: scene.render(part, background=self.background, want=want)
        )
        if torch.is_grad_enabled():
            count = camera.c2w[..., 0, 0].numel() if num_pictures is None else num_pictures
            shot = Shot(camera=camera, render=render, num_pictures=max(1, count))
            self.shots.append(shot)
            self.watch(shot)
        return render

    def deferred(
        self,
        camera: Camera,
        score: Callable[[Render], Float[Tensor, ""]],
        *,
        chunk_pixels: int = 1 << 16,
        condition: str | None = None,
        want: Want = RGB,
    ) -> Float[Tensor, ""]:
        """Propagates the loss that ``score`` makes of a whole picture, with the memory of a crop.

        The picture is rendered without gradients, ``score`` differentiated in its pixels, and
        crops of about ``chunk_pixels`` pixels are rendered again, each with its part of the
        gradient (deferred back-propagation: ARF, Zhang et al. 2022, section 4); a picture that is
        no larger is rendered once. The gradients are
        multiplied by :attr:`weight`; the loss that is returned, for the log, is not. A loss without
        a gradient propagates nothing, and nothing is rendered again. ``score`` must
        not depend on what is trained but through the picture. Networks normalise by their running
        statistics, for those of a crop are not the picture's. What a crop shows is that part of the
        picture; of splats but for Gaussians so wide that EWA bends them at a crop's border.
        """
        with evaluating(self.trainable):
            return self._deferred(camera, score, chunk_pixels, condition, want)

    def _deferred(
        self,
        camera: Camera,
        score: Callable[[Render], Float[Tensor, ""]],
        chunk_pixels: int,
        condition: str | None,
        want: Want,
    ) -> Float[Tensor, ""]:
        self.scene(condition)  # made with gradients: the crops share it
        crops = list(_crops(camera.width, camera.height, chunk_pixels))
        at_once = len(crops) == 1
        with torch.set_grad_enabled(at_once):
            whole = self.render(camera, condition=condition, want=want)
        leaves = {
            name: value.detach().requires_grad_()
            for name in _PIECES
            if (value := getattr(whole, name)) is not None
        }
        loss = score(replace(whole, **leaves))
        if not loss.requires_grad:
            if at_once:
                self.shots.pop()
            return loss
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        pulled = {n: g for n, g in zip(leaves, found, strict=True) if g is not None}
        for x, y, width, height in crops:
            part = whole
            if not at_once:
                crop = camera.cropped(x, y, width, height)
                part = self.render(crop, condition=condition, want=want)
            pieces, gradients = [], []
            for name, gradient in pulled.items():
                if (piece := getattr(part, name)).requires_grad:
                    rows = gradient.ndim - (2 if name in ("alpha", "depth") else 3)
                    cut = gradient.narrow(rows, y, height).narrow(rows + 1, x, width)
                    pieces.append(piece)
                    gradients.append(self.weight * cut)
            if pieces:  # a generator's scene is shared by all crops, so its graph is kept
                torch.autograd.backward(pieces, gradients, retain_graph=condition is not None)
            done = {name: getattr(part, name).detach() for name in leaves}
            self.shots[-1] = replace(self.shots[-1], render=replace(part, **done))
        loss = loss.detach()
        self.propagated += self.weight * float(loss)
        return loss


def _key(view: View) -> int:
    """A photograph's number; crops or rays of several have none."""
    return view.index if isinstance(view.index, int) else id(view)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """With the module in evaluation mode."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _crops(width: int, height: int, pixels: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, width and height of crops that cover a picture, whole rows where they fit; they
    begin at multiples of :data:`_ALIGN`."""
    across, down = width, pixels // width // _ALIGN * _ALIGN
    if not down:
        across, down = max(_ALIGN, pixels // _ALIGN // _ALIGN * _ALIGN), _ALIGN
    for y in range(0, height, down):
        for x in range(0, width, across):
            yield x, y, min(across, width - x), min(down, height - y)
