"""A triangle mesh with vertex colours, fused from rendered depth, as GLB, PLY or OBJ."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.tsdf import TsdfVolume
from scene4d.errors import DataError, NotEnoughMemoryError, UsageError
from scene4d.exporters.mesh_files import GLTF_AXES, write_mesh
from scene4d.exporters.options import MeshOptions
from scene4d.formats.placing import FrameChoice, placed_points, write_sidecar
from scene4d.formats.splat_cloud import split_similarity
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import Representation
from scene4d.training.opened import OpenedScene

SUFFIXES = (".glb", ".ply", ".obj")
_VOXEL_PIXELS, _LEAST_VOXEL = 1.5, 1 / 512
"""The default voxel: this many pixels wide at the median depth, and at least this share of it."""
_FAR = 3.0
_SEEN_ALPHA = 0.5
"""Pixels that are more transparent show no surface."""
_EDGE = 0.1
"""Where depth varies by more than this share from a pixel to its neighbours, expected depth is a
mean of two surfaces, and lies on neither."""
_LOOKS = 8

T = TypeVar("T")
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True)
class MeshSummary:
    """What was written."""

    num_vertices: int
    num_triangles: int
    voxel: float
    """Units of the input."""
    num_dropped: int
    """Connected parts left out for being small."""


def export(
    source: OpenedScene,
    path: Path,
    options: MeshOptions | None = None,
    *,
    frame: FrameChoice = "auto",
) -> str:
    """Writes the mesh of a trained scene in the input's frame; returns a line that describes it."""
    cameras = [camera.to(source.device) for camera in source.cameras.train]
    if not cameras:
        raise UsageError(
            "a mesh is made from renders at the training cameras, which a splat file does not hold",
            where=source.path,
            fix="give the run folder",
        )
    found = export_mesh(
        source.representation,
        cameras,
        path,
        options=options,
        source_from_scene=source.source_from_scene,
        frame=frame,
    )
    turned = f"; axes: {GLTF_AXES}" if Path(path).suffix.lower() == ".glb" else ""
    return (
        f"{found.num_vertices:,} vertices, {found.num_triangles:,} triangles,"
        f" voxels of {found.voxel:.3g} (input's units); {found.num_dropped} small parts dropped"
        f"{turned}"
    )


def export_mesh(
    representation: Representation,
    cameras: Sequence[Camera],
    path: Path,
    *,
    options: MeshOptions | None = None,
    source_from_scene: Float[Tensor, "4 4"] | None = None,
    frame: FrameChoice = "auto",
) -> MeshSummary:
    """Renders depth at ``cameras`` and writes the fused surface to ``path`` (.glb, .ply, .obj).

    Vertices are in the input's frame, in whose units ``options`` are: exact as text or as doubles.
    GLB is turned as splats in GLB are: y up, by a node, which also holds what is too far for
    float32. Colours are straight (not darkened by transparency); in GLB
    they are linear, as glTF 2.0 (3.7.2.1) asks, elsewhere as in the pictures. Raises
    :class:`DataError` when no surface is seen, :class:`UsageError` for another suffix.
    """
    home = np.eye(4) if source_from_scene is None else source_from_scene.double().numpy()
    scale, rotation, translation = split_similarity(home)
    options = _in_scene_units(options or MeshOptions(), scale)
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot write a mesh as {path.suffix or 'a file without suffix'!r}",
            where=path,
            fix=f"use one of {', '.join(SUFFIXES)}",
        )
    volume = fused_surface(representation, cameras, options, where=path)
    vertices, colours, triangles = volume.mesh()
    if not len(triangles):
        raise DataError(
            "no surface was found to make a mesh of",
            where=path,
            fix="train longer, or give a larger --voxel or --depth-limit",
        )
    vertices, colours, triangles, dropped = largest_parts(
        vertices, colours, triangles, options.min_cluster
    )
    vertices = vertices.astype(np.float64) @ (scale * rotation).T + translation
    vertices, moved, way_back = placed_points(
        vertices, path, frame, moves=path.suffix.lower() == ".glb"
    )
    write_mesh(path, vertices, colours, triangles, moved)
    write_sidecar(path, way_back)
    return MeshSummary(
        num_vertices=len(vertices),
        num_triangles=len(triangles),
        voxel=volume.voxel * scale,
        num_dropped=dropped,
    )


def _in_scene_units(options: MeshOptions, scale: float) -> MeshOptions:
    """Lengths of the input's units as lengths of the scene's."""

    def within(length: float | None) -> float | None:
        return None if length is None else length / scale

    return replace(options, voxel=within(options.voxel), depth_limit=within(options.depth_limit))


