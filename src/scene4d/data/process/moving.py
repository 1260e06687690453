"""What moves in a video whose cameras were found: masks of it, and poses and points without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import undistort
from scene4d.data.camera_rate import angular_rate
from scene4d.data.flow import opencv
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.moving import MovingOptions, moving_masks
from scene4d.data.options import SceneOptions
from scene4d.data.process.moving_facts import MovingFacts
from scene4d.data.process.pictures import Picture
from scene4d.data.process.sfm import SfmResult
from scene4d.data.scene import Scene

_SFM_GROWTH = 0.01
"""How far around what moves features are left out, as a share of the picture's diagonal: those at
the border of a thing are found from both sides of it."""
_LARGER_ERROR, _LARGER_ERROR_PX = 1.25, 0.1
"""A mean reprojection error above so many times another, and so many pixels, is clearly larger."""
_ROWS = 256
"""Of a picture that are looked up at a time."""


@dataclass(frozen=True, kw_only=True)
class Moving:
    """What moves in the pictures of a capture."""

    masks: dict[str, Bool[np.ndarray, "height width"]]
    """By picture name, at the size of its file, distorted as that is."""
    omega_deg_per_s: float | None
    """See :func:`scene4d.data.camera_rate.camera_rate`."""

    @property
    def share(self) -> float:
        """Of the pixels of all pictures."""
        return sum(int(mask.sum()) for mask in self.masks.values()) / sum(
            mask.size for mask in self.masks.values()
        )

    @property
    def largest_share(self) -> float:
        """Of the picture with most."""
        return max(float(mask.mean()) for mask in self.masks.values())

    def facts(self, poses: str) -> MovingFacts:
        """What is said of it; ``poses``: what was done about features on what moves."""
        return MovingFacts(
            share=self.share,
            largest_share=self.largest_share,
            omega_deg_per_s=self.omega_deg_per_s,
            poses=poses,
        )


def find_moving(capture: Path) -> Moving:
    """What moves in a capture that process-data wrote, by optical flow against its cameras.

    Raises :class:`MissingExtraError` without OpenCV.
    """
    options = SceneOptions(dataparser="nerfstudio", test_every=0)
    scene = read_scene(capture, options)
    largest = max(max(f.camera.width, f.camera.height) for f in scene.frames)
    downscale = -(-largest // MovingOptions().largest_side)
    images = ImageCache(scene, downscale_factor=downscale)
    found = moving_masks(scene, images)
    return Moving(masks=_as_stored(scene, images, found), omega_deg_per_s=angular_rate(scene))


def write_masks(
    masks: Mapping[str, Bool[np.ndarray, "height width"]], folder: Path
) -> dict[str, str]:
    """Writes masks as PNG, white where something moves; the file in ``folder``'s parent by
    picture."""
    folder.mkdir()
    names = {picture: f"{Path(picture).stem}.png" for picture in masks}
    for picture, mask in masks.items():
        _write_mask(folder / names[picture], mask)
    return {picture: f"{folder.name}/{name}" for picture, name in names.items()}


def write_sfm_masks(moving: Moving, pictures: Sequence[Picture], folder: Path) -> None:
    """Writes a mask of each picture for COLMAP, black where features are left out: around what
    moves; white all over where that is not known. COLMAP leaves out pictures without one."""
    folder.mkdir()
    cv2 = opencv()
    for picture in pictures:
        left_out = np.zeros((picture.height, picture.width), dtype=bool)
        if picture.name in moving.masks:
            mask = moving.masks[picture.name].astype(np.uint8)
            radius = max(1, round(_SFM_GROWTH * float(np.hypot(*mask.shape))))
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
            left_out = cv2.dilate(mask, disc) > 0
        _write_mask(folder / f"{picture.name}.png", ~left_out)


def _write_mask(path: Path, mask: Bool[np.ndarray, "height width"]) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def better_poses(first: SfmResult, second: SfmResult) -> tuple[SfmResult, str]:
    """Of the results with all features and with those of the background alone the one to keep, and
    why: the second, unless it has fewer pictures or a clearly larger error."""
    if second.model is None or first.model is None:
        return first, "features on what moves are used after all: without them no poses are found"
    with_it, without = len(first.model.images), len(second.model.images)
    if without < with_it:
        return first, (
            f"features on what moves are used after all: without them {without} pictures have a"
            f" pose, with them {with_it}"
        )
    before, now = (float(r.errors_px.mean()) for r in (first.model, second.model))
    if now > _LARGER_ERROR * before + _LARGER_ERROR_PX:
        return first, (
            "features on what moves are used after all: without them the reprojection error is"
            f" {now:.2f} px, with them {before:.2f} px"
        )
    return second, (
        f"the poses are found without features on what moves: {without} pictures, {now:.2f} px"
        f" (with them {with_it}, {before:.2f} px)"
    )


def without_moving(result: SfmResult, moving: Moving) -> SfmResult:
    """``result`` without the points that half or more of their pictures show where something
    moves; its ``sightings`` go."""
    inside, seen = np.zeros((2, len(result.xyz)), dtype=np.int64)
    for image in result.sightings:
        mask = moving.masks.get(image.name)
        if mask is None:
            continue
        column, row = np.floor(image.xy).astype(np.int64).T
        high, wide = mask.shape
        hit = mask[np.clip(row, 0, high - 1), np.clip(column, 0, wide - 1)]
        np.add.at(seen, image.point_indices, 1)
        np.add.at(inside, image.point_indices, hit)
    kept = (2 * inside < seen) | (seen == 0)
    return replace(result, xyz=result.xyz[kept], rgb=result.rgb[kept], sightings=())


def _as_stored(
    scene: Scene, images: ImageCache, masks: Mapping[int, Tensor]
) -> dict[str, Bool[np.ndarray, "height width"]]:
    """Masks of undistorted pictures as masks of the files, by the files' names in images/."""
    places: dict[tuple[object, ...], Int[np.ndarray, "height width"]] = {}
    found = {}
    for index, mask in masks.items():
        frame = scene.frames[index]
        camera = frame.camera
        key = (camera.distortion, camera.width, camera.height, *camera.K.flatten().tolist())
        if key not in places:
            places[key] = _places(camera, images.camera(index))
        place = places[key]
        flat = np.append(mask.numpy().ravel(), False)
        found[Path(frame.name).relative_to("images").as_posix()] = flat[place]
    return found


