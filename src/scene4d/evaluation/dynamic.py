"""What else is said of a scene that moves: flicker, and how hard it is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import trajectories
from scene4d.evaluation.masked import Regions

DYNAMIC_METRICS = {
    "flicker": "mean change of renders from one fixed camera from time to time, in steps of 8 "
    "bits; of pixels that stand still where that is known, else of all",
    "omega_deg_per_s": "mean turn of the training camera around what it looks at (DyCheck)",
}
"""What these figures of eval.json are, in words."""
_SAME_PLACE = 1e-5
"""Poses that differ by no more, in extents of the scene, are one."""
_MOST_FLICKER_FRAMES = 60


def is_dynamic(scene: Scene) -> bool:
    """Whether its pictures are of two or more times."""
    times = {float(f.camera.time) for f in scene.frames if f.camera.time is not None}
    return len(times) > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedCamera:
    """Where flicker is looked for."""

    cameras: Sequence[Camera]
    """One pose at times that follow each other."""
    still: Sequence[Bool[Tensor, "height width"] | None]
    """Pixels that stand still at each of these times."""


def fixed_camera(
    scene: Scene, images: ViewSource, regions: Mapping[int, Regions]
) -> FixedCamera | None:
    """A held-out camera that stands still, at its times; else the training camera of the middle at
    the training times. None where there are fewer than two times."""
    for path in trajectories(scene, scene.test_indices):
        cameras = [images.camera(i) for i in path]
        poses = torch.stack([camera.c2w for camera in cameras])
        if len(path) > 2 and float((poses - poses[0]).abs().max()) <= _SAME_PLACE * scene.extent:
            moving = [regions[i].moving if i in regions else None for i in path]
            return FixedCamera(cameras=cameras, still=[None if m is None else ~m for m in moving])
    cameras = [images.camera(i) for i in scene.train_indices]
    times = {float(c.time): c.time for c in cameras if c.time is not None}
    chosen = sorted(times)[:_MOST_FLICKER_FRAMES]
    if len(chosen) < 2:
        return None
    middle = cameras[len(cameras) // 2]
    return FixedCamera(
        cameras=[replace(middle, time=times[t]) for t in chosen], still=[None] * len(chosen)
    )


def flicker(
    fixed: FixedCamera, render: Callable[[Camera], Float[Tensor, "height width 3"]]
) -> float:
    """The mean absolute change from each time to the next, in steps of 8 bits; NaN where nothing
    stands still."""
    changes = []
    before = before_still = None
    for camera, still in zip(fixed.cameras, fixed.still, strict=True):
        picture = render(camera).clamp(0.0, 1.0)
        if before is not None:
            change = (picture - before).abs().mean(dim=-1)
            if still is not None and before_still is not None:
                change = change[(still & before_still).to(change.device)]
            if change.numel():
                changes.append(255.0 * float(change.mean()))
        before, before_still = picture, still
    return statistics.fmean(changes) if changes else float("nan")
