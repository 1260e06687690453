"""Which pixels show what moves: flow that no static scene explains.

A pixel of a static scene moves by what the cameras and one number, its inverse depth w, say:
``x' ~ K' R K^-1 x + w K' t``. Flow from a frame to its neighbours in time gives two equations
each, all linear in w. With one neighbour their residual is the distance to the epipolar line; with
several it also tells motion along it, as depth then has to be one number; with a camera that stands
still ``t = 0``, and the residual is plain flow. Where depth is measured, w is known. The residual
is held against that of the picture's static part and cut with two thresholds. What is found is
carried along the flow in both directions of time (what moves once counts as moving), and grown.

Uniform motion along the epipolar lines of a camera that moves uniformly looks like depth, and is
not seen without depth maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.flow import DenseFlow, centres, consistent, grey_pictures, inside, opencv, sampled
from scene4d.data.images import ImageCache
from scene4d.data.scene import Frame, Scene, ViewSource
from scene4d.data.trajectories import trajectories

_FLOW_NOISE_PX = 0.15
"""Residuals of the static part below it are flow's noise: rendered pictures have a tenth."""
_LARGEST_PX = 100.0
_VISIBLE_DIFFERENCE = 12.0
"""Grey values, of 255, by which a picture has to differ for flow to be believed."""
_LEAST_SHARE = 1e-4
"""Of the picture: smaller spots are noise."""


@dataclass(frozen=True, kw_only=True)
class MovingOptions:
    """How moving pixels are told."""

    neighbours: tuple[int, ...] = (1, 3)
    """Frames before and after that flow is taken to."""
    sure: float = 6.0
    """Residuals above this many times the static part's belong to something that moves..."""
    likely: float = 0.3
    """...and around them those above this many times."""
    grow: float = 0.0025
    """How far masks are grown, as a share of the picture's diagonal."""
    remember: float = 0.99
    """What is left in the next frame in time of a pixel's share in what moves, where half is cut:
    found once, it is remembered for 69 frames."""
    largest_side: int = 640
    """Flow is taken in pictures at most this wide and high, pixels."""


def moving_masks(
    scene: Scene,
    images: ViewSource,
    *,
    options: MovingOptions | None = None,
    indices: Iterable[int] | None = None,
) -> dict[int, Bool[Tensor, "height width"]]:
    """Which pixels of each frame show what moves at some time, by index into ``scene.frames``; at
    the size of ``images.view(index)``.

    ``indices``: of the frames to look at; None: all that have a time. A camera with one picture
    gives an empty mask. Raises :class:`MissingExtraError` without OpenCV.
    """
    options = options or MovingOptions()
    masks: dict[int, Tensor] = {}
    for path in trajectories(scene, indices):
        masks.update(_of_one_camera(images, path, options))
    return masks


def known_moving_masks(
    scene: Scene,
    images: ViewSource,
    *,
    options: MovingOptions | None = None,
    indices: Iterable[int] | None = None,
) -> dict[int, Bool[Tensor, "height width"]]:
    """As :func:`moving_masks`, and the capture's own mask of each frame that has one
    (``Frame.moving_path``); flow is only taken where one is missing."""
    wanted = range(len(scene.frames)) if indices is None else sorted(set(indices))
    stated = stated_masks(images, wanted, lambda frame: frame.moving_path)
    if len(stated) == len(wanted):
        return stated
    return moving_masks(scene, images, options=options, indices=wanted) | stated


def stated_masks(
    images: ViewSource, indices: Iterable[int], path: Callable[[Frame], Path | None]
) -> dict[int, Bool[Tensor, "height width"]]:
    """The masks that lie in the pictures' capture at ``path``, as the views are: undistorted and
    downscaled; of those frames at ``indices`` that have one. None of renders."""
    if not isinstance(images, ImageCache):
        return {}
    scene = images.scene  # with the files' own sizes, which those of a training may not be
    frames = [
        replace(f, mask_path=path(f), mask_ignores=False, depth_path=None) for f in scene.frames
    ]
    wanted = [i for i in indices if frames[i].mask_path is not None]
    cache = ImageCache(
        replace(scene, frames=frames), downscale_factor=images.downscale_factor, indices=[]
    )
    masks = {i: cache.view(i).mask for i in wanted}
    return {i: mask for i, mask in masks.items() if mask is not None}


