"""Times the CPU splat rasteriser and prints markdown tables (docs/rasteriser.md has ours).

python benchmarks/rasteriser.py stages                 # the three scenes, stage by stage
python benchmarks/rasteriser.py stages --threads 1 --cpu-time   # on a busy machine
python benchmarks/rasteriser.py reference              # against plain torch, same run
python benchmarks/rasteriser.py scaling                # Gaussians, pixels, threads
python benchmarks/rasteriser.py memory                 # 1M Gaussians at 800x600
python benchmarks/rasteriser.py full                   # projection and SH included
python benchmarks/rasteriser.py jit                    # compilation, cold and cached
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SCENES = {"S1": (50_000, 1.5), "S2": (50_000, 3.0), "S3": (200_000, 1.0)}


def make_scene(n: int, sigma: float, width: int = 400, height: int = 300, seed: int = 0) -> list:
    """Axes of ``sigma exp(0.4 normal)`` px, low-passed by 0.3 px^2; opacity 0.05 to 0.95.

    Gives 4.3 / 15.9 / 8.8 M Gaussian-pixel pairs above 1/255 for S1 / S2 / S3.
    """
    import torch

    rng = torch.Generator().manual_seed(seed)
    means = torch.rand(1, n, 2, generator=rng) * torch.tensor([width, height])
    axes = (sigma * (0.4 * torch.randn(n, 2, generator=rng)).exp()).square().add(0.3).sqrt()
    angle = torch.rand(n, generator=rng) * torch.pi
    cos, sin, (u, v) = angle.cos(), angle.sin(), axes.pow(-2).unbind(1)
    conics = torch.stack(
        [cos**2 * u + sin**2 * v, cos * sin * (u - v), sin**2 * u + cos**2 * v], -1
    )
    colors = torch.rand(1, n, 3, generator=rng)
    opacities = torch.rand(1, n, generator=rng) * 0.9 + 0.05
    depths = torch.rand(1, n, generator=rng) * 4 + 2
    radii = torch.ceil(3.33 * axes.max(1).values)[None, :, None].expand(1, n, 2).int()
    leaves = [t.requires_grad_() for t in (means, conics[None], colors, opacities)]
    return [*leaves, depths, radii.contiguous(), torch.rand(1, 3, generator=rng)]


class Clock:
    """Milliseconds by name, one entry per run; wall clock or this thread's CPU time."""

    def __init__(self, cpu_time: bool) -> None:
        self.now = time.thread_time if cpu_time else time.perf_counter
        self.times: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        begin = self.now()
        result = work()
        self.times.setdefault(name, []).append(1e3 * (self.now() - begin))
        return result

    def show(self, name: str) -> str:
        values = sorted(self.times[name])
        return f"{values[len(values) // 2]:.1f} ({values[0]:.1f})"


