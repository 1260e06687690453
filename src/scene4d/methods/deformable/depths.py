"""How far away the pixels of the moving masks are: measured, or guessed from what stands still."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.points import find_focus, visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.methods.deformable.lifted import LiftedTracks, back_projected, sight_of

_NEIGHBOURS = 8
"""Static points around a pixel whose depths are taken for its own."""
_LOOKED_AT = 16
"""Pictures that are asked whether a place is empty."""
_SAME = 0.015
"""A surface is seen again where depth differs by so much at most, as a share of it; where a picture
sees farther, the place is empty."""
_NEAR_TRACK, _FAR = 8.0, 10.0
"""Pixels: how near a track is that says something of a place, and how far it has to go."""
_AROUND = 5
"""Tracks around a place that have to agree."""
_HOLES = 0.01
"""Of the picture's diagonal: gaps up to twice as wide in what is kept are filled."""
_SELDOM = 0.1
"""Share of the pictures that see a place again or empty: where no more see it empty, it is always
there."""


def depths_of(
    scene: Scene, images: ViewSource, masks: Mapping[int, Bool[Tensor, "height width"]]
) -> dict[int, Float[Tensor, "height width"]]:
    """Depth maps of the training frames in scene units, 0 where nothing is known; measured ones
    where the capture has any, else a weak guess inside of the ``masks``."""
    train = list(scene.train_indices)
    if any(scene.frames[i].depth_path is not None for i in train):
        empty = {i: torch.zeros(masks[i].shape) for i in train}
        views = ((i, images.view(i)) for i in train)
        return {**empty, **{i: sight_of(v) for i, v in views if v.depth is not None}}
    return {i: _guessed(scene, i, masks[i]) for i in train}


def _guessed(
    scene: Scene, index: int, mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """The depth of the static points that are near in the picture: a thing that moves is usually
    before what is seen beside it, and about as far as what it stands on."""
    from scipy.spatial import cKDTree

    camera = scene.frames[index].camera
    depth = torch.zeros(mask.shape)
    y, x = mask.nonzero(as_tuple=True)
    if not len(x):
        return depth
    if scene.points is None:
        focus = find_focus(scene.train_cameras())
        far = scene.extent if focus is None else focus.distance
        return torch.where(mask, far, depth)
    seen, pixel = visible_from(scene.points.xyz, camera)
    z = -((scene.points.xyz - camera.position) @ camera.c2w[:3, 2])
    places, z = pixel[seen].double().numpy(), z[seen]
    if not len(z):
        return torch.where(mask, scene.extent, depth)
    count = min(_NEIGHBOURS, len(z))
    _, near = cKDTree(places).query(torch.stack([x, y], -1).numpy(), k=[*range(1, count + 1)])
    depth[y, x] = z[torch.from_numpy(near)].quantile(0.25, dim=1)
    return depth


def refined_masks(
    scene: Scene,
    masks: Mapping[int, Bool[Tensor, "height width"]],
    depths: Mapping[int, Float[Tensor, "height width"]],
    tracks: LiftedTracks,
) -> dict[int, Bool[Tensor, "height width"]]:
    """The masks without what stands still beside a thing that moves, told by measured depth.

    A pixel stays where pictures of other times see through its place, which then was empty: what
    stands still is seen at the same depth by all that see it. What turns or slides within its own
    surface is, too, and stays where all tracks around it go far.
    """
    train = list(scene.train_indices)
    far = _gone_far(scene, tracks)
    others = train[:: max(1, len(train) // _LOOKED_AT)]
    result = {}
    for index in train:
        camera = scene.frames[index].camera
        y, x = (masks[index] & (depths[index] > 0)).nonzero(as_tuple=True)
        places = back_projected(camera, torch.stack([x, y], -1) + 0.5, depths[index][y, x])
        through, same = torch.zeros(len(x)), torch.zeros(len(x))
        for other in others:
            ratio = _measured(places, scene.frames[other].camera, depths[other])
            through += ratio > 1 + _SAME
            same += (ratio - 1).abs() <= _SAME
        keep = through > _SELDOM * (through + same)
        assert camera.time is not None
        column = int((tracks.times - camera.time).abs().argmin())
        here = tracks.seen[:, column]
        reach = _NEAR_TRACK * depths[index][y, x] / camera.K[0, 0]
        keep |= _among(places, tracks.places[here, column], far[here], reach)
        result[index] = torch.zeros_like(masks[index])
        result[index][y[keep], x[keep]] = True
        result[index] = _closed(result[index])
    return result


def _closed(mask: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """Without small holes and gaps: grown, then shrunk as much."""
    reach = round(_HOLES * (mask.shape[0] ** 2 + mask.shape[1] ** 2) ** 0.5)
    window = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    grown = torch.nn.functional.max_pool2d(mask[None, None].float(), **window)
    return -torch.nn.functional.max_pool2d(-grown, **window)[0, 0] > 0.5


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
    count = min(_AROUND, len(tracks))
    found = [torch.cdist(p, tracks).topk(count, dim=1, largest=False) for p in places.split(2048)]
    gaps, which = (torch.cat([part[k] for part in found]) for k in (0, 1))
    return far[which].all(1) & (gaps[:, 0] < reach)


def _measured(
    places: Float[Tensor, "n 3"], camera: Camera, depth: Float[Tensor, "height width"]
) -> Float[Tensor, " n"]:
    """What the depth map shows at the places, as a share of how far they are; 0 where nothing."""
    seen, pixel = visible_from(places, camera)
    x, y = pixel.unbind(-1)
    z = -((places - camera.position) @ camera.c2w[:3, 2])
    return torch.where(seen, depth[y, x] / z, 0.0)
