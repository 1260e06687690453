"""Where the box of an object lies."""

from __future__ import annotations

import logging

import torch

from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.methods.mesh.start import masked_counts
from scene4d.rendering.isosurface.near_surface import grid_places
from scene4d.representations.content import find_content
from scene4d.representations.task import Task
from scene4d.representations.triplane_rendering import Box

_MOST_VIEWS = 40
_WIDTH = 100
"""Pixels across the pictures that space is carved with, about."""
_CELLS = 40
_ROUNDS = 2
_LEFT_OUT = 0.05
"""A place belongs to nothing where more of the pictures show nothing there."""
_SEEN = 0.5
"""A place belongs to nothing where fewer of the pictures show it."""
_MARGIN = 1.1
_TRIM = 0.02
"""Share of known points, at each end of an axis, that may lie outside."""
_log = logging.getLogger("scene4d")


def find_box(task: Task, half_side: float | None = None) -> Box:
    """The cube around what may be the object: carved by alpha and masks (Laurentini 1994's visual
    hull) where the pictures have them, else around the surfaces that are known or guessed.

    Raises :class:`UsageError` without training cameras.
    """
    if not task.training_cameras:
        raise UsageError("a mesh is made from photographs, and there is none", fix="give --data")
    points = find_content(task.scene, task.teacher).points
    lower, upper = (points.quantile(q, dim=0) for q in (_TRIM, 1 - _TRIM))
    middle, half = (lower + upper) / 2, _MARGIN * (upper - lower).max() / 2
    views = _views(task)
    if any(view.alpha is not None or view.mask is not None for view in views):
        middle, half = _carved(views, middle, half)
    else:
        _log.warning(
            "the pictures have no alpha and no masks: all that they show is taken for one object "
            "in a box; other methods are made for whole scenes"
        )
    size = float(half) if half_side is None else half_side
    x, y, z = middle.tolist()
    return Box(centre=(x, y, z), half=max(size, 1e-6))


def _views(task: Task) -> list[View]:
    chosen = list(task.scene.train_indices)
    chosen = chosen[:: -(-len(chosen) // _MOST_VIEWS)]
    smaller = max(1, task.training_cameras[0].width // _WIDTH)
    factor = max(f for f in (1, 2, 4, 8) if f <= smaller)
    return [task.images.view(i, factor) for i in chosen]


def _carved(
    views: list[View], middle: torch.Tensor, half: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The box of what is left of a box that is half as large again, finer from round to round."""
    shown = [_opaque(view) for view in views]
    half = 1.5 * half
    for _ in range(_ROUNDS):
        places = grid_places(middle - half, middle + half, _CELLS)
        cameras = [view.camera for view in views]
        seen, left_out = masked_counts(places.double().numpy(), cameras, shown)
        likely = (left_out <= _LEFT_OUT * seen) & (seen >= _SEEN * len(views))
        kept = places[torch.from_numpy(likely)]
        if len(kept) < 8:
            _log.warning("alpha and masks leave nothing of space: the box is a guess")
            return middle, half / 1.5
        lower, upper = kept.amin(dim=0), kept.amax(dim=0)
        cell = 2 * half / _CELLS
        middle, half = (lower + upper) / 2, _MARGIN * ((upper - lower).max() / 2 + cell)
    return middle, half


def _opaque(view: View) -> torch.Tensor:
    """Where the picture shows the object."""
    shown = torch.ones(view.rgb.shape[:2], dtype=torch.bool)
    if view.alpha is not None:
        shown &= view.alpha > 0.1
    if view.mask is not None:
        shown &= view.mask
    return shown.cpu()
