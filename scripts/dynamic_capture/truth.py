"""What is exactly known of a drawn capture: what moves, what is covisible, where points go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynamic_capture.raster import Pinhole, Seen

SAME_SURFACE = 0.01
"""Of the depth: a point this near to what a picture shows is shown."""
MOVES = 1e-4
"""Scene units: triangles that move by less stand still."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """One picture that was taken."""

    name: str
    camera: Pinhole
    frame: int
    """Of the capture's times."""
    seen: Seen
    """At pixels' centres."""


def moving_faces(positions: Sequence[np.ndarray]) -> np.ndarray:
    """[triangles] which move at any time; ``positions`` [triangles, 3, 3] of every frame."""
    first = positions[0]
    most = np.zeros(len(first))
    for now in positions[1:]:
        most = np.maximum(most, np.abs(now - first).max(axis=(1, 2)))
    return most > MOVES


def dynamic_mask(shot: Shot, moving: np.ndarray) -> np.ndarray:
    """[height, width] where the visible surface ever moves."""
    known = shot.seen.face >= 0
    return known & moving[np.where(known, shot.seen.face, 0)]


def material_points(face: np.ndarray, weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """[..., 3] where points of triangles are, by barycentric coordinates."""
    return np.einsum("...k,...kd->...d", weights.astype(np.float64), positions[face])


def shows(shot: Shot, points: np.ndarray) -> np.ndarray:
    """[points] which of the world points [points, 3] a picture shows."""
    pixels, depth = shot.camera.project(points)
    column, row = (np.floor(np.clip(pixels, -1e6, 1e6)).astype(np.int64)).T
    inside = (depth > 0) & (column >= 0) & (row >= 0)
    inside &= (column < shot.camera.width) & (row < shot.camera.height)
    there = np.full(len(points), np.inf)
    there[inside] = shot.seen.depth[row[inside], column[inside]]
    return inside & (np.abs(there - depth) <= SAME_SURFACE * depth)


def covisible_mask(
    shot: Shot, train: Sequence[Shot], positions: Sequence[np.ndarray]
) -> np.ndarray:
    """[height, width] whose material point more than max(5, int(0.1 n)) of the n training pictures
    show: DyCheck's rule, from the true geometry."""
    known = shot.seen.face >= 0
    face, weights = shot.seen.face[known], shot.seen.weights[known]
    count = np.zeros(len(face), dtype=np.int64)
    for other in train:
        count += shows(other, material_points(face, weights, positions[other.frame]))
    mask = np.zeros(known.shape, dtype=bool)
    mask[known] = count > max(5, int(0.1 * len(train)))
    return mask


def tracks(
    train: Sequence[Shot],
    moving: np.ndarray,
    positions: Sequence[np.ndarray],
    count: int,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """``points`` [frames, count, 3], ``pixels`` [frames, count, 2] and ``visible`` [frames, count]
    of material points on what moves, drawn evenly from the training pictures."""
    faces, weights = [], []
    for shot in train:
        rows, columns = np.nonzero(dynamic_mask(shot, moving))
        if len(rows):
            pick = generator.integers(0, len(rows), -(-4 * count // len(train)))
            faces.append(shot.seen.face[rows[pick], columns[pick]])
            weights.append(shot.seen.weights[rows[pick], columns[pick]])
    if not faces:
        return {}
    face, weight = np.concatenate(faces), np.concatenate(weights)
    chosen = generator.permutation(len(face))[:count]
    face, weight = face[chosen], weight[chosen]
    points = np.stack([material_points(face, weight, positions[s.frame]) for s in train])
    pixels = np.stack([s.camera.project(p)[0] for s, p in zip(train, points, strict=True)])
    visible = np.stack([shows(s, p) for s, p in zip(train, points, strict=True)])
    return {
        "points": points.astype(np.float32),
        "pixels": pixels.astype(np.float32),
        "visible": visible,
    }
