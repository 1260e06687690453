"""Which pixels move, told by measured depth: from flow's masks, without halos and holes.

Flow misses what is thin or fast, and its masks are grown. With depth and poses known, a pixel's
place in the world can be looked up in pictures of other times: what stands still is there always,
at the same depth and in the same colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from scene4d.cameras.camera import Camera
from scene4d.data.points import visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.methods.deformable.lifted import LiftedTracks, back_projected

_PIXELS = 80_000
"""Of a picture, at most, that are looked up."""
_AROUND_MASKS = 0.08
"""Of the picture's diagonal: how far from flow's masks pixels may move."""
_LOOKED_AT = 16
"""Pictures in which a place is looked up."""
_SAME = 0.015
"""A surface is seen again where depth differs by so much at most, as a share of it; where a picture
sees farther, the place is empty."""
_SELDOM = 0.1
"""Share of the pictures that see a place: where no more see it empty, it is always there."""
_RECOLOURED, _OFTEN = 0.12, 0.3
"""Of white: a larger difference of any channel is another surface, if so many pictures see one."""
_NEAR_TRACK, _FAR = 8.0, 10.0
"""Pixels: how near a track is that says something of a place, and how far it has to go."""
_TRACKS_AROUND = 5
"""Tracks around a place that have to agree."""
_REACH, _SURFACE = 5, 0.02
"""Pixels, and share of the depth, within which neighbours are of one surface and agree."""
_OF_FLOW = 0.3
"""Share of a connected part that flow has to have found, too."""
_ENCLOSED = 0.1
"""Of the depth: a hole that is no deeper behind its rim is part of what is around it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Looked:
    """A picture in which places are looked up, each pixel with its eight neighbours."""

    camera: Camera
    depth: Float[Tensor, "height width 9"]
    rgb: Float[Tensor, "height width 9 3"]


