"""Gaussians that move, as plain arrays: what trained motion is stored as. Needs no torch.

Nodes carry the motion: each has a cumulative cubic B-spline of rigid poses, and each moving
Gaussian follows four of them by blended dual quaternions, so that it turns and shifts but never
stretches. Sources: Sommer et al. 2020 (arXiv 1911.08860), section 3, for the splines; Kavan et
al. 2008, "Geometric skinning with approximate dual quaternion blending", for the blending.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scene4d.formats.packing import taken
from scene4d.formats.splat_cloud import SplatCloud, held, quat_of, split_similarity

NODES_PER_SPLAT = 4
FEWEST_KNOTS = 4
_LOOSE = 1e-3
"""How far sums of stored weights and lengths of stored quaternions may be from 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MovingSplats:
    """Gaussians of which the first ``num_moving`` move; arrays in float32.

    Control knot k lies at ``start_s + (k - 1) * knot_interval_s``, and its pose takes canonical
    coordinates to those at that time. Colours do not turn with a Gaussian: light stands still.
    """

    cloud: SplatCloud
    """The canonical Gaussians, the moving ones first."""
    num_moving: int
    node_indices: np.ndarray
    """uint16 [num_moving, 4]"""
    node_weights: np.ndarray
    """[num_moving, 4], not negative; rows sum to 1."""
    knots: np.ndarray
    """[num_nodes, num_knots, 7]: unit quaternion wxyz, translation; at least 4 knots."""
    start_s: float
    knot_interval_s: float
    duration_s: float
    """Before ``start_s`` and after ``start_s + duration_s`` everything stands still."""
    opacity_windows: np.ndarray | None = None
    """[num_moving, 4] seconds: when opacity has risen to a half and when it has fallen to a half,
    and the scales of these two logistic edges; None: always there. A centre may be infinite."""

    def __post_init__(self) -> None:
        moving = self.num_moving
        if not 0 <= moving <= len(self.cloud):
            raise ValueError(f"{moving} of {len(self.cloud)} Gaussians cannot move")
        knots = self.knots.shape[1] if self.knots.ndim == 3 else 0
        _check_array("node_indices", self.node_indices, (moving, 4), np.uint16)
        _check_array("node_weights", self.node_weights, (moving, 4))
        _check_array("knots", self.knots, (len(self.knots), knots, 7))
        if self.opacity_windows is not None:
            _check_array("opacity_windows", self.opacity_windows, (moving, 4))
        _check_numbers(self)

    def __len__(self) -> int:
        return len(self.cloud)

    @property
    def num_nodes(self) -> int:
        """How many poses there are at a time."""
        return len(self.knots)

    def node_poses(self, time_s: float) -> np.ndarray:
        """[num_nodes, 7] float64: unit quaternion and translation, canonical to ``time_s``."""
        elapsed = min(max(time_s - self.start_s, 0.0), self.duration_s)
        return spline_poses(self.knots.astype(np.float64), elapsed / self.knot_interval_s)

    def at(self, time_s: float) -> SplatCloud:
        """All Gaussians as they are at ``time_s``, in the order of :attr:`cloud`."""
        moving, cloud = self.num_moving, self.cloud
        if not moving:
            return cloud
        poses = blended_poses(
            self.node_poses(time_s), self.node_indices, self.node_weights.astype(np.float64)
        )
        means = cloud.means.astype(np.float64)
        means[:moving] = quat_rotate(poses[:, :4], means[:moving]) + poses[:, 4:]
        quats = cloud.quats.copy()
        quats[:moving] = quat_product(poses[:, :4], quats[:moving].astype(np.float64))
        logits = cloud.logit_opacities.copy()
        logits[:moving] = self._logits_at(time_s)
        return replace(
            cloud, means=held(means, cloud.log_scales), quats=quats, logit_opacities=logits
        )

    def _logits_at(self, time_s: float) -> np.ndarray:
        """Logits of the moving Gaussians' opacities at ``time_s``."""
        logits = self.cloud.logit_opacities[: self.num_moving]
        if self.opacity_windows is None:
            return logits
        time_s = min(max(time_s, self.start_s), self.start_s + self.duration_s)
        rise, fall, rise_width, fall_width = self.opacity_windows.astype(np.float64).T
        # log(1 + exp(..)) of the three logistic factors, as their product may underflow
        log_alpha = -(
            np.logaddexp(0.0, -logits.astype(np.float64))
            + np.logaddexp(0.0, (rise - time_s) / rise_width)
            + np.logaddexp(0.0, (time_s - fall) / fall_width)
        )
        return (log_alpha - np.log(-np.expm1(np.minimum(log_alpha, -1e-12)))).astype(np.float32)

    def taken(self, which: np.ndarray) -> MovingSplats:
        """Those that ``which`` numbers, in its order but for the moving ones, which come first."""
        which = which[np.argsort(which >= self.num_moving, kind="stable")]
        own = which[which < self.num_moving]
        windows = self.opacity_windows
        return replace(
            self,
            cloud=taken(self.cloud, which),
            num_moving=len(own),
            node_indices=self.node_indices[own],
            node_weights=self.node_weights[own],
            opacity_windows=None if windows is None else windows[own],
        )

    def transformed(self, similarity: np.ndarray) -> MovingSplats:
        """The same motion after ``similarity`` [4, 4]: rotation, uniform scale, translation."""
        scale, rotation, translation = split_similarity(similarity)
        turn = quat_of(rotation)
        back = turn * (1, -1, -1, -1)
        knots = self.knots.astype(np.float64)
        quats = quat_product(quat_product(turn, knots[..., :4]), back)
        moved = scale * quat_rotate(turn, knots[..., 4:]) + translation
        moved -= quat_rotate(quats, translation)
        return replace(
            self,
            cloud=self.cloud.transformed(similarity),
            knots=np.concatenate([quats, moved], axis=-1).astype(np.float32),
        )


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], kind=np.float32) -> None:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(
            f"{name} must be {np.dtype(kind)} {list(shape)}, got {array.dtype} {list(array.shape)}"
        )


