"""What a mesh is before training: a surface, simplified, laid flat, and painted by photographs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from scene4d.cameras.camera import Camera
from scene4d.data.outlines import leave_out_borders, outlines_of
from scene4d.errors import DataError, UsageError
from scene4d.exporters.mesh import fused_surface, largest_parts, seen_surfaces, spread
from scene4d.exporters.options import MeshOptions
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.backdrop import look_one_way, with_backdrop
from scene4d.methods.mesh.baking import baked_texture, shown_area
from scene4d.methods.mesh.gaps import without_gaps
from scene4d.methods.mesh.judging import difference
from scene4d.methods.mesh.method import MeshMethod
from scene4d.methods.mesh.visual_hull import visual_hull
from scene4d.optional import import_optional
from scene4d.rendering.mesh.edges import edges_of
from scene4d.rendering.mesh.fragments import corners_of
from scene4d.representations.base import Representation
from scene4d.representations.task import Task
from scene4d.representations.texture_atlas import flattened

_FILL = 0.6
"""Share of an atlas that charts cover, about."""
_LEAST_TEXTURE = 64
_LEAST_OBJECT, _LEAST_PART = 0.05, 0.002
"""Triangles of a part as a share of the largest one's: beside an object lie floaters; a scene that
fills its pictures is of many parts."""
_LOOKS = 96
"""Outlines that a visual hull is made of, at most."""
_NEEDED_FOR = "the method for meshes"
_SMOOTHING = (0.5, -0.53)
"""Steps in and out of one round of Taubin, "A signal processing approach to fair surface design",
SIGGRAPH 1995: noise goes, and the shape does not shrink."""
_log = logging.getLogger("scene4d")


def starting_mesh(task: Task, options: MeshMethod) -> MeshData:
    """The surface that the teacher shows, an object's visual hull (as it is, or carved by the
    teacher's depths), or a ball, with the photographs on it.

    Raises :class:`UsageError` without training cameras, or without outlines where the hull is asked
    for; :class:`DataError` where there is no surface.
    """
    if not task.training_cameras:
        raise UsageError("a mesh is made from photographs, and there is none", fix="give --data")
    if options.start == "sphere":
        mesh = _painted(*_ball(task, options.max_triangles), None, task=task, options=options)
    else:
        mesh = _best(task, options)
    _log.info(
        "a mesh of %s triangles and a texture of %d x %d to begin with",
        f"{len(mesh.triangles):,}", *mesh.texture.shape[:2],
    )  # fmt: skip
    return mesh


def _best(task: Task, options: MeshMethod) -> MeshData:
    outlines = outlines_of(task.images.view(i) for i in task.scene.train_indices)
    paint = partial(_painted, showing=None, task=task, options=options)
    if options.start == "teacher" or (options.start == "auto" and not outlines):
        return paint(*_surface(task, options))
    if task.teacher is None or options.start == "hull":
        return paint(*_hull(task, outlines, options))
    ways = {
        "the outlines' visual hull": partial(_hull, task, outlines, options),
        "what the teacher's depths leave of it": partial(
            _hull, task, outlines, options, carved_by=task.teacher
        ),
        "the surface of the teacher's depths": partial(_surface, task, options),
    }
    meshes, failures = {}, []
    for name, way in ways.items():
        try:
            meshes[name] = paint(*way())
        except DataError as error:  # masks that are wrong, or depths: the others may be right
            failures.append(error)
    if not meshes:
        raise failures[0]
    errors = {name: difference(mesh, task, outlines) for name, mesh in meshes.items()}
    best = min(errors, key=lambda name: errors[name])
    told = ", ".join(f"{error:.4f} of {name}" for name, error in errors.items())
    _log.info("begins as %s: errors of colour and outline are %s", best, told)
    return meshes[best]


def _painted(
    vertices: np.ndarray,
    triangles: np.ndarray,
    showing: Mapping[int, np.ndarray] | None,
    *,
    task: Task,
    options: MeshMethod,
) -> MeshData:
    """The triangles laid flat, with the photographs on them; ``showing`` as of
    :func:`baked_texture`."""
    vertices = vertices.astype(np.float32).astype(np.float64)
    area = shown_area(vertices, triangles, task.training_cameras)
    side = np.sqrt(area / _FILL) * options.oversampling
    size = _LEAST_TEXTURE
    while size < side and 2 * size <= options.texture_size:
        size *= 2
    size = min(size, options.texture_size)
    uv, uv_triangles = flattened(vertices, triangles, size=size, padding=options.padding)
    texture = np.full((size, size, 3), 0.5, np.float32)
    bare = MeshData(
        vertices=vertices, triangles=triangles, uv=uv, uv_triangles=uv_triangles, texture=texture
    )
    return baked_texture(bare, task, even_exposure=options.even_exposure, showing=showing)


def _hull(
    task: Task,
    outlines: Mapping[int, torch.Tensor],
    options: MeshMethod,
    carved_by: Representation | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The object's visual hull, of at most as many triangles as asked for."""
    if not outlines:
        raise UsageError(
            "the pictures show no outline of an object, by alpha or by masks that leave out their "
            "borders",
            fix="give --start teacher, or masks of the object",
        )
    looks = [(task.images.camera(i), outlines[i]) for i in spread(list(outlines), _LOOKS)]
    depths = None
    if carved_by is not None:
        depths = [depth for _, _, depth in seen_surfaces(carved_by, looks)]
    centre, reach = _looked_at(task.training_cameras)
    vertices, triangles = visual_hull(
        *zip(*looks, strict=True),
        centre=centre, reach=reach, voxel=options.voxel, depths=depths,
    )  # fmt: skip
    if not len(triangles):
        raise DataError(
            "the outlines have nothing in common: no place is within all of them",
            fix="check masks and poses, or give --start teacher",
        )
    least = _LEAST_OBJECT if options.min_cluster is None else options.min_cluster
    vertices, _, triangles, _ = largest_parts(vertices, np.zeros_like(vertices), triangles, least)
    vertices = _smoothed(vertices, triangles, options.smoothing)
    return simplified(vertices, triangles, options.max_triangles)


