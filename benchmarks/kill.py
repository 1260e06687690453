"""Kills verbs at random moments: nothing unreadable, nothing mixed, nothing left over.

    python benchmarks/kill.py CAPTURE RUN [RUN] [--kills N] [--verbs convert export ...]
                              [--photos DIR]

``CAPTURE`` trains, each ``RUN`` (splats) is exported, converted and compressed, ``DIR`` becomes a
capture. Each verb writes over its own earlier output again and again, now of one run, now of
another, and gets a SIGKILL within the time that it takes; it runs in a fork of a process that has
imported everything, so that most land while it works. After each kill, what is at the output's
place has to be whole: the very bytes that one of the runs gives where these are always the same,
otherwise it opens and is shown by ``scene4d info``. At the end every verb runs to its end once,
trainings are resumed; then nothing but the outputs may be there.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing import shown

import scene4d.methods.lpgs.compress
import scene4d.training.train
from scene4d.cli.main import main as scene4d
from scene4d.errors import Scene4dError

VERBS = ("convert", "convert-folder", "export", "player", "compress", "train", "process-data")
SAME_BYTES = ("convert", "convert-folder", "export", "player")
"""Verbs that write the same for the same run every time."""
_FORK = multiprocessing.get_context("fork")


@dataclass
class Bench:
    """Where it is done, and what was seen."""

    capture: Path
    runs: list[Path]
    photos: Path | None
    work: Path
    taken: dict[str, float] = field(default_factory=dict)
    """Seconds that a verb takes."""
    digests: dict[str, set[str]] = field(default_factory=dict)
    """Of a verb's output, one for each run."""
    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def ply(self, number: int) -> Path:
        return self.work / f"scene-{number}.ply"

    def out(self, verb: str) -> Path:
        """Where a verb writes."""
        names = {"convert": "out.spz", "convert-folder": "sog", "export": "out.s4d",
                 "player": "player", "compress": "small.s4d", "train": "outputs",
                 "process-data": "capture"}  # fmt: skip
        return self.work / names[verb]

    def command(self, verb: str, number: int) -> list[str]:
        """A verb's arguments, for one of the runs."""
        run, ply, out = str(self.runs[number]), str(self.ply(number)), str(self.out(verb))
        train = ["--data", str(self.capture), "--output-dir", out, "--no-evaluate", "--steps=20",
                 "--checkpoint-every-s=0.05"]  # fmt: skip
        photos = ["--data", str(self.photos), "--output-dir", out, "--overwrite"]
        return {
            "convert": ["convert", ply, out],
            "convert-folder": ["convert", ply, f"{out}/meta.json"],
            "export": ["export", run, "bundle", "--output-path", out],
            "player": ["export", run, "player", "--output-path", out],
            "compress": ["compress", ply, out, "--steps", "3"],
            "train": ["train", "splat", *train],
            "process-data": ["process-data", "images", *photos],
        }[verb]

    def is_whole(self, verb: str) -> None:
        """Notes what is at the output's place, and that it is a fault where it is not whole."""
        out, state = self.out(verb), "whole"
        try:
            if verb == "train":
                state = self.trainings(out)
            elif not out.exists() or (
                verb == "convert-folder" and not (out / "meta.json").exists()
            ):
                state = "not there"
            elif verb in SAME_BYTES:
                if digest(out) not in self.digests[verb]:
                    state = "MIXED"
            else:
                ask(out)
        except Exception as error:
            state = f"UNREADABLE: {error}"
        self.states[f"{verb}: {state}"] += 1
        if state.startswith(("MIXED", "UNREADABLE")):
            self.faults.append(f"{verb} left {out.name}: {state}")

    def trainings(self, out: Path) -> str:
        """Whether the newest run has a checkpoint; raises where ``info`` cannot show it whole."""
        newest = max(out.glob("*/*/*"))
        if not list((newest / "checkpoints").glob("step-*.safetensors")):
            return "before its first checkpoint"
        ask(newest)
        return "whole"

    def leftovers(self) -> list[str]:
        """What is there beside the outputs: temporary files and folders, wherever they are."""
        known = {self.out(verb).name for verb in VERBS} | {"said.txt"}
        known |= {self.ply(number).name for number in range(len(self.runs))}
        beside = [p.name for p in self.work.iterdir() if p.name not in known]
        hidden = [p for p in self.work.rglob(".*") if p.name != ".lock"]
        return sorted({*beside, *(str(p.relative_to(self.work)) for p in hidden)})


