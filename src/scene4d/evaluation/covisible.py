"""Which pixels of a held-out picture the training pictures show: DyCheck's covisible masks.

Flow is taken both ways between the held-out picture and **every** training picture (of more than
:data:`MOST_PICTURES`, so many, evenly along each camera's way). A pixel is seen there where flow f
and the flow back b at its end agree, |f + b|^2 <= 0.01 (|f|^2 + |b|^2) + 0.5 (Brox et al. 2004),
and it is covisible where more than max(5, int(0.1 n)) of the n pictures see it.
So far it is DyCheck's rule, with RAFT's flow. Ours is where flow comes from; a picture sees a pixel
where any of these agrees:

- OpenCV's DIS, which needs no weights;
- where the capture has depth, the flow of surfaces that stand still (flat walls give DIS nothing to
  follow);
- where it has depth and a training picture was taken at the held-out one's time, at which nothing
  has moved yet: that flow to this picture, and from there DIS from picture to picture of its camera
  (what moves, looked at from far apart, is too much for DIS in one go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import pixel_centres, project, unproject
from scene4d.data.flow import (
    DenseFlow,
    centres,
    consistent,
    grey_pictures,
    inside,
    opencv,
    sampled,
)
from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import trajectories

LEAST_PICTURES = 5
LEAST_SHARE = 0.1
MOST_PICTURES = 60
"""Training pictures that a held-out one is compared with: with all, time grows with the square of a
capture's length. docs/dynamic-evaluation.md says what that changes."""
SAME_TIME = 0.1
"""Of the time between pictures: what was taken within it shows one moment."""
LARGEST_SIDE = 640
"""Flow is taken of pictures reduced to this many pixels: the rule's 0.5 is of pixels, and DyCheck's
pictures have 480."""


def needed_pictures(num_training: int) -> int:
    """A pixel is covisible where **more** training pictures than this see it."""
    return max(LEAST_PICTURES, int(LEAST_SHARE * num_training))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Picture:
    grey: UInt8[np.ndarray, "height width"]
    counts: Bool[np.ndarray, "height width"]
    camera: Camera
    depth: Float[Tensor, "height width"] | None