def _surface(task: Task, options: MeshMethod) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's, of at most as many triangles as asked for."""
    if task.teacher is None:
        raise UsageError(
            "a mesh starts from a trained scene, and there is none",
            fix="name one with --teacher, or give --start hull or --start sphere",
        )
    masks = [task.images.view(i).mask for i in task.scene.train_indices]
    volume = fused_surface(
        task.teacher,
        task.training_cameras,
        MeshOptions(voxel=options.voxel),
        where="the teacher",
        masks=masks,
    )
    vertices, colours, triangles = volume.mesh()
    if options.masked_out < 1 and any(mask is not None for mask in masks):
        out = masked_share(vertices, task.training_cameras, masks) > options.masked_out
        triangles = triangles[~out[triangles].any(axis=1)]
    if not len(triangles):
        raise DataError(
            "no surface was found to make a mesh of",
            where="the teacher",
            fix="train it longer, or give a larger --voxel",
        )
    fills = task.world.background is None and not leave_out_borders(masks)
    least = options.min_cluster
    if least is None:
        least = _LEAST_PART if fills else _LEAST_OBJECT
    vertices, _, triangles, _ = largest_parts(vertices, colours, triangles, least)
    vertices = _smoothed(vertices, triangles, options.smoothing)
    behind = fills and look_one_way(task.training_cameras)
    if behind and options.backdrop:
        vertices, triangles = with_backdrop(
            vertices, triangles, task.teacher, task.training_cameras
        )
    vertices, triangles = simplified(vertices, triangles, options.max_triangles)
    if behind and options.gaps:
        paint = partial(_painted, task=task, options=options)
        vertices, triangles = without_gaps(vertices, triangles, task, paint)
        vertices, triangles = simplified(vertices, triangles, options.max_triangles)
    return vertices, triangles