def _check_numbers(moving: MovingSplats) -> None:
    """Raises ValueError for indices, weights, poses and times that cannot be."""
    nodes, num_knots = moving.num_nodes, moving.knots.shape[1]
    if moving.num_moving and int(moving.node_indices.max()) >= nodes:
        raise ValueError(f"node_indices reach {moving.node_indices.max()} of {nodes} nodes")
    weights = moving.node_weights
    if not (weights >= 0).all() or not np.allclose(weights.sum(axis=1), 1.0, atol=_LOOSE):
        raise ValueError("node_weights must not be negative, and each row must sum to 1")
    lengths = np.linalg.norm(moving.knots[..., :4], axis=-1)
    if not np.isfinite(moving.knots).all() or not np.allclose(lengths, 1.0, atol=_LOOSE):
        raise ValueError("knots must be finite, their quaternions of length 1")
    times = (moving.start_s, moving.knot_interval_s, moving.duration_s)
    if not np.isfinite(times).all() or moving.knot_interval_s <= 0 or moving.duration_s < 0:
        raise ValueError(f"start, knot interval and duration cannot be {times} seconds")
    last = (num_knots - FEWEST_KNOTS + 1) * moving.knot_interval_s
    if num_knots < FEWEST_KNOTS or moving.duration_s > last * (1 + 1e-6):
        raise ValueError(
            f"{num_knots} knots, {moving.knot_interval_s} s apart, last {last} s of the "
            f"{moving.duration_s} s (at least {FEWEST_KNOTS} are needed)"
        )
    windows = moving.opacity_windows
    if windows is not None and (np.isnan(windows).any() or not (windows[:, 2:] > 0).all()):
        raise ValueError("opacity_windows must be numbers, and their widths above 0")


def spline_poses(knots: np.ndarray, at: float) -> np.ndarray:
    """[n, 7] poses of cumulative cubic B-splines with ``knots`` [n, k, 7], ``at`` intervals after
    the second knot, 0 to k - 3; all float64."""
    first = int(np.clip(np.floor(at), 0, knots.shape[1] - FEWEST_KNOTS))
    u = at - first
    shares = ((5 + 3 * u - 3 * u**2 + u**3) / 6, (1 + 3 * u + 3 * u**2 - 2 * u**3) / 6, u**3 / 6)
    pose = knots[:, first]
    pose = np.concatenate([pose[:, :4] / _length(pose[:, :4]), pose[:, 4:]], axis=1)
    for i, share in enumerate(shares):
        step = _between(knots[:, first + i], knots[:, first + i + 1])
        pose = _after(pose, _exp(share * _log(step)))
    return pose


