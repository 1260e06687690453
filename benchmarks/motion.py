"""Times the motion of splats on the CPU: splines of nodes, and skinning against plain torch.

python benchmarks/motion.py                    # 50k and 100k moving Gaussians, 512 nodes
python benchmarks/motion.py --threads 1 --cpu-time   # on a busy machine
"""

from __future__ import annotations

import argparse
import statistics
import time


def main() -> None:
    """Prints a markdown table of milliseconds: the median of some runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="of this thread, not wall clock")
    parser.add_argument("--nodes", type=int, default=512)
    parser.add_argument("--knots", type=int, default=27)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()

    import numba
    import torch

    from scene4d.rendering.motion.skinning import skin, skin_reference
    from scene4d.rendering.motion.splines import spline_poses

    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(options.threads)
    now = time.thread_time if options.cpu_time else time.perf_counter
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


if __name__ == "__main__":
    main()
