"""Dense optical flow between pictures of one camera, and which of it holds both ways.

Flow is OpenCV's DIS (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016):
milliseconds a picture on one thread, and no weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from scene4d.data.scene import ViewSource
from scene4d.optional import import_optional

FINE_PIXELS = 640 * 480
"""Pictures of up to so many pixels are followed at their full size, larger ones at half of it: on
320x240 pictures full size leaves a third less error, and four times as much time."""
RELATIVE, ABSOLUTE = 0.01, 0.5
"""Flow f and flow back b agree where |f + b|^2 < RELATIVE (|f|^2 + |b|^2) + ABSOLUTE pixels^2
(Sundaram, Brox & Keutzer, "Dense point trajectories", ECCV 2010)."""
_KEPT_BYTES = 256e6
_BACKDROP = 0.5


def opencv() -> Any:
    """OpenCV, or one clear error that says how to get it."""
    return import_optional(
        "cv2", extra="motion", package="opencv-python-headless", needed_for="optical flow"
    )


class DenseFlow:
    """Flow between any two of some pictures; what was asked for last is kept."""

    def __init__(self, pictures: Sequence[UInt8[np.ndarray, "height width"]]) -> None:
        """``pictures``: grey and of one size."""
        cv2 = opencv()
        self.pictures = pictures
        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        height, width = pictures[0].shape
        self._search.setFinestScale(0 if height * width <= FINE_PIXELS else 1)
        self._bytes = 8 * height * width
        self._least = self._search.getPatchSize() * 2
        self._found: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def __call__(self, first: int, second: int) -> Float[np.ndarray, "height width 2"]:
        """Where each pixel of picture ``first`` lies in ``second``, less where it lies: pixels."""
        key = (first, second)
        if key not in self._found:
            while len(self._found) > 2 and len(self._found) * self._bytes > _KEPT_BYTES:
                self._found.popitem(last=False)
            self._found[key] = self._calculated(self.pictures[first], self.pictures[second])
        return self._found[key]

    def _calculated(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        height, width = a.shape
        down, right = max(0, self._least - height), max(0, self._least - width)
        if down or right:  # DIS takes no picture below its patches
            a, b = (np.pad(x, ((0, down), (0, right)), mode="edge") for x in (a, b))
        flow: np.ndarray = self._search.calc(np.ascontiguousarray(a), np.ascontiguousarray(b), None)
        return flow[:height, :width]


def consistent(
    flow: Float[np.ndarray, "*points 2"],
    back: Float[np.ndarray, "*points 2"],
) -> Bool[np.ndarray, "*points"]:
    """Where ``flow`` and the flow ``back``, taken at its end, cancel out: not where a surface is
    hidden or uncovered."""
    allowed: np.ndarray = RELATIVE * (_square(flow) + _square(back)) + ABSOLUTE
    return _square(flow + back) < allowed


def _square(flow: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points"]:
    """The squared length; a sum over an axis of two takes numpy four times as long."""
    x, y = flow[..., 0], flow[..., 1]
    result: np.ndarray = x * x + y * y
    return result


def sampled(
    values: Float[np.ndarray, "height width *channels"], xy: Float[np.ndarray, "*points 2"]
) -> Float[np.ndarray, "..."]:
    """``values`` at ``xy`` (pixels from the picture's top-left corner), bilinear; outside, the
    border's. OpenCV's ``remap`` rounds places to 1/32 pixel, which adds up in chains."""
    height, width = values.shape[:2]
    x = np.clip(xy[..., 0] - 0.5, 0, width - 1)
    y = np.clip(xy[..., 1] - 0.5, 0, height - 1)
    x0 = np.minimum(x.astype(np.int64), max(width - 2, 0))
    y0 = np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    more = (1,) * (values.ndim - 2)
    right = (x - x0).astype(np.float32).reshape(*x.shape, *more)
    down = (y - y0).astype(np.float32).reshape(*y.shape, *more)
    upper = values[y0, x0] * (1 - right) + values[y0, x1] * right
    lower = values[y1, x0] * (1 - right) + values[y1, x1] * right
    result: np.ndarray = upper * (1 - down) + lower * down
    return result


def inside(
    xy: Float[np.ndarray, "*points 2"], shape: tuple[int, int]
) -> Bool[np.ndarray, "*points"]:
    """Which places lie in a picture of ``shape`` (height, width)."""
    x, y = xy[..., 0], xy[..., 1]
    within: np.ndarray = (x >= 0) & (x <= shape[1]) & (y >= 0) & (y <= shape[0])
    return within


def centres(shape: tuple[int, int]) -> Float[np.ndarray, "height width 2"]:
    """The pixels' centres, (0.5, 0.5) first."""
    column, row = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    return np.stack([column, row], axis=-1).astype(np.float32) + 0.5


def grey_pictures(
    images: ViewSource, indices: Sequence[int], *, downscale: int = 1
) -> tuple[list[UInt8[np.ndarray, "height width"]], list[Bool[np.ndarray, "height width"]]]:
    """Pictures to follow flow in, all stretched alike to the whole range of a byte, as flow is weak
    in dark ones; and which of their pixels say something (not masked, not transparent)."""
    greys, counts = [], []
    for index in indices:
        view = images.view(index, downscale)
        grey = view.rgb @ view.rgb.new_tensor([0.299, 0.587, 0.114])
        says = np.ones(grey.shape, dtype=bool)
        if view.alpha is not None:
            grey = grey * view.alpha + _BACKDROP * (1 - view.alpha)
            says &= (view.alpha > _BACKDROP).numpy()
        if view.mask is not None:
            says &= view.mask.numpy()
        greys.append(grey.numpy().astype(np.float32))
        counts.append(says)
    sample = np.concatenate([grey[::4, ::4].ravel() for grey in greys])
    low, high = np.percentile(sample, (0.5, 99.5))
    gain = 255 / max(high - low, 1 / 255)
    return [np.clip((g - low) * gain + 0.5, 0, 255).astype(np.uint8) for g in greys], counts