def _places(stored: Camera, seen: Camera) -> Int[np.ndarray, "height width"]:
    """For each pixel of the file, which one of the undistorted, downscaled picture shows the same,
    as an index into its rows one after another; the nearest where it lies beyond the border, -1
    where the lens shows nothing."""
    rows = [
        _row_places(stored, seen, first, min(first + _ROWS, stored.height))
        for first in range(0, stored.height, _ROWS)
    ]
    return np.concatenate(rows)


def _row_places(stored: Camera, seen: Camera, first: int, end: int) -> np.ndarray:
    ys, xs = torch.meshgrid(
        torch.arange(first, end, dtype=torch.float64) + 0.5,
        torch.arange(stored.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    K, K_seen = stored.K.double(), seen.K.double()
    xy = (torch.stack([xs, ys], -1) - K[:2, 2]) / K[[0, 1], [0, 1]]
    if stored.distortion is not None:
        xy = undistort(xy, stored.distortion)
    pixels = (xy * K_seen[[0, 1], [0, 1]] + K_seen[:2, 2]).floor().numpy()
    known = np.isfinite(pixels).all(-1)
    pixels = np.where(known[..., None], pixels, 0)
    column = np.clip(pixels[..., 0], 0, seen.width - 1).astype(np.int32)
    row = np.clip(pixels[..., 1], 0, seen.height - 1).astype(np.int32)
    return np.where(known, row * seen.width + column, -1)