def table(header: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def run_once(clock: Clock, scene: list, width: int, height: int) -> None:
    import torch

    from scene4d.rendering.splats.compositing import composite

    image, alpha = clock("forward", lambda: composite(*scene, width=width, height=height))
    gradients = [torch.ones_like(image), torch.ones_like(alpha)]
    clock("backward", lambda: torch.autograd.backward([image, alpha], gradients))
    for tensor in scene[:4]:
        tensor.grad = None


def total_time(args: argparse.Namespace, scene: list, width: int, height: int, runs: int) -> Clock:
    clock = Clock(args.cpu_time)
    run_once(Clock(False), scene, width, height)
    for _ in range(runs):
        clock("total", lambda: run_once(clock, scene, width, height))
    return clock


def stage_times(args: argparse.Namespace, scene: list, runs: int) -> Clock:
    """The same kernels called one after the other."""
    import numba
    import numpy as np

    from scene4d.rendering.splats import compositing as c

    clock, threads = Clock(args.cpu_time), numba.get_num_threads()
    *arrays, background = [t.detach()[0].numpy() for t in scene]
    n = len(arrays[0])
    g_image, g_alpha = np.ones((300, 400, 3), np.float32), np.ones((300, 400), np.float32)
    for _ in range(runs):
        b = clock("bin + sort", lambda: c._Binned(*arrays, 400, 300, 9))
        frame = c._Frame(b, 3)
        hits, starts, slots, homes = b.band(0)
        clock("forward", lambda b=b, f=frame: f.draw(b, 0, b.band(0), background))
        rows = np.empty((len(hits), 9), np.float32)
        clock(
            "backward",
            lambda b=b, f=frame, h=(hits, homes, starts), r=rows: c.backward_band(
                b.packed, None, *h, 0, b.tiles_x, background, f.masks, f.transmittance,
                f.stops, g_image, g_alpha, None, r, threads,
            ),
        )  # fmt: skip
        grads = tuple(np.zeros(s, np.float32) for s in ((n, 2), (n, 3), (n,), (n, 3), (0, 2)))
        clock(
            "reduce",
            lambda b=b, s=slots, r=rows, g=grads: c.reduce_rows(b.order, b.packed, s, r, None, g),
        )
    return clock


def stages(args: argparse.Namespace) -> None:
    names = ["bin + sort", "forward", "backward", "reduce"]
    rows = []
    for scene_name, (n, sigma) in SCENES.items():
        scene = make_scene(n, sigma)
        whole = total_time(args, scene, 400, 300, args.runs)
        parts = stage_times(args, scene, args.runs)
        rows.append([scene_name, *(parts.show(k) for k in names), whole.show("total")])
    print(f"ms, median (best) of {args.runs}, {'CPU time' if args.cpu_time else 'wall clock'}\n")
    table(["scene", *names, "total through autograd"], rows)


def reference(args: argparse.Namespace) -> None:
    import torch

    from scene4d.rendering.splats.reference import composite_reference

    scene = make_scene(args.gaussians, 1.5)
    clock = total_time(args, scene, 400, 300, args.runs)

    def plain() -> None:
        image, alpha = composite_reference(*scene, width=400, height=300)
        torch.autograd.backward([image, alpha], [torch.ones_like(image), torch.ones_like(alpha)])

    clock("reference", plain)
    ours, theirs = sorted(clock.times["total"])[args.runs // 2], clock.times["reference"][0]
    print("ms, forward + backward, 400x300; the reference once\n")
    table(
        ["Gaussians", "plain torch", "Numba", "ratio"],
        [[str(args.gaussians), f"{theirs:.0f}", clock.show("total"), f"{theirs / ours:.0f}"]],
    )


def scaling(args: argparse.Namespace) -> None:
    import numba

    rows = []
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        clock = total_time(args, make_scene(n, 1.5), 400, 300, args.runs)
        rows.append([f"{n:,}", *(clock.show(k) for k in ("forward", "backward", "total"))])
    print("ms by Gaussians (1.5 px, 400x300)\n")
    table(["Gaussians", "forward", "backward", "total"], rows)
    rows = []
    for width, height in ((200, 150), (400, 300), (800, 600), (1600, 1200)):
        scene = make_scene(50_000, 1.5 * width / 400, width, height)
        clock = total_time(args, scene, width, height, args.runs)
        shown = [clock.show(k) for k in ("forward", "backward", "total")]
        rows.append([f"{width}x{height}", *shown])
    print("ms by pixels (the same picture: 50k Gaussians, sigma grows with it)\n")
    table(["image", "forward", "backward", "total"], rows)
    rows, most = [], numba.config.NUMBA_NUM_THREADS
    for threads in sorted({1, 2, 4, 8, most}):
        if threads <= most:
            numba.set_num_threads(threads)
            clock = total_time(args, make_scene(50_000, 1.5), 400, 300, args.runs)
            rows.append([str(threads), clock.show("total")])
    print("ms by threads (S1)\n")
    table(["threads", "total"], rows)


def memory(args: argparse.Namespace) -> None:
    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    run_once(Clock(False), make_scene(1000, 1.5, 800, 600), 800, 600)
    rows, started = [], peak()
    for sigma in (1.5, 3.0, 10.0):
        scene = make_scene(1_000_000, sigma, 800, 600)
        begin = time.perf_counter()
        run_once(Clock(False), scene, 800, 600)
        seconds = time.perf_counter() - begin
        rows.append([f"{sigma:g}", f"{peak():.2f}", f"{1e3 * seconds:.0f}"])
    print("1M Gaussians at 800x600, forward + backward, the largest so far of the process\n")
    print(f"with everything imported and compiled: {started:.2f} GiB\n")
    table(["sigma, px", "peak, GiB", "ms"], rows)


def full(args: argparse.Namespace) -> None:
    import torch

    from scene4d.rendering.splats.rasterization import rasterization

    rows = []
    for n in (50_000, 200_000):
        for degree in (0, 3):
            rng = torch.Generator().manual_seed(0)
            xyz = torch.rand(n, 3, generator=rng) * torch.tensor([4.0, 3.0, 4.0])
            means = (xyz + torch.tensor([-2.0, -1.5, 2.0])).requires_grad_()
            quats = torch.randn(n, 4, generator=rng).requires_grad_()
            scales = (0.012 * (0.4 * torch.randn(n, 3, generator=rng)).exp()).requires_grad_()
            opacities = (torch.rand(n, generator=rng) * 0.9 + 0.05).requires_grad_()
            sh = (torch.randn(n, (degree + 1) ** 2, 3, generator=rng) * 0.3).requires_grad_()
            K = torch.tensor([[[400.0, 0, 200], [0, 400, 150], [0, 0, 1]]])
            leaves, clock = (means, quats, scales, opacities, sh), Clock(args.cpu_time)

            def draw(leaves=leaves, K=K, degree=degree) -> Any:
                return rasterization(*leaves, torch.eye(4)[None], K, 400, 300, sh_degree=degree)[0]

            draw().sum().backward()
            for _ in range(args.runs):
                image = clock("forward", draw)
                clock("backward", image.sum().backward)
                for leaf in leaves:
                    leaf.grad = None
            rows.append([f"{n:,}", str(degree), clock.show("forward"), clock.show("backward")])
    print("ms, rasterization() with projection and SH, 400x300\n")
    table(["Gaussians", "SH degree", "forward", "backward"], rows)


def jit(args: argparse.Namespace) -> None:
    code = (
        "import time; t = time.perf_counter(); import sys; sys.argv = ['']\n"
        f"sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\n"
        "import rasteriser, torch; from scene4d.rendering.splats import compositing\n"
        "imported = time.perf_counter()\n"
        "scene = rasteriser.make_scene(99, 2.0, 64, 64)\n"
        "rasteriser.run_once(rasteriser.Clock(False), scene, 64, 64)\n"
        "print(f'{imported - t:.1f} {time.perf_counter() - imported:.1f}')"
    )
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for state in ("cold", "cached"):
            env = {**os.environ, "NUMBA_CACHE_DIR": cache}
            out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
            rows.append([state, *out.stdout.decode().split()])
    print("s, first forward + backward of a process\n")
    table(["cache", "imports", "first call"], rows)


def main() -> None:
    modes = {f.__name__: f for f in (stages, reference, scaling, memory, full, jit)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--threads", type=int, default=0, help="0: all (default)")
    parser.add_argument("--runs", type=int, default=15, help="timed runs (default 15)")
    parser.add_argument("--gaussians", type=int, default=50_000, help="reference only")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time; needs --threads 1")
    parser.add_argument(
        "--give-back", action="store_true", help="let the C library give freed memory back"
    )
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time measures one thread: add --threads 1")
    import numba
    import torch

    if not args.give_back:
        from scene4d.rendering.freed_memory import keep_freed_memory

        keep_freed_memory()
    if args.threads:
        numba.set_num_threads(args.threads)
        torch.set_num_threads(args.threads)
    print(f"{numba.get_num_threads()} threads, Numba {numba.__version__}, {os.cpu_count()} CPUs\n")
    modes[args.mode](args)


if __name__ == "__main__":
    main()
