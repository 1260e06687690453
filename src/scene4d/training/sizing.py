"""How large pictures and scene are trained, where nobody said: by pictures, time and memory.

The rule, in this order:

1. Pictures are made as many times smaller (1, 2, 3, ...) as it takes for their longer side to have
   at most 1600 pixels, for all of them to fit into half of the free memory or of the free disk, and
   for at least 600 steps to fit into the time given. Time never asks for less than 300,000 pixels:
   below, Gaussians cost more than pixels do.
2. There may be one Gaussian for every two pixels of a picture, at least 100,000; no more than leave
   time for 2,000 steps, nor than fit into a quarter of the free memory.

Seconds of a step: 0.15 for a million pixels and 0.05 for 100,000 Gaussians on 2 cores, from the
steps that trainings made in a given time (docs/quality.md: rgbd_livingroom 98 ms, fox 130 ms);
early steps, on smaller pictures, take less. What is set by the user stays as it is.
"""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass, fields, replace
from typing import Any

from scene4d.data.load import load_scene
from scene4d.data.sample import sample_scene_path
from scene4d.data.scene import Scene
from scene4d.data.scratch import available_scratch_bytes
from scene4d.memory import available_ram_bytes
from scene4d.representations.method import Method
from scene4d.training.options import TrainOptions
from scene4d.training.parallel import ALONE, Processes

