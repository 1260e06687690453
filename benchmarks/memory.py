"""Peak memory of training 1M Gaussians (SH degree 3) at 800x600 on the CPU, by the real command.

    python benchmarks/memory.py [--num-gaussians 1000000] [--size 800 600] [--steps 12]

Makes a capture of noise images around a ball of points, trains it, and prints what the training
log says its process took at most, and the milliseconds of a step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image


def make_capture(root: Path, num_points: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    xyz = generator.normal(size=(num_points, 3))
    rgb = generator.integers(0, 256, (num_points, 3), dtype=np.uint8)
    trimesh.PointCloud(xyz.astype(np.float32), rgb).export(root / "points.ply")
    width, height = size
    frames = []
    for i in range(4):
        angle = i * np.pi / 2
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([-np.sin(angle), np.cos(angle), 0.0])
        c2w = np.eye(4)
        c2w[:3] = np.stack([right, [0, 0, 1.0], back, 4 * back], axis=1)
        pixels = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).save(root / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": c2w.tolist()})
    intrinsics = {"w": width, "h": height, "fl_x": width, "fl_y": width, "cx": width / 2,
                  "cy": height / 2, "ply_file_path": "points.ply"}  # fmt: skip
    (root / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-gaussians", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 600))
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_capture(root, arguments.num_gaussians, tuple(arguments.size))
        command = [
            sys.executable, "-m", "scene4d.cli.main", "train", "splat", "--data", folder,
            "--output-dir", str(root / "outputs"), "--device", "cpu", "--no-evaluate",
            "--steps", str(arguments.steps), "--coarsest-downscale", "1", "--test-every", "0",
            "--max-num-gaussians", str(arguments.num_gaussians), "--sh-bands-at", "0", "0", "0",
        ]  # fmt: skip
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line for line in done.stderr.splitlines() if "peak memory" in line]
        metrics = Path(done.stdout.strip()) / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        first, last = rows[0], rows[-1]
        step_s = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
        print(lines[-1])
        print(f"{step_s * 1e3:.0f} ms a step; {time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
