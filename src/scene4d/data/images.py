"""The image cache: every picture decoded, undistorted and downscaled once, kept as uint8."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.cameras.undistortion import undistorted_camera, undistortion_grid
from scene4d.data.maps import read_depth, read_mask
from scene4d.data.scene import Frame, Scene, View
from scene4d.data.scratch import Scratch, available_scratch_bytes, scratch_folder
from scene4d.errors import DataError, NotEnoughMemoryError, UsageError
from scene4d.image_files import image_header, image_size, read_picture
from scene4d.memory import available_ram_bytes, give_back_freed_memory

_PYRAMID_SHARE = 4 / 3
"""All coarser levels together take a third of the full one: 1/4 + 1/16 + ..."""
_GRIDS_KEPT = 4
"""Undistortion grids kept at a time; one lens usually serves the whole capture."""
_PLAIN_BYTES, _AVERAGED_BYTES, _UNDISTORTED_BYTES = 12, 56, 80
"""Per stored pixel while a picture is decoded, averaged, undistorted (measured with transparency,
mask and depth: 12, 55, 77): the copies in Pillow, numpy and torch that live at the same time."""
_AHEAD = 4
"""Pictures decoded ahead of time, where they are not all decoded at the start."""
_DEPTH_SPREAD = 0.1
"""A box of depths that differ by more than this share straddles an edge and says nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pixels:
    """One frame at one size, undistorted."""

    camera: Camera
    rgb: UInt8[Tensor, "height width 3"]
    alpha: UInt8[Tensor, "height width"] | None
    mask: Bool[Tensor, "height width"] | None
    depth: Float[Tensor, "height width"] | None

    def kept_in(self, scratch: Scratch) -> _Pixels:
        """The same on disk."""

        def kept(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else scratch.keep(tensor)

        return replace(
            self, rgb=scratch.keep(self.rgb), alpha=kept(self.alpha), mask=kept(self.mask),
            depth=kept(self.depth),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Bytes:
    """Memory that a frame takes."""

    kept: float
    working: float
    """Besides, while it is decoded."""


class ImageCache:
    """The pictures of a scene: in memory, or on disk where they do not fit.

    A level of the pyramid is made by averaging boxes of whole pixels; a remainder at the right
    and lower border is cut off and the camera follows, so pixels and camera agree exactly. Colours
    are averaged premultiplied by alpha. A masked pixel makes its whole box masked; the mean depth
    of a box counts where at least half is measured and no edge runs through it.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        downscale_factor: int = 1,
        ram_budget_gb: float | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Decodes the frames at ``indices`` (None: all) now, on all cores; others when asked for.
        Where they do not fit, each is decoded when it is first asked for, or ahead of time
        (:meth:`soon`), and kept in a :class:`Scratch` file.

        ``ram_budget_gb``: None means half of the memory that is free. Raises
        :class:`NotEnoughMemoryError` before decoding anything, where a picture alone does not fit
        or the disk has no room either; :class:`DataError` on a bad file.
        """
        self.scene = scene
        self.downscale_factor = downscale_factor
        self._factor = remaining_factor(scene, downscale_factor)
        self._grids: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._levels: dict[tuple[int, int], _Pixels] = {}
        self._coming: dict[tuple[int, int], Future[_Pixels]] = {}
        wanted = list(range(len(scene.frames)) if indices is None else indices)
        workers = self._workers_that_fit(wanted, ram_budget_gb)
        self._scratch = None if workers else Scratch()
        self._ahead = None if workers else ThreadPoolExecutor(1, "scene4d-pictures")
        if workers:
            with ThreadPoolExecutor(max_workers=workers) as pool:
                for index, pixels in zip(wanted, pool.map(self._decode, wanted), strict=True):
                    self._levels[index, 1] = pixels
            self._tell_empty_masks(wanted)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures that are decoded by now."""
        return sum(
            tensor.nbytes
            for pixels in self._levels.values()
            for tensor in (pixels.rgb, pixels.alpha, pixels.mask, pixels.depth)
            if tensor is not None
        )

    def camera(self, index: int, downscale: int = 1) -> Camera:
        """The camera of :meth:`view`, without touching its pixels."""
        camera = undistorted_camera(self.scene.frames[index].camera)
        return camera.downscaled(self._factor).downscaled(downscale)

    def view(self, index: int, downscale: int = 1) -> View:
        """Frame ``index``, ``downscale`` times smaller than the cache's own size."""
        pixels = self._level(index, downscale)
        return View(
            index=index,
            camera=pixels.camera,
            rgb=pixels.rgb.float().div_(255.0),
            alpha=None if pixels.alpha is None else pixels.alpha.float().div_(255.0),
            mask=pixels.mask,
            depth=pixels.depth,
            depth_estimated=self.scene.frames[index].depth_estimated,
        )

    def soon(self, indices: Sequence[int], downscale: int = 1) -> None:
        """Tells which views are asked for next, so that they are decoded by then."""
        if self._ahead is None:
            return
        keys = [(index, downscale) for index in indices[:_AHEAD]]
        for key in [key for key in self._coming if key not in keys]:
            self._coming.pop(key).cancel()
        for key in keys:
            if key not in self._levels and key not in self._coming:
                self._coming[key] = self._ahead.submit(self._made, *key)

    def _level(self, index: int, downscale: int) -> _Pixels:
        key = index, downscale
        coming = self._coming.pop(key, None)
        if coming is not None:
            return coming.result()
        return self._levels.get(key) or self._made(*key)

    def _made(self, index: int, downscale: int) -> _Pixels:
        """A level that is not there yet, kept from now on."""
        if downscale == 1:
            made = self._decode(index)
        else:
            made = _downscaled(self._levels.get((index, 1)) or self._made(index, 1), downscale)
        if self._scratch is not None:
            made = made.kept_in(self._scratch)
            give_back_freed_memory()
        self._levels[index, downscale] = made
        return made

    def _workers_that_fit(self, indices: Sequence[int], ram_budget_gb: float | None) -> int:
        """How many pictures may be decoded at a time for all to be kept in memory; 0: they go to
        disk. Refuses what does not fit there either."""
        if ram_budget_gb is not None and not ram_budget_gb > 0:
            raise UsageError(f"--ram-budget-gb is {ram_budget_gb}", fix="give more than 0")
        budget = available_ram_bytes() / 2 if ram_budget_gb is None else ram_budget_gb * 1e9
        sizes = [self._estimate(self.scene.frames[index]) for index in indices]
        kept = sum(size.kept for size in sizes)
        working = np.cumsum(sorted((size.working for size in sizes), reverse=True))
        fitting = int(np.searchsorted(working, budget - kept, side="right"))
        if fitting or not sizes:
            return max(1, min(8, os.cpu_count() or 1, fitting))
        # Two at work there: the thread that decodes ahead, and who did not wait for it.
        if 2 * working[0] > budget:
            alone = max(range(len(sizes)), key=lambda i: sizes[i].working)
            raise NotEnoughMemoryError(
                f"{self.scene.frames[indices[alone]].name} takes {2 * working[0] / 1e9:.2f} GB of "
                f"memory while it is decoded, and the budget is {budget / 1e9:.2f} GB",
                where=self.scene.root,
                fix="make it smaller, or raise --ram-budget-gb",
            )
        room = max(1.0, available_scratch_bytes() / 2)
        if kept > room:
            factor = self.downscale_factor * math.sqrt(kept / room)
            raise NotEnoughMemoryError(
                f"{len(sizes)} pictures need {kept / 1e9:.2f} GB, for which neither the memory "
                f"({budget / 1e9:.2f} GB) nor half of the free disk ({room / 1e9:.2f} GB) has room",
                where=scratch_folder(),
                fix=f"--downscale-factor {math.ceil(factor)} makes them fit; or free space there, "
                "or name another folder by TMPDIR",
            )
        logging.getLogger("scene4d").info(
            "pictures: %.2f GB, where memory for them is %.2f GB; decoded as they are looked at, "
            "and kept in a file in %s (--ram-budget-gb)",
            kept / 1e9, budget / 1e9, scratch_folder(),
        )  # fmt: skip
        return 0

    def _estimate(self, frame: Frame) -> _Bytes:
        """What the frame takes: kept with all its coarser levels, and while it is decoded."""
        width, height, alpha = image_header(frame.image_path)
        _check_size(width, height, frame)
        masked = frame.mask_path is not None or frame.camera.distortion is not None
        masked = masked or frame.crop_radius is not None
        per_pixel = 3 + alpha + masked + 4 * (frame.depth_path is not None)
        kept = per_pixel * width * height / self._factor**2 * _PYRAMID_SHARE
        working = _working_bytes(frame, self._factor) * width * height
        return _Bytes(kept=kept, working=working)

    def _decode(self, index: int) -> _Pixels:
        frame = self.scene.frames[index]
        pixels = _read(frame)
        if frame.camera.distortion is not None:
            pixels = _undistorted(pixels, *self._grid(frame.camera))
        return _downscaled(pixels, self._factor) if self._factor > 1 else pixels

    def _tell_empty_masks(self, indices: Sequence[int]) -> None:
        """Refuses a part of the scene whose masks leave nothing; warns where some pictures' do."""
        empty = [i for i in indices if _is_empty(self._levels[i, 1].mask)]
        if not empty:
            return
        first = self.scene.frames[empty[0]]
        what = f"{first.mask_path or first.name}"
        looked_at = set(indices)
        for name, part in (("train", self.scene.train_indices), ("test", self.scene.test_indices)):
            if part and looked_at.issuperset(part) and set(empty).issuperset(part):
                raise DataError(
                    f"no pixel counts in any of the {len(part)} images to {name} on: their masks "
                    f"leave nothing (first: {what})",
                    where=self.scene.root,
                    fix="white (or 1) counts and black does not: invert or remove the masks",
                )
        if not looked_at.issuperset(
            self.scene.train_indices
        ):  # a part was looked at, to start from
            return
        warnings.warn(
            f"{self.scene.root}: in {len(empty)} of {len(looked_at)} images no pixel counts: their "
            f"masks leave nothing (first: {what})",
            stacklevel=3,
        )

    def _grid(self, camera: Camera) -> tuple[Tensor, Tensor]:
        key = (camera.distortion, camera.width, camera.height, *camera.K.flatten().tolist())
        found = self._grids.get(key)
        if found is None:
            found = undistortion_grid(camera)
            while len(self._grids) >= _GRIDS_KEPT:
                self._grids.pop(next(iter(self._grids)), None)
            self._grids[key] = found
        return found


def _is_empty(mask: Tensor | None) -> bool:
    return mask is not None and not bool(mask.any())


def remaining_factor(scene: Scene, downscale_factor: int) -> int:
    """How much to downscale what is stored, when the dataparser chose smaller stored images."""
    if downscale_factor < 1:
        raise ValueError(f"downscale_factor must be at least 1, not {downscale_factor}")
    stored = int(scene.metadata.get("stored_downscale", "1"))
    return downscale_factor // stored if downscale_factor % stored == 0 else downscale_factor


def _read(frame: Frame) -> _Pixels:
    """The frame's files as stored."""
    camera = frame.camera
    _check_size(*image_size(frame.image_path), frame)
    picture = torch.from_numpy(read_picture(frame.image_path))
    alpha = picture[..., 3] if picture.shape[-1] == 4 else None
    if alpha is not None and bool((alpha == 255).all()):
        alpha = None
    mask = depth = None
    if frame.mask_path is not None:
        mask = _at_size(read_mask(frame.mask_path), camera, frame.mask_path).bool()
        mask = ~mask if frame.mask_ignores else mask
    if frame.crop_radius is not None:
        inside = _within(frame.crop_radius, camera)
        mask = inside if mask is None else mask & inside
    if frame.depth_path is not None:
        depth = _at_size(read_depth(frame.depth_path, frame.depth_unit_m), camera, frame.depth_path)
    return _Pixels(
        camera=camera,
        rgb=picture[..., :3].contiguous(),
        alpha=None if alpha is None else alpha.contiguous(),
        mask=mask,
        depth=depth,
    )


def _check_size(width: int, height: int, frame: Frame) -> None:
    camera = frame.camera
    if (width, height) != (camera.width, camera.height):
        raise DataError(
            f"is {width} x {height} pixels, but its camera is {camera.width} x {camera.height}",
            where=frame.image_path,
        )


def _working_bytes(frame: Frame, factor: int) -> int:
    if frame.camera.distortion is not None:
        return _UNDISTORTED_BYTES
    return _AVERAGED_BYTES if factor > 1 else _PLAIN_BYTES


def _within(radius: float, camera: Camera) -> Bool[Tensor, "height width"]:
    """Which pixels' centres are at most ``radius`` pixels from the principal point."""
    x = torch.arange(camera.width) + 0.5 - camera.K[0, 2]
    y = torch.arange(camera.height) + 0.5 - camera.K[1, 2]
    return x.square() + y.square()[:, None] <= radius**2


def _at_size(values: np.ndarray, camera: Camera, path: Path) -> Tensor:
    """A mask or depth map at the picture's size, by nearest neighbours where it is smaller."""
    tensor = torch.from_numpy(values)
    if tensor.shape == (camera.height, camera.width):
        return tensor
    check_same_shape(tensor.shape[1], tensor.shape[0], camera, path)
    scaled = functional.interpolate(
        tensor[None, None].float(), size=(camera.height, camera.width), mode="nearest-exact"
    )
    return scaled[0, 0]


def check_same_shape(width: int, height: int, camera: Camera, path: Path) -> None:
    """DataError when a mask or depth map has another aspect ratio than its picture."""
    if abs(width * camera.height - height * camera.width) > 0.01 * height * camera.width:
        raise DataError(
            f"is {width} x {height}, which does not fit its image of "
            f"{camera.width} x {camera.height}",
            where=path,
            fix="give the map the image's size, or the same shape in fewer pixels",
        )


def _undistorted(pixels: _Pixels, grid: Tensor, inside: Tensor) -> _Pixels:
    premultiplied = _resample(_premultiplied(pixels), grid, "bilinear")
    mask = depth = None
    if pixels.mask is not None:
        inside = inside & (_resample(pixels.mask[None].float(), grid, "nearest")[0] > 0.5)
    if not bool(inside.all()):
        mask = inside
    if pixels.depth is not None:
        depth = _resample(pixels.depth[None], grid, "nearest")[0] * inside
    rgb, alpha = _straight(premultiplied)
    return _Pixels(
        camera=undistorted_camera(pixels.camera), rgb=rgb, alpha=alpha, mask=mask, depth=depth
    )


def _resample(
    image: Float[Tensor, "channels height width"],
    grid: Float[Tensor, "height width 2"],
    mode: str,
) -> Float[Tensor, "channels height width"]:
    sampled = functional.grid_sample(
        image[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0]


def _downscaled(pixels: _Pixels, factor: int) -> _Pixels:
    """Boxes of ``factor`` x ``factor`` pixels as one."""
    try:
        camera = pixels.camera.downscaled(factor)
    except ValueError as error:
        raise DataError(str(error), fix="choose a smaller --downscale-factor") from error
    rgb, alpha = _straight(functional.avg_pool2d(_premultiplied(pixels)[None], factor)[0])
    mask = None
    if pixels.mask is not None:
        share = functional.avg_pool2d(pixels.mask[None, None].float(), factor)[0, 0]
        mask = share > 1 - 0.5 / factor**2  # every pixel of the box counts
    depth = None if pixels.depth is None else _downscaled_depth(pixels.depth, factor)
    return _Pixels(camera=camera, rgb=rgb, alpha=alpha, mask=mask, depth=depth)


def _downscaled_depth(depth: Float[Tensor, "h w"], factor: int) -> Float[Tensor, "h2 w2"]:
    stack = depth[None, None]
    measured = (stack > 0).float()
    share = functional.avg_pool2d(measured, factor)
    mean = functional.avg_pool2d(stack, factor) / share.clamp_min(1e-9)
    farthest = functional.max_pool2d(stack, factor)
    nearest = -functional.max_pool2d(
        torch.where(measured > 0, -stack, torch.full_like(stack, -torch.inf)), factor
    )
    good = (share >= 0.5) & (farthest - nearest <= _DEPTH_SPREAD * mean)
    return torch.where(good, mean, torch.zeros_like(mean))[0, 0]


def _premultiplied(pixels: _Pixels) -> Float[Tensor, "channels height width"]:
    """Colours times alpha, then alpha where there is one; 0..255."""
    rgb = pixels.rgb.permute(2, 0, 1).float()
    if pixels.alpha is None:
        return rgb
    alpha = pixels.alpha[None].float()
    return torch.cat([rgb * (alpha / 255.0), alpha])


def _straight(
    image: Float[Tensor, "channels height width"],
) -> tuple[UInt8[Tensor, "height width 3"], UInt8[Tensor, "height width"] | None]:
    """Undoes :func:`_premultiplied`, rounded to bytes."""
    if image.shape[0] == 3:
        return _bytes(image.permute(1, 2, 0)), None
    alpha = image[3]
    rgb = image[:3] / (alpha / 255.0).clamp_min(1e-6)
    return _bytes(rgb.permute(1, 2, 0)), _bytes(alpha)


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp_(0, 255).to(torch.uint8).contiguous()
