"""Lens distortion: OpenCV's radial-tangential model and its fisheye model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Distortion:
    """Coefficients of one lens, in OpenCV's meaning.

    ``opencv``: k1, k2, p1, p2, k3, k4 (k4 as in nerfstudio: the r^8 term).
    ``fisheye``: k1, k2, k3, k4 (equidistant).
    """

    model: Literal["opencv", "fisheye"]
    coefficients: tuple[float, ...]
