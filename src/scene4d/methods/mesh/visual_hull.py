"""The visual hull of an object: the largest body that all photographs' outlines leave room for.

Laurentini, "The visual hull concept for silhouette-based image understanding", PAMI 1994. It needs
no depth, has no holes, and is right where depths are not: on what shines, where splats lie as deep
as reflections, and at the rim. It fills what no outline shows, such as the inside of a bowl, which
depths may carve out: truncated signed distances as of Curless and Levoy, SIGGRAPH 1996.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float
from numba import njit, prange
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.marching_cubes import BLOCK, surface_points, triangles

_MISTAKEN = 0.02
"""Share of the outlines that may leave out what belongs to the object."""
_SEEN = 0.25
"""Share of the cameras that see a part of it, at least: what few see, few outlines leave out."""
_CARVERS = 0.05
"""Share of the cameras whose depths carve a place out, at least, and never fewer than 3."""
_TRUNCATED = 4.0
"""Voxels; what a camera sees farther behind its depth than this is hidden from it."""
_KEPT = 2.0
"""Voxels before the depths that are not carved: means of many cameras' depths lie behind edges."""
_FAR = 1e6
"""How far outside lies what is beyond a picture that shows all of the object."""
_COARSE, _ALONG = 48, 160
"""Voxels along the cube in which the object is found, and along the object."""
_SLACK = 1.5
"""Distances in a picture, at the depth of a place, are distances of space but for perspective."""


def visual_hull(
    cameras: Sequence[Camera],
    outlines: Sequence[Bool[Tensor, "height width"]],
    *,
    centre: np.ndarray,
    reach: float,
    voxel: float | None = None,
    depths: Sequence[Float[Tensor, "height width"]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 3] and triangles [M, 3] of the hull, counter-clockwise as seen from outside.

    ``outlines``: of each camera, the pixels that show the object; ``depths``, where they are given,
    what is seen there along the viewing axis, scene units, 0 where nothing is known: what lies
    before it is carved out. The object is looked for in the cube around ``centre`` [3] whose half
    side is ``reach``, scene units; ``voxel``: edge in scene units, by default 1/160 of the object.
    Where an outline does not reach the picture's border, all beyond the picture is outside, and so
    is what less than a quarter of the cameras see, or only one. Empty where the outlines have
    nothing in common.
    """
    looks = _Looks(cameras, outlines)
    low, high = _bounds(looks, centre, reach)
    edge = voxel or float((high - low).max()) / _ALONG
    if not edge > 0:
        return np.empty((0, 3)), np.empty((0, 3), dtype=np.int64)
    size = BLOCK * edge
    coords = _cells(np.ceil((high - low) / size).astype(np.int64))
    coords = coords[np.abs(looks.outside(low + (coords + 0.5) * size)) < _reach_of(size)]
    coords = coords[np.lexsort(coords.T)]
    within = (_cells(np.full(3, BLOCK)) + 0.5) * edge
    places = (low + coords[:, None] * size + within).reshape(-1, 3)
    shape = (len(coords), BLOCK, BLOCK, BLOCK)
    found = looks.outside(places)
    if depths is not None:
        carved = looks.before(places, depths, _TRUNCATED * edge) - _KEPT * edge
        found = np.maximum(found, carved)
    distance = found.clip(max=size).astype(np.float32).reshape(shape)
    observed, colour = np.ones(shape, dtype=bool), np.zeros((*shape, 3), dtype=np.float32)
    vertices, _, rows = surface_points(coords, distance, colour, observed)
    return low + (vertices + 0.5) * edge, triangles(coords, distance, observed, rows)


def _bounds(looks: _Looks, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a box that holds the object; of no size where there is none."""
    cell = 2 * reach / _COARSE
    places = centre - reach + (_cells(np.full(3, _COARSE)) + 0.5) * cell
    perhaps = places[looks.outside(places) < _reach_of(cell)]
    if not len(perhaps):
        return centre, centre
    return perhaps.min(axis=0) - cell, perhaps.max(axis=0) + cell


def _reach_of(cell: float) -> float:
    """The distance of a cell's middle from the surface, if that crosses it."""
    return _SLACK * 0.5 * 3**0.5 * cell


def _cells(counts: np.ndarray) -> np.ndarray:
    """Of every cell of a grid, its place [N, 3]."""
    return np.moveaxis(np.indices(counts.tolist()), 0, -1).reshape(-1, 3)


class _Looks:
    """What all cameras see of the object."""

    def __init__(
        self, cameras: Sequence[Camera], outlines: Sequence[Bool[Tensor, "height width"]]
    ) -> None:
        self.views = np.stack([c.viewmat.cpu().double().numpy()[:3] for c in cameras])
        self.lenses = np.stack([c.K.cpu().double().numpy() for c in cameras])
        pictures = [_pixels_outside(outline) for outline in outlines]
        self.shows_all = np.array([min(p[0].min(), p[-1].min(), p[:, 0].min(), p[:, -1].min()) > 0
                                   for p in pictures])  # fmt: skip
        self.sizes = np.array([picture.shape for picture in pictures])
        ends = np.cumsum([picture.size for picture in pictures])
        self.starts = np.concatenate([[0], ends[:-1]])
        self.pixels = np.concatenate([picture.ravel() for picture in pictures])

    def outside(self, places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """How far each place lies outside the hull, about, in scene units; negative inside,
        :data:`_FAR` where too few cameras see it."""
        found = np.empty(len(places))
        mistaken, least = int(_MISTAKEN * len(self.sizes)), int(_SEEN * len(self.sizes))
        _outside(places, self.views, self.lenses, self.pixels, self.starts, self.sizes,
                 self.shows_all, mistaken, max(2, mistaken + 1, least), found)  # fmt: skip
        return found

    def before(
        self,
        places: Float[np.ndarray, "n 3"],
        depths: Sequence[Float[Tensor, "height width"]],
        truncated: float,
    ) -> Float[np.ndarray, " n"]:
        """How far each place lies before what the cameras see, their mean, at most ``truncated``;
        negative behind, and where too few cameras say something."""
        seen = np.concatenate([depth.cpu().numpy().astype(np.float32).ravel() for depth in depths])
        found = np.empty(len(places))
        least = max(3, int(_CARVERS * len(self.sizes)))
        _before(places, self.views, self.lenses, seen, self.starts, self.sizes, truncated, least,
                found)  # fmt: skip
        return found


def _pixels_outside(outline: Bool[Tensor, "height width"]) -> np.ndarray:
    """How many pixels each lies outside the outline; negative inside."""
    inside = outline.cpu().numpy()
    if inside.all() or not inside.any():
        away = float(sum(inside.shape))
        return np.full(inside.shape, -away if inside.all() else away, np.float32)
    away = np.where(
        inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5
    )
    return away.astype(np.float32)


@njit(inline="always", cache=True)
@no_type_check
def _projected(view, lens, x, y, z):
    """Column, row and depth; a place behind the camera has depth 0 or less."""
    depth = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    safe = max(depth, 1e-12)
    across = view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]
    down = view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]
    column = (lens[0, 0] * across + lens[0, 1] * down) / safe + lens[0, 2]
    return column, lens[1, 1] * down / safe + lens[1, 2], depth


