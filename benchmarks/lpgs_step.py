"""How many steps of splat a step of lpgs takes: both in turn, from one scene, in one process.

python benchmarks/lpgs_step.py RUN                      # a run of splat, and its capture
python benchmarks/lpgs_step.py RUN --gaussians 20000    # those that show most, as after the cut
python benchmarks/lpgs_step.py RUN --sh-degree 0 --threads 1 --cpu-time   # on a busy machine
python benchmarks/lpgs_step.py RUN --children 1 --grid --profile          # where its time goes
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

MANY_STEPS = 1_000_000
"""Of a training that is only begun: no rate decays, nothing is due."""


def main() -> None:
    arguments = parse()
    import numba
    import torch

    from scene4d.rendering.freed_memory import keep_freed_memory

    keep_freed_memory()
    if arguments.threads:
        numba.set_num_threads(arguments.threads)
        torch.set_num_threads(arguments.threads)
    trainers = {name: trainer(name, arguments) for name in ("splat", "lpgs")}
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(arguments.warm_up + arguments.steps):
        for name, training in trainers.items():
            begin = clock()
            step(training)
            if number >= arguments.warm_up:
                times[name].append(1e3 * (clock() - begin))
    camera = trainers["splat"].task.training_cameras[0]
    count = trainers["lpgs"].trainable.num_gaussians
    print(
        f"{count:,} Gaussians of degree {arguments.sh_degree}, {camera.width} x {camera.height},"
        f" {numba.get_num_threads()} threads, {'CPU' if arguments.cpu_time else 'wall clock'} time"
    )
    for name, values in times.items():
        print(f"{name}: {statistics.median(values):.1f} ms a step (best {min(values):.1f})")
    ratio = statistics.median(times["lpgs"]) / statistics.median(times["splat"])
    print(f"a step of lpgs takes {ratio:.2f} of splat")
    if arguments.profile:
        profile(trainers["lpgs"], arguments.steps)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="of splat; its capture is trained on")
    parser.add_argument("--gaussians", type=int, help="so many of them, those that show most")
    parser.add_argument("--downscale-factor", type=int, help="by default the run's")
    parser.add_argument("--sh-degree", type=int, default=3)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each (default 30)")
    parser.add_argument("--warm-up", type=int, default=5, help="untimed ones before (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="0: all (default)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time; needs --threads 1")
    parser.add_argument("--profile", action="store_true", help="print the costliest calls of lpgs")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time measures one thread: add --threads 1")
    return arguments


def trainer(name: str, arguments: argparse.Namespace) -> Any:
    """A training of the method that goes on from the run's Gaussians."""
    import torch

    from scene4d.data.scene import at_size_of
    from scene4d.methods.lpgs.method import TreeOptions
    from scene4d.representations.task import Task, World
    from scene4d.training.methods import load_method
    from scene4d.training.options import TrainOptions
    from scene4d.training.run import load_run
    from scene4d.training.train import load_capture, with_teachers_capture
    from scene4d.training.trainer import Trainer

    run, folder = load_run(arguments.run), Path(tempfile.gettempdir())
    options = with_teachers_capture(TrainOptions(teacher=arguments.run, output_dir=folder), run)
    if arguments.downscale_factor:
        options = replace(options, downscale_factor=arguments.downscale_factor)
    scene = at_size_of(*load_capture(options))
    teacher = shown_most(run.in_frame(scene.source_from_scene), scene, arguments.gaussians)
    every = {"steps": MANY_STEPS, "coarsest_downscale": 1, "sh_degree": arguments.sh_degree}
    if name == "splat":
        own = {"sh_bands_at": (0.0, 0.0, 0.0), "max_num_gaussians": teacher.num_gaussians}
    else:
        own = {"num_children": arguments.children, "grid": arguments.grid,
               "tree": TreeOptions(tree_every=MANY_STEPS)}  # fmt: skip
    method = load_method(name)(**every, **own)
    generator = torch.Generator().manual_seed(0)
    task = Task(world=World.of(scene), capture=scene, teacher=teacher)
    training = Trainer(
        method=method, options=options, task=task, run=folder, device=torch.device("cpu"),
        trainable=method.build(task, generator=generator), generator=generator,
    )  # fmt: skip
    training.step = 1  # at step 0 strategies take away what is transparent
    return training


def shown_most(scene: Any, capture: Any, count: int | None) -> Any:
    """The scene's splats, or the ``count`` of them that make up most of the pictures."""
    from scene4d.representations.blending_weights import largest_weights
    from scene4d.representations.gaussians import GaussianSplats

    splats = GaussianSplats.of(scene.splats(), extent=capture.extent)
    if count is None or count >= splats.num_gaussians:
        return splats
    shares = largest_weights(splats, capture.train_cameras()[::5])
    chosen = shares.argsort(descending=True)[:count]
    tensors = {name: value.detach()[chosen] for name, value in splats.gaussians.items()}
    return GaussianSplats(tensors, extent=capture.extent)


def step(training: Any) -> None:
    """One step, as :meth:`Trainer.train` takes it."""
    training._goes_on()
    training._step()


def profile(training: Any, steps: int) -> None:
    profiler = cProfile.Profile()
    with profiler:
        for _ in range(steps):
            step(training)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
