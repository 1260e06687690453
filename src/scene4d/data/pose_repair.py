"""Poses that are almost right made right: rounded rotations, and one factor in all of them."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.poses import closest_rotation, rotation_error
from scene4d.data.scene import Scene
from scene4d.errors import DataError

ROTATION_TOLERANCE = 1e-3
"""Deviations up to here come from the rounding of any file and are repaired without a word."""
_ROUNDED = 6e-3
"""Three decimals are off by up to 5e-4 in each entry, so R^T R by up to 2 sqrt(3) 5e-4 = 1.8e-3,
and by three times that under a factor of 1/3; a scale of 1 % in one frame would be 2e-2."""
_SAME_FACTOR = 5e-3
"""How far the frames' own factors may be apart, as a share of it, to be one."""


def with_rigid_poses(scene: Scene) -> Scene:
    """The scene with pure rotations in all poses. Raises :class:`DataError` naming the frame.

    A factor that all rotations share (a scaled parent in Blender) is divided out, and rotations
    rounded to three decimals are replaced by the nearest ones; a warning tells either. Positions
    are kept: they are in the world's unit. Mirrored, sheared and other matrices are refused.
    """
    poses = [_checked(f.camera.c2w.double(), f"{scene.root}, frame {f.name}") for f in scene.frames]
    factor = _shared_factor(poses)
    if factor != 1.0:
        warnings.warn(
            f"{scene.root}: all rotations have a factor of {factor:.6g}; it was divided out",
            stacklevel=4,
        )
    frames, rounded = [], []
    for frame, c2w in zip(scene.frames, poses, strict=True):
        rotation = c2w[:3, :3] / factor
        error = float(rotation_error(rotation))
        if not error <= _ROUNDED:
            raise _not_rigid(error, f"{scene.root}, frame {frame.name}")
        if error > ROTATION_TOLERANCE:
            rounded.append(error)
        repaired = c2w.clone()
        repaired[:3, :3] = closest_rotation(rotation)
        frames.append(
            replace(frame, camera=frame.camera.with_pose(repaired.to(frame.camera.c2w.dtype)))
        )
    if rounded:
        warnings.warn(
            f"{scene.root}: the rotations of {len(rounded)} frames are rounded (off by up to "
            f"{max(rounded):.2g}) and were replaced by the nearest pure ones; write poses with "
            "six decimals or more",
            stacklevel=4,
        )
    return replace(scene, frames=frames)


def _checked(c2w: Float[Tensor, "4 4"], where: str) -> Float[Tensor, "4 4"]:
    if not bool(torch.isfinite(c2w).all()):
        raise DataError("the pose has NaN or infinite numbers", where=where, fix="remove the frame")
    if not torch.allclose(c2w[3], c2w.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6):
        raise DataError(f"the pose's last row is {c2w[3].tolist()}, not 0 0 0 1", where=where)
    return c2w


def _shared_factor(poses: list[Float[Tensor, "4 4"]]) -> float:
    """The one scale of all rotations; 1 where there is none, or none that they share."""
    if not poses:
        return 1.0
    determinants = torch.linalg.det(torch.stack(poses)[:, :3, :3])
    if not bool((determinants > 0).all()):
        return 1.0
    factors = determinants ** (1 / 3)
    factor = float(factors.median())
    if not math.isfinite(factor) or abs(factor - 1) <= ROTATION_TOLERANCE:
        return 1.0
    same = bool(((factors / factor - 1).abs() <= _SAME_FACTOR).all())
    return factor if same else 1.0


def _not_rigid(error: float, where: str) -> DataError:
    return DataError(
        "the pose's rotation is a mirror image"
        if error == float("inf")
        else f"the pose's rotation is not orthonormal (off by {error:.2g})",
        where=where,
        fix="give camera-to-world matrices with pure rotations; scale only the translations",
    )
