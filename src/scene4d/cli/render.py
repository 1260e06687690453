"""``scene4d render``: pictures or a video of a trained scene."""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.files import check_writable
from scene4d.ranges import Within

if TYPE_CHECKING:
    from scene4d.cameras.camera import Camera
    from scene4d.rendering.render import Renders
    from scene4d.training.run import LoadedRun

T = TypeVar("T")

DEFAULT_FPS = 24.0
DEFAULT_FRAMES = 120
_USED_BY = {
    "num_frames": ("auto", "spiral", "orbit", "interpolate"),
    "path_file": ("path",),
    "split": ("dataset",),
    "smoothing": ("auto", "interpolate"),
    "loop": ("auto", "interpolate"),
    "order": ("auto", "interpolate"),
    "save_path": ("auto", "spiral", "orbit", "interpolate"),
}
"""Options that only some kinds of camera path look at."""


@dataclass(frozen=True, kw_only=True)
class RenderArgs:
    """Renders a trained scene: the capture's own views, or a flight through it."""

    run: tyro.conf.Positional[Path]
    """Run folder, or its config.toml."""
    output_path: Path
    """A video (.mp4, .mov, .mkv), or a folder for PNG images."""
    cameras: tyro.conf.Positional[
        Literal["auto", "dataset", "path", "spiral", "orbit", "interpolate"]
    ] = "auto"
    """auto: orbit, spiral or interpolate, by where the cameras stand; dataset: the capture's views;
    path: the cameras in --path-file; spiral: around the average camera, for forward-facing
    captures; orbit: a circle around what the cameras look at; interpolate: a flight through the
    training cameras."""
    num_frames: Annotated[int, Within(1, 1_000_000)] | None = None
    """Frames of a spiral, orbit or flight (default: 120; where the scene moves, --fix-camera and a
    flight along the way of the one camera that took it: as many as the scene lasts)."""
    fps: Annotated[float, Within(0.0, 1000.0, above=True)] | None = None
    """Frames per second of a video, and of a scene that moves; by default that of --path-file,
    otherwise 24. Such a scene runs in real time, again from its start where frames are left; a
    flight along the way of the one camera that took it has that camera's times."""
    at_time: Annotated[float, Within(-1e9, 1e9)] | None = None
    """Seconds: the time stands still there, and the camera flies on ("bullet time")."""
    fix_camera: str | None = None
    """The camera stands still where a picture was taken, and time runs: the picture's name, its
    folder's, or its number among the training pictures, from 0; without a value, the first."""
    downscale_factor: Annotated[float, Within(0.0, 1e6, above=True)] = 1.0
    """Render this many times smaller than the training images."""
    path_file: Path | None = None
    """A camera_path.json as nerfstudio writes it, in the capture's own coordinates."""
    save_path: Path | None = None
    """Also write the cameras as a camera_path.json, to be edited and rendered with --path-file."""
    split: Literal["train", "test", "all"] = "test"
    """Which of the capture's views to render."""
    outputs: tuple[Literal["rgb", "depth", "alpha"], ...] = ("rgb",)
    """What to render. Several are put side by side in a video, and into a folder each as images.
    Depth runs from blue (near) to red (far) over the 2nd to 98th percentile of the whole path."""
    background: str | None = None
    """black, white or a colour like #88ccff; by default the capture's."""
    smoothing: Annotated[float, Within(0.0, 1e6)] = 1.0
    """Cameras to either side over which a flight is smoothed; 0 passes through each."""
    loop: bool = False
    """A flight returns to its start."""
    order: Literal["given", "nearest"] = "given"
    """nearest: fly to the nearest camera not yet visited, for photos taken in no order."""
    fixer: Path | None = None
    """A network's weights (built-in, or a fixer.safetensors, or its folder) that repairs the
    colours, by the run's training pictures; docs/guidance.md."""
    data: Path | None = None
    """The capture of the training pictures, if it moved; for --fixer alone."""
    overwrite: bool = False
    """Replace a folder of images that is there already; videos are always replaced."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""


def main(argv: list[str]) -> None:
    """Runs the verb: progress on stderr, the path of what was written on stdout."""
    args = parse(RenderArgs, first_fixed(outputs_last(argv)), prog="scene4d render")
    background = None if args.background is None else parse_colour(args.background)
    check_args(args)
    from scene4d.exporters.video import check_replaceable
    from scene4d.training.device import choose_device
    from scene4d.training.run import load_run

    if not _is_video(args.output_path):
        check_replaceable(args.output_path, overwrite=args.overwrite)
    check_writable(args.output_path, folder=not _is_video(args.output_path))
    if args.save_path is not None:
        check_writable(args.save_path)
    run = load_run(args.run, device=str(choose_device(args.device)))
    if args.fps is not None and not _is_video(args.output_path) and _span(run) is None:
        warnings.warn("--fps is not used for images", stacklevel=2)
    cameras, names, fps = choose_cameras(args, run)
    print(_render(args, run, cameras, names, fps=fps, background=background))


def outputs_last(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--outputs A B`` at the end, where it cannot swallow the run's path."""
    if "--outputs" not in argv:
        return list(argv)
    start = list(argv).index("--outputs")
    end = start + 1
    while end < len(argv) and argv[end] in ("rgb", "depth", "alpha"):
        end += 1
    return [*argv[:start], *argv[end:], *argv[start:end]]


