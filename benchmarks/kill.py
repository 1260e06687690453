"""Kills verbs at random moments: nothing unreadable, nothing mixed, nothing left over.

    python benchmarks/kill.py CAPTURE RUN [--kills N] [--verbs convert export ...] [--photos DIR]

``CAPTURE`` trains, ``RUN`` (splats) is exported, converted and compressed. Each verb writes over
its own earlier output again and again and gets a SIGKILL between its start and the time that
it takes. After each kill, what is at the output's place has to be whole: it opens, and is of the
run as a whole. At the end every verb runs to its end once; then no temporary file may be left.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "scene4d.cli.main"]
VERBS = ("convert", "convert-folder", "export", "player", "compress", "train", "process-data")


def command_of(verb: str, args: argparse.Namespace, work: Path) -> tuple[list[str], Path]:
    """The arguments of a verb and where it writes."""
    ply = work / "scene.ply"
    if verb == "convert":
        return ["convert", str(ply), str(work / "out.spz")], work / "out.spz"
    if verb == "convert-folder":
        return ["convert", str(ply), str(work / "sog" / "meta.json")], work / "sog"
    if verb == "export":
        out = work / "out.s4d"
        return ["export", str(args.run), "bundle", "--output-path", str(out)], out
    if verb == "player":
        out = work / "player"
        return ["export", str(args.run), "player", "--output-path", str(out)], out
    if verb == "compress":
        out = work / "small.s4d"
        return ["compress", str(ply), str(out), "--steps", "3"], out
    if verb == "train":
        out = work / "outputs"
        more = ["--steps", "200", "--checkpoint-every-s", "0.2", "--no-evaluate"]
        return ["train", "splat", "--data", str(args.capture), "--output-dir", str(out), *more], out
    out = work / "capture"
    photos = ["--data", str(args.photos), "--output-dir", str(out), "--overwrite"]
    return ["process-data", "images", *photos], out


def run(arguments: list[str], *, kill_after: float | None = None) -> tuple[int, float, str]:
    """Status, seconds and what was said; killed after so many seconds where given."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    return process.returncode, time.monotonic() - begun, said


def fault_of(verb: str, out: Path) -> str | None:
    """What is wrong with the output as it is; None where it is whole or not there."""
    if verb == "train":
        for folder in out.glob("*/*/*"):
            if not list((folder / "checkpoints").glob("step-*.safetensors")):
                continue  # killed before its first checkpoint
            status, _, said = run(["info", str(folder)])
            if status:
                return said
        return None
    if not out.exists():
        return None
    if verb == "player":
        return None if (out / "index.html").is_file() else "no index.html"
    status, _, said = run(["info", str(out)])
    return said if status else None


def leftovers(work: Path) -> list[str]:
    """Temporary files and folders, wherever they are."""
    return [str(p.relative_to(work)) for p in work.rglob(".*") if ".tmp" in p.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--verbs", nargs="+", choices=VERBS)
    args = parser.parse_args()
    verbs = args.verbs or [v for v in VERBS if v != "process-data" or args.photos]
    rng, faults, kills, begun = random.Random(args.seed), [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scene4d-kill-") as folder:
        work = Path(folder)
        status, _, said = run(
            ["export", str(args.run), "ply", "--output-path", str(work / "scene.ply")]
        )
        assert status == 0, said
        taken = {}
        for verb in verbs:
            arguments, _ = command_of(verb, args, work)
            status, taken[verb], said = run(arguments)
            assert status == 0, (verb, said)
        for number in range(args.kills):
            if time.monotonic() - begun > args.minutes * 60:
                break
            verb = verbs[number % len(verbs)]
            arguments, out = command_of(verb, args, work)
            status, _, said = run(arguments, kill_after=rng.uniform(0.2, 1.0) * taken[verb])
            kills += status == -signal.SIGKILL
            if status not in (0, -signal.SIGKILL):
                faults.append(f"{number} {verb}: {said[-500:]}")
            if (fault := fault_of(verb, out)) is not None:
                faults.append(f"{number} {verb} left {out.name}: {fault}")
        for verb in verbs:
            arguments, out = command_of(verb, args, work)
            if verb == "train":
                for run_folder in out.glob("*/*/*"):
                    if list((run_folder / "checkpoints").glob("step-*.safetensors")):
                        run(["train", "--resume", str(run_folder), "--no-evaluate"])
            status, _, said = run(arguments)
            if status:
                faults.append(f"{verb} at last: {said[-500:]}")
        faults += [f"left over: {name}" for name in leftovers(work)]
    print(f"{kills} kills over {', '.join(verbs)}: {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")


if __name__ == "__main__":
    main()
