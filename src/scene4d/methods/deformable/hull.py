"""How far away what moves is, by the masks of other cameras at the same time: its visual hull.

A thing lies in the masks of all cameras that see it (Laurentini, "The visual hull concept", 1994).
Along the ray of a pixel of one camera's mask that leaves a stretch, in whose nearer part its
surface is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.points import find_focus, visible_from
from scene4d.data.scene import Scene
from scene4d.data.trajectories import time_of, trajectories
from scene4d.methods.deformable.lifted import back_projected

_SAMPLES = 96
"""Depths at which a ray is looked at."""
_NEAREST, _FARTHEST = 0.2, 5.0
"""Of them, in distances to where the cameras look."""
_AT_ONCE = 10_000
"""Rays that are looked at together."""
_INTO = 0.25
"""Of the stretch: how far in the surface is taken to be. Masks are grown, and hulls are larger than
what they hold."""

Masks = Mapping[int, Bool[Tensor, "height width"]]


def hull_depths(scene: Scene, masks: Masks) -> dict[int, Float[Tensor, "height width"]]:
    """By training frame, depth along the viewing axis at pixels of its mask, scene units; 0 where
    the other cameras do not tell. Empty where no two cameras run at the same times."""
    paths = trajectories(scene, scene.train_indices)
    if len(paths) < 2:
        return {}
    focus = find_focus(scene.train_cameras())
    far = scene.extent if focus is None else focus.distance
    depths = far * torch.logspace(0, 1, _SAMPLES, _FARTHEST / _NEAREST) * _NEAREST
    found = {}
    for path in paths:
        for index in path:
            others = [_at_the_time(scene, p, index) for p in paths if p is not path]
            beside = [(scene.frames[i].camera, masks[i]) for i in others if i is not None]
            if beside:
                camera = scene.frames[index].camera
                found[index] = _along_rays(camera, masks[index], beside, depths)
    return found


def _at_the_time(scene: Scene, path: Sequence[int], index: int) -> int | None:
    """The picture of another camera that was taken with frame ``index``, as far as their rate
    tells."""
    time = time_of(scene, index)
    nearest = min(path, key=lambda i: abs(time_of(scene, i) - time))
    gaps = [time_of(scene, b) - time_of(scene, a) for a, b in pairwise(path)]
    usual = float(torch.tensor(gaps).median()) if gaps else 0.0
    return nearest if abs(time_of(scene, nearest) - time) <= 0.51 * usual + 1e-6 else None


def _along_rays(
    camera: Camera,
    mask: Bool[Tensor, "height width"],
    others: Sequence[tuple[Camera, Tensor]],
    depths: Float[Tensor, " samples"],
) -> Float[Tensor, "height width"]:
    result = torch.zeros(mask.shape)
    y, x = mask.nonzero(as_tuple=True)
    pixels = torch.stack([x, y], -1) + 0.5
    surface = [_surface(camera, some, others, depths) for some in pixels.split(_AT_ONCE)]
    result[y, x] = torch.cat(surface)
    return result


def _surface(
    camera: Camera,
    pixels: Float[Tensor, "n 2"],
    others: Sequence[tuple[Camera, Tensor]],
    depths: Float[Tensor, " samples"],
) -> Float[Tensor, " n"]:
    rays = pixels.repeat_interleave(len(depths), 0)
    places = back_projected(camera, rays, depths.repeat(len(pixels)))
    inside = torch.ones(len(places), dtype=torch.bool)
    told = torch.zeros_like(inside)
    for other, its_mask in others:
        seen, at = visible_from(places, other)
        told |= seen
        inside &= ~seen | its_mask[at[:, 1], at[:, 0]]
    begin, length = _longest_run((inside & told).reshape(len(pixels), len(depths)))
    near = depths[(begin + _INTO * (length - 1)).round().long().clamp(0, len(depths) - 1)]
    return torch.where(length > 0, near, torch.zeros_like(near))


def _longest_run(inside: Bool[Tensor, "n samples"]) -> tuple[Tensor, Tensor]:
    """Of each row, where its longest run of True begins, and its length."""
    length = torch.zeros(inside.shape, dtype=torch.long)
    for k in range(inside.shape[1]):
        before = length[:, k - 1] if k else 0
        length[:, k] = torch.where(inside[:, k], before + 1, 0)
    longest, end = length.max(1)
    return (end - longest + 1).clamp_min(0), longest
