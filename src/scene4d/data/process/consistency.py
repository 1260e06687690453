"""How much of what the pictures show the found cameras do not explain: the sign of a moving scene.

Reprojection errors of a model cannot tell, because what contradicts the poses is not in it. So the
matches that passed the geometry of their own two pictures are followed through all pictures, and
each chain is asked for one point in space that explains it.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_TOLERANCE = 0.0013
"""Of the picture's diagonal: 1.4 px in 960x540; features are found to a third of that."""
_LEAST_INLIERS = 30
_LEAST_VIEWS = 4
"""Three views of a moving thing still agree by chance, along its way."""
_LEAST_TRACKS = 50
_SAMPLE = 1000
_WIDEST = 6
"""Pairs of cameras, farthest apart, that propose a point."""


def unexplained_share(colmap: Any, database: Path, reconstruction: Any) -> float | None:
    """Share of the features, followed through four and more pictures, that no point explains.

    None where there are too few to tell. Measured with 12 to 16 pictures of 480 px: still scenes
    0.03 to 0.19, a toy that moves 0.33 (docs/process-data.md).
    """
    features, links = _features_and_links(colmap, database, set(reconstruction.reg_image_ids()))
    tracks = _tracks(features, links)
    if len(tracks) < _LEAST_TRACKS:
        return None
    views = {image: _view(reconstruction, image) for image in np.unique(features[:, 0]).tolist()}
    order = np.random.default_rng(0).permutation(len(tracks))[:_SAMPLE]
    keypoints = _keypoints(colmap, database, views)
    explained = total = 0
    for track in (tracks[i] for i in order):
        rows = features[track]
        xy = np.stack([keypoints[image][point] for image, point in rows.tolist()])
        poses = np.stack([views[image][0] for image in rows[:, 0].tolist()])
        scale = np.array([views[image][1] for image in rows[:, 0].tolist()])
        if not np.isfinite(xy).all():  # outside what the lens can see: it explains nothing
            total += len(rows)
            continue
        explained += explained_views(poses, xy, scale)
        total += len(rows)
    return 1 - explained / total


def explained_views(poses: np.ndarray, xy: np.ndarray, scale: np.ndarray) -> int:
    """The most views that one point in space explains.

    ``poses`` [n, 3, 4] world-to-camera, ``xy`` [n, 2] on the plane at depth 1, ``scale`` [n] from
    that plane to diagonals of the picture. Points are proposed by the pairs of cameras farthest
    apart, and by all.
    """
    centres = -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])
    pairs = list(combinations(range(len(poses)), 2))
    pairs.sort(key=lambda pair: -float(np.linalg.norm(centres[pair[0]] - centres[pair[1]])))
    equations = xy[:, :, None] * poses[:, None, 2] - poses[:, :2]
    best = 0
    for chosen in [*map(list, pairs[:_WIDEST]), list(range(len(poses)))]:
        point = np.linalg.svd(equations[chosen].reshape(-1, 4))[2][-1]
        local = poses @ (point if point[3] >= 0 else -point)
        ahead = local[:, 2] > 1e-12
        off = local[:, :2] / np.where(ahead, local[:, 2], 1.0)[:, None] - xy
        best = max(best, int((ahead & (np.linalg.norm(off, axis=1) * scale < _TOLERANCE)).sum()))
    return best


def _features_and_links(
    colmap: Any, database: Path, registered: set[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 2] (picture, number in it) with verified matches, and the matches [m, 2]."""
    opened = colmap.Database.open(database)
    try:
        pair_ids, geometries = opened.read_two_view_geometries()
    finally:
        opened.close()
    ends = [np.empty((0, 2, 2), dtype=np.int64)]
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        pair = colmap.pair_id_to_image_pair(pair_id)
        matches = np.asarray(geometry.inlier_matches, dtype=np.int64)
        if len(matches) >= _LEAST_INLIERS and registered.issuperset(pair):
            pictures = np.broadcast_to(np.array(pair), matches.shape)
            ends.append(np.stack([pictures, matches], axis=-1))
    flat = np.concatenate(ends).reshape(-1, 2)
    features, rows = np.unique(flat, axis=0, return_inverse=True)
    return features, rows.reshape(-1, 2)


def _tracks(features: np.ndarray, links: np.ndarray) -> list[np.ndarray]:
    """Rows of ``features`` that hang together, once in each picture and in enough of them."""
    size = (len(features), len(features))
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=size)
    label = connected_components(graph, directed=False)[1] if len(features) else np.empty(0, int)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [
        group
        for group in groups
        if len(group) >= _LEAST_VIEWS and len(np.unique(features[group, 0])) == len(group)
    ]


def _view(reconstruction: Any, image_id: int) -> tuple[np.ndarray, float, Any]:
    """World-to-camera [3, 4], diagonals per unit of the plane at depth 1, and the lens."""
    image = reconstruction.image(image_id)
    camera = reconstruction.camera(image.camera_id)
    scale = camera.mean_focal_length() / float(np.hypot(camera.width, camera.height))
    return np.asarray(image.cam_from_world().matrix()), scale, camera


def _keypoints(colmap: Any, database: Path, views: dict[int, Any]) -> dict[int, np.ndarray]:
    """Of each picture [n, 2], without the lens's distortion, on the plane at depth 1."""
    opened = colmap.Database.open(database)
    try:
        return {
            image: np.asarray(
                views[image][2].cam_from_img(
                    np.asarray(opened.read_keypoints(image))[:, :2].astype(np.float64)
                )
            )
            for image in views
        }
    finally:
        opened.close()
