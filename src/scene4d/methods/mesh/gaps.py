"""Cuts the gaps that photographs see through out of a mesh, such as those between leaves.

Depths of a short training join thin things to sheets as wide as several. One smooth surface is laid
behind all that is there, and triangles go where photographs look more like that than like them. All
is opaque, so every file and viewer shows it as it was trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, percentile_filter

from scene4d.cameras.camera import Camera
from scene4d.exporters.mesh import spread
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.backdrop import surface_at
from scene4d.methods.mesh.judging import Judgement, picture_of
from scene4d.rendering.mesh.fragments import corners_of, draw
from scene4d.rendering.mesh.rasterization import near_plane
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import Representation
from scene4d.representations.task import Task

_WIDTH = 32
"""Steps of the surface behind along the middle picture's width, about."""
_BEYOND = 0.2
"""How far it reaches beyond the picture on each side, as a share of the width."""
_FAR, _AROUND = 90, 0.125
"""Its depth is this percentile of the teacher's, within this share of the width."""
_BEHIND = 1.02
"""Its depth, in depths of what it lies behind, at least."""
_LOOKS = 64
"""Pictures that it is painted from, at most."""
_AS_FAR = 0.85
"""A pixel shows it where the teacher's depth is at least this share of its own."""
_log = logging.getLogger("scene4d")

Paint = Callable[[np.ndarray, np.ndarray, dict[int, np.ndarray] | None], MeshData]
"""Vertices and triangles to a mesh with the photographs on it; of pictures by index, which of their
pixels show it (None: all)."""


def without_gaps(
    vertices: np.ndarray, triangles: np.ndarray, task: Task, paint: Paint
) -> tuple[np.ndarray, np.ndarray]:
    """The mesh without the triangles that photographs see through, and a surface behind it."""
    assert task.teacher is not None, "the surface is the teacher's"
    behind = _surface_behind(vertices, triangles, task.teacher, task.training_cameras)
    sheet = paint(*behind, _showing(*behind, task))
    gone = seen_through(paint(vertices, triangles, None), sheet, task)
    _log.info("photographs see through %.1f%% of the triangles", 100 * gone.mean())
    both = np.concatenate([triangles[~gone], len(vertices) + behind[1]])
    used, index = np.unique(both, return_inverse=True)
    return np.concatenate([vertices, behind[0]])[used], index.reshape(-1, 3)


def seen_through(mesh: MeshData, behind: MeshData, task: Task) -> np.ndarray:
    """Of each triangle of ``mesh``, whether the photographs that show it look more like what lies
    ``behind``."""
    judgement = Judgement(len(mesh.triangles))
    for index in task.scene.train_indices:
        view = task.images.view(index)
        near, far = (picture_of(shown, view.camera) for shown in (mesh, behind))
        counts = (near.faces >= 0) & (far.faces >= 0)
        if view.mask is not None:
            counts &= view.mask
        judgement.look(near.faces, counts, photograph=view.rgb, shown=near.rgb, behind=far.rgb)
    return judgement.seen_through().numpy()


def _depths(vertices: np.ndarray, triangles: np.ndarray, camera: Camera) -> np.ndarray:
    corners = corners_of(torch.from_numpy(vertices), camera.viewmat, camera.K)
    seen = draw(
        corners, triangles, near=near_plane(corners), width=camera.width, height=camera.height
    )
    return seen.depths.numpy()


def _depths_of(teacher: Representation, camera: Camera) -> np.ndarray:
    with torch.no_grad():
        depth = teacher.render(camera, want=DEPTH).depth
    assert depth is not None, "fused_surface() asks for it"
    return depth.cpu().numpy()


def _surface_behind(
    vertices: np.ndarray, triangles: np.ndarray, teacher: Representation, cameras: Sequence[Camera]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a smooth surface behind all that the middle camera sees."""
    places = torch.stack([camera.c2w[:3, 3] for camera in cameras])
    middle = cameras[int((places - places.mean(dim=0)).norm(dim=1).argmin())]
    small = middle.downscaled(max(1, middle.width // _WIDTH))
    rim = round(_BEYOND * small.width)
    small = small.cropped(-rim, -rim, small.width + 2 * rim, small.height + 2 * rim)
    depth = _depths_of(teacher, small)
    known = np.isfinite(depth) & (depth > 0)
    depth = np.where(known, depth, np.median(depth[known]))
    window = max(3, round(_AROUND * small.width))
    far = percentile_filter(depth, _FAR, size=window)
    far = np.maximum(far, _BEHIND * _depths(vertices, triangles, small))
    return surface_at(small, gaussian_filter(far, window / 3), np.ones(far.shape, dtype=bool))


def _showing(vertices: np.ndarray, triangles: np.ndarray, task: Task) -> dict[int, np.ndarray]:
    """Of some training pictures by index, the pixels that show the surface behind: where the
    teacher sees as far."""
    assert task.teacher is not None
    found = {}
    for index in spread(list(task.scene.train_indices), _LOOKS):
        camera = task.images.camera(index)
        least = _AS_FAR * _depths(vertices, triangles, camera)
        found[index] = (least > 0) & (_depths_of(task.teacher, camera) >= least)
    return found
