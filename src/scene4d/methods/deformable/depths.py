"""How far away the pixels of the moving masks are: measured, or guessed from what stands still."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.points import find_focus, visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.methods.deformable.lifted import sight_of

_NEIGHBOURS = 8
"""Static points around a pixel whose depths are taken for its own."""


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
