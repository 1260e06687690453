"""Pictures that were all taken from one place: how the camera turned, from what they share.

Without travel there is no depth, and structure from motion finds nothing. But a camera that only
turns moves every still point by one rotation, ``d' ~ R d`` for viewing rays d, whatever is how far
away. Rotations of pairs are fitted to matches by sampling two at a time (Fischler & Bolles, RANSAC,
1981) and by Kabsch's solution, reweighted; those of the pictures by rotation averaging (Hartley et
al., "Rotation averaging", 2013, chordal distance), from the best connected picture on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from scene4d.data.process.matches import MIN_INLIERS, Database, read_database
from scene4d.data.process.sfm import SfmCamera, SfmImage, SfmModel, plain_camera

FocalSource = Literal["metadata", "turning", "guess"]
Rays = Float[np.ndarray, "matches 3"]
_TRIALS = 64
_NEAR_PX = 2.0
"""A match within it belongs to the still part; features are found to a third of a pixel."""
_AGREES, _EXPLAINS = 0.003, 0.001
"""Of the picture's longer side: where pairs are off by more, no rotation explains them, and the
camera did not stay in its place; below the second, they explain all that there is to see."""
_ROUNDS = 10
_SWEEPS = 20
_STILL_PX = 0.5
"""A rotation that moves the picture by less is noise: the camera stands still."""
_TURN_FOR_FOCAL_DEG = 10.0
"""Between two pictures, for their focal length to be told by it."""
_FOCALS = np.geomspace(0.5, 2.0, 29)
"""Times the guess: fields of view of 23 to 80 degrees where it is 1.2 times the longer side."""
_ASKED = 20
_CLEARER = 0.9
"""Of the misfit by the guess: a focal length that fits less clearly better is not believed."""


@dataclass(frozen=True, kw_only=True)
class OnePlace:
    """Pictures from one place."""

    model: SfmModel
    """Cameras at the origin; no points. Of the pictures that hang together."""
    focal: FocalSource
    """Where the focal length comes from."""
    turn_deg: float
    """The largest angle between the rotations of two pictures; 0: the camera stands still."""
    off_px: float
    """By how much matches of the still part are off (median), pixels."""

    @property
    def explains_all(self) -> bool:
        """Whether there is no parallax from which poses could be found."""
        return self.off_px < _EXPLAINS * _longer_side(self.model.cameras.values())


@dataclass(frozen=True, kw_only=True)
class _Pair:
    first: int
    second: int
    pixels: tuple[np.ndarray, np.ndarray]
    """[n, 2] of both pictures, from the principal point."""


def in_one_place(colmap: Any, database: Path) -> OnePlace | None:
    """The pictures of COLMAP's database with verified matches, as if from one place; None where no
    rotations explain them."""
    matched = read_database(colmap, database)
    images, cameras, pairs = matched.images, matched.cameras, _pairs(matched)
    if not pairs:
        return None
    focals = {i: float(cameras[image.camera_id].mean_focal_length()) for i, image in images.items()}
    known = all(cameras[image.camera_id].has_prior_focal_length for image in images.values())
    source: FocalSource = "metadata" if known else "guess"
    factor = 1.0 if known else _focal_factor(pairs, focals)
    if factor != 1.0:
        source, focals = "turning", {i: factor * f for i, f in focals.items()}
    found = [_fitted(pair, focals) for pair in pairs]
    focal = float(np.median(list(focals.values())))
    off_px = focal * float(np.median([off for _, off in found]))
    if off_px > _AGREES * _longer_side(cameras.values()):
        return None
    relative = {(p.first, p.second): r for p, (r, _) in zip(pairs, found, strict=True)}
    weights = {(p.first, p.second): float(len(p.pixels[0])) for p in pairs}
    turns = averaged_rotations(relative, weights)
    turn = _largest_angle(list(turns.values()))
    if focal * turn < _STILL_PX:
        turns, turn = {i: np.eye(3) for i in turns}, 0.0
    model = _model(images, cameras, turns, factor)
    return OnePlace(model=model, focal=source, turn_deg=float(np.degrees(turn)), off_px=off_px)


def _longer_side(cameras: Iterable[Any]) -> int:
    """Pixels, of the largest picture."""
    return max(max(camera.width, camera.height) for camera in cameras)


def averaged_rotations(
    relative: Mapping[tuple[int, int], Float[np.ndarray, "3 3"]],
    weights: Mapping[tuple[int, int], float],
) -> dict[int, Float[np.ndarray, "3 3"]]:
    """World-to-camera rotations R_i that suit R_b R_a^T = ``relative[a, b]`` best; of the largest
    group that hangs together, the best connected one of which is the identity."""
    near: dict[int, dict[int, tuple[np.ndarray, float]]] = {}
    for (a, b), rotation in relative.items():
        near.setdefault(b, {})[a] = rotation, weights[a, b]
        near.setdefault(a, {})[b] = rotation.T, weights[a, b]
    root, group = _largest_group(near)
    turns = {root: np.eye(3)}
    for i, parent in group:
        turns[i] = near[i][parent][0] @ turns[parent]
    for _ in range(_SWEEPS):
        for i, _ in group:
            total = sum(w * (rotation @ turns[j]) for j, (rotation, w) in near[i].items())
            turns[i] = _nearest_rotation(np.asarray(total))
    return turns


def _largest_group(
    near: Mapping[int, Mapping[int, tuple[np.ndarray, float]]],
) -> tuple[int, list[tuple[int, int]]]:
    """Its best connected member, and the others with who leads to them, in that order."""
    strength = {i: sum(w for _, w in others.values()) for i, others in near.items()}
    best: tuple[int, list[tuple[int, int]]] = (-1, [])
    seen: set[int] = set()
    for root in sorted(near, key=lambda i: (-strength[i], i)):
        if root in seen:
            continue
        seen.add(root)
        order: list[tuple[int, int]] = []
        queue = deque([root])
        while queue:
            parent = queue.popleft()
            others = sorted(near[parent], key=lambda i: (-near[parent][i][1], i))
            for i in others:
                if i not in seen:
                    seen.add(i)
                    order.append((i, parent))
                    queue.append(i)
        if best[0] < 0 or len(order) > len(best[1]):
            best = root, order
    return best


def _pairs(database: Database) -> list[_Pair]:
    """Those with enough verified matches."""
    images, cameras = database.images, database.cameras
    pairs = []
    for (a, b), geometry in database.pairs:
        matches = np.asarray(geometry.inlier_matches, dtype=np.int64)
        if len(matches) < MIN_INLIERS:
            continue
        xy = [
            database.keypoints[i][matches[:, k]] - _principal_point(cameras[images[i].camera_id])
            for k, i in enumerate((a, b))
        ]
        pairs.append(_Pair(first=a, second=b, pixels=(xy[0], xy[1])))
    return pairs


def _principal_point(camera: Any) -> np.ndarray:
    return np.array([camera.principal_point_x, camera.principal_point_y])


def _fitted(
    pair: _Pair, focals: Mapping[int, float], factor: float = 1.0
) -> tuple[np.ndarray, float]:
    """:func:`fitted_rotation` of the pair's matches, with ``factor`` times those focal lengths."""
    rays = []
    for image, xy in zip((pair.first, pair.second), pair.pixels, strict=True):
        local = np.column_stack([xy, np.full(len(xy), factor * focals[image])])
        rays.append(local / np.linalg.norm(local, axis=1, keepdims=True))
    return fitted_rotation(*rays, near=_NEAR_PX / (factor * focals[pair.first]))


