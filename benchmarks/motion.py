"""Times the motion of splats on the CPU: splines of nodes, and skinning against plain torch.

python benchmarks/motion.py                    # 50k and 100k moving Gaussians, 512 nodes
python benchmarks/motion.py --threads 1 --cpu-time   # on a busy machine
python benchmarks/motion.py --cpu-time --run RUN     # its share of a step of a run of deformable
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Prints a markdown table of milliseconds: the median of some runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="of this thread, not wall clock")
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--knots", type=int, default=27)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--run", type=Path, help="of deformable; prints skinning's share alone")
    options = parser.parse_args()

    import numba
    import torch

    from scene4d.rendering.motion.skinning import skin, skin_reference
    from scene4d.rendering.motion.splines import spline_poses

    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(options.threads)
    now = time.thread_time if options.cpu_time else time.perf_counter
    if options.run is not None:
        return print_share(options.run, options.runs, now)
    generator = torch.Generator().manual_seed(0)

    def timed(forward) -> tuple[float, float]:
        spent: list[tuple[float, float]] = []
        for _ in range(options.runs + 2):
            begin = now()
            outputs = forward()
            middle = now()
            torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])
            spent.append((1e3 * (middle - begin), 1e3 * (now() - middle)))
        one, two = zip(*spent[2:], strict=True)
        return statistics.median(one), statistics.median(two)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    print("| what | forward ms | backward ms |\n|---|---|---|")
    knots, at = leaf(options.nodes, options.knots, 7), torch.tensor([3.4])
    print("| {} nodes' splines | {:.2f} | {:.2f} |".format(
        options.nodes, *timed(lambda: (spline_poses(knots, at),))))  # fmt: skip
    poses = leaf(options.nodes, 7)
    for count in (50_000, 100_000):
        inputs = [
            leaf(count, 3), leaf(count, 4), poses,
            torch.randint(options.nodes, (count, 4), generator=generator, dtype=torch.int32),
            leaf(count, 4).detach().softmax(1).requires_grad_(),
        ]  # fmt: skip
        for name, function in (("kernels", skin), ("plain torch", skin_reference)):
            spent = timed(lambda f=function, i=inputs: f(*i))
            print("| {:,} Gaussians, {} | {:.2f} | {:.2f} |".format(count, name, *spent))


def print_share(path: Path, count: int, now: Callable[[], float]) -> None:
    """The kernels' share of a picture and its gradients, by absolute error, with all that moves
    there at all times: a step does more, so of a step it is less."""
    import torch

    import scene4d
    from scene4d.rendering.motion import skinning

    run = scene4d.load_run(path)
    scene, cameras = run.representation, run.cameras.train
    with torch.no_grad():
        scene.moving_ones.gaussians["window_edges"].copy_(torch.tensor([-1e6, 1e6]))
    spent = {"skinning": 0.0, "all": 0.0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*arguments: Any) -> Any:
            begin = now()
            try:
                return function(*arguments)
            finally:
                spent[name] += now() - begin

        return inner

    def step(camera: scene4d.Camera) -> None:
        scene.zero_grad()
        (scene.render(camera, background=torch.zeros(3)).rgb - 0.5).abs().mean().backward()

    kernels = skinning._Skin
    kernels.forward = staticmethod(counted("skinning", kernels.forward))
    kernels.backward = staticmethod(counted("skinning", kernels.backward))
    for k in range(count + 2):
        if k == 2:  # the kernels are compiled, and memory is there
            spent.update(dict.fromkeys(spent, 0.0))
        counted("all", step)(cameras[k * len(cameras) // (count + 2)])
    kinds = scene.describe()
    print("{:,} Gaussians, of which {:,} move: {:.1f} ms of {:.1f}, {:.1%}".format(
        kinds["num_gaussians"], kinds["num_moving"],
        *(1e3 * spent[name] / count for name in ("skinning", "all")),
        spent["skinning"] / spent["all"]))  # fmt: skip


if __name__ == "__main__":
    main()