def fused_surface(
    representation: Representation,
    cameras: Sequence[Camera],
    options: MeshOptions,
    *,
    where: Path | str,
    masks: Sequence[Tensor | None] = (),
) -> TsdfVolume:
    """The volume of all renders; voxels that nobody asked for grow until they fit into memory.

    ``options`` are in scene units; ``where`` is for messages; ``masks``, one for each camera where
    there are any: pixels that are False say nothing.
    """
    looks = list(zip(cameras, masks or [None] * len(cameras), strict=True))
    looks = spread(looks, options.max_cameras)
    median = _median_depth(representation, looks, where)
    limit = options.depth_limit or _FAR * median
    focal = max(float(camera.K[0, 0]) for camera in cameras)
    voxel = options.voxel or median * max(_VOXEL_PIXELS / focal, _LEAST_VOXEL)
    while True:
        volume = TsdfVolume(voxel)
        try:
            for camera, rgb, depth in seen_surfaces(representation, looks):
                volume.integrate(camera, rgb, depth, limit=limit)
        except NotEnoughMemoryError:
            if options.voxel is not None:
                raise
            voxel *= 2
            _log.info("the surfaces are large: voxels of %.3g instead", voxel)
        else:
            return volume


def seen_surfaces(
    representation: Representation, looks: Sequence[tuple[Camera, Tensor | None]]
) -> Iterator[tuple[Camera, Float[Tensor, "height width 3"], Float[Tensor, "height width"]]]:
    """Straight colours and depth at each camera; depth 0 where no surface is seen, or where the
    camera's mask is False."""
    for camera, mask in looks:
        with torch.no_grad():
            render = representation.render(camera, want=DEPTH)
        if render.depth is None:
            raise UsageError(f"{type(representation).__name__} renders no depth, needed for a mesh")
        seen = (render.alpha >= _SEEN_ALPHA) & torch.isfinite(render.depth) & (render.depth > 0)
        seen = seen if mask is None else seen & mask.to(seen.device)
        depth = torch.where(seen, render.depth, 0.0)
        depth = torch.where(_near_edge(depth), 0.0, depth)
        yield camera, render.rgb / render.alpha.clamp_min(_SEEN_ALPHA)[..., None], depth


def _near_edge(depth: Float[Tensor, "height width"]) -> Tensor:
    """Pixels beside a jump of depth; unseen neighbours are no jump."""
    pool = torch.nn.functional.max_pool2d
    image = depth[None, None]
    farthest = pool(image, 3, stride=1, padding=1)[0, 0]
    seen = torch.where(image > 0, image, torch.inf)
    nearest = -pool(-seen, 3, stride=1, padding=1)[0, 0]
    return farthest - nearest > _EDGE * depth


def _median_depth(
    representation: Representation,
    looks: Sequence[tuple[Camera, Tensor | None]],
    where: Path | str,
) -> float:
    depths = [
        depth[depth > 0] for _, _, depth in seen_surfaces(representation, spread(looks, _LOOKS))
    ]
    found = torch.cat(depths) if depths else torch.empty(0)
    if not len(found):
        raise DataError(
            "the training cameras see no opaque surface", where=where, fix="train longer"
        )
    return float(found.median())


def spread(looks: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly."""
    count = min(len(looks), most)
    return [looks[i * len(looks) // count] for i in range(count)]


def largest_parts(
    vertices: np.ndarray, colours: np.ndarray, triangles: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The connected parts with at least ``share`` of the largest one's triangles, and how many
    parts were dropped.

    Vertices that no triangle uses go, too. Vertices and triangles are sorted."""
    import trimesh

    edges = trimesh.geometry.faces_to_edges(triangles)
    part = trimesh.graph.connected_component_labels(edges, node_count=len(vertices))[
        triangles[:, 0]
    ]
    sizes = np.bincount(part)
    kept = sizes >= max(share * sizes.max(), 1)
    triangles = triangles[kept[part]]
    used = np.unique(triangles)
    used = used[np.lexsort(vertices[used].T)]
    new_index = np.zeros(len(vertices), dtype=np.int64)
    new_index[used] = np.arange(len(used))
    triangles = new_index[triangles]
    first = triangles.argmin(axis=1)[:, None]
    triangles = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
    triangles = triangles[np.lexsort(triangles.T)]
    dropped = int(np.count_nonzero(sizes)) - int(np.count_nonzero(kept))
    return vertices[used], colours[used], triangles, dropped
