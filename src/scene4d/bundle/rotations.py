"""The smallest of the 24 rotations that describe the same Gaussian, and its three numbers."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from scene4d.bundle.columns import in_blocks


def canonical(quats: np.ndarray, log_scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(xyz [N, 3], log_scales [N, 3])`` of the same Gaussians with the smallest angle.

    Turning a Gaussian's axes by a rotation of the cube and moving its scales along changes
    nothing. Of the 24 choices the one with the largest |w| is taken, which turns by at most 62.8
    degrees, so xyz of the unit quaternion (w >= 0) lies within 0.53.
    """
    turned = np.empty((len(quats), 3))
    permuted = np.empty_like(log_scales)

    def work(start: int, end: int) -> None:
        part = slice(start, end)
        turned[part], permuted[part] = _canonical(quats[part], log_scales[part])

    in_blocks(len(quats), work)
    return turned, permuted


def _canonical(quats: np.ndarray, log_scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = quats / np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    # The scalar part of unit * p is the dot product with the conjugate of p.
    scalar = unit @ (_CUBE * np.array([1.0, -1.0, -1.0, -1.0])).T
    best = np.abs(scalar).argmax(axis=1)
    turned = _multiply(unit, _CUBE[best])
    turned *= np.where(turned[:, :1] < 0, -1.0, 1.0)
    return turned[:, 1:], np.take_along_axis(log_scales, _AXES[best], axis=1)


def quats_of(xyz: np.ndarray) -> np.ndarray:
    """[N, 4] float32 unit quaternions wxyz, w >= 0, of their vector parts [N, 3]."""
    quats = np.empty((len(xyz), 4), dtype=np.float32)
    quats[:, 1:] = xyz
    squares = np.einsum("ni,ni->n", xyz, xyz)
    np.sqrt(np.maximum(np.float32(0), np.float32(1) - squares), out=quats[:, 0])
    return quats


def angles_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[N] angles in radians between the rotations of two arrays of unit quaternions."""
    difference = np.minimum(
        np.linalg.norm(first - second, axis=1), np.linalg.norm(first + second, axis=1)
    )
    return 4 * np.arcsin(np.minimum(1.0, difference / 2))


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton products, [N, 4] each, wxyz."""
    aw, ax, ay, az = a.T
    bw, bx, by, bz = b.T
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=1,
    )


def _cube_rotations() -> tuple[np.ndarray, np.ndarray]:
    """[24, 4] quaternions of the cube's rotations, and per rotation which old axis each new is."""
    quats, axes = [], []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs  # column j is +- axis order[j]
            if np.linalg.det(matrix) > 0:
                quats.append(_quat_of(matrix))
                axes.append(order)
    return np.array(quats), np.array(axes)


def _quat_of(r: np.ndarray) -> np.ndarray:
    """Unit quaternion wxyz of a rotation matrix, by its largest component."""
    squares = 1 + np.array([
        r[0, 0] + r[1, 1] + r[2, 2], r[0, 0] - r[1, 1] - r[2, 2],
        r[1, 1] - r[0, 0] - r[2, 2], r[2, 2] - r[0, 0] - r[1, 1],
    ])  # fmt: skip
    sums = np.array([
        [squares[0], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], squares[1], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
        [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], squares[2], r[1, 2] + r[2, 1]],
        [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], squares[3]],
    ])  # fmt: skip
    row = sums[int(squares.argmax())]
    return row / np.linalg.norm(row)


_CUBE, _AXES = _cube_rotations()
