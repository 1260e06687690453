"""What else is said of a scene that moves: regions of its pictures, flicker, and how hard it is."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.images import ImageCache
from scene4d.data.maps import read_mask
from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError
from scene4d.evaluation.covisible import covisible_masks
from scene4d.evaluation.masked import Regions
from scene4d.files import atomic_folder, read_json, write_json

DYNAMIC_METRICS = {
    "flicker": "mean change of renders from one fixed camera from time to time, in steps of 8 "
    "bits; of pixels that stand still where that is known, else of all",
    "omega_deg_per_s": "mean turn of the training camera around what it looks at (DyCheck)",
}
"""What these figures of eval.json are, in words."""
_RULE = 1
"""Counts up when computed masks change, so that kept ones are made again."""
_SAME_PLACE = 1e-5
"""Poses that differ by no more, in extents of the scene, are one."""
_MOST_FLICKER_FRAMES = 60
_log = logging.getLogger("scene4d")

Kind = Literal["covisible", "moving"]


def is_dynamic(scene: Scene) -> bool:
    """Whether its pictures are of two or more times."""
    times = {float(f.camera.time) for f in scene.frames if f.camera.time is not None}
    return len(times) > 1


def regions_of(
    scene: Scene, images: ViewSource, *, kept_in: Path | None = None, compute: bool = True
) -> dict[int, Regions]:
    """Of each held-out frame, what is covisible and what moves: the capture's own masks where it
    has them; else, if ``compute``, made from flow and kept in the folder ``kept_in``."""
    covisible = _shipped(scene, images, "covisible")
    moving = _shipped(scene, images, "moving")
    left = [i for i in scene.test_indices if i not in covisible]
    if left and compute:
        covisible |= _kept_or_made(scene, images, left, kept_in)
    known = [i for i in scene.test_indices if i in covisible or i in moving]
    return {i: Regions(covisible=covisible.get(i), moving=moving.get(i)) for i in known}


def _shipped(
    scene: Scene, images: ViewSource, kind: Kind
) -> dict[int, Bool[Tensor, "height width"]]:
    """The masks that lie in the capture, as the views are: undistorted and downscaled."""
    if not isinstance(images, ImageCache):
        return {}
    frames = [
        replace(
            f,
            mask_path=f.covisible_path if kind == "covisible" else f.moving_path,
            mask_ignores=False,
            depth_path=None,
        )
        for f in scene.frames
    ]
    wanted = [i for i in scene.test_indices if frames[i].mask_path is not None]
    cache = ImageCache(
        replace(scene, frames=frames), downscale_factor=images.downscale_factor, indices=[]
    )
    views = {i: cache.view(i) for i in wanted}
    return {i: view.mask for i, view in views.items() if view.mask is not None}


def _kept_or_made(
    scene: Scene, images: ViewSource, indices: Sequence[int], folder: Path | None
) -> dict[int, Bool[Tensor, "height width"]]:
    about = _about(scene, images, indices)
    found = None if folder is None else _kept(folder, about, indices, images)
    if found is not None:
        return found
    _log.info(
        "covisible masks of %d held-out pictures, from flow to %d training pictures%s",
        len(indices), len(scene.train_indices), "" if folder is None else f"; kept in {folder}",
    )  # fmt: skip
    made = dict(covisible_masks(scene, images, indices))
    if folder is not None:
        _keep(folder, about, made)
    return made


def _about(scene: Scene, images: ViewSource, indices: Sequence[int]) -> dict[str, object]:
    """What masks depend on, as far as a capture that is edited in place lets one see."""
    camera = images.camera(indices[0])
    return {
        "rule": _RULE,
        "size": [camera.width, camera.height],
        "test": [scene.frames[i].name for i in indices],
        "train": [scene.frames[i].name for i in scene.train_indices],
        "depth": any(f.depth_path is not None for f in scene.frames),
    }


def _kept(
    folder: Path, about: Mapping[str, object], indices: Sequence[int], images: ViewSource
) -> dict[int, Bool[Tensor, "height width"]] | None:
    try:
        if read_json(folder / "about.json") != about:
            return None
        masks = {i: torch.from_numpy(read_mask(folder / f"{i:05d}.png").copy()) for i in indices}
    except DataError:
        return None
    sizes = {i: (images.camera(i).height, images.camera(i).width) for i in indices}
    return masks if all(masks[i].shape == sizes[i] for i in indices) else None


def _keep(
    folder: Path, about: Mapping[str, object], masks: Mapping[int, Bool[Tensor, "height width"]]
) -> None:
    with atomic_folder(folder) as temporary:
        for index, mask in masks.items():
            Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(
                temporary / f"{index:05d}.png"
            )
        write_json(temporary / "about.json", about)


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


def angular_rate(scene: Scene) -> float | None:
    """DyCheck's omega in degrees a second: how fast the training camera turns around the point that
    it looks at; the mean over training cameras. None where no camera has two times."""
    paths = trajectories(scene, scene.train_indices)
    rates = [camera_rate([scene.frames[i].camera for i in path]) for path in paths]
    known = [rate for rate in rates if rate is not None]
    return statistics.fmean(known) if known else None


def camera_rate(cameras: Sequence[Camera]) -> float | None:
    """Omega of one camera's poses in the order of time (Gao et al. 2022, eq. 2): the mean angle
    between successive directions to the point nearest to all optical axes, times the frame rate."""
    if len(cameras) < 2:
        return None
    times = torch.stack([c.time for c in cameras if c.time is not None]).double()
    positions = torch.stack([c.position for c in cameras]).double()
    axes = torch.stack([-c.c2w[:3, 2] for c in cameras]).double()
    steps = times.diff()
    if len(times) < len(cameras) or not bool((steps > 0).any()):
        return None
    directions = _nearest_to_rays(positions, axes) - positions
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    # the chord: an arc cosine has no digits for small angles
    chords = (directions[1:] - directions[:-1]).norm(dim=-1)
    angles = 2 * (chords / 2).clamp_max(1.0).asin()
    return float(torch.rad2deg(angles.mean()) / steps[steps > 0].median())


def _nearest_to_rays(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> Float[Tensor, " 3"]:
    """The point with the least sum of squared distances to lines; among several, that nearest to
    the origins' mean."""
    across = torch.eye(3).to(origins) - directions[:, :, None] * directions[:, None, :]
    centre = origins.mean(dim=0)
    right = (across @ (origins - centre)[..., None]).sum(dim=0)
    return centre + (torch.linalg.pinv(across.sum(dim=0), rtol=1e-9) @ right)[:, 0]
