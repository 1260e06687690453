"""Every conversion between coordinate conventions, in one place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_OPENGL_OPENCV = (1.0, -1.0, -1.0, 1.0)
"""Flips y and z of the camera's own axes; its own inverse."""


def flip_yz(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world with the camera's axes turned from OpenGL to OpenCV, or back."""
    return c2w * c2w.new_tensor(_OPENGL_OPENCV)


def invert_rigid(matrix: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of a rotation and translation."""
    rotation_t = matrix[..., :3, :3].transpose(-1, -2)
    translation = -(rotation_t @ matrix[..., :3, 3:])
    top = torch.cat([rotation_t, translation], dim=-1)
    return torch.cat([top, matrix[..., 3:, :]], dim=-2)


def viewmat_from_c2w(c2w: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """World-to-camera with OpenCV axes, from camera-to-world with OpenGL axes."""
    return invert_rigid(flip_yz(c2w))


def c2w_from_viewmat(viewmat: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world with OpenGL axes, from world-to-camera with OpenCV axes."""
    return flip_yz(invert_rigid(viewmat))
