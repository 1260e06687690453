"""Times fields on the CPU against plain torch, in one run (methods/dynamic-field/README.md).

python benchmarks/fields.py samples   # hash grids and volume rendering, forward and backward
python benchmarks/fields.py rays      # a whole dynamic field, as the occupancy grid fills
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """This thread's CPU seconds of the fastest of some runs, after one that counts for nothing."""
    found = []
    for _ in range(repeats + 1):
        begin = time.thread_time()
        work()
        found.append(time.thread_time() - begin)
    return min(found[1:])


def samples(options: argparse.Namespace) -> None:
    """Microseconds a sample of our kernels and of their torch references, of 64 samples a ray."""
    import torch

    from scene4d.rendering.fields.samplers import regular
    from scene4d.rendering.fields.volume import reference_volume_render, volume_render

    generator = torch.Generator().manual_seed(0)
    rays = options.samples // 64
    ends = torch.rand(2, rays, 1, 3, generator=generator)
    along = ends[0] + torch.linspace(0, 1, 64)[:, None] * (ends[1] - ends[0])
    points = torch.cat([along, torch.rand(rays, 1, 1, generator=generator).expand(-1, 64, 1)], -1)
    points = points.reshape(-1, 4)
    field = a_field()
    still, moving = field.static.grids, field.dynamic.grids
    density = torch.rand(len(points), 2, generator=generator, requires_grad=True)
    colour = torch.rand(len(points), 2, 3, generator=generator, requires_grad=True)
    places = regular(torch.linspace(0, 4, 65).expand(rays, 65))
    pairs = {
        "static hash grid": (lambda: still(points), lambda: still.reference(points, still.table)),
        "dynamic hash grids": (
            lambda: moving(points), lambda: moving.reference(points, moving.table),
        ),
        "volume rendering": (
            lambda: volume_render(density, colour, places).rgb,
            lambda: reference_volume_render(density, colour, places).rgb,
        ),
    }  # fmt: skip
    print("| | ours us | torch us | ratio |\n|---|---|---|---|")
    for name, pair in pairs.items():
        ours, theirs = (
            seconds_of(lambda w=work: w().square().sum().backward(), options.repeats)
            * 1e6 / len(points)
            for work in pair
        )  # fmt: skip
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |", flush=True)


def a_field() -> Any:
    """An untrained dynamic field with the method's own sizes, of 48 times."""
    import torch

    from scene4d.methods.dynamic_field.field import DynamicField, settings_of
    from scene4d.methods.dynamic_field.method import DynamicFieldMethod
    from scene4d.methods.dynamic_field.place import Place

    place = Place(
        centre=(0, 0, 0), radius=1.0, near=0.05, far=20.0, uniform_to=3.5, start_s=0.0,
        duration_s=1.0,
    )  # fmt: skip
    settings = settings_of(DynamicFieldMethod(), place=place, times=48)
    return DynamicField(settings, generator=torch.Generator().manual_seed(0))


def rays(options: argparse.Namespace) -> None:
    """Rays a second, forward and backward, of a dynamic field with the method's grids: every
    sample of a ray, and those of an occupancy grid in which a shell is there."""
    import torch

    from scene4d.cameras.camera import Camera

    field = a_field()
    side = options.side
    c2w = torch.eye(4)
    c2w[2, 3] = 3.0
    K = torch.tensor([[1.2 * side, 0, side / 2], [0, 1.2 * side, side / 2], [0, 0, 1]])
    camera = Camera(c2w=c2w, K=K, width=side, height=side, time=torch.tensor(0.5))

    def step() -> None:
        field.render(camera).rgb.square().mean().backward()

    print("| occupancy grid | samples a ray | rays a second |\n|---|---|---|")
    for name in ("not looked at", "a shell, a tenth of it moving"):
        if name != "not looked at":
            _fill(field.occupancy)
        seconds = seconds_of(step, options.repeats)
        count = sum(s.places.count for s in field.render(camera).extras["samples"])
        print(f"| {name} | {count / side**2:.1f} | {side**2 / seconds:.0f} |")


def _fill(grid: Any) -> None:
    import torch

    for medium in (grid.static[None], grid.dynamic):
        n = medium.shape[-1]
        sides = (torch.arange(n) + 0.5) / n - 0.5
        x, y, z = torch.meshgrid(sides, sides, sides, indexing="ij")
        shell = ((x * x + y * y + z * z).sqrt() - 0.2).abs() < 0.6 / n
        medium.copy_((shell & ((len(medium) == 1) | (x > 0.16))).float() * 100)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for work, size, default in ((samples, "samples", 1 << 16), (rays, "side", 48)):
        sub = commands.add_parser(work.__name__)
        sub.add_argument(f"--{size}", type=int, default=default)
        sub.add_argument("--repeats", type=int, default=3)
        sub.set_defaults(work=work)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
