"""Damaged run folders and camera paths: every outcome is a result or one clear error.

    NUMBA_BOUNDSCHECK=1 python benchmarks/fuzz_runs.py RUN [RUN ...] [--files 20000] [--seed 0]

Of each run folder (one of every method is best, trained for a few steps), one file at a time is
damaged: bytes anywhere, values of its JSON or TOML, tensors and plain data of a checkpoint, names
that lead to a pipe or in a circle. Then everything that reads it is asked: ``info``, the run, a
picture of 16 x 16 pixels, the optimiser's state and a step with it, and camera paths. Every other
outcome than a result or one of scene4d's errors is printed, and makes the exit status 1. Each is
asked in a child process under a limit of time and of memory beyond what the process had.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import torch
from fuzzing import Tally, Trial, options, print_head, print_row, tried
from safetensors import safe_open
from safetensors.torch import save_file

from scene4d.cameras.path_files import load_path, save_path
from scene4d.cli.info import summarise
from scene4d.errors import Scene4dError
from scene4d.training.log import cut_after
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.run import list_checkpoints, load_run, newest_checkpoint

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
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
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
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"scene4d": text})


def damage(run: Path, rng: random.Random) -> None:
    """Damages one file of the folder."""
    kind = rng.random()
    if kind < 0.55:
        damage_checkpoint(list_checkpoints(run / "checkpoints")[-1], rng)
        return
    path = run / rng.choice(["config.toml", "scene.json", "metrics.jsonl", "path.json"])
    if kind > 0.98:
        path.unlink()
        os.mkfifo(path) if rng.random() < 0.5 else path.symlink_to(path)
    elif path.suffix == ".json" and kind < 0.85:
        path.write_text(json.dumps(damaged_value(json.loads(path.read_text()), rng)))
    else:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def ask(run: Path) -> None:
    """Everything that reads a run folder; an error of ours in one does not spare the others, and is
    raised at the end."""
    refusals: list[Scene4dError] = []

    def optimiser() -> None:
        loaded, (_, checkpoint) = load_run(run), newest_checkpoint(run)
        adam = GroupedAdam(loaded.representation.parameter_groups())
        adam.load_state_tensors(checkpoint.part("optimiser"))
        for parameter in loaded.representation.parameters():
            parameter.grad = torch.ones_like(parameter)
        adam.step(lambda _: 1.0)

    def picture() -> None:
        loaded = load_run(run)
        (camera,) = (loaded.cameras.test or loaded.cameras.train)[:1]
        with torch.no_grad():
            loaded.representation.render(camera.resized(16, 16))

    questions: list[Callable[[], object]] = [
        lambda: summarise(run), picture, optimiser, lambda: load_path(run / "path.json"),
        lambda: cut_after(run / "metrics.jsonl", 5),
    ]  # fmt: skip
    for question in questions:
        try:
            question()
        except Scene4dError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def whole_copy(source: Path, folder: Path) -> None:
    """The run, with a camera path beside it."""
    shutil.copytree(source, folder)
    cameras = load_run(source).cameras
    save_path(folder / "path.json", cameras.train or cameras.test, fps=24)


def damaged_copy(runs: list[Path], seed: int, number: int, folder: Path) -> None:
    """The input of this number, which is the same every time."""
    shutil.copytree(runs[number % len(runs)], folder)
    damage(folder, random.Random(seed * 1_000_003 + number))


def fuzz(runs: list[Path], count: int, seed: int) -> Tally[int]:
    """How ``count`` damaged copies of the run folders went; inputs are numbers."""

    def attempt(number: int, folder: Path) -> None:
        try:
            damaged_copy(runs, seed, number, folder)
            ask(folder)
        finally:
            shutil.rmtree(folder)

    def warm_up(folder: Path) -> None:
        for run in runs:
            ask(run)

    return tried(range(count), Trial(attempt, warm_up, seconds=SECONDS_PER_RUN, memory=MEMORY))


def main() -> None:
    parser = options(__doc__.splitlines()[0], files=20_000, each="all run folders")
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    print_head("")
    with tempfile.TemporaryDirectory() as scratch:
        whole = [Path(scratch) / str(number) for number in range(len(args.runs))]
        for source, copy in zip(args.runs, whole, strict=True):
            whole_copy(source, copy)
        tally = fuzz(whole, args.files, args.seed)
        print_row("run folders", tally)
        for number, _ in tally.bad if args.keep else []:
            damaged_copy(whole, args.seed, number, args.keep / str(number))
    raise SystemExit(bool(tally.bad))


if __name__ == "__main__":
    main()
