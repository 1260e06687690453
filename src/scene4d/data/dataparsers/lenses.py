"""From the numbers in a capture's files to a :class:`Camera`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.errors import DataError
from scene4d.files import printable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def finite_number(value: Any, name: str, where: object) -> float:
    """``value`` as a float; DataError when it is no finite number."""
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond the largest double
            number = math.inf
        if math.isfinite(number):
            return number
    raise DataError(f"{name} should be a finite number, not {printable(repr(value))}", where=where)


def pose_matrix(value: Any, where: object) -> torch.Tensor:
    """A 4x4 double tensor from nested lists of 4x4 or 3x4 numbers; NaN is let through."""
    try:
        matrix = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise DataError("the pose is not a matrix of numbers", where=where) from error
    if matrix.shape not in ((4, 4), (3, 4)):
        raise DataError(f"the pose has shape {tuple(matrix.shape)}, not (4, 4)", where=where)
    if matrix.shape[0] == 3:
        matrix = torch.cat([matrix, matrix.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
    return matrix


def make_camera(
    *,
    c2w: torch.Tensor,
    focal: tuple[float, float],
    centre: tuple[float, float],
    size: tuple[int, int],
    distortion: Distortion | None = None,
    time: float | None = None,
) -> Camera:
    """A camera, pose and time in float64; ``centre``: pixels from the image's top-left corner."""
    K = torch.tensor([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
    if distortion is not None and not any(distortion.coefficients):
        # An equidistant fisheye with zero coefficients still is a fisheye.
        distortion = None if distortion.model == "opencv" else distortion
    return Camera(
        c2w=c2w.double(),
        K=K.float(),
        width=size[0],
        height=size[1],
        distortion=distortion,
        time=None if time is None else torch.tensor(time, dtype=torch.float64),
    )


def times_for_all(times: Sequence[float | None], where: object) -> bool:
    """Whether every frame has a time; DataError when only some have."""
    known = sum(time is not None for time in times)
    if known not in (0, len(times)):
        raise DataError(
            f"only {known} of {len(times)} frames have a time",
            where=where,
            fix="give every frame a time, or none",
        )
    return known > 0