def fitted_rotation(a: Rays, b: Rays, *, near: float) -> tuple[Float[np.ndarray, "3 3"], float]:
    """The rotation that takes most of the unit vectors ``a`` to ``b``, and by how much the half
    that it suits best is off (median), rad. ``near``: rad, within which samples agree."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(a), (_TRIALS, 2))
    tried = _nearest_rotation(np.einsum("tki,tkj->tij", b[chosen], a[chosen]))
    off = np.linalg.norm(np.einsum("tij,nj->tni", tried, a) - b, axis=-1)
    rotation = tried[int((off < near).sum(1).argmax())]
    for _ in range(_ROUNDS):
        off = np.linalg.norm(a @ rotation.T - b, axis=1)
        scale = max(float(np.quantile(off, 0.25)), 1e-5)
        weight = 1 / (1 + (off / (2 * scale)) ** 2) ** 2
        rotation = _nearest_rotation((b * weight[:, None]).T @ a)
    off = np.linalg.norm(a @ rotation.T - b, axis=1)
    return rotation, float(np.quantile(off, 0.25))


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Of ``matrix`` [..., 3, 3], in the Frobenius norm."""
    u, _, vt = np.linalg.svd(matrix)
    sign = np.linalg.det(u @ vt)
    u = u.copy()
    u[..., :, 2] *= np.where(sign < 0, -1.0, 1.0)[..., None]
    result: np.ndarray = u @ vt
    return result


