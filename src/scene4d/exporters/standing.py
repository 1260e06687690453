"""How a thing stands on a table in AR: up is up, and its foot is the origin."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from scene4d.bundle.first_view import content_box, find_up
from scene4d.training.opened import OpenedScene

_NEAR_AXIS = math.cos(math.radians(30))
"""People hold cameras upright and tilt them: an axis of the capture that is nearer than this to the
mean of their ways up is up itself."""
_AGREE = 0.5
"""Length of the mean of cameras' ways up, below which they say nothing."""
_SPECKS = 0.005
"""Share of vertices on either side that do not make it larger."""
_AXES: dict[tuple[int, int], list[list[float]]] = {
    (0, 1): [[0, -1, 0], [1, 0, 0], [0, 0, 1]], (0, -1): [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    (1, 1): [[1, 0, 0], [0, 1, 0], [0, 0, 1]], (1, -1): [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    (2, 1): [[1, 0, 0], [0, 0, 1], [0, -1, 0]], (2, -1): [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}  # fmt: skip
"""By an axis and its sign: the quarter or half turn that makes it y."""


def standing(source: OpenedScene, vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "4 4"]:
    """From the input's frame, in which ``vertices`` are, to one whose y is up and whose origin is
    under the middle of them."""
    node = np.eye(4)
    node[:3, :3] = _upright(_up(source, vertices))
    turned = vertices @ node[:3, :3].T
    low, high = np.quantile(turned, [_SPECKS, 1 - _SPECKS], axis=0)
    foot = 0.5 * (low + high)
    foot[1] = low[1]
    node[:3, 3] = -foot
    return node


def _up(source: OpenedScene, vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " 3"]:
    """As the photographs were held, else as the surface seems to stand."""
    cameras = source.cameras
    if cameras.photographed and cameras.train:
        home = source.source_from_scene
        ups = [camera.moved(home).c2w[:3, 1].double().cpu().numpy() for camera in cameras.train]
        mean = np.mean(ups, axis=0)
        if np.linalg.norm(mean) > _AGREE:
            return mean / np.linalg.norm(mean)
    return find_up(vertices, *content_box(vertices))


def _upright(up: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """The turn that makes ``up`` y: by quarters alone where an axis is near."""
    axis = int(np.argmax(np.abs(up)))
    quarter = np.array(_AXES[axis, int(np.sign(up[axis]))], dtype=np.float64)
    if abs(up[axis]) > _NEAR_AXIS:
        return quarter
    x, y, z = quarter @ up
    # Rodrigues' formula about (-z, 0, x), the cross product of the two
    cross = np.array([[0, -x, 0], [x, 0, z], [0, -z, 0]])
    return (np.eye(3) + cross + cross @ cross / (1 + y)) @ quarter