def _of_one_camera(
    images: ViewSource, path: Sequence[int], options: MovingOptions
) -> dict[int, Tensor]:
    size = images.camera(path[0])
    if len(path) < 2:
        return {i: torch.zeros(size.height, size.width, dtype=torch.bool) for i in path}
    downscale = -(-max(size.width, size.height) // options.largest_side)
    greys, counts = grey_pictures(images, path, downscale=downscale)
    cameras = [images.camera(index, downscale) for index in path]
    depths = [images.view(index, downscale).measured_depth for index in path]
    flow = DenseFlow(greys)
    scores = [
        _score(flow, cameras, depths[at], at, options.neighbours) * counts[at]
        for at in range(len(path))
    ]
    shares = _carried(flow, [_found(score, options) for score in scores], options.remember)
    radius = options.grow * float(np.hypot(*greys[0].shape))
    return {
        index: _at_size(_grown(share, radius) & says, size)
        for index, share, says in zip(path, shares, counts, strict=True)
    }


@dataclass(frozen=True, kw_only=True)
class _Sight:
    """What one neighbour says about each pixel of a frame, in pixels of the neighbour."""

    target: Float[np.ndarray, "height width 2"]
    """Where flow finds it."""
    far: Float[np.ndarray, "height width 3"]
    """Where it would be if infinitely far: homogeneous, per unit of depth."""
    shift: Float[np.ndarray, " 3"]
    """What is added to ``far`` per unit of inverse depth."""
    seen: Bool[np.ndarray, "height width"]
    """Where flow holds both ways."""

    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, 2] c and d with c + w d = 0 for a pixel that does not move, in pixels."""
        u, a, b = self.target, self.far, self.shift
        depth = np.where(np.abs(a[..., 2:]) > 1e-6, a[..., 2:], 1e-6)
        return (a[..., :2] - u * a[..., 2:]) / depth, (b[:2] - u * b[2]) / depth

    def static_place(self, w: np.ndarray) -> np.ndarray:
        """Where a static point at inverse depth ``w`` [H, W] would be; far off if behind."""
        point = self.far + w[..., None] * self.shift
        ahead = point[..., 2:] > 1e-6
        return np.where(ahead, point[..., :2] / np.where(ahead, point[..., 2:], 1), -1e6)


def _sight(flow: DenseFlow, cameras: Sequence[Camera], at: int, other: int) -> _Sight:
    forth, back = flow(at, other), flow(other, at)
    shape = forth.shape[:2]
    target = centres(shape) + forth
    seen = consistent(forth, sampled(back, target)) & inside(target, shape)
    relative = (cameras[other].viewmat.double() @ cameras[at].viewmat.double().inverse()).numpy()
    K, K_other = cameras[at].K.double().numpy(), cameras[other].K.double().numpy()
    pixels = np.concatenate([centres(shape), np.ones((*shape, 1), np.float32)], axis=-1)
    far = pixels @ (K_other @ relative[:3, :3] @ np.linalg.inv(K)).T
    return _Sight(target=target, far=far, shift=K_other @ relative[:3, 3], seen=seen)


def _score(
    flow: DenseFlow, cameras: Sequence[Camera], depth: Tensor | None, at: int, steps: Sequence[int]
) -> Float[np.ndarray, "height width"]:
    """Of picture ``at``: by how many times the static part's residual each pixel strays from what a
    static scene shows; 0 where no neighbour shows it."""
    others = [at + s * k for k in steps for s in (-1, 1) if 0 <= at + s * k < len(cameras)]
    sights = [_sight(flow, cameras, at, other) for other in others]
    w = _static_inverse_depth(sights, depth)
    total = np.zeros(flow.pictures[at].shape, np.float32)
    count = np.zeros_like(total)
    for other, sight in zip(others, sights, strict=True):
        if not sight.seen.any():
            continue
        place = sight.static_place(w)
        off = np.minimum(np.linalg.norm(place - sight.target, axis=-1), _LARGEST_PX)
        typical = 1.4826 * float(np.median(off[sight.seen]))
        told = _told_apart(flow.pictures[at], flow.pictures[other], place, sight.target)
        total += sight.seen * told * off / max(typical, _FLOW_NOISE_PX)
        count += sight.seen
    return total / np.maximum(count, 1)


def _static_inverse_depth(
    sights: Sequence[_Sight], depth: Tensor | None
) -> Float[np.ndarray, "height width"]:
    """The inverse depth that suits all neighbours' flow best, in least squares; the measured one
    where there is one."""
    above = below = np.zeros(sights[0].seen.shape)
    for sight in sights:
        c, d = sight.equations()
        above = above - sight.seen * (c * d).sum(-1)
        below = below + sight.seen * (d * d).sum(-1)
    w = np.maximum(above / np.maximum(below, 1e-12), 0)
    if depth is None:
        return w
    known = depth.numpy()
    return np.where(known > 0, 1 / np.maximum(known, 1e-9), w)


def _told_apart(
    picture: np.ndarray, other: np.ndarray, static: np.ndarray, moved: np.ndarray
) -> Float[np.ndarray, "height width"]:
    """0..1: how much worse ``other`` suits ``picture`` at static places than at the flow's.
    Where nothing can be told (a bare wall), flow is that of the surroundings and no witness."""
    worse = _difference(picture, other, static) - _difference(picture, other, moved)
    share: np.ndarray = np.clip(worse / _VISIBLE_DIFFERENCE, 0, 1)
    return share


def _difference(picture: np.ndarray, other: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[H, W] mean absolute difference of grey values in windows of 3x3."""
    cv2 = opencv()
    x, y = (np.ascontiguousarray(places[..., i] - 0.5, dtype=np.float32) for i in (0, 1))
    warped = cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result: np.ndarray = cv2.blur(np.abs(picture.astype(np.float32) - warped), (3, 3))
    return result