def covisible_masks(
    scene: Scene, images: ViewSource, indices: Sequence[int]
) -> Iterator[tuple[int, Bool[Tensor, "height width"]]]:
    """The mask of each frame at ``indices``, one after the other, at the size of its view.

    Raises :class:`MissingExtraError` without OpenCV.
    """
    opencv()
    everything = [*indices, *scene.train_indices]
    cameras = [images.camera(i) for i in everything]
    factor = max(1, -(-max(max(c.width, c.height) for c in cameras) // LARGEST_SIDE))
    # stretched alike, so that flow finds what is dark, too
    greys, counts = grey_pictures(images, everything, downscale=factor)
    pictures = [
        _picture(images, *each, factor) for each in zip(everything, greys, counts, strict=True)
    ]
    train = pictures[len(indices) :]
    numbers = {index: k for k, index in enumerate(scene.train_indices)}
    paths = [[numbers[i] for i in path] for path in trajectories(scene, scene.train_indices)]
    ways = [_Way([train[k] for k in path], path) for path in paths]
    looked_at = spread([k for path in paths for k in path], len(train))
    for index, picture in zip(indices, pictures, strict=False):
        camera = images.camera(index)
        mask = torch.from_numpy(_covisible(picture, train, ways, looked_at))
        size = (camera.height, camera.width)
        if mask.shape != size:
            mask = functional.interpolate(mask[None, None].float(), size=size, mode="nearest")[0, 0]
        yield index, mask.bool()


def _picture(
    images: ViewSource, index: int, grey: np.ndarray, counts: np.ndarray, factor: int
) -> _Picture:
    return _Picture(
        grey=grey,
        counts=counts,
        camera=images.camera(index, factor),
        depth=images.view(index, factor).depth,
    )


def _covisible(
    picture: _Picture,
    train: Sequence[_Picture],
    ways: Sequence[_Way],
    looked_at: Collection[int],
) -> Bool[np.ndarray, "height width"]:
    seen_in = np.zeros(picture.grey.shape, dtype=np.int32)
    followed = {k: seen for way in ways for k, seen in way.seen(picture, looked_at)}
    for number in looked_at:
        seen = _seen(picture, _at_size(train[number], picture))
        seen_in += seen | followed[number] if number in followed else seen
    result: np.ndarray = picture.counts & (seen_in > needed_pictures(len(looked_at)))
    return result


def spread(ordered: Sequence[int], count: int) -> list[int]:
    """At most :data:`MOST_PICTURES` of the numbers below ``count``, evenly: of those that are
    ``ordered``, and then of the others."""
    rest = sorted(set(range(count)).difference(ordered))
    order = [*ordered, *rest]
    most = min(count, MOST_PICTURES)
    return sorted(order[(2 * k + 1) * count // (2 * most)] for k in range(most))


class _Way:
    """One camera's training pictures in the order of time, and flow from each to the next."""

    def __init__(self, pictures: Sequence[_Picture], numbers: Sequence[int]) -> None:
        self._pictures = pictures
        self._numbers = numbers
        """Of the pictures, among all that trained."""
        self._flow = DenseFlow([p.grey for p in pictures])

    def seen(
        self, picture: _Picture, wanted: Collection[int]
    ) -> Iterator[tuple[int, Bool[np.ndarray, "height width"]]]:
        """The number of each picture that is ``wanted``, and what it shows of ``picture``: by the
        geometry to the one of the same time, and on from there. Nothing without depth, or such a
        one."""
        start = self._same_time(picture)
        if start is None:
            return
        there = self._pictures[start]
        assert picture.depth is not None and there.depth is not None
        forth = still_flow(picture.camera, picture.depth, there.camera)
        back = still_flow(there.camera, there.depth, picture.camera)
        for path in (range(start, len(self._pictures)), range(start, -1, -1)):
            out, home, last = forth, back, start
            for at in path:
                if at != last:
                    out = chained(out, self._flow(last, at))
                    home = chained(self._flow(at, last), home)
                    last = at
                if self._numbers[at] not in wanted:
                    continue
                counts = self._pictures[at].counts[..., None]
                yield self._numbers[at], seen_both_ways(out, np.where(counts, home, np.nan))

    def _same_time(self, picture: _Picture) -> int | None:
        if picture.camera.time is None:
            return None
        times = [float(p.camera.time) for p in self._pictures if p.camera.time is not None]
        off = np.abs(np.asarray(times) - float(picture.camera.time))
        nearest = int(off.argmin())  # pictures of a camera's way all have a time
        there, step = self._pictures[nearest], float(np.ptp(times)) / len(times)
        alike = there.grey.shape == picture.grey.shape and off[nearest] <= SAME_TIME * step
        known = picture.depth is not None and there.depth is not None
        return nearest if alike and known else None


def chained(
    first: Float[np.ndarray, "height width 2"], second: Float[np.ndarray, "height width 2"]
) -> Float[np.ndarray, "height width 2"]:
    """The flow ``first`` and then ``second``; NaN where that is not known, or outside."""
    ends = centres(first.shape[:2]) + first
    known = np.isfinite(ends[..., 0] + ends[..., 1]) & inside(np.nan_to_num(ends), first.shape[:2])
    after = sampled(second, np.where(known[..., None], ends, 0.0))
    return np.where(known[..., None], first + after, np.nan).astype(np.float32)


def _at_size(other: _Picture, picture: _Picture) -> _Picture:
    """``other`` at the size of ``picture``: flow is between pictures of one size."""
    if other.grey.shape == picture.grey.shape:
        return other
    height, width = picture.grey.shape
    cv2, depth = opencv(), other.depth
    if depth is not None:
        depth = functional.interpolate(depth[None, None], size=(height, width))[0, 0]
    return _Picture(
        grey=cv2.resize(other.grey, (width, height), interpolation=cv2.INTER_AREA),
        counts=cv2.resize(other.counts.astype(np.uint8), (width, height)).astype(bool),
        camera=other.camera.resized(width, height),
        depth=depth,
    )


def _seen(picture: _Picture, other: _Picture) -> Bool[np.ndarray, "height width"]:
    """Which pixels of ``picture`` the picture ``other`` shows, too."""
    flows = [(_flow(picture.grey, other.grey), _flow(other.grey, picture.grey))]
    if picture.depth is not None and other.depth is not None:
        flows.append((still_flow(picture.camera, picture.depth, other.camera),
                      still_flow(other.camera, other.depth, picture.camera)))  # fmt: skip
    seen = np.zeros(picture.grey.shape, dtype=bool)
    for forth, back in flows:
        seen |= seen_both_ways(forth, np.where(other.counts[..., None], back, np.nan))
    return seen


def seen_both_ways(
    forth: Float[np.ndarray, "height width 2"], back: Float[np.ndarray, "height width 2"]
) -> Bool[np.ndarray, "height width"]:
    """Where flow and the flow back at its end agree; not where one of them is NaN. Outside the
    picture the flow back is 0, as in DyCheck's code."""
    cv2 = opencv()
    ends = centres(forth.shape[:2]) + forth - 0.5  # OpenCV counts from the first pixel's centre
    at = cv2.remap(back.astype(np.float32), ends.astype(np.float32), None, cv2.INTER_LINEAR)
    return consistent(forth, at)


def _flow(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "height width 2"]:
    """DIS of two pictures; those below its patches are padded."""
    cv2: Any = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = a.shape
    least = 2 * search.getPatchSize()
    padding = ((0, max(0, least - height)), (0, max(0, least - width)))
    a, b = (np.ascontiguousarray(np.pad(x, padding, mode="edge")) for x in (a, b))
    flow: np.ndarray = search.calc(a, b, None)
    return flow[:height, :width]


def still_flow(
    camera: Camera, depth: Float[Tensor, "height width"], other: Camera
) -> Float[np.ndarray, "height width 2"]:
    """Where ``other`` has each pixel of ``camera`` if nothing moves, less its place, in pixels; NaN
    where there is no depth, or it is behind ``other``."""
    pixels = pixel_centres(camera.width, camera.height)
    there, distance = project(other, unproject(camera, depth).reshape(-1, 3))
    flow = there.reshape(pixels.shape) - pixels
    known = (depth > 0) & (distance.reshape(depth.shape) > 0)
    return torch.where(known[..., None], flow, torch.nan).numpy()
