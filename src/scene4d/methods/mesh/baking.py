"""Textures from photographs: every texel is the robust mean of what the photographs show there.

A photograph counts by how straight it looks at the place and how near it is, where it sees it; and
less where its colour is unlike the others' (gloss, what stands before it, poses that are off).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import no_type_check

import numpy as np
import torch
from numba import njit

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.formats.textured_mesh import MeshData
from scene4d.rendering.mesh.fragments import Fragments, array, corners_of, draw
from scene4d.rendering.mesh.rasterization import near_plane
from scene4d.representations.task import Task
from scene4d.representations.texture_atlas import Texels, filled, texels_of

_SPREADS = (np.inf, 0.3, 0.15, 0.08)
"""Of the rounds of means: a colour this far from the mean before (of 0..1, over the three channels)
counts a quarter. The first is of all; wide ones come before narrow ones, so that a mean that one
photograph has drawn away finds back."""
_UNLIKE = _SPREADS[-1]
_LEAST_ALPHA = 0.95
_MOST_GAIN = 2.0
_DONE = 1e-9
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


def shown_area(vertices: np.ndarray, triangles: np.ndarray, cameras: Sequence[Camera]) -> float:
    """Pixels that all triangles together fill, each in the picture that shows it largest."""
    largest = np.zeros(len(triangles))
    for camera in cameras:
        faces = _drawn(vertices, triangles, camera)[0].faces.numpy()
        seen = np.bincount(faces[faces >= 0], minlength=len(triangles))
        np.maximum(largest, seen, out=largest)
    return float(largest.sum())


def baked_texture(
    mesh: MeshData,
    task: Task,
    *,
    even_exposure: bool,
    showing: Mapping[int, np.ndarray] | None = None,
) -> MeshData:
    """The mesh with the training photographs on it; places that none of them sees have the colour
    of the nearest that one does.

    ``showing``: the photographs that count, by index, and which of their pixels [H, W] show the
    mesh; None: all, wherever it is drawn.
    """
    texels = texels_of(mesh)
    size = mesh.texture.shape
    gains = np.ones((len(task.scene.train_indices), 3))
    mean = np.zeros((len(texels.index), 3))
    for number, spread in enumerate(_SPREADS):
        sums = np.zeros((len(texels.index), 4))
        for photo, (view, depths) in enumerate(_photographs(mesh, task, showing)):
            if number and even_exposure:
                gains[photo] = _gain(texels, view, depths, mean)
            _add_photograph(*_asked(texels, view, depths, gains[photo]), mean, spread, sums)
        known = sums[:, 3] > _DONE
        mean[known] = sums[known, :3] / sums[known, 3:]
        gains /= np.exp(np.log(gains).mean(axis=0))
    texture = np.full((size[0] * size[1], 3), np.nan, np.float32)
    texture[texels.index[known]] = mean[known]
    return replace(mesh, texture=filled(texture.reshape(size)))


def _photographs(
    mesh: MeshData, task: Task, showing: Mapping[int, np.ndarray] | None
) -> Iterator[tuple[View, np.ndarray]]:
    """The training pictures, and the depth of the mesh in each; 0 where it is not shown."""
    for index in task.scene.train_indices if showing is None else showing:
        view = task.images.view(index)
        depths = array(_drawn(mesh.vertices, mesh.triangles, view.camera)[0].depths)
        yield view, depths if showing is None else depths * showing[index]


def _drawn(
    vertices: np.ndarray, triangles: np.ndarray, camera: Camera
) -> tuple[Fragments, torch.Tensor]:
    corners = corners_of(torch.from_numpy(vertices), camera.viewmat, camera.K)
    near, size = near_plane(corners), (camera.width, camera.height)
    return draw(corners, triangles, near=near, width=size[0], height=size[1]), corners


def _asked(texels: Texels, view: View, depths: np.ndarray, gain: np.ndarray) -> tuple:
    """What the kernels read of a photograph: its colours times ``gain``, and where it counts."""
    counts = torch.ones(view.rgb.shape[:2], dtype=torch.bool)
    if view.mask is not None:
        counts &= view.mask
    if view.alpha is not None:
        counts &= view.alpha >= _LEAST_ALPHA
    viewmat = array(view.camera.viewmat, torch.float64)
    K = array(view.camera.K, torch.float64)
    colours = np.clip(array(view.rgb) * gain, 0, 1)
    return texels.places, texels.normals, viewmat, K, depths, colours, counts.numpy()


def _gain(texels: Texels, view: View, depths: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What makes the photograph as bright as the mean of all, by channel: least squares over the
    texels that it sees."""
    sums = np.zeros((len(texels.index), 4))
    none = np.zeros_like(mean)
    _add_photograph(*_asked(texels, view, depths, np.ones(3)), none, np.inf, sums)
    seen = sums[:, 3] > _DONE
    weight = sums[seen, 3:]
    theirs = sums[seen, :3] / weight
    likely = weight * (np.abs(theirs - mean[seen]).max(axis=1, keepdims=True) < 3 * _UNLIKE)
    gain = ((likely * theirs * mean[seen]).sum(0) + 1e-6) / ((likely * theirs**2).sum(0) + 1e-6)
    return np.clip(gain, 1 / _MOST_GAIN, _MOST_GAIN)


