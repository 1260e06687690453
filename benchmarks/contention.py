"""Milliseconds of a small training step under the settings of OpenMP's waiting threads.

    python benchmarks/contention.py [--busy 1] [--steps 300] [--num-gaussians 20000]

torch and Numba bring an OpenMP each. Every setting is a fresh process that trains the sample scene
at 33x33; ``--busy N`` runs N processes beside it that do nothing but count. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "nothing set": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}
WARM_UP = 100
"""Steps before the first that counts: kernels are loaded or compiled in them."""

# The library, not the command line, which sets GOMP_SPINCOUNT itself.
TRAINING = """
import sys
from pathlib import Path
from scene4d.methods.splat.method import SplatMethod
from scene4d.training.options import TrainOptions
from scene4d.training.train import start
steps, count = int(sys.argv[2]), int(sys.argv[3])
method = SplatMethod(
    steps=steps, init="random", num_random_points=count, max_num_gaussians=count,
    coarsest_downscale=1,
)
print(start(method, TrainOptions(
    output_dir=Path(sys.argv[1]), downscale_factor=6, device="cpu", evaluate=False)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    parser.add_argument("--steps", type=int, default=300, help="after the warm-up")
    parser.add_argument("--num-gaussians", type=int, default=20_000)
    arguments = parser.parse_args()
    counting = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(counting) for _ in range(arguments.busy)]
    try:
        print(f"| setting | ms a step beside {arguments.busy} busy processes |")
        print("| --- | --- |")
        for name, setting in SETTINGS.items():
            milliseconds = train(setting, arguments.steps, arguments.num_gaussians)
            print(f"| {name} | {milliseconds:.1f} |", flush=True)
    finally:
        for process in busy:
            process.kill()


def train(setting: dict[str, str], steps: int, num_gaussians: int) -> float:
    """Milliseconds of a step after the warm-up."""
    unset = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    environment = {k: v for k, v in os.environ.items() if k not in unset} | setting
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAINING, folder, str(WARM_UP + steps), str(num_gaussians)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        metrics = Path(done.stdout.strip().splitlines()[-1]) / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    timed = [row for row in rows if row.get("step", 0) >= WARM_UP and "loss" in row]
    first, last = timed[0], timed[-1]
    return 1e3 * (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


if __name__ == "__main__":
    main()
