"""Depth for pictures from one place, which themselves show none: a relief.

By a network for monocular depth, whose maps of different times are brought to one scale, and to one
depth of what stands still; else a plane, with what moves a little before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import median_filter

from scene4d.data.process.depth_files import Depth, file_size
from scene4d.data.process.depth_model import DepthModel, depths_of
from scene4d.data.process.sfm import SfmCamera, SfmImage, SfmModel

RELIEF_UNIT = 1e-4
"""Scene units in a step of the files; the median depth is 1."""
_BEFORE = 0.9
"""Depth of what moves where a plane stands for everything else: it hides what is behind it."""
_ASKED = 16
"""Pictures that say how far away what stands still is."""
_LARGEST_MAP = 256
"""Longer side of the maps that are compared, pixels."""
_LEAST_SHARED = 0.01
"""Of a map's pixels, for two maps' scales to be compared."""
_POINTS = 20_000
_PICTURES_WITH_POINTS = 8

Masks = Mapping[str, Bool[np.ndarray, "height width"]]
"""What moves, by picture name, at the picture's size."""
Open = Callable[[str], Image.Image]
"""A picture by its name."""


@dataclass(frozen=True, kw_only=True)
class ReliefOptions:
    """What is made where the camera does not travel."""

    relief: bool = False
    """Where no poses are found because the camera stands still or only turns, go on with one place
    for all pictures: a relief, which looks right from near there alone."""


def flat_depths(model: SfmModel, masks: Masks) -> dict[str, Depth]:
    """A plane across each camera's view, and what moves a tenth nearer."""
    found = {}
    for image in model.images:
        width, height = file_size(model.cameras[image.camera_id])
        mask = _mask_at(masks.get(image.name), (width, height))
        found[image.name] = np.where(mask, _BEFORE, 1.0).astype(np.float32)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Map:
    """What a network says of one picture, on its grid."""

    image: SfmImage
    camera: SfmCamera
    log_far: Float[np.ndarray, "height width"]
    """Logarithm of the distance from the camera's place, up to a summand."""
    still: Bool[np.ndarray, "height width"]


def network_depths(
    model: SfmModel, masks: Masks, network: DepthModel, open_picture: Open
) -> dict[str, Depth]:
    """A network's depth of each picture, median 1 over all.

    What stands still has one depth always, the median over pictures of several times; what moves
    has that of its own picture, and is never behind.
    """
    raw = [_small(network(open_picture(image.name))) for image in model.images]
    depths = depths_of(raw, network.output)
    maps = []
    for image, depth in zip(model.images, depths, strict=True):
        camera = model.cameras[image.camera_id]
        far = depth * np.linalg.norm(_rays(camera, depth.shape), axis=-1)
        still = ~_mask_at(masks.get(image.name), depth.shape[::-1])
        maps.append(_Map(image=image, camera=camera, log_far=np.log(far), still=still))
    asked = [maps[i] for i in _spread(len(maps), _ASKED)]
    shifts = _scales(maps, asked)
    found = {}
    for one in maps:
        own = one.log_far + shifts[one.image.name]
        behind = _behind(one, own, asked, shifts)
        found[one.image.name] = _in_file(one, own, behind, masks.get(one.image.name))
    middle = float(np.median(np.concatenate([depth[::4, ::4].ravel() for depth in found.values()])))
    return {name: (depth / middle).astype(np.float32) for name, depth in found.items()}


def _scales(maps: Sequence[_Map], asked: Sequence[_Map]) -> dict[str, float]:
    """What to add to each map's logarithms so that what stands still is equally far in all, in
    least squares over the pairs of any with those asked."""
    number = {one.image.name: i for i, one in enumerate(maps)}
    rows, values = [], []
    for one in maps:
        for other in asked:
            if other is one:
                continue
            seen, there = _seen_in(one, other)
            both = seen & one.still & other.still.ravel()[there]
            if both.mean() < _LEAST_SHARED:
                continue
            row = np.zeros(len(maps))
            row[number[one.image.name]], row[number[other.image.name]] = 1, -1
            rows.append(row)
            values.append(np.median(other.log_far.ravel()[there][both] - one.log_far[both]))
    if not rows:
        return dict.fromkeys(number, 0.0)
    found = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return {name: float(found[i]) for name, i in number.items()}