def masked_share(
    points: np.ndarray, cameras: Sequence[Camera], masks: Sequence[torch.Tensor | None]
) -> np.ndarray:
    """Of each point [N, 3], the share of the pictures that it lies in whose masks are False
    there."""
    seen, masked = masked_counts(points, cameras, masks)
    return masked / np.maximum(seen, 1)


def masked_counts(
    points: np.ndarray, cameras: Sequence[Camera], masks: Sequence[torch.Tensor | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each point [N, 3], in how many pictures it lies, and in how many of these masks are False
    there."""
    seen, masked = np.zeros(len(points)), np.zeros(len(points))
    for camera, mask in zip(cameras, masks, strict=True):
        corners = corners_of(torch.from_numpy(points), camera.viewmat, camera.K).numpy()
        z = np.where(corners[:, 2] > 0, corners[:, 2], np.nan)
        column, row = np.floor(corners[:, 0] / z), np.floor(corners[:, 1] / z)
        inside = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
        seen += inside
        if mask is not None:
            at = row[inside].astype(int), column[inside].astype(int)
            masked[inside] += ~mask.numpy()[at]
    return seen, masked


def _ball(task: Task, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Around the point that is nearest to all viewing axes; as large as half a picture there."""
    import trimesh

    centre, reach = _looked_at(task.training_cameras)
    levels = max(0, int(np.log(max(most, 20) / 20) / np.log(4)))
    ball = trimesh.creation.icosphere(subdivisions=min(levels, 8), radius=reach / 4)
    return np.asarray(ball.vertices) + centre, np.asarray(ball.faces, dtype=np.int64)


def _looked_at(cameras: Sequence[Camera]) -> tuple[np.ndarray, float]:
    """The point that is nearest to all viewing axes, and how wide pictures are there."""
    centres = torch.stack([c.c2w[:3, 3] for c in cameras]).double()
    axes = -torch.stack([c.c2w[:3, 2] for c in cameras]).double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    centre = torch.linalg.lstsq(across.sum(0), (across @ centres[:, :, None]).sum(0)).solution[:, 0]
    wide = [
        float((c - centre).norm())
        * min(camera.width / camera.K[0, 0], camera.height / camera.K[1, 1])
        for c, camera in zip(centres, cameras, strict=True)
    ]
    return centre.numpy(), float(np.median(wide))


def _smoothed(vertices: np.ndarray, triangles: np.ndarray, rounds: int) -> np.ndarray:
    """Without the steps of voxels: each vertex toward the mean of its neighbours, and back."""
    ends = edges_of(triangles).ends
    both = np.concatenate([ends, ends[:, ::-1]])
    degree = np.maximum(np.bincount(both[:, 0], minlength=len(vertices)), 1)[:, None]
    for step in _SMOOTHING * rounds:
        mean = np.stack(
            [np.bincount(both[:, 0], vertices[both[:, 1], k], len(vertices)) for k in range(3)], 1
        )
        vertices = vertices + step * (mean / degree - vertices)
    return vertices


def simplified(
    vertices: np.ndarray, triangles: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most ``most`` triangles (quadric error: Garland and Heckbert 1997), none without area,
    and no vertex that none of them has."""
    if len(triangles) > most:
        found = import_optional(
            "fast_simplification",
            extra="mesh",
            needed_for=_NEEDED_FOR,
            package="fast-simplification",
        )
        centre, scale = vertices.mean(axis=0), np.ptp(vertices, axis=0).max()
        near = ((vertices - centre) / scale).astype(np.float32)
        near, triangles = found.simplify(near, triangles.astype(np.int32), target_count=most)[:2]
        vertices = near.astype(np.float64) * scale + centre
    triangles = np.asarray(triangles, dtype=np.int64)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    triangles = triangles[area > 1e-12 * max(area.max(initial=0.0), 1e-300)]
    if not len(triangles):
        raise DataError("nothing is left of the surface", fix="give more --max-triangles")
    used, index = np.unique(triangles, return_inverse=True)
    return vertices[used], index.reshape(-1, 3)
