"""Sharp and well-spread frames of a video, decoded with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from scene4d.data.process.colours import frame_picture, hdr_kind
from scene4d.data.process.pictures import Picture, measure, sharpness
from scene4d.data.process.progress import Say, Ticker
from scene4d.errors import DataError, Scene4dError
from scene4d.image_files import MAX_PIXELS
from scene4d.optional import import_optional
from scene4d.ranges import Within

if TYPE_CHECKING:
    from PIL import Image

_OPEN_OPTIONS = {
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,h264,hevc,ivf,m4v,"
    "obu,rm,dv,nut,gif,yuv4mpegpipe",
    "protocol_whitelist": "file",
}
"""For FFmpeg: containers of video alone, never playlists, which name other files and addresses."""
_RE_ENCODE = "re-encode it, e.g. as H.264 MP4"
_ANALYSED_WIDTH = 640
_BLOCKS = (3, 4)
"""Rows and columns of the grid on which displacement is measured."""
_TIME_SHARE, _MOVING_TIME_SHARE = 0.2, 0.5
"""Of the spread: a camera that rests still yields a few frames, for moving content. Where that is
what matters, half: then the taken frames are at most twice as far apart in time as even ones."""
_FRAMES, _MOVING_RATE, _MOVING_FRAMES = 150, 10.0, (60, 300)
"""Frames to take where nobody says; of a scene that moves so many a second, within limits: people
and animals turn back a few times a second, and flow has to find each frame in the next."""
_MOTION_NOISE_PX = 0.05
"""Mean displacement per frame, at half the analysed width, below which a video counts as still:
what phase correlation finds between frames that differ by compression noise only."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which frames of a video are taken."""

    num_frames_target: Annotated[int, Within(3, 100_000)] | None = None
    """Frames to take; a shorter video gives all of its frames that are sharp. None: 150; with
    --moving 10 a second of the video, 60 to 300."""
    moving: bool = False
    """The video shows something that moves: what moves is found by optical flow (extra motion) and
    left out of the poses, its masks are written, and frames are taken densely in time."""

    def __post_init__(self) -> None:
        if self.num_frames_target is not None and self.num_frames_target < 3:
            raise DataError("--num-frames-target must be at least 3", where=self.num_frames_target)

    def frames_of(self, duration_s: float) -> int:
        """How many frames are taken of a video of that length, at most."""
        if self.num_frames_target is not None:
            return self.num_frames_target
        if not self.moving:
            return _FRAMES
        low, high = _MOVING_FRAMES
        return max(low, min(round(_MOVING_RATE * duration_s), high))


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """What was measured of each frame of a video."""

    times: np.ndarray
    """[num_frames] seconds from the first frame."""
    sharpness: np.ndarray
    """[num_frames] see :func:`scene4d.data.process.pictures.sharpness`."""
    displacement: np.ndarray
    """[num_frames] mean image displacement since the frame before, in pixels at half the analysed
    width; 0 for the first."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    index: int
    time: float
    """Seconds from the first frame."""
    frame: Any
    codec: Any


def analyse_video(path: Path, say: Say = lambda line: None) -> VideoTrack:
    """Decodes every frame once. Raises :class:`DataError` for what is not a readable video."""
    times, sharp, moved = [], [], []
    before: np.ndarray | None = None
    ticker = Ticker(say, f"looking through the frames of {path.name}")
    for decoded in _decode(path):
        ticker.at(decoded.index)
        frame = decoded.frame
        if decoded.index == 0 and (kind := hdr_kind(frame, decoded.codec)):
            say(f"the video is HDR ({kind}): its frames are mapped to ordinary colours")
        height = max(2, round(_ANALYSED_WIDTH * frame.height / frame.width))
        grey = frame.reformat(width=_ANALYSED_WIDTH, height=height, format="gray").to_ndarray()
        small = _halved(grey)
        times.append(decoded.time)
        sharp.append(sharpness(grey))
        moved.append(0.0 if before is None else displacement(before, small))
        before = small
    return VideoTrack(
        times=np.maximum.accumulate(times), sharpness=np.array(sharp), displacement=np.array(moved)
    )


def select_frames(track: VideoTrack, target: int, *, moving: bool = False) -> list[int]:
    """Indices of at most ``target`` frames, in order: evenly spread over the motion, each the
    sharpest of its stretch.

    The position of a frame is its share of all motion so far, blended with its share of time, so
    that fast stretches give more frames and a resting camera few. ``moving``: what is filmed moves,
    and time counts as much as motion. Sharpness is compared with the frames around, since it
    depends on what is in the picture.
    """
    count = len(track.times)
    relative = relative_sharpness(track.sharpness)
    if count <= target:
        return [i for i in range(count) if relative[i] > 0.5]
    position = _position(track, _MOVING_TIME_SHARE if moving else _TIME_SHARE)
    slot = np.minimum((position * target).astype(int), target - 1)
    within = position * target - slot
    score = relative * (1 - 0.3 * np.abs(2 * within - 1))
    return [int(s[np.argmax(score[s])]) for s in _runs(slot)]


def relative_sharpness(values: np.ndarray, reach: int = 7) -> np.ndarray:
    """Each value over the median of itself and ``reach`` neighbours on either side."""
    padded = np.pad(values, reach, mode="reflect" if len(values) > reach else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return values / np.maximum(np.median(windows, axis=1), 1e-12)


def extract_frames(
    path: Path, chosen: list[int], track: VideoTrack, images: Path, say: Say
) -> list[Picture]:
    """Writes the chosen frames as JPEG (quality 97, no chroma subsampling) into ``images``."""
    wanted = set(chosen)
    pictures: list[Picture] = []
    ticker = Ticker(say, f"writing {len(chosen)} of {len(track.times)} video frames")
    images.mkdir(parents=True, exist_ok=True)
    for decoded in _decode(path):
        index = decoded.index
        ticker.at(len(pictures))
        if index not in wanted:
            continue
        image = _upright(decoded.frame, decoded.codec)
        name = f"frame_{index:06d}.jpg"
        image.save(images / name, quality=97, subsampling=0)
        pictures.append(measure(image, name=name, time=float(track.times[index])))
        if len(pictures) == len(chosen):
            break
    return pictures


def displacement(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over blocks of how far ``after`` [H, W] is shifted against ``before``, in pixels.

    Phase correlation (Kuglin and Hines 1975) with a Hann window on a grid of blocks, so that
    turning, zooming and things that move by themselves count, too. Blocks without a clear peak
    (no texture, a cut) are left out; 0 when there is none.
    """
    rows, columns = _BLOCKS
    high, wide = before.shape[0] // rows, before.shape[1] // columns
    if min(high, wide) < 8:
        return 0.0
    window = np.hanning(high)[:, None] * np.hanning(wide)[None]
    pair = [_blocks(grey, high, wide) * window for grey in (before, after)]
    first, second = (np.fft.rfft2(blocks) for blocks in pair)
    cross = np.conj(first) * second
    surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=(high, wide))
    shifts = [_peak(block) for block in surface]
    clear = [np.hypot(dy, dx) for dy, dx, height in shifts if height > 0.08]
    return float(np.mean(clear)) if clear else 0.0