LONGEST_SIDE = 1600
FEWEST_STEPS = 600
"""With fewer a scene is a blur, whatever the size of its pictures."""
FEWEST_PIXELS = 300_000
STEPS_FOR_MORE = 2000
"""With fewer, more Gaussians than the least do not find their places."""
LEAST_GAUSSIANS = 100_000
PIXELS_PER_GAUSSIAN = 2
_SMALLEST_SIDE = 64
"""A thumbnail helps nobody, however little memory there is."""
_SECONDS_PER_PIXEL = 0.15e-6
_SECONDS_PER_GAUSSIAN = 0.5e-6
_CORES = 2
_CUDA_CORES = 100
"""Of those, what a GPU counts for: assumed, not measured."""
_BYTES_PER_PIXEL = 4 * 4 / 3
"""Decoded, with alpha and all coarser levels."""
_BYTES_PER_GAUSSIAN = 2000
"""Parameters, moments and what rasterising keeps: docs/quality.md has 1.9 GB for a million."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What there is to train with."""

    seconds: float | None
    """None: as long as the steps take."""
    steps: int | None
    """None: as many as there is time for."""
    memory: float
    """Free bytes."""
    disk: float
    """Free bytes, for what does not fit into memory."""
    cores: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is trained."""

    downscale_factor: int
    max_num_gaussians: int
    steps: int
    """That fit into the time, or are asked for."""


def choose_sizes(
    width: int,
    height: int,
    num_pictures: int,
    means: Means,
    *,
    factor: int | None = None,
) -> Sizes:
    """The rule of this module for ``num_pictures`` of ``width`` x ``height``; ``factor`` is the
    user's, where given."""
    room = max(means.memory, means.disk) / 2

    def pixels(factor: int) -> float:
        return width * height / factor**2

    def steps(factor: int, gaussians: float = LEAST_GAUSSIANS) -> float:
        if means.seconds is None:
            return math.inf
        return means.seconds / _step_seconds(pixels(factor), gaussians, means.cores)

    def fits(factor: int) -> bool:
        return (
            max(width, height) <= LONGEST_SIDE * factor
            and num_pictures * pixels(factor) * _BYTES_PER_PIXEL <= room
            and (
                pixels(factor) <= FEWEST_PIXELS
                or steps(factor) >= min(FEWEST_STEPS, means.steps or FEWEST_STEPS)
            )
        )

    smallest = max(1, min(width, height) // _SMALLEST_SIDE)
    if factor is None:
        factor = next((f for f in range(1, smallest + 1) if fits(f)), smallest)
    gaussians = pixels(factor) / PIXELS_PER_GAUSSIAN
    if means.seconds is not None:
        seconds = means.seconds / min(STEPS_FOR_MORE, means.steps or STEPS_FOR_MORE)
        left = seconds * means.cores / _CORES - _SECONDS_PER_PIXEL * pixels(factor)
        gaussians = min(gaussians, left / _SECONDS_PER_GAUSSIAN)
    elif means.steps is not None and means.steps < STEPS_FOR_MORE:
        gaussians = 0
    gaussians = min(gaussians, means.memory / 4 / _BYTES_PER_GAUSSIAN)
    gaussians = max(LEAST_GAUSSIANS, round(gaussians, -4))
    possible = min(steps(factor, gaussians), means.steps or math.inf)
    return Sizes(
        downscale_factor=factor,
        max_num_gaussians=int(gaussians),
        steps=0 if math.isinf(possible) else round(possible),
    )


def _step_seconds(pixels: float, gaussians: float, cores: float) -> float:
    whole = _SECONDS_PER_PIXEL * pixels + _SECONDS_PER_GAUSSIAN * gaussians
    return whole * _CORES / cores


def with_sizes(
    method: Method, options: TrainOptions, processes: Processes = ALONE
) -> tuple[Method, TrainOptions]:
    """``method`` and ``options`` with the sizes that the user left open; said in one line. In all
    ``processes`` they are by the memory and the cores that the first one has."""
    counted = any(f.name == "max_num_gaussians" for f in fields(method))
    open_count = counted and getattr(method, "max_num_gaussians") is None  # noqa: B009
    rendered = options.data is None and options.teacher is not None
    if rendered or not (open_count or options.downscale_factor is None):
        return method, options
    scene = load_scene(options.data or sample_scene_path(method.sample_scene), options)
    # Stored copies of the pictures may already be smaller by the factor that was asked for.
    stored = int(scene.metadata.get("stored_downscale", "1"))
    width, height = (stored * side for side in _typical_size(scene))
    machine = processes.told(
        lambda: json.dumps({
            "memory": available_ram_bytes(), "disk": available_scratch_bytes(),
            "cores": _cores(options.device),
        })
    )  # fmt: skip
    means = Means(
        seconds=None if options.max_minutes is None else 60 * options.max_minutes,
        steps=_steps(method, options),
        **json.loads(machine),
    )
    sizes = choose_sizes(width, height, len(scene.frames), means, factor=options.downscale_factor)
    changes: dict[str, Any] = {"max_num_gaussians": sizes.max_num_gaussians} if open_count else {}
    _tell(sizes, width, height, means, options, counted=open_count)
    return replace(method, **changes), replace(options, downscale_factor=sizes.downscale_factor)


def _tell(
    sizes: Sizes, width: int, height: int, means: Means, options: TrainOptions, *, counted: bool
) -> None:
    factor = sizes.downscale_factor
    said = f"pictures: {width // factor}x{height // factor}"
    said += f", {factor} times smaller than stored" if factor > 1 else ", as stored"
    if counted:
        said += f"; at most {sizes.max_num_gaussians:,} Gaussians"
    if means.seconds is not None:
        said += f"; some {_rounded(sizes.steps):,} steps in {means.seconds / 60:g} minutes"
    names = [] if options.downscale_factor is not None else ["--downscale-factor"]
    names += ["--max-num-gaussians"] if counted else []
    logging.getLogger("scene4d").info("%s (%s)", said, ", ".join(names))


def _rounded(steps: int) -> int:
    """To one digit: an estimate."""
    return round(steps, 1 - len(str(steps))) if steps > 0 else 0


def _typical_size(scene: Scene) -> tuple[int, int]:
    """Width and height of the picture in the middle, by pixels."""
    sizes = sorted((f.camera.width * f.camera.height, f.camera.width, f.camera.height)
                   for f in scene.frames)  # fmt: skip
    _, width, height = sizes[len(sizes) // 2]
    return width, height


def _steps(method: Method, options: TrainOptions) -> int | None:
    if method.steps is None and options.max_minutes is None:
        return method.default_steps
    return method.steps


def _cores(device: str) -> float:
    from scene4d.rendering.splats.cuda import gsplat_unavailable_reason

    if device != "cpu" and gsplat_unavailable_reason() is None:
        return _CUDA_CORES
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(count or 1, int(threads)) if threads.isdigit() and int(threads) else count or 1