def refined_masks(
    scene: Scene,
    images: ViewSource,
    masks: Mapping[int, Bool[Tensor, "height width"]],
    depths: Mapping[int, Float[Tensor, "height width"]],
    tracks: LiftedTracks,
) -> dict[int, Bool[Tensor, "height width"]]:
    """What moves in each frame, from flow's ``masks``, measured ``depths`` and lifted ``tracks``.

    A pixel moves where pictures of other times see through its place, or see another colour there;
    and, as what turns or slides within its own surface is seen at the same depth always, where all
    tracks around it go far. Neighbours on one surface agree; what flow saw nothing of is left out.
    """
    train = list(scene.train_indices)
    far = _gone_far(scene, tracks)
    others = [_looked(images, i, depths[i]) for i in train[:: max(1, len(train) // _LOOKED_AT)]]
    result = {}
    for index in train:
        camera, depth, around = scene.frames[index].camera, depths[index], masks[index]
        stride = max(1, round((depth.numel() / _PIXELS) ** 0.5))
        near = grown(around, _AROUND_MASKS) & (depth > 0)
        rows, columns = near[::stride, ::stride].nonzero(as_tuple=True)
        y, x = rows * stride, columns * stride
        places = back_projected(camera, torch.stack([x, y], -1) + 0.5, depth[y, x])
        keep = _changed(places, images.view(index).rgb[y, x], others)
        assert camera.time is not None
        column = int((tracks.times - camera.time).abs().argmin())
        here = tracks.seen[:, column]
        reach = _NEAR_TRACK * depth[y, x] / camera.K[0, 0]
        going = _among(places, tracks.places[here, column], far[here], reach)
        keep |= going & around[y, x]
        coarse = depth[::stride, ::stride]
        found = torch.zeros(coarse.shape, dtype=torch.bool)
        found[rows[keep], columns[keep]] = True
        found = _agreed(_agreed(found, coarse, _REACH), coarse, _REACH)
        if stride > 1:
            fine = found.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
            found = _agreed(fine[: depth.shape[0], : depth.shape[1]], depth, stride)
        result[index] = _filled(_found_by_flow(found, around), depth)
    return result


def _looked(images: ViewSource, index: int, depth: Float[Tensor, "height width"]) -> _Looked:
    maps = torch.cat([depth[..., None], images.view(index).rgb], dim=-1).permute(2, 0, 1)
    wide = pad(maps[None], (1, 1, 1, 1), mode="replicate")[0]
    height, width = depth.shape
    around = torch.stack(
        [wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1
    )
    return _Looked(camera=images.camera(index), depth=around[0], rgb=around[1:].permute(1, 2, 3, 0))


def _changed(
    places: Float[Tensor, "n 3"], rgb: Float[Tensor, "n 3"], others: Sequence[_Looked]
) -> Bool[Tensor, " n"]:
    """Which places are empty, or of another colour, in too many of the pictures that see them."""
    through, same, recoloured = (torch.zeros(len(places)) for _ in range(3))
    for other in others:
        seen, pixel = visible_from(places, other.camera)
        x, y = pixel.unbind(-1)
        z = -((places - other.camera.position) @ other.camera.c2w[:3, 2])
        ratios = other.depth[y, x] / z[:, None]
        again = seen & ((ratios - 1).abs().amin(dim=1) <= _SAME)
        through += seen & (ratios[:, 4] > 1 + _SAME) & ~again
        same += again
        off = (other.rgb[y, x] - rgb[:, None]).abs().amax(dim=2).amin(dim=1)
        recoloured += again & (off > _RECOLOURED)
    count = through + same
    return (through > _SELDOM * count) | (recoloured > _OFTEN * count)


def _gone_far(scene: Scene, tracks: LiftedTracks) -> Bool[Tensor, " tracks"]:
    """Which tracks go farther in the world than flow that slips off an edge takes them."""
    camera = scene.train_cameras()[0]
    low = torch.where(tracks.seen[..., None], tracks.places, torch.inf).amin(1)
    high = torch.where(tracks.seen[..., None], tracks.places, -torch.inf).amax(1)
    distance = (0.5 * (low + high) - camera.position).norm(dim=-1)
    return (high - low).norm(dim=-1) > _FAR * distance / camera.K[0, 0]


def _among(
    places: Float[Tensor, "n 3"],
    tracks: Float[Tensor, "tracks 3"],
    far: Bool[Tensor, " tracks"],
    reach: Float[Tensor, " n"],
) -> Bool[Tensor, " n"]:
    """Which places have a track within ``reach``, and only such as go far around them."""
    if not len(tracks):
        return torch.zeros(len(places), dtype=torch.bool)
    count = min(_TRACKS_AROUND, len(tracks))
    found = [torch.cdist(p, tracks).topk(count, dim=1, largest=False) for p in places.split(2048)]
    gaps, which = (torch.cat([part[k] for part in found]) for k in (0, 1))
    return far[which].all(1) & (gaps[:, 0] < reach)


def grown(mask: Bool[Tensor, "height width"], share: float) -> Bool[Tensor, "height width"]:
    """The mask and what is within a share of its diagonal."""
    reach = round(share * (mask.shape[0] ** 2 + mask.shape[1] ** 2) ** 0.5)
    for axis in ((1, 2 * reach + 1), (2 * reach + 1, 1)):
        border = (axis[0] // 2, axis[1] // 2)
        mask = max_pool2d(mask[None, None].float(), axis, stride=1, padding=border)[0, 0] > 0
    return mask


def _agreed(
    mask: Bool[Tensor, "height width"], depth: Float[Tensor, "height width"], reach: int
) -> Bool[Tensor, "height width"]:
    """The majority of the pixels within ``reach`` that are of a pixel's own surface."""
    height, width = depth.shape
    sides = (reach,) * 4
    marks, deep = (pad(m[None, None].float(), sides)[0, 0] for m in (mask, depth))
    inside, count = torch.zeros(height, width), torch.zeros(height, width)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            window = slice(i, i + height), slice(j, j + width)
            alike = (deep[window] - depth).abs() < _SURFACE * depth
            inside += alike * marks[window]
            count += alike
    return inside > 0.5 * count


def _found_by_flow(
    mask: Bool[Tensor, "height width"], around: Bool[Tensor, "height width"]
) -> Bool[Tensor, "height width"]:
    """The connected parts that lie in flow's mask well enough."""
    from scipy.ndimage import label

    parts, count = label(mask.numpy(), structure=np.ones((3, 3)))
    flat = parts.ravel()
    sizes = np.bincount(flat, minlength=count + 1)
    inside = np.bincount(flat[around.numpy().ravel()], minlength=count + 1)
    kept = inside > _OF_FLOW * sizes
    kept[0] = False
    return torch.from_numpy(kept[parts])


def _filled(
    mask: Bool[Tensor, "height width"], depth: Float[Tensor, "height width"]
) -> Bool[Tensor, "height width"]:
    """With its holes, but for those that show what is far behind their rims."""
    from scipy.ndimage import binary_dilation, binary_fill_holes, find_objects, label

    solid, deep = mask.numpy().copy(), depth.numpy()
    holes, _ = label(binary_fill_holes(solid) & ~solid)
    for number, box in enumerate(find_objects(holes), start=1):
        box = tuple(slice(max(0, side.start - 2), side.stop + 2) for side in box)
        hole = holes[box] == number
        rim = binary_dilation(hole, iterations=2) & mask.numpy()[box]
        if np.median(deep[box][hole]) < (1 + _ENCLOSED) * np.median(deep[box][rim]):
            solid[box] |= hole
    return torch.from_numpy(solid)
