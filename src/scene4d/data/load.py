"""From a path to a checked :class:`Scene`: the one entrance for captures."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scene4d.data.dataparsers import ParseOptions, dataparser_module, detect
from scene4d.data.frame import working_frame
from scene4d.data.images import check_same_shape
from scene4d.data.maps import depth_size
from scene4d.data.options import SceneOptions
from scene4d.data.pose_repair import with_rigid_poses
from scene4d.data.scene import Frame, Scene
from scene4d.data.times import in_seconds
from scene4d.errors import DataError, UsageError
from scene4d.image_files import image_size

_ASPECT_TOLERANCE = 0.01
"""Images may have been resized with rounding: 1 % covers one pixel in a hundred."""


def load_scene(path: Path, options: SceneOptions | None = None) -> Scene:
    """:func:`read_scene` in float32: still in the capture's own frame, for captures near their
    origin and not to train on."""
    scene = read_scene(path, options)
    points = scene.points
    return replace(
        scene,
        frames=[replace(frame, camera=frame.camera.float32()) for frame in scene.frames],
        points=None if points is None else replace(points, xyz=points.xyz.float()),
        source_from_scene=scene.source_from_scene.float(),
    )


def read_scene(path: Path, options: SceneOptions | None = None) -> Scene:
    """The capture at ``path`` (a folder or a transforms.json), read and checked, in its own frame.

    Poses, points and times (seconds, see :mod:`scene4d.data.times`) are float64: positions may be
    far from the origin, or in any unit of length; see
    :func:`scene4d.data.frame.in_working_frame` for what is trained and rendered.
    Every image's header is looked at; pixels are decoded by :class:`ImageCache`. Raises
    :class:`DataError` naming the file or frame, and :class:`UsageError` on impossible options.
    """
    options = options or SceneOptions()
    if options.test_every < 0 or options.test_every == 1:
        raise UsageError(
            f"--test-every is {options.test_every}", fix="give 0 (none held out) or 2 and more"
        )
    factor = 1 if options.downscale_factor is None else options.downscale_factor
    if factor < 1:
        raise UsageError(f"--downscale-factor is {factor}", fix="give 1 or more")
    path = Path(path)
    name = detect(path) if options.dataparser == "auto" else options.dataparser
    module = dataparser_module(name)
    if not path.exists() or not module.recognises(path):
        raise DataError(f"is not a {name} capture: there is not {module.LOOKS_FOR}", where=path)
    parse_options = ParseOptions(test_every=options.test_every, downscale_factor=factor)
    scene = module.parse(path, parse_options)
    _check_frames(scene)
    _check_split(scene)
    scene = in_seconds(scene)
    if options.max_frames is not None:
        frame = working_frame(scene)  # of all, so that a teacher on others has the same
        scene = replace(_with_max_frames(scene, options.max_frames), working_from_scene=frame)
    return _with_fitted_cameras(scene)


def _check_frames(scene: Scene) -> None:
    if not scene.frames:
        raise DataError(
            "no frame with a camera is left",
            where=scene.root,
            fix="check that the capture lists images and that their poses were found",
        )
    names = Counter(str(frame.image_path.resolve()) for frame in scene.frames)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DataError(
            f"the image is listed {names[twice[0]]} times",
            where=twice[0],
            fix="keep one frame for each image: duplicates would leak test images into training",
        )


def _check_split(scene: Scene) -> None:
    both = set(scene.train_indices) & set(scene.test_indices)
    if both:
        raise DataError(
            f"{len(both)} frames are both in train and in test, the first is "
            f"{scene.frames[min(both)].name}",
            where=scene.root,
            fix="list each image in one of them only",
        )
    if not scene.train_indices:
        raise DataError(
            f"no frame is left to train on ({len(scene.frames)} frames; {scene.split_rule})",
            where=scene.root,
            fix="add images, or hold out fewer with --test-every (0: none)",
        )


def _with_max_frames(scene: Scene, max_frames: int) -> Scene:
    """Evenly spread frames of train and of test, in their old proportion."""
    total = len(scene.train_indices) + len(scene.test_indices)
    if max_frames < 1:
        raise UsageError(f"--max-frames is {max_frames}", fix="give 1 or more")
    if total <= max_frames:
        return scene
    num_test = round(max_frames * len(scene.test_indices) / total)
    if scene.test_indices and max_frames > 1:
        num_test = max(1, num_test)
    test = _evenly(scene.test_indices, num_test)
    train = _evenly(scene.train_indices, max_frames - num_test)
    kept = sorted({*train, *test})
    position = {index: i for i, index in enumerate(kept)}
    return replace(
        scene,
        frames=[scene.frames[index] for index in kept],
        train_indices=[position[index] for index in train],
        test_indices=[position[index] for index in test],
        split_rule=f"{scene.split_rule}; {len(kept)} of {total} frames kept",
    )


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    count = min(count, len(indices))
    return [indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)]


def _with_fitted_cameras(scene: Scene) -> Scene:
    """Poses made orthonormal and intrinsics fitted to the images' real sizes."""
    rescaled: list[str] = []
    frames = []
    for frame in with_rigid_poses(scene).frames:
        where = f"{scene.root}, frame {frame.name}"
        fitted = _fitted_to_image(frame, where)
        if fitted is not frame:
            rescaled.append(frame.name)
        frame = fitted
        _check_maps(frame)
        frames.append(frame)
    if rescaled:
        warnings.warn(
            f"{scene.root}: the intrinsics of {len(rescaled)} frames (first: {rescaled[0]}) are "
            "stated for another image size and were scaled to the images",
            stacklevel=3,
        )
    return replace(scene, frames=frames)


def _fitted_to_image(frame: Frame, where: str) -> Frame:
    """The frame with its camera at the image's real size; the same frame where that is so."""
    camera = frame.camera
    width, height = image_size(frame.image_path)
    if (width, height) == (camera.width, camera.height):
        return frame
    stretch = (width / camera.width) / (height / camera.height)
    if abs(stretch - 1) > _ASPECT_TOLERANCE:
        raise DataError(
            f"the image is {width} x {height}, but its camera is stated for "
            f"{camera.width} x {camera.height}: not the same shape",
            where=where,
            fix="correct w, h and the intrinsics, or give frames intrinsics of their own",
        )
    radius = frame.crop_radius
    return replace(
        frame,
        camera=camera.resized(width, height),
        crop_radius=None if radius is None else radius * width / camera.width,
    )


def _check_maps(frame: Frame) -> None:
    for mask in (frame.mask_path, frame.covisible_path, frame.moving_path):
        if mask is not None:
            check_same_shape(*image_size(mask), frame.camera, mask)
    if frame.depth_path is not None:
        check_same_shape(*depth_size(frame.depth_path), frame.camera, frame.depth_path)
