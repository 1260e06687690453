"""``scene4d process-data``: camera poses for photos or a video."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scene4d.cli.parse import parse
from scene4d.data.process.depth_model import DepthModelOptions
from scene4d.data.process.relief import ReliefOptions
from scene4d.data.process.sfm import SfmOptions
from scene4d.data.process.video import VideoOptions
from scene4d.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ProcessDataArgs:
    """Finds camera poses by structure from motion and writes a capture that trains.

    The output folder receives images/, transforms.json (nerfstudio's conventions), sparse_pc.ply
    and diagnosis.json, with --moving masks of what moves, with --depth-model estimated depth maps,
    with --relief those where the camera did not travel. The input is not touched.
    """

    kind: tyro.conf.Positional[Literal["images", "video"]]
    """What the input is: a folder of photos, or one video file."""
    data: Path
    """Folder of photos (searched with its subfolders), or video file."""
    output_dir: Path
    """Folder to write; must not exist, or see --overwrite."""
    overwrite: bool = False
    """Replace the result of an earlier process-data once the new one is complete."""
    sfm: Annotated[SfmOptions, tyro.conf.arg(name="")] = field(default_factory=SfmOptions)
    video: Annotated[VideoOptions, tyro.conf.arg(name="")] = field(default_factory=VideoOptions)
    relief: Annotated[ReliefOptions, tyro.conf.arg(name="")] = field(default_factory=ReliefOptions)
    depth: Annotated[DepthModelOptions, tyro.conf.arg(name="")] = field(
        default_factory=DepthModelOptions
    )


def main(argv: list[str]) -> None:
    """Runs the verb. Prints the diagnosis on stdout and progress on stderr."""
    args = parse(ProcessDataArgs, argv, prog="scene4d process-data")
    from scene4d.data.process import process_images, process_video

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.kind == "images":
        if args.video.moving:
            raise UsageError(
                "--moving is for videos: photos have no time",
                fix="scene4d process-data video --moving --data VIDEO",
            )
        if args.video != VideoOptions():
            say("warning: --num-frames-target is for videos and was ignored")
        diagnosis = process_images(
            args.data,
            args.output_dir,
            sfm=args.sfm,
            relief=args.relief,
            depth=args.depth,
            overwrite=args.overwrite,
            say=say,
        )
    else:
        diagnosis = process_video(
            args.data,
            args.output_dir,
            video=args.video,
            sfm=args.sfm,
            relief=args.relief,
            depth=args.depth,
            overwrite=args.overwrite,
            say=say,
        )
    print(diagnosis.text())
    print(f"written to {args.output_dir}")