def blended_poses(poses: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[m, 7] the rigid motions between those of the nodes ``indices`` [m, 4] among ``poses``
    [n, 7]: dual quaternions, each with the sign of its heaviest node's, summed and normalised."""
    real = poses[indices, :4]
    dual = 0.5 * quat_product(_pure(poses[indices, 4:]), real)
    heaviest = np.take_along_axis(real, weights.argmax(axis=1)[:, None, None], axis=1)
    signs = np.where((real * heaviest).sum(axis=-1) < 0, -1.0, 1.0)
    shares = (weights * signs)[..., None]
    real, dual = (shares * real).sum(axis=1), (shares * dual).sum(axis=1)
    length = _length(real)
    quats = real / length
    shift = 2.0 * quat_product(dual / length, quats * (1, -1, -1, -1))[:, 1:]
    return np.concatenate([quats, shift], axis=1)


def quat_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions wxyz [..., 4]; leading axes are broadcast."""
    w, x, y, z = np.moveaxis(a, -1, 0)
    p, q, r, s = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            w * p - x * q - y * r - z * s,
            w * q + x * p + y * s - z * r,
            w * r - x * s + y * p + z * q,
            w * s + x * r - y * q + z * p,
        ],
        axis=-1,
    )


def quat_rotate(quats: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``points`` [..., 3] turned by unit quaternions [..., 4]; leading axes are broadcast."""
    vector = quats[..., 1:]
    cross = np.cross(vector, points)
    return points + 2.0 * (quats[..., :1] * cross + np.cross(vector, cross))


def _length(array: np.ndarray) -> np.ndarray:
    return np.linalg.norm(array, axis=-1, keepdims=True)


def _pure(vectors: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(vectors[..., :1]), vectors], axis=-1)


def _after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The pose product ``first * second`` [n, 7]."""
    quats = quat_product(first[:, :4], second[:, :4])
    return np.concatenate([quats, quat_rotate(first[:, :4], second[:, 4:]) + first[:, 4:]], axis=1)


def _between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The pose ``first^-1 * second`` [n, 7], the shorter way round."""
    back = first[:, :4] * (1, -1, -1, -1) / _length(first[:, :4])
    quats = quat_product(back, second[:, :4] / _length(second[:, :4]))
    quats = np.where(quats[:, :1] < 0, -quats, quats)
    return np.concatenate([quats, quat_rotate(back, second[:, 4:] - first[:, 4:])], axis=1)


_SMALL = 1e-3
"""Below this angle, in radians, series take the place of quotients; off by 1e-15 or so."""


def _log(poses: np.ndarray) -> np.ndarray:
    """[n, 6] twists (rotation vector, translation part) of poses [n, 7] with w >= 0."""
    sine = _length(poses[:, 1:4])
    angle = 2.0 * np.arctan2(sine, poses[:, :1])
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    turn = poses[:, 1:4] * np.where(small, 2.0 + angle**2 / 12, safe / np.where(small, 1.0, sine))
    half = 0.5 * safe
    factor = np.where(small, 1 / 12 + angle**2 / 720, (1.0 - half / np.tan(half)) / safe**2)
    shift = poses[:, 4:]
    cross = np.cross(turn, shift)
    return np.concatenate([turn, shift - 0.5 * cross + factor * np.cross(turn, cross)], axis=1)


def _exp(twists: np.ndarray) -> np.ndarray:
    """[n, 7] poses of twists [n, 6]; the inverse of :func:`_log`."""
    turn, part = twists[:, :3], twists[:, 3:]
    angle = _length(turn)
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    quats = np.concatenate(
        [
            np.cos(0.5 * angle),
            turn * np.where(small, 0.5 - angle**2 / 48, np.sin(0.5 * safe) / safe),
        ],
        axis=1,
    )
    first = np.where(small, 0.5 - angle**2 / 24, (1.0 - np.cos(safe)) / safe**2)
    second = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    cross = np.cross(turn, part)
    return np.concatenate([quats, part + first * cross + second * np.cross(turn, cross)], axis=1)