@njit(**_OPTIONS)
@no_type_check
def _add_photograph(places, normals, viewmat, K, depths, colours, counts, mean, spread, sums):
    """Adds the weighted colours and the weights of the texels that the photograph sees."""
    height, width = depths.shape
    x, y = 0.0, 0.0
    for n in range(len(places)):
        p = places[n]
        cx = viewmat[0, 0] * p[0] + viewmat[0, 1] * p[1] + viewmat[0, 2] * p[2] + viewmat[0, 3]
        cy = viewmat[1, 0] * p[0] + viewmat[1, 1] * p[1] + viewmat[1, 2] * p[2] + viewmat[1, 3]
        cz = viewmat[2, 0] * p[0] + viewmat[2, 1] * p[1] + viewmat[2, 2] * p[2] + viewmat[2, 3]
        if not cz > 0:
            continue
        x, y = K[0, 0] * cx / cz + K[0, 2] - 0.5, K[1, 1] * cy / cz + K[1, 2] - 0.5
        if not (x >= 0 and y >= 0 and x <= width - 1 and y <= height - 1):
            continue
        column, row = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
        right, below = min(column + 1, width - 1), min(row + 1, height - 1)
        if not (counts[row, column] and counts[row, right]
                and counts[below, column] and counts[below, right]):  # fmt: skip
            continue
        m = normals[n]
        nx = viewmat[0, 0] * m[0] + viewmat[0, 1] * m[1] + viewmat[0, 2] * m[2]
        ny = viewmat[1, 0] * m[0] + viewmat[1, 1] * m[1] + viewmat[1, 2] * m[2]
        nz = viewmat[2, 0] * m[0] + viewmat[2, 1] * m[1] + viewmat[2, 2] * m[2]
        distance = np.sqrt(cx * cx + cy * cy + cz * cz)
        straight = -(nx * cx + ny * cy + nz * cz) / distance
        if straight < 0.1:
            continue
        # A pixel's footprint on a slope spans depths: the tolerance follows the slope.
        pixel = cz / K[0, 0] / straight
        nearest = max(
            max(depths[row, column], depths[row, right]),
            max(depths[below, column], depths[below, right]),
        )
        least = min(
            min(depths[row, column], depths[row, right]),
            min(depths[below, column], depths[below, right]),
        )
        slack = 0.002 * cz + 1.5 * pixel
        if least <= 0 or nearest - least > 0.05 * cz + 4 * pixel or cz > least + 2 * slack:
            continue
        fx, fy = x - column, y - row
        weight = straight * straight * (K[0, 0] / cz) ** 2 * 1e-6
        unlike = 0.0
        for k in range(3):
            above = (1 - fx) * colours[row, column, k] + fx * colours[row, right, k]
            under = (1 - fx) * colours[below, column, k] + fx * colours[below, right, k]
            difference = (1 - fy) * above + fy * under - mean[n, k]
            unlike += difference * difference
        likeness = 1.0 / (1.0 + unlike / (spread * spread))
        weight *= likeness * likeness  # Geman and McClure 1985
        for k in range(3):
            above = (1 - fx) * colours[row, column, k] + fx * colours[row, right, k]
            under = (1 - fx) * colours[below, column, k] + fx * colours[below, right, k]
            sums[n, k] += weight * ((1 - fy) * above + fy * under)
        sums[n, 3] += weight
