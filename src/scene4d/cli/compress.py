"""``scene4d compress``: a trained scene or a splat file as a small ``.s4d`` bundle."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from scene4d.cli.parse import parse
from scene4d.data.options import SceneOptions
from scene4d.errors import DataError
from scene4d.ranges import Within
from scene4d.representations.method import resolve
from scene4d.training.methods import compressing_method

if TYPE_CHECKING:
    from scene4d.representations.method import Method as CompressingMethod
else:
    CompressingMethod = compressing_method()


@dataclass(frozen=True, kw_only=True)
class CompressArgs:
    """Makes a trained scene, or a splat file from anywhere, small enough for a phone."""

    source: tyro.conf.Positional[Path]
    """Run folder, or a splat file of any format that scene4d reads."""
    output: tyro.conf.Positional[Path]
    """The bundle to write, SOMETHING.s4d."""
    data: Path | None = None
    """Photographs to keep the looks of; by default the run's own, otherwise the scene's renders."""
    target_psnr_drop: Annotated[float, Within(0.0, 100.0)] | None = None
    """Find the smallest bundle that loses at most so many dB on held-out views; three trainings."""
    max_minutes: Annotated[float, Within(0.0, 1e6, above=True)] = 4.0
    """Time for training."""
    strict: bool = False
    """Exit status 1 where the bundle is not within 2% of --target-mb, or loses more than
    --target-psnr-drop; it is kept all the same."""
    drop_invalid: bool = False
    """Leave out splats of a file whose values are not finite or whose rotation is 0; says how
    many."""
    device: str = "auto"
    """auto, cpu or cuda."""
    capture: Annotated[SceneOptions, tyro.conf.arg(name="")] = field(default_factory=SceneOptions)
    method: Annotated[CompressingMethod, tyro.conf.arg(name="")] = field(
        default_factory=CompressingMethod
    )


def main(argv: list[str]) -> None:
    """Runs the verb: progress and figures on stderr, the bundle's path on stdout."""
    args = parse(CompressArgs, argv, prog="scene4d compress")
    from scene4d.training.options import TrainOptions

    assert CompressingMethod.compressor is not None
    made = resolve(CompressingMethod.compressor)(
        args.source,
        args.output,
        method=args.method,
        options=TrainOptions(
            **vars(args.capture),
            data=args.data,
            max_minutes=None if args.method.steps is not None else args.max_minutes,
            device=args.device,  # type: ignore[arg-type]
        ),
        target_psnr_drop=args.target_psnr_drop,
        drop_invalid=args.drop_invalid,
    )
    print(
        f"{made.size_mb:.3f} MB, {made.num_after:,} Gaussians (before: {made.num_before:,},"
        f" {made.before})\n"
        f"PSNR {made.psnr_after:.2f} dB, before {made.psnr_before:.2f} dB, on {made.views} held-out"
        f" views, against {made.against}; trained {made.seconds:.0f} s",
        file=sys.stderr,
    )
    print(args.output)
    if args.strict and not made.on_target:
        raise DataError(f"{made.missed} (--strict)", where=args.output)
