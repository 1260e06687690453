"""What a batch costs beside the same scenes one after the other on as many cores (docs/cluster.md).

python benchmarks/batch.py CAPTURE [--scenes 8] [--minutes 0.5]

The batch has a local Ray cluster of two nodes with a core each; the loop two shells, each with a
core and half of the scenes, `scene4d make` after `scene4d make`. Trainings take what is left of a
scene's minutes, so the time of both is told beside what the scenes became.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scene4d.pipeline.batch import make_batch
from scene4d.pipeline.batch_options import BatchOptions
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.scenes import read_scenes
from scene4d.pipeline.store import Store

NODES = 2
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def batch(inputs: Path, out: Path, minutes: float) -> None:
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(NODES):
        cluster.add_node(num_cpus=1, **small)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        scenes, _ = read_scenes(inputs, MakeOptions(minutes=minutes, device="cpu"))
        states = make_batch(scenes, Store(str(out)), BatchOptions(cpus=1))
        assert all(state.over and not state.error for state in states), [s.error for s in states]
    finally:
        ray.shutdown()
        cluster.shutdown()


def loop(inputs: Path, out: Path, minutes: float) -> None:
    """Half of the scenes on each of two cores."""

    def shell(core: int, names: list[str]) -> None:
        for name in names:
            command = [sys.executable, "-m", "scene4d.cli.main", "make", str(inputs / name),
                       str(out / name), "--minutes", str(minutes), "--device", "cpu"]  # fmt: skip
            subprocess.run(
                command, check=True, capture_output=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )  # fmt: skip

    names = sorted(path.name for path in inputs.iterdir())
    shells = [threading.Thread(target=shell, args=(n, names[n::NODES])) for n in range(NODES)]
    for thread in shells:
        thread.start()
    for thread in shells:
        thread.join()


def mean_psnr(out: Path) -> float:
    """Of the trained scenes on their held-out pictures."""
    found = [json.loads(p.read_text())["results"]["psnr"] for p in out.rglob("eval.json")]
    return sum(found) / max(len(found), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=0.5)
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs"
        for number in range(args.scenes):
            shutil.copytree(args.capture, inputs / f"scene{number}")
        print("| | seconds | PSNR, mean |\n|---|---|---|")
        for name, way in (("one after the other", loop), ("batch", batch)):
            out = Path(scratch) / name.replace(" ", "_")
            taken = seconds(lambda way=way, out=out: way(inputs, out, args.minutes))
            print(f"| {name} | {taken:.1f} | {mean_psnr(out):.2f} |", flush=True)


if __name__ == "__main__":
    main()
