"""Gaussian splats as plain arrays: what every splat file format stores. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from scene4d.errors import DataError

_FINEST = 1e-5
"""Of the scene's size: a hundredth of a small splat's, which is a thousandth of the scene's."""
_LARGEST_LOG = 500.0
"""Of a size that a file may say, so that its exponential is a number."""
_ENOUGH = 100_000
"""Quantiles over more splats than this are taken from evenly spread ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatCloud:
    """N Gaussians in float32; names and meanings of the reference 3DGS file."""

    means: np.ndarray
    """[N, 3] centres; float64 where they lie so far from the origin that float32 would move them:
    see :func:`held`."""
    quats: np.ndarray
    """[N, 4] rotations, wxyz, of any length but 0."""
    log_scales: np.ndarray
    """[N, 3] natural logarithms of the standard deviations along the rotated axes."""
    logit_opacities: np.ndarray
    """[N]"""
    sh: np.ndarray
    """[N, K, 3] spherical harmonics, K = (degree + 1)^2; see :func:`sh_basis`."""
    antialiased: bool = False
    """Trained with the mip-splatting filter: opacities are compensated when drawn."""

    def __post_init__(self) -> None:
        count = len(self.means)
        coefficients = self.sh.shape[1] if self.sh.ndim == 3 else 0
        shapes = {
            "means": (count, 3),
            "quats": (count, 4),
            "log_scales": (count, 3),
            "logit_opacities": (count,),
            "sh": (count, coefficients, 3),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            kinds = (np.float32, np.float64) if name == "means" else (np.float32,)
            if array.shape != shape or array.dtype not in kinds:
                raise ValueError(
                    f"{name} must be float32 {list(shape)}, got {array.dtype} {list(array.shape)}"
                )
        if coefficients not in (1, 4, 9, 16):
            raise ValueError(f"sh must have 1, 4, 9 or 16 coefficients, got {coefficients}")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def far(self) -> bool:
        """Whether the means need float64 where they are."""
        return self.means.dtype == np.float64

    @property
    def sh_degree(self) -> int:
        """The highest band, 0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def transformed(self, similarity: np.ndarray) -> SplatCloud:
        """The same Gaussians after ``similarity`` [4, 4]: rotation, uniform scale, translation.

        Positions, orientations, sizes and the spherical harmonics turn together, so the cloud
        seen through an equally transformed camera looks the same. Raises :class:`DataError` for a
        matrix that is not a similarity (a reflection, a shear, a projection).
        """
        scale, rotation, translation = split_similarity(similarity)
        if scale == 1.0 and np.array_equal(rotation, np.eye(3)) and not translation.any():
            return self
        means = self.means.astype(np.float64) @ (scale * rotation).T + translation
        return replace(
            self,
            means=held(means, self.log_scales + np.log(scale)),
            quats=_compose(quat_of(rotation), self.quats.astype(np.float64)).astype(np.float32),
            log_scales=(self.log_scales + np.log(scale)).astype(np.float32),
            sh=rotate_sh(self.sh, rotation),
        )


