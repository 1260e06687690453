"""Damaged run folders, optimiser states and camera paths: every outcome is a result or one clear
error.

    NUMBA_BOUNDSCHECK=1 python benchmarks/fuzz_runs.py [RUN ...] [--files 20000] [--seed 0]
                                   [--kinds run optimiser path info report resume]
                                   [--methods splat lpgs ...] [--minutes 30]

Without a RUN, one of every method is trained for a few steps on a capture of 12 x 8 pixels. Of a
copy of a run folder one file is damaged: bytes anywhere, values of its JSON or TOML, tensors and
plain data of a checkpoint, names that lead to a pipe or in a circle. What is asked, by kind:

- run: a picture of a held-out camera, and where its log goes on
- optimiser (damage to a checkpoint alone): the optimiser's state, and a step with it
- path: the cameras of a camera_path.json, as ``scene4d render`` has them, and a picture
- info: what ``scene4d info`` prints
- report: the training's report.html
- resume (damage to a checkpoint alone): the training, to its end a step later

Every other outcome than a result or one of scene4d's errors is printed, and makes the exit status
1. Each is asked in a child process under a limit of time and of memory beyond what the process had.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import fuzz_captures
import torch
from fuzzing import (
    Tally,
    Trial,
    options,
    print_head,
    print_row,
    shown,
    tried,
    until,
    with_checked_kernels,
)
from safetensors import safe_open
from safetensors.torch import save_file

from scene4d.cameras.camera import Camera
from scene4d.cameras.path_files import save_path
from scene4d.cli.render import RenderArgs, choose_cameras
from scene4d.evaluation.report import write_report
from scene4d.exporters.frames import render_frames
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.log import cut_after
from scene4d.training.methods import load_method, method_names
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.run import LoadedRun, list_checkpoints, load_run, newest_checkpoint
from scene4d.training.train import resume, start

SECONDS_PER_RUN = 20.0
MEMORY = 4 << 30
"""Bytes of address space that asking one run folder may add."""
ODD: list[Any] = [
    None, True, -1, 0, 1, 7, 10**9, 10**30, -(10**400), 1.5, 1e300, float("nan"), float("inf"),
    "", "x", "\0", "../" * 50, [], [[]], [1, 2, 3], {}, {"a": {}}, "9" * 5000,
]  # fmt: skip
"""Values in the place of others."""


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits turned, a piece cut out, doubled or overwritten, or the end cut off."""
    if not data:
        return b"\xff" * rng.randrange(40)
    out = bytearray(data)
    kind = rng.randrange(6)
    at = rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(len(out), 400))
    length = rng.choice([1, 2, 8, 64, 1000])
    if kind == 0:
        for _ in range(rng.choice([1, 3, 20])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[at : at + length]
    elif kind == 2:
        out[at:at] = out[at : at + length]
    elif kind == 3:
        out[at : at + length] = bytes([rng.choice([0, 255, 0x80, 0x5B])]) * length
    elif kind == 4:
        del out[at:]
    else:
        out[at:at] = rng.choice([b"[" * 20_000, b"9" * 6000, b"NaN", b"\0", b'{"a":' * 5000])
    return bytes(out)


def damaged_value(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A value of nested lists and tables with one of its parts changed, gone or doubled."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.9):
        key = rng.choice(sorted(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, "more": rng.choice(ODD)}
        return {**value, key: damaged_value(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        kind = rng.randrange(8)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return [*value, value[at]]
        return [*value[:at], damaged_value(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice([-value, value * 2, value + 1, value * 1e9, int(value) ^ 1])
    return rng.choice(ODD)


def damaged_tensor(value: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Another shape, type or content."""
    kind = rng.randrange(8)
    if kind == 0 and value.ndim:
        return value[: rng.randrange(len(value) + 1)].clone()
    if kind == 1:
        return torch.cat([value.reshape(-1), value.reshape(-1)])
    if kind == 2:
        return value.to(rng.choice([torch.float64, torch.float16, torch.int64, torch.uint8]))
    if kind == 3:
        return value.unsqueeze(0).clone()
    if kind == 4:
        return value.new_zeros((0, *value.shape[1:]))
    if kind == 5 and value.ndim > 1:
        return value.transpose(0, 1).contiguous()
    out = value.clone().reshape(-1)
    if len(out) and value.dtype != torch.bool:
        odd = rng.choice([0, -1, 1, 255, 1e30, float("nan"), float("inf"), -1e30])
        place = rng.randrange(len(out))
        out[place] = odd if value.is_floating_point() else max(0, int(min(abs(odd), 255))) if (
            odd == odd and abs(odd) < 1e18
        ) else 3  # fmt: skip
    return out.reshape(value.shape)


def damage_checkpoint(path: Path, rng: random.Random) -> None:
    """One tensor, the plain data, or the bytes."""
    if rng.random() < 0.3:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(damaged_bytes(data, rng))
        return
    with safe_open(path, framework="pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["scene4d"])
    if rng.random() < 0.4:
        header = damaged_value(header, rng)
    else:
        for _ in range(rng.choice([1, 1, 2])):
            name = rng.choice(sorted(tensors))
            tensors[name] = damaged_tensor(tensors[name], rng)
        if rng.random() < 0.1:
            del tensors[rng.choice(sorted(tensors))]
    text = json.dumps(header)
    path.unlink()  # it is mapped, and shared with the whole copy
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"scene4d": text})


def damage(run: Path, names: Sequence[str], rng: random.Random) -> None:
    """Damages one of the files; ``checkpoint`` stands for the newest."""
    path, kind = run / rng.choice(names), rng.random()
    if path.name == "checkpoint":
        damage_checkpoint(list_checkpoints(run / "checkpoints")[-1], rng)
    elif kind > 0.98:
        path.unlink()
        os.mkfifo(path) if rng.random() < 0.5 else path.symlink_to(path)
    elif path.suffix == ".json" and kind < 0.7:
        value = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps(damaged_value(value, rng)))
    else:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(damaged_bytes(data, rng))


# Questions


def use_run(run: Path) -> None:
    cut_after(run / "metrics.jsonl", 5)
    loaded = load_run(run)
    render(loaded, (loaded.cameras.test or loaded.cameras.train)[:1])


def render(loaded: LoadedRun, cameras: Sequence[Camera]) -> None:
    for _ in render_frames(loaded.representation, cameras):
        pass


def use_optimiser(run: Path) -> None:
    loaded, (_, checkpoint) = load_run(run), newest_checkpoint(run)
    count = len(loaded.cameras.train) + len(loaded.cameras.test)
    adjustments = CameraAdjustments(count, loaded.method, extent=1.0)
    trained = (loaded.representation, adjustments)
    adam = GroupedAdam([group for part in trained for group in part.parameter_groups()])
    adam.load_state_tensors(checkpoint.part("optimiser"))
    for part in trained:
        for parameter in part.parameters():
            parameter.grad = torch.ones_like(parameter)
    adam.step(lambda _: 1.0)


def use_path(run: Path) -> None:
    loaded = whole_run((run / "config.toml").stat().st_ino, run)
    asked = RenderArgs(
        run=run, cameras="path", path_file=run / "path.json", output_path=run / "pictures"
    )
    cameras, _, _ = choose_cameras(asked, loaded)
    render(loaded, cameras[:1])


_WHOLE: dict[int, LoadedRun] = {}


def whole_run(key: int, run: Path) -> LoadedRun:
    """A run of which nothing is damaged, read once."""
    if key not in _WHOLE:
        _WHOLE[key] = load_run(run)
    return _WHOLE[key]


@dataclass(frozen=True)
class Kind:
    """What is damaged, and what is asked then."""

    title: str
    names: tuple[str, ...]
    ask: Callable[[Path], object]
    writes: bool = False
    """To files that it finds; others get links to one whole copy."""

    def copied(self, run: Path, folder: Path) -> None:
        shutil.copytree(run, folder, copy_function=shutil.copy2 if self.writes else os.link)


KINDS = {
    "run": Kind("run folders", ("checkpoint", "config.toml", "scene.json", "metrics.jsonl"),
                use_run),
    "optimiser": Kind("optimiser states", ("checkpoint",), use_optimiser),
    "path": Kind("camera paths", ("path.json",), use_path),
    "info": Kind("info", ("checkpoint", "config.toml", "eval.json"), shown),
    "report": Kind("reports", ("eval.json", "metrics.jsonl", "config.toml"), write_report),
    "resume": Kind("resumed", ("checkpoint",), resume, writes=True),
}  # fmt: skip


# Run folders


SMALL: dict[str, dict[str, Any]] = {
    "splat": {"num_random_points": 20, "sh_degree": 1, "refine_poses": True, "fit_exposure": True},
    "lpgs": {"num_random_points": 20, "hidden": 8, "sh_degree": 1},
    "lightslab": {"max_slabs": 1, "depths": 4, "resolutions": (8,), "width": 8, "blocks": 1},
    "mobile-r2l": {"width": 8, "blocks": 2},
}
"""What makes a method cheap; one that is not named here is trained as it is."""


def train_small(methods: Sequence[str], folder: Path) -> None:
    """Runs of the methods in ``folder``, named by number, that a step is left of."""
    torch.set_num_threads(1)
    logging.getLogger("scene4d").setLevel(logging.WARNING)
    capture = fuzz_captures.written(fuzz_captures.nerfstudio(), folder / "capture")
    teacher = None
    for number, name in enumerate(methods):
        method: Any = load_method(name)(steps=4, **SMALL.get(name, {}))
        if any(f.name == "teaching" for f in fields(method)):
            teaching = replace(method.teaching, first_views=1, crops=1, crop_size=8)
            method = replace(method, teaching=teaching)
        made = TrainOptions(
            data=capture, output_dir=folder / name, device="cpu", checkpoint_every_s=0.0,
            keep_checkpoints=None, evaluate=False, teacher=teacher,
        )  # fmt: skip
        run = start(method, made)
        teacher = teacher or run
        for path in list_checkpoints(run / "checkpoints")[:-2]:
            path.unlink()
        list_checkpoints(run / "checkpoints")[-1].unlink()
        run.rename(folder / str(number))
        teacher = folder / "0"


EVALUATION = {
    "experiment_name": "x", "method_name": "splat", "checkpoint": "c", "step": 3,
    "results": {"psnr": 20.5, "ssim": 0.7, "lpips": None, "seconds_per_image": 0.1,
                "fps": 10.0, "num_images": 1},
    "metrics": "as they are", "split": {"rule": "every", "train": ["1.png"], "test": ["0.png"]},
    "per_image": [{"name": "0.png", "psnr": 20.5, "ssim": 0.7, "seconds": 0.1,
                   "picture": "images/0.png"}],
    "machine": {"cpu": "x"},
}  # fmt: skip


def whole_copies(runs: Sequence[Path], folder: Path) -> list[Path]:
    """The runs with a camera path and a made-up evaluation."""
    copies = []
    for number, source in enumerate(runs):
        copy = folder / f"whole-{number}"
        shutil.copytree(source, copy)
        cameras = load_run(source).cameras
        save_path(copy / "path.json", cameras.train or cameras.test, fps=24)
        (copy / "eval.json").write_text(json.dumps(EVALUATION))
        (copy / "images").mkdir(exist_ok=True)
        (copy / "images" / "0.png").write_bytes(fuzz_captures.picture(0))
        copies.append(copy)
    return copies


def damaged_copy(kind: Kind, runs: list[Path], seed: int, number: int, folder: Path) -> None:
    """The input of this number, which is the same every time."""
    kind.copied(runs[number % len(runs)], folder)
    damage(folder, kind.names, random.Random(seed * 1_000_003 + number))


def fuzz(
    kind: Kind, runs: list[Path], count: int, seed: int, *, minutes: float = math.inf
) -> Tally[int]:
    """How ``count`` damaged copies of the run folders went; inputs are numbers."""

    def attempt(number: int, folder: Path) -> None:
        try:
            damaged_copy(kind, runs, seed, number, folder)
            kind.ask(folder)
        finally:
            shutil.rmtree(folder)

    def warm_up(folder: Path) -> None:
        for run in runs:
            kind.copied(run, folder)
            kind.ask(folder)
            shutil.rmtree(folder)

    trial = Trial(attempt, warm_up, SECONDS_PER_RUN, MEMORY, until=until(minutes))
    return tried(range(count), trial)


def main() -> None:
    parser = options(__doc__.splitlines()[0], files=20_000, each="kind")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS][:-1])
    parser.add_argument("--methods", nargs="+", choices=method_names(), default=method_names())
    args = parser.parse_args()
    with_checked_kernels()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        runs = args.runs
        if not runs:  # in a process of its own: threads of kernels do not go with a fork
            methods = sorted(args.methods, key=lambda name: name != "splat")
            context = multiprocessing.get_context("fork")
            child = context.Process(target=train_small, args=(methods, Path(scratch)))
            child.start()
            child.join()
            runs = [Path(scratch) / str(number) for number in range(len(methods))]
        whole = whole_copies(runs, Path(scratch))
        print_head("")
        for name in args.kinds:
            kind = KINDS[name]
            tally = fuzz(kind, whole, args.files, args.seed, minutes=args.minutes)
            print_row(kind.title, tally)
            failed |= bool(tally.bad)
            for number, _ in tally.bad if args.keep else []:
                damaged_copy(kind, whole, args.seed, number, args.keep / f"{name}-{number}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