@njit(parallel=True, cache=True, nogil=True)
@no_type_check
def _outside(places, views, lenses, pixels, starts, sizes, shows_all, mistaken, least, found):
    """The largest distance that a camera tells, but for as many as may be mistaken."""
    for i in prange(len(places)):
        px, py, pz = places[i]
        largest = np.full(mistaken + 1, -np.inf)
        told = 0
        for c in range(len(views)):
            height, width = sizes[c]
            column, row, z = _projected(views[c], lenses[c], px, py, pz)
            column, row = column - 0.5, row - 0.5
            if z > 0.0 and 0.0 <= row <= height - 1.0 and 0.0 <= column <= width - 1.0:
                top, left = min(int(row), height - 2), min(int(column), width - 2)
                down, across = row - top, column - left
                at = starts[c] + top * width + left
                upper = pixels[at] * (1.0 - across) + pixels[at + 1] * across
                lower = pixels[at + width] * (1.0 - across) + pixels[at + width + 1] * across
                far = (upper * (1.0 - down) + lower * down) * z / lenses[c, 0, 0]
            elif shows_all[c]:
                far = _FAR
            else:
                continue
            told += 1
            for k in range(mistaken + 1):
                if far > largest[k]:
                    largest[k], far = far, largest[k]
        found[i] = largest[mistaken] if told >= least else _FAR


@njit(parallel=True, cache=True, nogil=True)
@no_type_check
def _before(places, views, lenses, depths, starts, sizes, truncated, least, found):
    """The mean truncated distance to the depths of the cameras that it is not hidden from."""
    for i in prange(len(places)):
        px, py, pz = places[i]
        total, told = 0.0, 0
        for c in range(len(views)):
            height, width = sizes[c]
            column, row, z = _projected(views[c], lenses[c], px, py, pz)
            if not (z > 0.0 and 0.0 <= row < height and 0.0 <= column < width):
                continue
            seen = depths[starts[c] + int(row) * width + int(column)]
            if seen > 0.0 and seen - z >= -truncated:
                total += min(seen - z, truncated)
                told += 1
        found[i] = total / told if told >= least else -truncated