def held(means: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
    """``means`` [N, 3] float64 as they are kept: in float32 where that changes nothing to see."""
    with np.errstate(over="ignore"):
        single = means.astype(np.float32)
    if not np.isfinite(means).all() or np.array_equal(single, means):
        return single
    return means if is_far(means, log_scales) else single


def is_far(means: np.ndarray, log_scales: np.ndarray) -> bool:
    """Whether the scene lies so far from the origin that float32 is too coarse for its positions.

    There the steps of float32 are more than a hundred thousandth of the scene's size (of the middle
    90% of the means, or of a usual splat where that is larger).
    """
    if not len(means):
        return False
    some = slice(None, None, max(1, len(means) // _ENOUGH))
    low, middle, high = np.quantile(means[some], (0.05, 0.5, 0.95), axis=0)
    usual = _usual_size(log_scales[some])
    size = max(float((high - low).max()), usual)
    step = float(np.abs(middle).max()) * 2.0**-23
    return step > _FINEST * size


def size_of(log_size: float) -> float:
    """The size of which a file says the logarithm: a number above 0, whatever it says."""
    return math.exp(min(max(float(log_size), -_LARGEST_LOG), _LARGEST_LOG))


def _usual_size(log_scales: np.ndarray) -> float:
    """The longest axis of the splat in the middle."""
    return size_of(np.median(log_scales.max(axis=1)))


def local_frame(cloud: SplatCloud) -> np.ndarray:
    """[4, 4] float64: leads back from a frame around the content, in which it is about 1 large.

    The content is the ball around the means' median that holds 80% of them; axes stay.
    """
    home = np.eye(4)
    if len(cloud):
        some = slice(None, None, max(1, len(cloud) // _ENOUGH))
        means = cloud.means[some].astype(np.float64)
        home[:3, 3] = np.median(means, axis=0)
        distance = float(np.quantile(np.linalg.norm(means - home[:3, 3], axis=1), 0.8))
        usual = _usual_size(cloud.log_scales[some])
        home[:3, :3] *= max(distance, 2 * usual) or 1.0
    return home


def split_similarity(matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] and translation [3] of a similarity, in float64."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError("the transform must be a finite 4 x 4 matrix")
    linear = matrix[:3, :3]
    determinant = float(np.linalg.det(linear))
    if determinant <= 0 or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise DataError("the transform is not a similarity: it mirrors, flattens or projects")
    scale = determinant ** (1 / 3)
    rotation = linear / scale
    # Matrices come as float32: products of their entries are off by some 1e-7.
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-5):
        raise DataError("the transform is not a similarity: it scales axes differently or shears")
    return scale, rotation, matrix[:3, 3]


def inverse_similarity(matrix: np.ndarray) -> np.ndarray:
    """[4, 4] float64 that undoes a similarity; in closed form, as elimination loses digits beside
    an offset of millions."""
    scale, rotation, translation = split_similarity(matrix)
    inverse = np.eye(4)
    inverse[:3, :3] = rotation.T / scale
    inverse[:3, 3] = -inverse[:3, :3] @ translation
    return inverse


def sh_basis(directions: np.ndarray, degree: int) -> np.ndarray:
    """[M, (degree + 1)^2] real spherical harmonics at unit ``directions`` [M, 3], float64.

    Order and signs of 3DGS (Kerbl et al. 2023): by degree l, then m = -l..l, with the
    Condon-Shortley phase; degree 0 to 3.
    """
    x, y, z = np.asarray(directions, dtype=np.float64).T
    columns = [np.full_like(x, 0.5 / np.sqrt(np.pi))]
    if degree >= 1:
        c = np.sqrt(3 / (4 * np.pi))
        columns += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = np.sqrt(15 / (4 * np.pi))
        columns += [c * x * y, -c * y * z, np.sqrt(5 / (16 * np.pi)) * (3 * z * z - 1)]
        columns += [-c * x * z, 0.5 * c * (x * x - y * y)]
    if degree >= 3:
        c, d, e = np.sqrt(35 / (32 * np.pi)), np.sqrt(105 / (4 * np.pi)), np.sqrt(21 / (32 * np.pi))
        columns += [-c * y * (3 * x * x - y * y), d * x * y * z, -e * y * (5 * z * z - 1)]
        columns += [np.sqrt(7 / (16 * np.pi)) * z * (5 * z * z - 3), -e * x * (5 * z * z - 1)]
        columns += [0.5 * d * z * (x * x - y * y), -c * x * (x * x - 3 * y * y)]
    return np.stack(columns, axis=1)


def sh_rotation(rotation: np.ndarray, degree: int) -> np.ndarray:
    """[2 degree + 1, 2 degree + 1] matrix that turns the coefficients of one band.

    A rotation maps each band into itself, so the matrix is found exactly from as many directions
    as the band has functions: basis(R d) @ M = basis(d) for all d. More directions, evenly spread,
    keep the system well conditioned.
    """
    band = slice(degree**2, (degree + 1) ** 2)
    directions = _even_directions(8 * (2 * degree + 1))
    turned = sh_basis(directions @ np.asarray(rotation, dtype=np.float64).T, degree)[:, band]
    return np.linalg.lstsq(turned, sh_basis(directions, degree)[:, band], rcond=None)[0]


def rotate_sh(sh: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """``sh`` [N, K, 3] of functions turned by ``rotation``: new(R d) = old(d)."""
    result = sh.copy()
    for degree in range(1, round(sh.shape[1] ** 0.5)):
        band = slice(degree**2, (degree + 1) ** 2)
        matrix = sh_rotation(rotation, degree).astype(np.float32)
        result[:, band] = np.einsum("ij,njc->nic", matrix, sh[:, band], optimize=True)
    return result


def _even_directions(count: int) -> np.ndarray:
    """[count, 3] unit vectors on a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def quat_of(rotation: np.ndarray) -> np.ndarray:
    """[4] unit quaternion wxyz of a rotation matrix: the largest eigenvector of Bar-Itzhack's
    symmetric matrix (2000), which needs no case distinction."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0, 0, 0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0, 0],
            [r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0],
            [r[1, 0] - r[0, 1], r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    quat = np.linalg.eigh(k)[1][:, -1]  # eigh reads the lower triangle
    return quat if quat[0] >= 0 else -quat


def _compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hamilton product ``first * second``, [4] times [N, 4]; lengths multiply."""
    a, b, c, d = first
    left = np.array([[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]])
    return second @ left.T
