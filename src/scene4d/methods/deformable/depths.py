"""How far away the pixels of the moving masks are: measured, or guessed from what stands still."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.points import find_focus, visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.methods.deformable.hull import hull_depths
from scene4d.methods.deformable.lifted import sight_of
from scene4d.methods.deformable.still import Sighted

_NEIGHBOURS = 8
"""Static points around a pixel whose depths are taken for its own."""


def depths_of(
    scene: Scene,
    images: ViewSource,
    masks: Mapping[int, Bool[Tensor, "height width"]],
    sighted: Mapping[int, Sighted] | None = None,
) -> dict[int, Float[Tensor, "height width"]]:
    """Depth maps of the training frames in scene units, 0 where nothing is known; measured ones
    where the capture has any, else guesses inside of the ``masks``: by those of other cameras at
    the same time, else by the points that stand still around (``sighted`` by frame, or the scene's
    own)."""
    train = list(scene.train_indices)
    if any(scene.frames[i].depth_path is not None for i in train):
        empty = {i: torch.zeros(masks[i].shape) for i in train}
        views = ((i, images.view(i)) for i in train)
        return {**empty, **{i: sight_of(v) for i, v in views if v.depth is not None}}
    hulls, sighted = hull_depths(scene, masks), sighted or {}
    found = {}
    for i in train:
        hull = hulls.get(i)
        if hull is not None and bool((hull > 0).any()):
            found[i] = _spread(hull, masks[i])
        else:
            found[i] = _guessed(scene, i, masks[i], sighted.get(i))
    return found


def _spread(
    depth: Float[Tensor, "height width"], mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """With that of the nearest pixel that has one, where the mask goes on."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(
        depth.numpy() <= 0, return_distances=False, return_indices=True
    )
    return torch.where(mask, depth[torch.from_numpy(rows), torch.from_numpy(columns)], 0.0)


def _guessed(
    scene: Scene, index: int, mask: Bool[Tensor, "height width"], sighted: Sighted | None
) -> Float[Tensor, "height width"]:
    """The depth of the static points that are near in the picture: a thing that moves is usually
    before what is seen beside it, and about as far as what it stands on."""
    from scipy.spatial import cKDTree

    depth = torch.zeros(mask.shape)
    y, x = mask.nonzero(as_tuple=True)
    if not len(x):
        return depth
    places, z = _beside(scene, index, sighted)
    if not len(z):
        focus = find_focus(scene.train_cameras())
        far = scene.extent if scene.points is not None or focus is None else focus.distance
        return torch.where(mask, far, depth)
    count = min(_NEIGHBOURS, len(z))
    tree = cKDTree(places.double().numpy())
    _, near = tree.query(torch.stack([x, y], -1).numpy(), k=[*range(1, count + 1)])
    depth[y, x] = z[torch.from_numpy(near)].quantile(0.25, dim=1)
    return depth


def _beside(
    scene: Scene, index: int, sighted: Sighted | None
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Pixels of a picture where something stands still, and how far away that is."""
    camera = scene.frames[index].camera
    if sighted is not None and len(sighted.xyz) >= _NEIGHBOURS:
        return sighted.xy, _depth(camera, sighted.xyz)
    if scene.points is None:
        return torch.zeros(0, 2), torch.zeros(0)
    seen, pixel = visible_from(scene.points.xyz, camera)
    return pixel[seen], _depth(camera, scene.points.xyz)[seen]


def _depth(camera: Camera, xyz: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Along the viewing axis."""
    return -((xyz - camera.position) @ camera.c2w[:3, 2])
