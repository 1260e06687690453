"""What stands still where no depth is measured: tracks that a moving camera explains.

Flow between neighbouring pictures is noisy, and its masks keep what one of them ever found. A track
that one point in space explains over all of its way stands still; such points also say how far away
things are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from scene4d.data.scene import Points, ViewSource
from scene4d.data.tracks import Tracks
from scene4d.data.triangulated import Triangulated, triangulated

_SURE_ANGLE = 0.03
"""rad: by how much the camera has to have gone around a point whose depth is believed."""
_STRAYS, _LEAST_PX = 3.0, 0.25
"""A point moves that is off by more than this many times the usual, and by so many pixels."""
_LONG = 6
"""Pictures that have to show a point for its place to be believed: over fewer, what moves may be
explained, too."""
_ASKED, _AGREE = 5, 4
"""Tracks around a pixel that are asked, and how many have to say that it stands still..."""
_REACH = 4.0
"""...within so many usual distances between tracks."""

Masks = Mapping[int, Bool[Tensor, "height width"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sighted:
    """Points of a picture that stand still."""

    xy: Float[Tensor, "n 2"]
    """Pixels."""
    xyz: Float[Tensor, "n 3"]
    """World, scene units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Still:
    """What tracks say of the training frames; empty where their cameras do not move."""

    masks: dict[int, Bool[Tensor, "height width"]]
    """Of what moves, without what tracks know to stand still."""
    sighted: dict[int, Sighted]
    """By frame."""
    points: Points | None
    """All points that stand still; None where there is none."""


def told_by_tracks(images: ViewSource, tracks: Sequence[Tracks], masks: Masks) -> Still:
    """``masks`` of what moves, by frame, less what the tracks of their cameras explain as standing
    still, and where that is."""
    found, sighted = dict(masks), {}
    xyz, rgb = [], []
    for each in tracks:
        if not len(each):
            continue
        points = triangulated(each, images)
        sure = points.angle > _SURE_ANGLE
        moving = points.off > _limit(points, sure, each, masks)
        still = sure & ~moving
        placed = still & (each.visible.sum(1) >= _LONG)
        for k, index in enumerate(each.frames):
            here = each.visible[:, k]
            told = here & (still | moving)
            found[index] = _less(masks[index], each.xy[told, k], still[told])
            sighted[index] = Sighted(xy=each.xy[here & placed, k], xyz=points.places[here & placed])
        xyz.append(points.places[placed])
        rgb.append(_colours(images, each)[placed])
    some = torch.cat(xyz) if xyz else torch.zeros(0, 3)
    known = Points(xyz=some, rgb=torch.cat(rgb)) if len(some) else None
    return Still(masks=found, sighted=sighted, points=known)


def _limit(
    points: Triangulated, sure: Bool[Tensor, " tracks"], tracks: Tracks, masks: Masks
) -> float:
    """Pixels by which a point that stands still may be off: by the tracks outside of the masks."""
    inside = torch.zeros(len(tracks), dtype=torch.bool)
    for k, index in enumerate(tracks.frames):
        x, y = _pixels(tracks, k, masks[index].shape)
        inside |= tracks.visible[:, k] & masks[index][y, x]
    outside = points.off[sure & ~inside]
    return max(_LEAST_PX, _STRAYS * float(outside.median())) if len(outside) else _LEAST_PX


def _less(
    mask: Bool[Tensor, "height width"], xy: Float[Tensor, "n 2"], still: Bool[Tensor, " n"]
) -> Bool[Tensor, "height width"]:
    """The mask without the pixels around which tracks stand still."""
    if len(xy) < _ASKED or not bool(mask.any()):
        return mask
    tree = cKDTree(xy.numpy())
    spacing = float(np.median(tree.query(xy.numpy(), k=2)[0][:, 1]))
    y, x = mask.nonzero(as_tuple=True)
    distance, near = tree.query(torch.stack([x, y], -1).numpy() + 0.5, k=_ASKED)
    close = distance <= _REACH * spacing
    left = mask.clone()
    left[y, x] = torch.from_numpy((still.numpy()[near] & close).sum(1) < _AGREE)
    return left


def _colours(images: ViewSource, tracks: Tracks) -> Tensor:
    """uint8 [tracks, 3]: of the pixel where each is first seen."""
    rgb = torch.zeros(len(tracks), 3)
    first = tracks.visible.int().argmax(1)
    for k, index in enumerate(tracks.frames):
        rows = first == k
        picture = images.view(index).rgb
        x, y = _pixels(tracks, k, picture.shape[:2])
        rgb[rows] = picture[y, x][rows]
    return (rgb * 255).round().byte()


def _pixels(tracks: Tracks, k: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Column and row of each track in the picture ``k``; some pixel where it is not seen."""
    x, y = tracks.xy[:, k].long().unbind(-1)
    return x.clamp(0, shape[1] - 1), y.clamp(0, shape[0] - 1)
