"""Which pairs of pictures are worth matching in full, found from their largest features.

Preemptive matching: Wu, "Towards Linear-Time Incremental Structure from Motion", 3DV 2013. Large
features are few, and stable between pictures that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_FEATURES = 256
"""Of the largest scale, per picture."""
_RATIO = 0.9
"""Largest quotient of the distances to the nearest and the second nearest feature."""


def likely_pairs(
    colmap: Any, database: Path, names: Sequence[str], *, per_picture: int, neighbours: int
) -> list[tuple[str, str]]:
    """Each picture with the ``per_picture`` most similar ones and its ``neighbours`` in order."""
    descriptors = _largest_features(colmap, database, names)
    votes = similarity(descriptors)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(names)):
        best = np.argsort(-votes[i], kind="stable")[:per_picture]
        pairs.update((min(i, int(j)), max(i, int(j))) for j in best if votes[i, j] > 0)
        last = min(i + neighbours, len(names) - 1)
        pairs.update((i, j) for j in range(i + 1, last + 1))
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def similarity(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """[N, N] number of mutual nearest neighbours that pass the ratio test; 0 on the diagonal.

    ``descriptors``: N arrays [n_i, D] of any scale; they are normalised here.
    """
    unit = [d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9) for d in descriptors]
    count = len(unit)
    votes = np.zeros((count, count), dtype=np.int64)
    for i in range(count):
        for j in range(i + 1, count):
            if min(len(unit[i]), len(unit[j])) >= 2:
                votes[i, j] = votes[j, i] = _mutual(unit[i] @ unit[j].T)
    return votes


def _mutual(cosine: np.ndarray) -> int:
    forward, backward = cosine.argmax(axis=1), cosine.argmax(axis=0)
    rows = np.arange(len(cosine))
    two = -np.partition(-cosine, 1, axis=1)[:, :2]
    distance = np.sqrt(np.maximum(2 - 2 * two, 0))
    unambiguous = distance[:, 0] <= _RATIO * distance[:, 1]
    return int(np.count_nonzero((backward[forward] == rows) & unambiguous))


def _largest_features(colmap: Any, path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """[n, 128] float32 descriptors of the largest features of each picture."""
    database = colmap.Database.open(path)
    try:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        found = []
        for name in names:
            keypoints = np.asarray(database.read_keypoints(ids[name]))
            data = np.asarray(database.read_descriptors(ids[name]).data, dtype=np.float32)
            order = np.argsort(-feature_scales(keypoints), kind="stable")[:_FEATURES]
            found.append(data[order].reshape(len(order), -1))
        return found
    finally:
        database.close()


def feature_scales(keypoints: np.ndarray) -> np.ndarray:
    """[n] scale of COLMAP key points: x y scale orientation, or x y and a 2 x 2 shape."""
    if keypoints.shape[1] < 6:
        return keypoints[:, 2] if keypoints.shape[1] > 2 else np.ones(len(keypoints))
    a11, a12, a21, a22 = keypoints[:, 2:6].T
    return np.sqrt(np.abs(a11 * a22 - a12 * a21))
