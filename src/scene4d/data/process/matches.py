"""What COLMAP's database says of the pictures: features, verified pairs, and their parallax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_ENOUGH_INLIERS = 100
"""COLMAP's limit for the pair that a model starts from."""
MIN_INLIERS = 30
"""Verified matches below which two pictures hardly overlap (COLMAP's limit for a pose)."""
_STILL = 0.005
"""Of the picture's diagonal: 7 px in 1280x720. A camera on a stand shows 0.0002."""
_HARDLY = 0.03
_MOSTLY = 0.7


@dataclass(frozen=True, kw_only=True)
class PairFacts:
    """What geometric verification said of two pictures."""

    inliers: int
    displacement: float
    """Median distance between matched features over the picture's diagonal."""
    turned_only: bool
    """One homography explains the pair: a plane, or a camera that only turned."""
    angle_deg: float
    """Median angle between the rays of a match; 0 where no relative pose was found."""


@dataclass(frozen=True, kw_only=True)
class Database:
    """COLMAP's, read: by the numbers of images and cameras."""

    images: Mapping[int, Any]
    cameras: Mapping[int, Any]
    keypoints: Mapping[int, np.ndarray]
    """[n, 2] of each image, pixels."""
    pairs: Sequence[tuple[tuple[int, int], Any]]
    """Two images, and what geometric verification kept of their matches."""


def read_database(colmap: Any, path: Path) -> Database:
    """All of it that is asked for after matching."""
    database = colmap.Database.open(path)
    try:
        images = {image.image_id: image for image in database.read_all_images()}
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        keypoints = {i: database.read_keypoints(i)[:, :2].astype(np.float64) for i in images}
        pair_ids, geometries = database.read_two_view_geometries()
    finally:
        database.close()
    pairs = [
        (colmap.pair_id_to_image_pair(pair_id), geometry)
        for pair_id, geometry in zip(pair_ids, geometries, strict=True)
    ]
    return Database(images=images, cameras=cameras, keypoints=keypoints, pairs=pairs)


def read_matches(
    colmap: Any, path: Path
) -> tuple[dict[str, int], dict[tuple[str, str], PairFacts]]:
    """The number of features of each picture, and the verified pairs."""
    found = read_database(colmap, path)
    images = found.images
    pairs = {}
    for numbers, geometry in found.pairs:
        if not len(geometry.inlier_matches):
            continue
        ends = [
            (images[i].name, found.cameras[images[i].camera_id], found.keypoints[i])
            for i in numbers
        ]
        pairs[ends[0][0], ends[1][0]] = _facts(colmap, geometry, ends)
    return {images[i].name: len(k) for i, k in found.keypoints.items()}, pairs


def _facts(colmap: Any, geometry: Any, ends: list[tuple[str, Any, np.ndarray]]) -> PairFacts:
    """``ends``: name, camera and key points of both pictures."""
    configuration = colmap.TwoViewGeometryConfiguration
    homographies = (
        configuration.PLANAR,
        configuration.PANORAMIC,
        configuration.PLANAR_OR_PANORAMIC,
    )
    (_, camera, points), (_, other_camera, other_points) = ends
    matches = geometry.inlier_matches
    moved = points[matches[:, 0]] - other_points[matches[:, 1]]
    turned_only = geometry.config in homographies  # read before the pose is estimated
    posed = colmap.estimate_two_view_geometry_pose(
        camera, points, other_camera, other_points, geometry
    )
    return PairFacts(
        inliers=len(matches),
        displacement=float(
            np.median(np.linalg.norm(moved, axis=1)) / np.hypot(camera.width, camera.height)
        ),
        turned_only=turned_only,
        angle_deg=float(np.degrees(geometry.tri_angle)) if posed else 0.0,
    )


def parallax_deg(pairs: Mapping[tuple[str, str], PairFacts]) -> float:
    """The angle that one pair in twenty exceeds, among those with enough matches; 0 without any.

    A single pair may be mistaken.
    """
    angles = [facts.angle_deg for facts in pairs.values() if facts.inliers >= _ENOUGH_INLIERS]
    return float(np.percentile(angles, 95)) if angles else 0.0


def stands_still(pairs: Mapping[tuple[str, str], PairFacts]) -> bool:
    """Whether the background stays where it is in the picture (within half a per cent of its
    diagonal) even in the pairs that differ most. COLMAP would look in vain for minutes."""
    moved = [facts.displacement for facts in pairs.values() if facts.inliers >= _ENOUGH_INLIERS]
    return bool(moved) and float(np.percentile(moved, 95)) < _STILL


def hardly_moves(pairs: Mapping[tuple[str, str], PairFacts]) -> bool:
    """Whether no pair shows the background shifted by 3 % of the picture's diagonal."""
    strong = _strong(pairs)
    return bool(strong) and max(p.displacement for p in strong) < _HARDLY


def only_turns(pairs: Mapping[tuple[str, str], PairFacts]) -> bool:
    """Whether homographies explain most pairs: the camera only turns, or looks at a flat wall."""
    strong = _strong(pairs)
    return bool(strong) and float(np.mean([p.turned_only for p in strong])) > _MOSTLY


def stayed(pairs: Mapping[tuple[str, str], PairFacts]) -> bool:
    """Whether the camera hardly left its place, as far as pairs tell."""
    return hardly_moves(pairs) or only_turns(pairs)


def _strong(pairs: Mapping[tuple[str, str], PairFacts]) -> list[PairFacts]:
    return [facts for facts in pairs.values() if facts.inliers >= MIN_INLIERS]


def well_matched(pairs: Mapping[tuple[str, str], PairFacts], num_pictures: int) -> bool:
    """Whether nine pictures in ten have a partner with twice the matches that mapping needs."""
    matched = {
        name for names, facts in pairs.items() if facts.inliers >= 2 * _ENOUGH_INLIERS
        for name in names
    }  # fmt: skip
    return len(matched) >= 0.9 * num_pictures
