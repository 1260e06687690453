"""Whether trainings still make the same numbers, bit for bit: for changes that are to change none.

    python benchmarks/same_training.py record BEFORE.json [--depth RGBD_CAPTURE] [--cases splat ...]
    python benchmarks/same_training.py compare BEFORE.json [the same options]

Every method (and the example plugin) trains ``--steps`` steps, densification, refined poses,
teachers and rendered captures included, on the sample scene at half its size; terms of depth need
``--depth``. ``record`` writes the loss of every step, a digest of the last checkpoint's tensors and
the PSNR on the test pictures; ``compare`` trains again and prints what differs, with exit status 1.
Both belong on one machine: other processors round otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from scene4d.files import read_json, write_json

SPLAT = ("--num-random-points", "3000", "--max-num-gaussians", "5000")
FIELD = (
    "--max-mb", "2", "--width", "16", "--blocks", "1", "--max-slabs", "4", "--teaching.crops", "2",
    "--teaching.first-views", "2", "--teaching.crop-size", "48", "--quantise-at", "0.5",
)  # fmt: skip
CASES: Mapping[str, tuple[str, ...]] = {
    "splat": ("splat", *SPLAT, "--mcmc.refine-every", "5", "--mcmc.refine-from", "0.1"),
    "splat-adaptive": (
        "splat", *SPLAT, "--strategy", "adaptive", "--adaptive.gradient-threshold", "1e-5",
        "--adaptive.refine-every", "5", "--adaptive.refine-from", "0.1",
    ),
    "splat-refined": (
        "splat", *SPLAT, "--refine-poses", "--fit-exposure", "--batch-size", "2", "--antialiased",
    ),
    "splat-taught": ("splat", "--teacher", "TEACHER", *SPLAT, "--teaching.weight", "1"),
    "splat-rendered": ("splat", "--teacher", "PLY", *SPLAT),
    "splat-depth": ("splat", "--data", "DEPTH", "--downscale-factor", "4", *SPLAT),
    "lpgs": ("lpgs", "--teacher", "TEACHER", "--target-mb", "0.05"),
    "lpgs-network": (
        "lpgs", "--teacher", "TEACHER", "--num-children", "2", "--grid", "--warm-up", "0.2",
        "--tree.tree-every", "5", "--quantise-at", "0.6",
    ),
    "lightslab": ("lightslab", "--teacher", "TEACHER", *FIELD),
    "lightslab-planes": (
        "lightslab", "--teacher", "TEACHER", *FIELD, "--no-mpi", "--crossed", "--placement",
        "kmeans",
    ),
    "mobile-r2l": (
        "mobile-r2l", "--teacher", "TEACHER", "--width", "32", "--blocks", "2",
        "--teaching.crops", "2", "--teaching.crop-size", "48",
    ),
    "voxels": ("voxels",),
}  # fmt: skip
"""The method and its options; words in capitals stand for what ``results`` makes or is given."""
DRIVER = """if True:
    import sys
    from importlib.metadata import EntryPoint
    sys.path.insert(0, {examples!r})
    from scene4d.training import methods, trainer
    trainer.LOG_EVERY = 1
    found = methods.entry_points
    voxels = EntryPoint("voxels", "voxel_grid:VoxelMethod", methods.GROUP)
    methods.entry_points = lambda **given: [*found(**given), voxels]
    from scene4d.cli.main import main
    main(sys.argv[1:])
"""
EXAMPLES = str(Path(__file__).resolve().parents[1] / "examples")


def scene4d(*arguments: str) -> str:
    """The last line on standard output of a command with every step in metrics.jsonl."""
    command = [sys.executable, "-c", DRIVER.format(examples=EXAMPLES), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"scene4d {' '.join(arguments)}\n{done.stderr[-3000:]}")
    return done.stdout.strip().split("\n")[-1]


def result_of(run: Path) -> dict[str, Any]:
    """Losses as hexadecimal floats, a digest, and decibels."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    checkpoint = max((run / "checkpoints").glob("step-*.safetensors"))
    with safe_open(checkpoint, framework="np") as file:
        digests = sorted(
            hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest()
            for name in file.keys()  # noqa: SIM118 - not a mapping
            if name.startswith(("representation/", "adjustments/", "optimiser/"))
        )
    return {
        "losses": [float(json.loads(line)["loss"]).hex() for line in lines],
        "tensors": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "psnr": read_json(run / "eval.json")["results"]["psnr"],
    }


def results(args: argparse.Namespace, work: Path) -> dict[str, dict[str, Any]]:
    """Of every case that was asked for."""
    more = ["--device", "cpu", "--output-dir", str(work), "--steps", str(args.steps)]
    half = ["--downscale-factor", "2"]
    of_teacher = ("train", "splat", *SPLAT, *half, *more, "--experiment-name", "teacher")
    scene4d(*of_teacher)  # Kernels round otherwise in the process that compiles them.
    teacher = scene4d(*of_teacher)
    ply = work / "teacher.ply"
    scene4d("export", teacher, "ply", "--output-path", str(ply))
    places = {"TEACHER": teacher, "PLY": str(ply), "DEPTH": str(args.depth)}
    found = {}
    for name, case in CASES.items():
        if (args.cases and name not in args.cases) or ("DEPTH" in case and args.depth is None):
            continue
        options = [places.get(option, option) for option in case]
        size = [] if "--downscale-factor" in options or "PLY" in case else half
        run = scene4d("train", *options, *size, *more, "--experiment-name", name)
        found[name] = result_of(Path(run))
        print(f"{name:<18}{len(found[name]['losses'])} steps, {found[name]['psnr']:.3f} dB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--depth", type=Path, help="a capture with depth")
    parser.add_argument("--cases", nargs="+", choices=list(CASES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scene4d-same-") as folder:
        found = results(args, Path(folder))
    if args.task == "record":
        write_json(args.file, found)
        return
    before = read_json(args.file)
    wrong = 0
    for name, now in found.items():
        then = before.get(name)
        if then is None:
            print(f"{name}: not recorded")
        elif now != then:
            wrong += 1
            pairs = zip(now["losses"], then["losses"], strict=False)
            steps = [i for i, (a, b) in enumerate(pairs, 1) if a != b]
            print(
                f"{name}: losses differ from step {steps[0] if steps else '-'} on; tensors "
                f"{'as before' if now['tensors'] == then['tensors'] else 'differ'}; "
                f"{then['psnr']:.4f} -> {now['psnr']:.4f} dB"
            )
    print(f"{len(found) - wrong} of {len(found)} are the same bits")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
