"""How far away the pixels of the moving masks are: measured, or guessed from what stands still."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.rays import project
from scene4d.data.points import find_focus, visible_from
from scene4d.data.scene import Scene, ViewSource
from scene4d.methods.deformable.hull import hull_depths
from scene4d.methods.deformable.lifted import sight_of
from scene4d.methods.deformable.still import Sighted

_BESIDE = 0.05
"""Of the picture's diagonal: static points within it of a part of a mask are beside that."""
_NEAR = 0.05
"""Quantile of their depths that is taken for the part's: the nearest, but for outliers. Half of the
pixels are then right within 7 % on dance_room and 9 % on knight_room; by the quarter of the points
beside each pixel within 26 % and 18 %, by the distance to where the cameras look 17 % and 13 %."""
_FEWEST = 8
"""Points beside a part; where there are fewer, those nearest to its middle."""


def depths_of(
    scene: Scene,
    images: ViewSource,
    masks: Mapping[int, Bool[Tensor, "height width"]],
    sighted: Mapping[int, Sighted] | None = None,
    *,
    by_network: bool = False,
) -> dict[int, Float[Tensor, "height width"]]:
    """Depth maps of the training frames in scene units, 0 where nothing is known; measured ones
    where the capture has any, else guesses inside of the ``masks``: by those of other cameras at
    the same time, else by the points that stand still around (``sighted`` by frame, or the scene's
    own); ``by_network``: before both by depth that the capture's network estimated."""
    train = list(scene.train_indices)
    if scene.measures_depth:
        empty = {i: torch.zeros(masks[i].shape) for i in train}
        views = ((i, images.view(i)) for i in train)
        return {**empty, **{i: sight_of(v) for i, v in views if v.measured_depth is not None}}
    hulls, sighted = hull_depths(scene, masks), sighted or {}
    found = {}
    for i in train:
        hull = hulls.get(i)
        if hull is not None and bool((hull > 0).any()):
            found[i] = _spread(hull, masks[i])
        else:
            found[i] = _guessed(scene, i, masks[i], sighted.get(i))
        if by_network and (view := images.view(i)).depth is not None:
            said = torch.where(masks[i], sight_of(view), 0.0)
            found[i] = torch.where(said > 0, said, found[i])
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
    """Each connected part of the mask as far as the nearest of what stands still around it: a thing
    that moves stands on something, and is before most of what is seen beside it."""
    if not bool(mask.any()):
        return torch.zeros(mask.shape)
    places, z = _beside(scene, index, sighted)
    if not len(z):
        focus = find_focus(scene.train_cameras())
        far = scene.extent if scene.points is not None or focus is None else focus.distance
        return torch.where(mask, far, 0.0)
    parts, count, touched = _touching(mask, places)
    depth = torch.zeros(mask.shape)
    for part in range(1, count + 1):
        pixels = parts == part
        around = z[touched == part]
        if len(around) < _FEWEST:
            off = (places - pixels.nonzero().float().mean(0).flip(0)).norm(dim=1)
            around = z[off.topk(min(_FEWEST, len(z)), largest=False).indices]
        depth[pixels] = around.quantile(_NEAR)
    return depth


def _touching(
    mask: Bool[Tensor, "height width"], places: Float[Tensor, "n 2"]
) -> tuple[Tensor, int, Tensor]:
    """The mask's connected parts from 1 on, how many, and the part that each place is beside; 0:
    none."""
    from scipy.ndimage import distance_transform_edt, label

    parts, count = label(mask.numpy(), structure=np.ones((3, 3)))
    distance, (rows, columns) = distance_transform_edt(~mask.numpy(), return_indices=True)
    height, width = mask.shape
    x, y = places.long().numpy().T
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    beside = parts[rows[y, x], columns[y, x]]
    beside[distance[y, x] > _BESIDE * float(np.hypot(height, width))] = 0
    return torch.from_numpy(parts), count, torch.from_numpy(beside)


def _beside(
    scene: Scene, index: int, sighted: Sighted | None
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Pixels of a picture where something stands still, and how far away that is."""
    camera = scene.frames[index].camera
    if sighted is not None and len(sighted.xyz) >= _FEWEST:
        return sighted.xy, project(camera, sighted.xyz)[1]
    if scene.points is None:
        return torch.zeros(0, 2), torch.zeros(0)
    seen, pixel = visible_from(scene.points.xyz, camera)
    return pixel[seen].float(), project(camera, scene.points.xyz)[1][seen]