def _blocks(grey: np.ndarray, high: int, wide: int) -> np.ndarray:
    rows, columns = _BLOCKS
    cut = grey[: rows * high, : columns * wide].astype(np.float64)
    blocks = cut.reshape(rows, high, columns, wide).swapaxes(1, 2).reshape(-1, high, wide)
    return blocks - blocks.mean(axis=(1, 2), keepdims=True)


def _peak(surface: np.ndarray) -> tuple[float, float, float]:
    """Signed shift in y and x with a parabola through the peak's neighbours, and its height."""
    shape = surface.shape
    y, x = np.unravel_index(np.argmax(surface), shape)
    shift = []
    for axis, at in enumerate((int(y), int(x))):
        line = surface[:, x] if axis == 0 else surface[y]
        left, mid, right = line[at - 1], line[at], line[(at + 1) % shape[axis]]
        curve = left - 2 * mid + right
        fine = at + (0.5 * (left - right) / curve if curve < -1e-12 else 0.0)
        shift.append(fine - shape[axis] if fine > shape[axis] / 2 else fine)
    return shift[0], shift[1], float(surface[y, x])


def _position(track: VideoTrack, time_share: float) -> np.ndarray:
    """[num_frames] monotone, from 0 to 1."""
    span = track.times[-1] - track.times[0]
    by_time = (track.times - track.times[0]) / span if span > 0 else np.linspace(
        0, 1, len(track.times)
    )  # fmt: skip
    total = track.displacement.sum()
    if total < _MOTION_NOISE_PX * len(track.times):
        return by_time
    by_motion = np.cumsum(track.displacement) / total
    return time_share * by_time + (1 - time_share) * by_motion


def _runs(slot: np.ndarray) -> list[np.ndarray]:
    """Indices of each stretch of equal values of a non-decreasing array."""
    return np.split(np.arange(len(slot)), np.flatnonzero(np.diff(slot)) + 1)


def _halved(grey: np.ndarray) -> np.ndarray:
    high, wide = grey.shape[0] // 2, grey.shape[1] // 2
    return grey[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2).mean(axis=(1, 3))


def _upright(frame: Any, codec: Any) -> Image.Image:
    """The frame as an ordinary picture, turned as the file's display matrix says (phones)."""
    from PIL import Image

    image = frame_picture(frame, codec)
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    turn = {
        1: Image.Transpose.ROTATE_90,
        2: Image.Transpose.ROTATE_180,
        3: Image.Transpose.ROTATE_270,
    }
    return image.transpose(turn[turns]) if turns else image


def _decode(path: Path) -> Iterator[_Decoded]:
    """The frames in order. A damaged end is cut off."""
    av: Any = import_optional("av", extra="video", needed_for="reading a video")
    if not path.is_file():
        raise DataError("file not found", where=path)
    index, start = 0, None
    try:
        with av.open(str(path), options=_OPEN_OPTIONS, metadata_errors="replace") as container:
            stream = _video_stream(container, path)
            for frame in container.decode(stream):
                time = frame.time
                if time is None:
                    time = index / float(stream.average_rate or 30)
                start = time if start is None else start
                codec = stream.codec_context
                yield _Decoded(index=index, time=float(time - start), frame=frame, codec=codec)
                index += 1
    except (av.FFmpegError, ArithmeticError, LookupError, ValueError, TypeError) as error:
        if isinstance(error, Scene4dError):
            raise
        if index < 3:
            raise DataError(f"cannot be decoded ({error})", where=path, fix=_RE_ENCODE) from error
    if index == 0:
        raise DataError("contains no frames", where=path, fix=_RE_ENCODE)


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError("contains no video stream", where=path)
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DataError("has a video stream of an unknown codec", where=path, fix=_RE_ENCODE)
    size = stream.codec_context.width, stream.codec_context.height
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"has frames of {size[0]} x {size[1]} pixels, too large", where=path)
    stream.thread_type = "AUTO"
    return stream
