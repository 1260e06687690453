"""Which views a step looks at, and which parts of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.representations.base import Sampling


class ViewSampler:
    """Every training view once in random order, then again in another."""

    def __init__(self, indices: Sequence[int], generator: torch.Generator) -> None:
        self.indices = list(indices)
        self.generator = generator
        self.pending: list[int] = []
        """Views still to come in this round; part of a checkpoint."""

    def next(self, count: int, *, among: Collection[int] | None = None) -> list[int]:
        """The next ``count`` views, without repetition unless there are fewer in all; those of
        ``among`` alone, if given."""
        chosen: list[int] = []
        there = self.indices if among is None else [i for i in self.indices if i in among]
        while len(chosen) < min(count, len(there)):
            if not self.pending:
                order = torch.randperm(len(self.indices), generator=self.generator)
                self.pending = [self.indices[i] for i in order.tolist()]
            candidate = self.pending.pop()
            if candidate not in chosen and candidate in there:
                chosen.append(candidate)
        return chosen

    def coming(self, among: Collection[int] | None = None) -> list[int]:
        """The views that come in the rest of this round, in their order."""
        return [i for i in reversed(self.pending) if among is None or i in among]


def parts_of(views: Sequence[View], sampling: Sampling, generator: torch.Generator) -> View:
    """``sampling.count`` crops or rays of the views, each at a place drawn evenly, as one batch.

    Crops that a picture is too small for are as large as the smallest picture. Alpha, mask and
    depth are there if some view has them; where one lacks them they are 1, True and 0.
    """
    size = 1 if sampling.of == "rays" else sampling.size
    width = min(size, *(view.camera.width for view in views))
    height = min(size, *(view.camera.height for view in views))
    u = torch.rand(sampling.count, 3, generator=generator)
    of = _below(u[:, 0], torch.tensor(len(views)))
    sizes = torch.tensor([[view.camera.width, view.camera.height] for view in views])
    x = _below(u[:, 1], sizes[of, 0] - width + 1)
    y = _below(u[:, 2], sizes[of, 1] - height + 1)
    rows = (y[:, None] + torch.arange(height))[:, :, None]
    columns = (x[:, None] + torch.arange(width))[:, None, :]
    indices = [view.index for view in views]
    camera = _each([view.camera for view in views], of).cropped(x, y, width, height)
    return View(
        index=torch.tensor(indices)[of],
        camera=camera,
        rgb=_gathered([view.rgb for view in views], of, rows, columns),
        alpha=_gathered_if(views, "alpha", 1.0, of, rows, columns),
        mask=_gathered_if(views, "mask", True, of, rows, columns),
        depth=_gathered_if(views, "depth", 0.0, of, rows, columns),
        depth_estimated=any(view.depth_estimated for view in views),
    )


def _below(u: Tensor, count: Tensor) -> Tensor:
    """Whole numbers from 0 to below ``count``, from numbers in [0, 1)."""
    return torch.minimum((u * count).long(), count - 1)


def _each(cameras: Sequence[Camera], of: Tensor) -> Camera:
    """A batch in which the camera ``of[i]`` is at place i; its size is the first one's."""
    first = cameras[0]
    same = [replace(c, width=first.width, height=first.height) for c in cameras]
    batch = Camera.stack(same)
    return batch.chosen(of.to(batch.c2w.device))


def _gathered(pictures: Sequence[Tensor], of: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[n, height, width, ...] pixels of the pictures ``of``."""
    shape = (len(of), rows.shape[1], columns.shape[2], *pictures[0].shape[2:])
    found = pictures[0].new_empty(shape)
    for number, picture in enumerate(pictures):
        here = (of == number).nonzero()[:, 0]
        found[here] = picture[rows[here], columns[here]]
    return found


def _gathered_if(
    views: Sequence[View], name: str, otherwise: float, of: Tensor, rows: Tensor, columns: Tensor
) -> Tensor | None:
    """What some of the views have of ``name``, and ``otherwise`` for the others."""
    known = [getattr(view, name) for view in views]
    some = next((values for values in known if values is not None), None)
    if some is None:
        return None
    filled = [
        some.new_full(view.rgb.shape[:2], otherwise) if values is None else values
        for view, values in zip(views, known, strict=True)
    ]
    return _gathered(filled, of, rows, columns)