def _behind(one: _Map, own: Depth, asked: Sequence[_Map], shifts: Mapping[str, float]) -> Depth:
    """How far what stands still is in the directions of a map: the median of those that see it;
    its own where none does."""
    told = []
    for other in asked:
        seen, there = _seen_in(one, other)
        seen = seen & other.still.ravel()[there]
        values = other.log_far.ravel()[there] + shifts[other.image.name]
        told.append(np.where(seen, values, np.nan))
    stack = np.stack(told)
    known = np.isfinite(stack).any(axis=0)
    result = own.copy()
    result[known] = np.nanmedian(stack[:, known], axis=0)
    # places that few pictures see are asked of other pictures than those beside them
    smooth: Depth = median_filter(result, size=3)
    return smooth


def _seen_in(one: _Map, other: _Map) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a map look where another picture does, and at which pixel of its map, as an
    index into its rows one after another."""
    turn = other.image.viewmat[:3, :3] @ one.image.viewmat[:3, :3].T
    local = _rays(one.camera, one.log_far.shape) @ turn.T
    height, width = other.log_far.shape
    fx, fy, cx, cy = _intrinsics(other.camera, other.log_far.shape)
    z = np.where(local[..., 2] > 1e-6, local[..., 2], np.nan)
    with np.errstate(invalid="ignore"):
        x, y = fx * local[..., 0] / z + cx, fy * local[..., 1] / z + cy
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, row = (np.where(seen, v, 0).astype(np.int64) for v in (x, y))
    return seen, row * width + column


def _in_file(
    one: _Map, own: Depth, behind: Depth, mask: Bool[np.ndarray, "height width"] | None
) -> Depth:
    """Depth along the axis at the size of the file: smooth within what moves and within the rest,
    with an edge between them."""
    size = file_size(one.camera)
    fine_own, fine_behind = (
        np.asarray(
            Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        )
        for values in (np.minimum(own, behind), behind)
    )
    far = np.exp(np.where(_mask_at(mask, size), fine_own, fine_behind))
    result: Depth = far / np.linalg.norm(_rays(one.camera, far.shape), axis=-1)
    return result


def relief_points(
    model: SfmModel, depths: Mapping[str, Depth], masks: Masks, open_picture: Open
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Points of what stands still in some of the pictures, in the model's frame, and colours."""
    rng = np.random.default_rng(0)
    xyz, rgb = [np.empty((0, 3))], [np.empty((0, 3), dtype=np.uint8)]
    chosen = _spread(len(model.images), _PICTURES_WITH_POINTS)
    for image in (model.images[i] for i in chosen):
        depth = depths[image.name]
        size = depth.shape[::-1]
        still = np.flatnonzero(~_mask_at(masks.get(image.name), size))
        still = still if len(still) else np.arange(depth.size)
        some = rng.choice(still, min(len(still), _POINTS // len(chosen)), replace=False)
        rays = _rays(model.cameras[image.camera_id], depth.shape).reshape(-1, 3)[some]
        colours = open_picture(image.name).convert("RGB").resize(size, Image.Resampling.BOX)
        xyz.append((rays * depth.ravel()[some, None]) @ image.viewmat[:3, :3])
        rgb.append(np.asarray(colours).reshape(-1, 3)[some])
    return np.concatenate(xyz), np.concatenate(rgb)


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count``, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _small(values: Depth) -> Depth:
    """At most :data:`_LARGEST_MAP` wide and high, by the mean of boxes."""
    factor = max(values.shape) / _LARGEST_MAP
    if factor <= 1:
        return values
    size = tuple(max(2, round(side / factor)) for side in values.shape[::-1])
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def _mask_at(
    mask: Bool[np.ndarray, "height width"] | None, size: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """At ``size`` (width, height): where any of the pixels that it covers is set."""
    if mask is None:
        return np.zeros(size[::-1], dtype=bool)
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > 0


def _intrinsics(camera: SfmCamera, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Focal lengths and principal point for a map of ``shape`` (height, width) of its picture."""
    x, y = shape[1] / camera.width, shape[0] / camera.height
    p = camera.params
    return x * p["fl_x"], y * p["fl_y"], x * p["cx"], y * p["cy"]


def _rays(camera: SfmCamera, shape: tuple[int, ...]) -> Float[np.ndarray, "height width 3"]:
    """Of each pixel of such a map: its direction at depth 1, OpenCV axes. The lens is not known
    here, so it has no distortion."""
    fx, fy, cx, cy = _intrinsics(camera, shape)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return np.stack([(x - cx) / fx, (y - cy) / fy, np.ones(shape)], axis=-1)
