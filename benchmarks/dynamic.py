"""Trains methods on one capture of a scene that moves, each as many steps, and prints a table.

python benchmarks/dynamic.py CAPTURE --steps 300
python benchmarks/dynamic.py CAPTURE --steps 150 --downscale-factor 2 --methods splat deformable
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURES = ("psnr", "mpsnr", "mpsnr_moving", "mpsnr_still", "flicker")
"""Of eval.json; those that the capture has no truth for are left empty."""


def main() -> None:
    """Prints a markdown table, one row a method, static splats first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--downscale-factor", default="1")
    parser.add_argument("--methods", nargs="+", default=["splat", "deformable"])
    parser.add_argument("--options", default="", help="more, of scene4d train, for all methods")
    parser.add_argument("--output-dir", type=Path)
    options = parser.parse_args()
    folder = options.output_dir or Path(tempfile.mkdtemp(prefix="scene4d-dynamic-"))
    print("| method | " + " | ".join(FIGURES) + " |")
    print("|---" * (len(FIGURES) + 1) + "|")
    for method in options.methods:
        figures = measured(method, options, folder)
        cells = [f"{figures[name]:.2f}" if name in figures else "" for name in FIGURES]
        print(f"| `{method}` | " + " | ".join(cells) + " |", flush=True)


def measured(method: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The figures of one training's eval.json."""
    run = scene4d(
        "train", method, "--data", str(options.capture), "--steps", str(options.steps),
        "--downscale-factor", options.downscale_factor, "--no-evaluate", "--device", "cpu",
        "--output-dir", str(folder), *options.options.split(),
    )  # fmt: skip
    scene4d("eval", run)
    report = json.loads((Path(run) / "eval.json").read_text())
    return {
        name: value for name, value in report["results"].items() if isinstance(value, float | int)
    }


def scene4d(*words: str) -> str:
    """The last line that a command prints; ends with what it says where it fails."""
    command = [sys.executable, "-m", "scene4d.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