def digest(out: Path) -> str:
    """Of all that lies in a folder, or of a file; hidden files are another matter."""
    found = hashlib.sha256()
    for path in sorted(out.rglob("*")) if out.is_dir() else [out]:
        if path.is_file() and not path.name.startswith("."):
            found.update(f"{path.relative_to(out)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def ask(path: Path) -> None:
    """What ``scene4d info`` says of it; checkpoints have to be readable."""
    from scene4d.cli.info import summarise

    shown(path)
    damaged = [c["path"] for c in summarise(path).get("checkpoints", []) if not c["readable"]]
    if damaged:
        raise Scene4dError(f"damaged: {', '.join(damaged)}")


def run(work: Path, arguments: list[str], *, kill_after: float | None = None) -> tuple[int, float]:
    """Exit status and seconds of a ``scene4d`` command in a fork; what it says in said.txt."""

    def child() -> None:
        said = os.open(work / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        status = scene4d(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    begun = time.monotonic()
    process = _FORK.Process(target=child)
    process.start()
    process.join(kill_after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, time.monotonic() - begun


def completed(bench: Bench, arguments: list[str]) -> float:
    """Runs a command to its end; its seconds."""
    status, seconds = run(bench.work, arguments)
    if status:
        said = (bench.work / "said.txt").read_text()[-500:]
        bench.faults.append(f"{' '.join(arguments[:2])}: status {status}: {said}")
    return seconds


def measure(bench: Bench, verbs: list[str]) -> None:
    """Runs every verb once for each run, for its time and its outputs."""
    for number, source in enumerate(bench.runs):
        completed(bench, ["export", str(source), "ply", "--output-path", str(bench.ply(number))])
    for verb in verbs:
        for number in range(len(bench.runs) if verb in SAME_BYTES else 1):
            bench.taken[verb] = completed(bench, bench.command(verb, number))
            if verb in SAME_BYTES:
                bench.digests.setdefault(verb, set()).add(digest(bench.out(verb)))


def kill(bench: Bench, verb: str, rng: random.Random) -> bool:
    """One run of a verb, killed at a random moment unless it was done before."""
    moment = rng.uniform(0.0, 1.0) if rng.random() < 0.5 else rng.uniform(0.6, 1.0)
    arguments = bench.command(verb, rng.randrange(len(bench.runs)))
    status, seconds = run(bench.work, arguments, kill_after=moment * bench.taken[verb])
    if status not in (0, -signal.SIGKILL):
        said = (bench.work / "said.txt").read_text()[-500:]
        bench.faults.append(f"{verb}: status {status}: {said}")
    if status == 0:
        bench.taken[verb] = 0.5 * (bench.taken[verb] + seconds)
    bench.is_whole(verb)
    return status == -signal.SIGKILL


def finish(bench: Bench, verbs: list[str]) -> None:
    """The next run of everything, which has to leave nothing over."""
    for verb in verbs:
        if verb == "train":
            for folder in bench.out(verb).glob("*/*/*"):
                if list((folder / "checkpoints").glob("step-*.safetensors")):
                    completed(bench, ["train", "--resume", str(folder)])
        completed(bench, bench.command(verb, 0))
        bench.is_whole(verb)
    bench.faults += [f"left over: {name}" for name in bench.leftovers()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=VERBS)
    args = parser.parse_args()
    verbs = args.verbs or [v for v in VERBS if v != "process-data" or args.photos]
    rng, kills = random.Random(args.seed), Counter()
    with tempfile.TemporaryDirectory(prefix="scene4d-kill-") as folder:
        bench = Bench(args.capture, args.runs, args.photos, Path(folder))
        measure(bench, verbs)
        print("seconds:", ", ".join(f"{v} {s:.1f}" for v, s in bench.taken.items()), flush=True)
        number = 0
        while sum(kills.values()) < args.kills and not (number > 20 and not kills):
            verb = verbs[number % len(verbs)]
            kills[verb] += kill(bench, verb, rng)
            number += 1
            if number % 20 == 0:
                print(f"{sum(kills.values())} kills, {len(bench.faults)} faults", file=sys.stderr)
        finish(bench, verbs)
    by_verb = ", ".join(f"{verb} {count}" for verb, count in kills.items())
    print(f"{sum(kills.values())} kills ({by_verb}): {len(bench.faults)} faults")
    for state, count in sorted(bench.states.items()):
        print(f"{count:6d}  {state}")
    for fault in bench.faults:
        print(f"  FAULT {fault}")
    raise SystemExit(bool(bench.faults))


if __name__ == "__main__":
    main()
