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
"""Pictures that are asked whether they see through a place."""
_BEHIND = 1.05
"""A place is empty where a picture sees what is so many times as far."""
_NEAR_TRACK, _FARTHER = 8.0, 4.0
"""Pixels: how near a moving track is, and how far it has to go."""


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

    A pixel stays where some other picture sees through its place, which then was empty, or where a
    track that moves in the world is near it.
    """
    train = list(scene.train_indices)
    others = train[:: max(1, len(train) // _LOOKED_AT)]
    moving = _moved(scene, tracks)
    result = {}
    for index in train:
        camera = scene.frames[index].camera
        y, x = (masks[index] & (depths[index] > 0)).nonzero(as_tuple=True)
        places = back_projected(camera, torch.stack([x, y], -1) + 0.5, depths[index][y, x])
        through = torch.zeros(len(x))
        for other in others:
            through += _seen_through(places, scene.frames[other].camera, depths[other])
        assert camera.time is not None
        column = int((tracks.times - camera.time).abs().argmin())
        near = tracks.places[moving & tracks.seen[:, column], column]
        keep = through >= min(2, len(others) - 1)
        if len(near):
            reach = _NEAR_TRACK * depths[index][y, x] / camera.K[0, 0]
            gap = torch.cat([torch.cdist(part, near).amin(1) for part in places.split(2048)])
            keep |= gap < reach
        result[index] = torch.zeros_like(masks[index])
        result[index][y[keep], x[keep]] = True
    return result


def _moved(scene: Scene, tracks: LiftedTracks) -> Bool[Tensor, " tracks"]:
    """Which tracks go farther in the world than flow and depth are off."""
    camera = scene.train_cameras()[0]
    low = torch.where(tracks.seen[..., None], tracks.places, torch.inf).amin(1)
    high = torch.where(tracks.seen[..., None], tracks.places, -torch.inf).amax(1)
    middle = 0.5 * (low + high)
    distance = (middle - camera.position).norm(dim=-1)
    return (high - low).norm(dim=-1) > _FARTHER * distance / camera.K[0, 0]


def _seen_through(
    places: Float[Tensor, "n 3"], camera: Camera, depth: Float[Tensor, "height width"]
) -> Bool[Tensor, " n"]:
    """Which places lie before what the depth map shows."""
    seen, pixel = visible_from(places, camera)
    x, y = pixel.unbind(-1)
    z = -((places - camera.position) @ camera.c2w[:3, 2])
    return seen & (depth[y, x] > _BEHIND * z)