def _found(score: np.ndarray, options: MovingOptions) -> Float[np.ndarray, "height width"]:
    """1 at connected pixels above ``likely`` that reach ``sure``, else 0.

    Not the scores are carried, but this: between pixels they would be blurred, and as one may be a
    hundred times the threshold, so that what is found grew with every picture."""
    cv2 = opencv()
    score = cv2.medianBlur(score.astype(np.float32), 5)
    likely = (score > options.likely).astype(np.uint8)
    _, labels = cv2.connectedComponents(likely, connectivity=8)
    area = np.bincount(labels[score > options.sure], minlength=labels.max() + 1)
    sure = area >= _LEAST_SHARE * score.size
    sure[0] = False
    return sure[labels].astype(np.float32)


def _carried(flow: DenseFlow, shares: Sequence[np.ndarray], remember: float) -> list[np.ndarray]:
    """The shares, and ``remember`` of those that a pixel's surface has before and after."""
    last = len(shares) - 1
    return [
        np.maximum(a, b)
        for a, b in zip(
            _one_way(flow, shares, range(last + 1), remember),
            _one_way(flow, shares, range(last, -1, -1), remember)[::-1],
            strict=True,
        )
    ]


def _one_way(
    flow: DenseFlow, shares: Sequence[np.ndarray], order: Sequence[int], remember: float
) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for before, at in zip([None, *order], order, strict=False):
        share = shares[at]
        if before is not None:
            back = flow(at, before)
            source = centres(share.shape) + back
            known = consistent(back, sampled(flow(before, at), source))
            known &= inside(source, share.shape)
            share = np.maximum(share, remember * known * sampled(found[-1], source))
        found.append(share)
    return found


def _grown(share: np.ndarray, radius: float) -> np.ndarray:
    """Where more than half moves, holes filled, grown by ``radius``."""
    cv2 = opencv()
    mask = (cv2.medianBlur(share.astype(np.float32), 5) > 0.5).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(2 * radius))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, contours, -1, 1, thickness=-1)
    result: np.ndarray = cv2.dilate(mask, _disc(radius)) > 0
    return result


def _disc(radius: float) -> np.ndarray:
    size = 2 * max(0, round(radius)) + 1
    found: np.ndarray = opencv().getStructuringElement(opencv().MORPH_ELLIPSE, (size, size))
    return found


def _at_size(mask: np.ndarray, camera: Camera) -> Tensor:
    """``mask`` at the camera's size, nearest pixel."""
    size = (camera.width, camera.height)
    if mask.shape == size[::-1]:
        return torch.from_numpy(mask)
    near = opencv().resize(mask.astype(np.uint8), size, interpolation=opencv().INTER_NEAREST)
    return torch.from_numpy(near > 0)
