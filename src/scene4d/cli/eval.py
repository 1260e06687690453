"""``scene4d eval RUN``: a run measured on its held-out images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from scene4d.cli.parse import parse


@dataclass(frozen=True, kw_only=True)
class EvalArgs:
    """Measures a run's newest checkpoint on its held-out images: PSNR, SSIM, LPIPS (AlexNet);
    of a dynamic capture also DyCheck's masked figures, tracks and flicker."""

    run: tyro.conf.Positional[Path]
    """Run folder or its config.toml."""
    output_path: Path | None = None
    """Folder for eval.json and pictures, or the path of a .json file, beside which pictures lie in
    NAME_images; by default the run folder, with a report."""
    data: Path | None = None
    """The capture, where it is no longer at the place the run remembers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""
    lpips: bool = True
    """Also measure LPIPS (slower)."""
    covisible: bool = True
    """Of a dynamic capture that brings no masks of what is covisible, or of what moves, make them
    from optical flow (slow; once a run)."""
    fit_test_poses: bool = False
    """Also measure after each test camera was fitted to its picture (25 steps): the results whose
    names end in _fitted."""


def main(argv: list[str]) -> None:
    """Parses and evaluates; the means on stderr, the path of eval.json on stdout."""
    args = parse(EvalArgs, argv, prog="scene4d eval")
    from scene4d.files import check_writable
    from scene4d.training.evaluate import evaluate_run, summary
    from scene4d.training.run import run_path

    target = args.output_path
    if target is not None:
        if target.suffix != ".json":
            target = target / "eval.json"
        check_writable(target)
    result = evaluate_run(
        args.run,
        data=args.data,
        output_path=target,
        device=args.device,
        lpips=args.lpips,
        compute_masks=args.covisible,
        fit_test_poses=args.fit_test_poses,
    )
    print(summary(result), file=sys.stderr)
    print(target or run_path(args.run) / "eval.json")
