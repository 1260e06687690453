"""Rigid poses as a unit quaternion wxyz and a translation, 7 numbers; products, logarithms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-2
"""Square of the angle below which series take the place of quotients: their errors are below 1e-13,
and gradients stay finite where nothing turns."""


def quat_product(
    a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """The Hamilton product of quaternions wxyz."""
    w, v = a[..., :1], a[..., 1:]
    p, u = b[..., :1], b[..., 1:]
    real = w * p - (v * u).sum(-1, keepdim=True)
    return torch.cat([real, w * u + p * v + torch.linalg.cross(v, u)], dim=-1)


def quat_conjugate(quat: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The inverse of unit quaternions."""
    return torch.cat([quat[..., :1], -quat[..., 1:]], dim=-1)


def quat_rotate(
    quat: Float[Tensor, "*batch 4"], points: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """``points`` turned by unit quaternions."""
    vector = quat[..., 1:]
    cross = torch.linalg.cross(vector, points)
    return points + 2.0 * (quat[..., :1] * cross + torch.linalg.cross(vector, cross))


def pose_product(
    a: Float[Tensor, "*batch 7"], b: Float[Tensor, "*batch 7"]
) -> Float[Tensor, "*batch 7"]:
    """``b`` first, then ``a``."""
    quat = quat_product(a[..., :4], b[..., :4])
    return torch.cat([quat, quat_rotate(a[..., :4], b[..., 4:]) + a[..., 4:]], dim=-1)


def pose_between(
    a: Float[Tensor, "*batch 7"], b: Float[Tensor, "*batch 7"]
) -> Float[Tensor, "*batch 7"]:
    """``a^-1 b``, its quaternion with w >= 0: the shorter way round."""
    back = quat_conjugate(a[..., :4])
    quat = quat_product(back, b[..., :4])
    quat = torch.where(quat[..., :1] < 0, -quat, quat)
    return torch.cat([quat, quat_rotate(back, b[..., 4:] - a[..., 4:])], dim=-1)


def pose_apply(
    pose: Float[Tensor, "*batch 7"], points: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """``points`` where the poses take them."""
    return quat_rotate(pose[..., :4], points) + pose[..., 4:]


def pose_log(pose: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 6"]:
    """Twists, rotation vector first, of poses whose quaternions have w >= 0.

    Differentiable everywhere but at half a turn. Eade, "Lie groups for 2D and 3D transformations".
    """
    vector, shift = pose[..., 1:4], pose[..., 4:]
    sine2 = (vector * vector).sum(-1, keepdim=True)
    small = sine2 < _SMALL / 4
    sine = torch.where(small, torch.ones_like(sine2), sine2).sqrt()
    angle = 2.0 * torch.atan2(sine, pose[..., :1])
    # asin(s) / s = 1 + s^2/6 + 3 s^4/40 + 15 s^6/336 + 105 s^8/3456 ...
    series = 2.0 + sine2 * (
        1 / 3 + sine2 * (3 / 20 + sine2 * (5 / 56 + sine2 * (35 / 576 + sine2 * 63 / 1408)))
    )
    turn = vector * torch.where(small, series, angle / sine)
    angle2 = (turn * turn).sum(-1, keepdim=True)
    half = 0.5 * torch.where(small, torch.ones_like(angle), angle)
    quotient = (1.0 - half / half.tan()) / (4.0 * half * half)
    factor = torch.where(
        small, 1 / 12 + angle2 * (1 / 720 + angle2 * (1 / 30240 + angle2 / 1209600)), quotient
    )
    cross = torch.linalg.cross(turn, shift)
    return torch.cat([turn, shift - 0.5 * cross + factor * torch.linalg.cross(turn, cross)], -1)


def pose_exp(twist: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 7"]:
    """Poses of twists (rotation vector first); the inverse of :func:`pose_log`."""
    turn, part = twist[..., :3], twist[..., 3:]
    angle2 = (turn * turn).sum(-1, keepdim=True)
    small = angle2 < _SMALL
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    half_sine = (0.5 * angle).sin()
    cosine = torch.where(
        small, 1 - angle2 * (1 / 8 - angle2 * (1 / 384 - angle2 / 46080)), (0.5 * angle).cos()
    )
    sine = torch.where(
        small, 1 / 2 - angle2 * (1 / 48 - angle2 * (1 / 3840 - angle2 / 645120)), half_sine / angle
    )
    first = torch.where(
        small,
        1 / 2 - angle2 * (1 / 24 - angle2 * (1 / 720 - angle2 / 40320)),
        2.0 * half_sine * half_sine / safe,
    )
    second = torch.where(
        small,
        1 / 6 - angle2 * (1 / 120 - angle2 * (1 / 5040 - angle2 / 362880)),
        (angle - angle.sin()) / (safe * angle),
    )
    cross = torch.linalg.cross(turn, part)
    shift = part + first * cross + second * torch.linalg.cross(turn, cross)
    return torch.cat([cosine, sine * turn, shift], dim=-1)


def quat_of_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions, w >= 0, of rotation matrices: the largest eigenvector of Bar-Itzhack's
    symmetric matrix (2000), which needs no case distinction. Not for gradients."""
    r = rotation.double()
    k = r.new_zeros(*r.shape[:-2], 4, 4)
    for row, pairs in enumerate((
        ((0, 0), (1, 1), (2, 2)), ((2, 1), (1, 2)), ((0, 2), (2, 0)), ((1, 0), (0, 1)),
    )):  # fmt: skip
        if row == 0:
            k[..., 0, 0] = sum(r[..., i, j] for i, j in pairs)
        else:
            (a, b), (c, d) = pairs
            k[..., row, 0] = r[..., a, b] - r[..., c, d]
    for i in range(3):
        for j in range(i + 1):
            k[..., i + 1, j + 1] = r[..., i, j] + r[..., j, i]
        k[..., i + 1, i + 1] -= k[..., 0, 0]
    quat = torch.linalg.eigh(k)[1][..., -1]  # eigh reads the lower triangle
    return torch.where(quat[..., :1] < 0, -quat, quat).to(rotation.dtype)
