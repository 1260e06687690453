"""Pictures to files: H.264 videos, and folders of images that appear complete or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scene4d.errors import Scene4dError, UsageError
from scene4d.files import atomic_folder, atomic_path, path_inside
from scene4d.optional import import_optional

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_BT709 = 1
"""The code of ITU-R BT.709 for matrix, primaries and transfer (H.273)."""
_VIDEO_RANGE = 1

Frame = UInt8[np.ndarray, "_ _ 3"]
"""Height, width, RGB."""


def write_video(frames: Iterable[Frame], path: Path, *, fps: float = 24.0, crf: int = 18) -> Path:
    """Writes RGB frames as H.264 (yuv420p, BT.709), atomically, and returns ``path``.

    Odd widths and heights are made even by repeating the last column or row. ``crf``: 0 (lossless)
    to 51; 18 looks the same as the input. Needs PyAV (extra ``video``). Raises
    :class:`Scene4dError` without frames, and when a frame's size differs from the first one's.
    """
    path = Path(path)
    av = _import_av()
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        expected = ", ".join(VIDEO_SUFFIXES)
        raise UsageError(f"a video's name must end in one of {expected}", where=path)
    if not 0 < fps < 1000:
        raise UsageError(f"frames per second must lie between 0 and 1000, got {fps:g}")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise Scene4dError("there is no frame to write", where=path)
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart"} if path.suffix.lower() != ".mkv" else {}
        with av.open(str(temporary), "w", options=options) as container:
            stream = _add_stream(container, first, fps=fps, crf=crf)
            for index, frame in enumerate(_chain(first, iterator)):
                if frame.shape != first.shape:
                    raise Scene4dError(
                        f"has {frame.shape[1]}x{frame.shape[0]} pixels, the first frame "
                        f"{first.shape[1]}x{first.shape[0]}",
                        where=f"{path}, frame {index}",
                        fix="a video has one size; write images instead, or render at one size",
                    )
                picture = av.VideoFrame.from_ndarray(_even(frame), format="rgb24")
                container.mux(stream.encode(_to_bt709(picture)))
            container.mux(stream.encode())
    return path


def write_images(
    frames: Iterable[Frame],
    directory: Path,
    names: Iterable[str],
    *,
    overwrite: bool = False,
    quality: int = 95,
) -> Path:
    """Writes each frame to ``directory / name`` (PNG or JPEG by suffix) and returns the folder.

    The folder is written beside its place and renamed when it is complete. An existing folder must
    be empty, or ``overwrite`` set and nothing but images in it; it is then replaced. Raises
    :class:`UsageError` otherwise, and for a name that is given twice, leaves the folder or has
    another suffix.
    """
    directory = Path(directory)
    check_replaceable(directory, overwrite=overwrite)
    count = 0
    with atomic_folder(directory) as folder:
        for name, frame in zip(names, frames, strict=True):
            target = path_inside(folder, name)
            if target.suffix.lower() not in IMAGE_SUFFIXES:
                expected = ", ".join(IMAGE_SUFFIXES)
                raise UsageError(f"an image's name must end in one of {expected}", where=name)
            if target.exists():
                raise UsageError("two images have this name", where=name)
            target.parent.mkdir(parents=True, exist_ok=True)
            # The fastest useful PNG level: renders compress to nearly the same size at all levels.
            options: dict[str, Any] = (
                {"compress_level": 3} if target.suffix.lower() == ".png" else {"quality": quality}
            )
            Image.fromarray(frame).save(target, **options)
            count += 1
        if count == 0:
            raise Scene4dError("there is no image to write", where=directory)
    return directory


def check_replaceable(directory: Path, *, overwrite: bool) -> None:
    """Raises :class:`UsageError` if ``directory`` holds what must not be lost."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise UsageError("exists and is not a folder", where=directory)
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise UsageError(
            "is not empty", where=directory, fix="choose another folder, or add --overwrite"
        )
    for path in sorted(directory.rglob("*")):
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        if path.is_symlink() or not (path.is_dir() or is_image):
            raise UsageError(
                f"holds something that is not an image: {path.relative_to(directory)}",
                where=directory,
                fix="choose another folder; only folders of images are replaced",
            )


def _import_av() -> Any:
    """PyAV, or the error that says how to get it."""
    return import_optional("av", extra="video", needed_for="writing a video")


def _add_stream(container: Any, first: Frame, *, fps: float, crf: int) -> Any:
    """An H.264 stream for frames like ``first``, with its colours declared as BT.709."""
    height, width = _even(first).shape[:2]
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _VIDEO_RANGE
    return stream


def _to_bt709(frame: Any) -> Any:
    """The RGB frame in yuv420p; without saying so, players would read its colours as BT.601."""
    converted = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    converted.colorspace, converted.color_range = _BT709, _VIDEO_RANGE
    return converted


def _even(frame: Frame) -> UInt8[np.ndarray, "even_height even_width 3"]:
    """The frame with its last row and column repeated where their number is odd."""
    height, width = frame.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(frame)
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _chain(first: Frame, rest: Iterable[Frame]) -> Iterator[Frame]:
    """``first``, then the rest."""
    yield first
    yield from rest


def side_by_side(pictures: Sequence[Frame]) -> Frame:
    """Pictures of one height in one row."""
    return np.concatenate(list(pictures), axis=1)