def _focal_factor(pairs: Sequence[_Pair], focals: Mapping[int, float]) -> float:
    """By what the guessed focal lengths are to be multiplied, for rotations to fit; 1 where the
    camera turns too little to tell."""
    shift = [float(np.median(np.linalg.norm(p.pixels[0] - p.pixels[1], axis=1))) for p in pairs]
    most = np.argsort(shift)[::-1][:_ASKED]
    asked = [
        pairs[k]
        for k in most
        if np.degrees(np.arctan(shift[k] / focals[pairs[k].first])) > _TURN_FOR_FOCAL_DEG
    ]
    if not asked:
        return 1.0
    misfit = [float(np.median([f * _fitted(p, focals, f)[1] for p in asked])) for f in _FOCALS]
    best = int(np.argmin(misfit))
    guess = misfit[int(np.abs(_FOCALS - 1).argmin())]
    if best in (0, len(_FOCALS) - 1) or misfit[best] > _CLEARER * guess:
        return 1.0
    return float(_FOCALS[best])


def _largest_angle(rotations: Sequence[np.ndarray]) -> float:
    """Between any two, rad."""
    all_of = np.stack(rotations)
    traces = np.einsum("aij,bij->ab", all_of, all_of)
    return float(np.arccos(np.clip((traces.min() - 1) / 2, -1, 1)))


def _model(
    images: Mapping[int, Any],
    cameras: Mapping[int, Any],
    turns: Mapping[int, np.ndarray],
    factor: float,
) -> SfmModel:
    placed = []
    for i, rotation in turns.items():
        viewmat = np.eye(4)
        viewmat[:3, :3] = rotation
        placed.append(
            SfmImage(
                name=images[i].name,
                camera_id=images[i].camera_id,
                viewmat=viewmat,
                point_indices=np.empty(0, dtype=np.int64),
                xy=np.empty((0, 2)),
            )
        )
    used = {image.camera_id for image in placed}
    return SfmModel(
        cameras={i: _scaled(plain_camera(cameras[i]), factor) for i in sorted(used)},
        images=sorted(placed, key=lambda image: image.name),
        xyz=np.empty((0, 3)),
        rgb=np.empty((0, 3), dtype=np.uint8),
        errors_px=np.empty(0),
        track_lengths=np.empty(0, dtype=np.int64),
    )


def _scaled(camera: SfmCamera, factor: float) -> SfmCamera:
    params = {k: v * factor if k in ("fl_x", "fl_y") else v for k, v in camera.params.items()}
    return SfmCamera(model=camera.model, width=camera.width, height=camera.height, params=params)