def first_fixed(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--fix-camera 0`` in place of one without a value."""
    given = list(argv)
    for index, word in enumerate(given):
        bare = index + 1 == len(given) or given[index + 1].startswith("--")
        if word in ("--fix-camera", "--fix_camera") and bare:
            return [*given[: index + 1], "0", *given[index + 1 :]]
    return given


def check_args(args: RenderArgs) -> None:
    """Raises :class:`UsageError` for impossible options; warns of those that are not looked at."""
    if args.cameras == "path" and args.path_file is None:
        raise UsageError("'render RUN path' needs --path-file", fix="give a camera_path.json")
    if args.downscale_factor <= 0:
        raise UsageError(f"--downscale-factor must be positive, got {args.downscale_factor:g}")
    if args.num_frames is not None and args.num_frames < 1:
        raise UsageError(f"--num-frames must be at least 1, got {args.num_frames}")
    if args.smoothing < 0:
        raise UsageError(f"--smoothing must not be negative, got {args.smoothing:g}")
    if args.fix_camera is not None and args.cameras != "auto":
        raise UsageError(
            f"--fix-camera chooses the camera, so {args.cameras!r} cannot", fix="leave one out"
        )
    if args.fix_camera is not None and args.at_time is not None:
        raise UsageError("--fix-camera and --at-time together are one picture", fix="give one")
    if args.fixer is not None and args.background is not None:
        raise UsageError("a fixer repairs pictures on the capture's own background",
                         fix="leave --background or --fixer out")  # fmt: skip
    if args.data is not None and args.fixer is None:
        warnings.warn("--data is not used without --fixer", stacklevel=2)
    if not args.outputs or len(set(args.outputs)) < len(args.outputs):
        raise UsageError("--outputs must name one to three different outputs")
    suffix = args.output_path.suffix
    if suffix and not _is_video(args.output_path) and suffix.lower() in _OTHER_FILES:
        raise UsageError(
            f"--output-path cannot be written as {suffix}",
            where=args.output_path,
            fix="name a video (.mp4, .mov, .mkv) or a folder",
        )
    defaults = {field.name: field.default for field in fields(RenderArgs)}
    for name, kinds in _USED_BY.items():
        if args.cameras not in kinds and getattr(args, name) != defaults[name]:
            flag = "--" + name.replace("_", "-")
            warnings.warn(f"{flag} is not used by 'render RUN {args.cameras}'", stacklevel=2)


_OTHER_FILES = (".gif", ".avi", ".webm", ".png", ".jpg", ".jpeg", ".json")
"""Endings that are surely not meant to be a folder's."""


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in (".mp4", ".mov", ".mkv")


def choose_cameras(args: RenderArgs, run: LoadedRun) -> tuple[list[Camera], list[str], float]:
    """The cameras to render, a name for each, and the frames per second."""
    from scene4d.cameras.path_files import in_frame, save_path
    from scene4d.cameras.path_times import at_time

    fps = args.fps or DEFAULT_FPS
    if args.at_time is not None:
        check_time(args.at_time, run)
    if args.cameras == "dataset":
        cameras, names = _captured(run, args.split)
        if args.at_time is not None:
            cameras = at_time(cameras, args.at_time)
        return _downscaled(cameras, args.downscale_factor), image_names(names), fps
    if args.cameras == "path":
        cameras, fps = _from_file(args, run)
    else:
        cameras = _flight(args, run, fps=fps)
    if args.at_time is not None:
        cameras = at_time(cameras, args.at_time)
    if args.save_path is not None and args.cameras != "path":
        save_path(args.save_path, in_frame(cameras, run.source_from_scene), fps=fps)
    names = [f"{index:05d}.png" for index in range(len(cameras))]
    return _downscaled(cameras, args.downscale_factor), names, fps


def check_time(time_s: float, run: LoadedRun) -> None:
    """Raises :class:`UsageError` at a time of which nothing is known; warns where nothing moves."""
    times = run.representation.times
    if times is None:
        warnings.warn("nothing in the scene moves, so --at-time changes nothing", stacklevel=2)
    elif not times[0] <= time_s <= times[1]:
        raise UsageError(
            f"the scene lasts from {times[0]:g} to {times[1]:g} s, so there is nothing at "
            f"{time_s:g} s",
            where=run.path,
        )


def _span(run: LoadedRun) -> tuple[float, float] | None:
    """First and last time of what moves; of a static scene, those of its pictures."""
    from scene4d.cameras.path_times import span_of

    return run.representation.times or span_of(run.cameras.train)


def _from_file(args: RenderArgs, run: LoadedRun) -> tuple[list[Camera], float]:
    """The cameras of --path-file in the run's frame, and the frames per second; time runs where
    the file has none."""
    from scene4d.cameras.path_files import in_frame, load_path
    from scene4d.cameras.path_times import in_real_time
    from scene4d.data.frame import inverted

    assert args.path_file is not None
    loaded = load_path(args.path_file)
    moved = in_frame(loaded.cameras, inverted(run.source_from_scene))
    cameras, fps, span = [c.float32() for c in moved], args.fps or loaded.fps, _span(run)
    if span is not None and any(camera.time is None for camera in cameras):
        cameras = in_real_time(cameras, span=span, fps=fps)
    return cameras, fps


def _flight(args: RenderArgs, run: LoadedRun, *, fps: float) -> list[Camera]:
    """The cameras of a path that is made here, in the run's frame; with times where it moves."""
    from scene4d.cameras import paths
    from scene4d.cameras.path_times import in_real_time, in_time_order
    from scene4d.exporters.frames import focus_distance

    given, kind, span = run.cameras.train, str(args.cameras), _span(run)
    if args.fix_camera is not None:
        kind = "fixed"
        if span is None:
            warnings.warn("nothing in the scene moves: all frames will be the same", stacklevel=2)
    elif kind == "auto":
        kind = paths.suggested(given)
        print(f"cameras: {kind}, by where the training cameras stand", file=sys.stderr)
    along = kind == "interpolate" and not args.loop and args.order == "given"
    along = along and span is not None and in_time_order(given)
    count = args.num_frames or DEFAULT_FRAMES
    if args.num_frames is None and span is not None and (along or kind == "fixed"):
        count = max(1, round((span[1] - span[0]) * fps) + int(along))
    if kind == "fixed":
        cameras = [_picture_taken_at(str(args.fix_camera), run)] * count
    elif kind == "spiral":
        focus = None if run.cameras.bounds else focus_distance(run.representation, _at(run, given))
        cameras = paths.spiral(given, num_frames=count, bounds=run.cameras.bounds, focus=focus)
    elif kind == "orbit":
        cameras = paths.orbit(given, num_frames=count)
    else:
        cameras = paths.interpolate(
            given, num_frames=count, smoothing=args.smoothing, loop=args.loop, order=args.order
        )
    return cameras if along or span is None else in_real_time(cameras, span=span, fps=fps)


def _picture_taken_at(wanted: str, run: LoadedRun) -> Camera:
    """The camera of the picture that --fix-camera names. Raises :class:`UsageError`."""
    known = run.cameras
    names = [*known.train_names, *known.test_names]
    cameras = [*known.train, *known.test]
    for matches in (
        lambda name: str(name) == wanted,
        lambda name: wanted in (str(name.with_suffix("")), name.name, name.stem),
        lambda name: wanted.rstrip("/") in (str(name.parent), *name.parent.parts),
    ):
        found = [i for i, name in enumerate(names) if matches(PurePosixPath(name))]
        if found:
            return cameras[found[0]]
    if wanted.isdecimal() and int(wanted) < len(known.train):
        return known.train[int(wanted)]
    some = ", ".join(names[:3])
    raise UsageError(
        f"--fix-camera {wanted!r} is no picture of the capture",
        where=run.path,
        fix=f"give 0 to {len(known.train) - 1}, or a name such as {some}",
    )


def _at(run: LoadedRun, cameras: Sequence[Camera]) -> list[Camera]:
    """The cameras on the device where the scene is."""
    import torch

    device = next((p.device for p in run.representation.parameters()), torch.device("cpu"))
    return [camera.to(device) for camera in cameras]


def _captured(run: LoadedRun, split: str) -> tuple[list[Camera], list[str]]:
    """The capture's cameras and image names in one split."""
    known = run.cameras
    cameras, names = {
        "train": (known.train, known.train_names),
        "test": (known.test, known.test_names),
        "all": ([*known.train, *known.test], [*known.train_names, *known.test_names]),
    }[split]
    if not cameras:
        raise UsageError(
            f"the run has no {split} images", where=run.path, fix="choose another --split"
        )
    return list(cameras), list(names)


def image_names(names: Sequence[str]) -> list[str]:
    """PNG names like the images'; the old ending stays where two would become the same."""
    clean = [
        "/".join(p for p in PurePosixPath(name).parts if p not in ("/", "..")) for name in names
    ]
    pngs = [str(PurePosixPath(name).with_suffix(".png")) for name in clean]
    counts = {png: pngs.count(png) for png in set(pngs)}
    return [p if counts[p] == 1 else f"{c}.png" for p, c in zip(pngs, clean, strict=True)]


def _downscaled(cameras: Sequence[Camera], factor: float) -> list[Camera]:
    """The cameras at their size divided by ``factor``, at least one pixel."""
    return [
        c.resized(max(1, round(c.width / factor)), max(1, round(c.height / factor)))
        for c in cameras
    ]


def _render(
    args: RenderArgs,
    run: LoadedRun,
    cameras: Sequence[Camera],
    names: Sequence[str],
    *,
    fps: float,
    background: tuple[float, float, float] | None,
) -> Path:
    """Renders and writes; returns what was written."""
    import torch

    from scene4d.exporters.frames import render_frames
    from scene4d.exporters.video import side_by_side, write_images, write_video

    device = next((p.device for p in run.representation.parameters()), torch.device("cpu"))
    colour = run.cameras.background if background is None else torch.tensor(background)
    frames = render_frames(
        run.representation if args.fixer is None else _fixed(args, run),
        [camera.to(device) for camera in cameras],
        outputs=args.outputs,
        background=None if colour is None else colour.to(device),
    )
    shown = progress(frames, total=len(cameras), what="rendering")
    if _is_video(args.output_path):
        joined = (side_by_side([frame[o] for o in args.outputs]) for frame in shown)
        return write_video(joined, args.output_path, fps=fps)
    several = len(args.outputs) > 1
    targets = [f"{o}/{name}" if several else name for name in names for o in args.outputs]
    pictures = (frame[o] for frame in shown for o in args.outputs)
    return write_images(pictures, args.output_path, targets, overwrite=args.overwrite)


def _fixed(args: RenderArgs, run: LoadedRun) -> Renders:
    """The scene as the fixer shows it."""
    from scene4d.training.fixed_run import fixed_run

    assert args.fixer is not None
    return fixed_run(run, args.fixer, data=args.data)


def progress(items: Iterable[T], *, total: int, what: str) -> Iterator[T]:
    """The items, with a count on stderr: rewritten in a terminal, a line every 10 s elsewhere."""
    live = sys.stderr.isatty()
    start = said = time.monotonic()
    for index, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        rate = index / max(now - start, 1e-9)
        if live:
            print(f"\r{what} {index}/{total}, {rate:.1f}/s ", end="", file=sys.stderr, flush=True)
        elif now - said > 10 or index == total:
            said = now
            print(f"{what} {index}/{total}, {rate:.1f}/s", file=sys.stderr, flush=True)
    if live:
        print(file=sys.stderr)


def parse_colour(text: str) -> tuple[float, float, float]:
    """Red, green and blue, 0..1, of a name or a hexadecimal colour."""
    named = {"black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080"}
    code = named.get(text.lower(), text)
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", code):
        raise UsageError(
            f"--background {text!r} is not a colour", fix="give black, white or one like '#88ccff'"
        )
    digits = code.lstrip("#")
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue
