"""Where an object lies: its box, and the shape that its outlines leave (the visual hull)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.methods.mesh.start import masked_counts
from scene4d.rendering.isosurface.near_surface import grid_places
from scene4d.representations.content import find_content
from scene4d.representations.task import Task
from scene4d.representations.triplane_rendering import Box

_MOST_VIEWS = 40
_WIDTH = 200
"""Pixels across the pictures that space is carved with, about."""
_CELLS = (40, 40, 64)
"""Along a side of the box, in the rounds of carving; each finds a smaller box."""
_LEFT_OUT = 0.05
"""A place belongs to nothing where more of the pictures show nothing there."""
_SEEN = 0.5
"""A place belongs to nothing where fewer of the pictures show it."""
_MARGIN = 1.1
_TRIM = 0.02
"""Share of known points, at each end of an axis, that may lie outside."""
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where an object is before training."""

    box: Box
    hull: Float[Tensor, "n n n"] | None
    """Distances to the visual hull, negative inside, in half sides of the box, on a grid over it;
    None where no picture says what is not the object."""


def find_place(task: Task, half_side: float | None = None, *, outlines: bool = True) -> Place:
    """The cube around what may be the object: carved by alpha and masks (visual hull: Laurentini
    1994) where the pictures have them, else around the surfaces that are known or guessed.
    ``outlines``: whether masks are the object's, or only holes in photographs.

    Raises :class:`UsageError` without training cameras.
    """
    if not task.training_cameras:
        raise UsageError("a mesh is made from photographs, and there is none", fix="give --data")
    points = find_content(task.scene, task.teacher).points
    lower, upper = (points.quantile(q, dim=0) for q in (_TRIM, 1 - _TRIM))
    middle, half = (lower + upper) / 2, float(_MARGIN * (upper - lower).max() / 2)
    views, kept = _views(task), None
    if not outlines:
        views = [replace(view, mask=None) for view in views]
    if any(view.alpha is not None or view.mask is not None for view in views):
        middle, half, kept = _carved(views, middle, half, half_side)
    else:
        _log.warning(
            "the pictures have no alpha and no masks: all that they show is taken for one object "
            "in a box; other methods are made for whole scenes"
        )
        half = half if half_side is None else half_side
    x, y, z = middle.tolist()
    box = Box(centre=(x, y, z), half=max(half, 1e-6))
    return Place(box=box, hull=None if kept is None else _distances(kept))


def _views(task: Task) -> list[View]:
    chosen = list(task.scene.train_indices)
    chosen = chosen[:: -(-len(chosen) // _MOST_VIEWS)]
    smaller = max(1, task.training_cameras[0].width // _WIDTH)
    factor = max(f for f in (1, 2, 4, 8) if f <= smaller)
    return [task.images.view(i, factor) for i in chosen]


def _carved(
    views: list[View], middle: Tensor, half: float, given: float | None
) -> tuple[Tensor, float, Bool[Tensor, "n n n"] | None]:
    """The box of what is left of a box that is half as large again, and what is left in it."""
    cameras, shown = [view.camera for view in views], [_opaque(view) for view in views]
    guess, half = (middle, half), 1.5 * half
    kept = torch.empty(0)
    for number, cells in enumerate(_CELLS):
        places = grid_places(middle - half, middle + half, cells)
        wide = shown
        if number + 1 < len(_CELLS):  # what is thinner than a cell is not to be missed
            reach = math.sqrt(3) * half / cells
            wide = [_widened(m, c, middle, reach) for m, c in zip(shown, cameras, strict=True)]
        seen, left_out = masked_counts(places.double().numpy(), cameras, wide)
        likely = (left_out <= _LEFT_OUT * seen) & (seen >= _SEEN * len(views))
        kept = torch.from_numpy(likely)
        if kept.sum() < 8:
            _log.warning("alpha and masks leave nothing of space: the box is a guess")
            return guess[0], guess[1] if given is None else given, None
        if number + 1 < len(_CELLS):
            lower, upper = places[kept].amin(dim=0), places[kept].amax(dim=0)
            reach = float((upper - lower).max()) / 2 + 2 * half / cells
            middle, half = (lower + upper) / 2, _MARGIN * reach if given is None else given
    return middle, half, kept.reshape(3 * (_CELLS[-1] + 1,))


def _widened(shown: Tensor, camera: Camera, middle: Tensor, reach: float) -> Tensor:
    """Grown by what ``reach`` is in pixels at a place."""
    away = float((camera.position.cpu() - middle).norm())
    pixels = math.ceil(float(camera.K[0, 0]) * reach / max(away, 1e-9))
    pixels = min(pixels, max(shown.shape))
    grown = max_pool2d(shown.float()[None, None], 2 * pixels + 1, stride=1, padding=pixels)
    return grown[0, 0] > 0


def _distances(inside: Bool[Tensor, "n n n"]) -> Float[Tensor, "n n n"]:
    """To the border of what is inside, half a cell beyond its outermost corners."""
    cell = 2 / (len(inside) - 1)
    away, deep = (ndimage.distance_transform_edt(m) for m in (~inside.numpy(), inside.numpy()))
    signed = np.where(inside.numpy(), 0.5 - deep, away - 0.5)
    return torch.from_numpy(cell * signed).float()


def _opaque(view: View) -> Tensor:
    """Where the picture shows the object."""
    shown = torch.ones(view.rgb.shape[:2], dtype=torch.bool)
    if view.alpha is not None:
        shown &= view.alpha > 0.1
    if view.mask is not None:
        shown &= view.mask
    return shown.cpu()
