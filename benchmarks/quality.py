"""Trains a method on captures for given times and collects what the test views say.

    python benchmarks/quality.py --minutes 0.5 1 2 5 --captures sample fox@4
    python benchmarks/quality.py --minutes 4 --captures all --write methods/splat/results.json
    python benchmarks/quality.py --steps 9720 --captures sample

``--steps``, in place of minutes, says the same on a busy machine. A capture is ``sample``, a
folder's name in --data-root, or a path; ``@4`` downscales four times. Every figure comes from a
fresh ``scene4d train`` process, so start-up and JIT loading count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA_ROOT = ROOT.parent / "shared" / "data"
POSED = ["nerf_chair", "fox@2", "ethiopian_head", "llff_fern", "lf_shop@2", "rgbd_livingroom"]


def main() -> None:
    arguments = parse()
    captures = [c for name in arguments.captures for c in (POSED if name == "all" else [name])]
    rows = []
    for capture in captures:
        for budget in budgets(arguments):
            row = train(capture, budget, arguments)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if arguments.write:
                write(arguments.write, arguments.method, rows)
    print(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="splat")
    parser.add_argument("--captures", nargs="+", default=["sample"])
    parser.add_argument("--minutes", nargs="+", type=float, default=[2.0])
    parser.add_argument("--steps", nargs="+", type=int, help="train so many steps instead")
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT)
    parser.add_argument("--output-dir", type=Path, help="keep the runs here")
    parser.add_argument("--write", type=Path, help="results.json to merge the rows into")
    parser.add_argument("--options", default="", help="further options of scene4d train")
    return parser.parse_args()


def budgets(arguments: argparse.Namespace) -> list[list[str]]:
    """Options of ``scene4d train`` that say how long it takes."""
    if arguments.steps:
        return [["--steps", str(count)] for count in arguments.steps]
    return [["--max-minutes", str(minutes)] for minutes in arguments.minutes]


def train(capture: str, budget: list[str], arguments: argparse.Namespace) -> dict:
    name, _, factor = capture.partition("@")
    output_dir = arguments.output_dir or Path(tempfile.mkdtemp(prefix="scene4d-quality-"))
    command = [
        sys.executable, "-m", "scene4d.cli.main", "train", arguments.method,
        *budget, "--output-dir", str(output_dir), *arguments.options.split(),
    ]  # fmt: skip
    if name != "sample":
        folder = arguments.data_root / name
        command += ["--data", str(folder if folder.exists() else Path(name))]
    if factor:
        command += ["--downscale-factor", factor]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: wait status {status}")
    run = Path(output.strip().splitlines()[-1])
    memory = {"peak_memory_gb": round(usage.ru_maxrss * 1024 / 1e9, 2)}  # KiB on Linux
    return {
        "capture": capture, **minutes_of(budget), **measured(run), **memory,
        **provenance(arguments, budget),
    }  # fmt: skip


def minutes_of(budget: list[str]) -> dict[str, float]:
    """What a row says of time: nothing where steps were asked for."""
    return {"minutes": float(budget[1])} if budget[0] == "--max-minutes" else {}


def measured(run: Path) -> dict:
    evaluation = json.loads((run / "eval.json").read_text())
    scene = json.loads((run / "scene.json").read_text())
    camera = scene["train"][0]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "loss" in row][-1]
    results = evaluation["results"]
    return {
        "psnr": round(results["psnr"], 2),
        "ssim": round(results["ssim"], 4),
        "lpips": round(results["lpips"], 4),
        "steps": last["step"],
        "num_gaussians": int(last.get("num_gaussians", 0)),
        "train_images": len(scene["train"]),
        "test_images": len(scene["test"]),
        "size": f"{camera['width']}x{camera['height']}",
    }


def provenance(arguments: argparse.Namespace, budget: Sequence[str] = ()) -> dict:
    commit, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "src")
    options = f" with {arguments.options}" if arguments.options else ""
    return {
        "commit": (commit or "unknown") + ("+changes" if changed else ""),
        "machine": machine(),
        "date": date.today().isoformat(),
        "command": " ".join(["scene4d train", arguments.method, *budget]) + options,
    }


def git(*words: str) -> str:
    """What git says of this checkout; nothing where it is not installed, or this is none."""
    try:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def machine() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores {platform.machine()} ({capability}), {gpu}"


def write(path: Path, method: str, rows: list[dict]) -> None:
    """Merges rows into results.json; a row replaces the one of the same capture and time, or, where
    steps were asked for, of as many."""

    def key(row: dict) -> tuple:
        steps = 0 if "minutes" in row else row["steps"]
        return row["capture"], row.get("minutes", 0.0), steps, row["machine"]

    old = json.loads(path.read_text())["results"] if path.exists() else []
    new = {key(r): r for r in [*old, *rows]}
    ordered = [new[key] for key in sorted(new)]
    path.write_text(json.dumps({"method": method, "results": ordered}, indent=1) + "\n")


def table(rows: list[dict]) -> str:
    keys = ["capture", "size", "minutes", "psnr", "ssim", "lpips", "steps", "num_gaussians",
            "peak_memory_gb"]  # fmt: skip
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    lines += ["| " + " | ".join(str(row.get(key, "-")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
