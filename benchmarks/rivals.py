"""Few splats, trained for as long as many splats and their compression take together.

What ``compress.py --rivals`` measures. Time is CPU time (cpu_time.py). Every file is judged as it
is read back, at the capture's held-out photographs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from quality import ROOT, provenance
from rate_curves import Point, rate_difference

from scene4d.data.scene import Scene, ViewSource
from scene4d.formats.ply import write_ply
from scene4d.formats.registry import write_splats
from scene4d.training.evaluate import mean_psnr
from scene4d.training.open_scene import open_scene
from scene4d.training.run import LoadedRun, load_run
from scene4d.training.train import load_capture

OURS = "s4d"
_CLUSTERED_ON_CPU = 16_000
"""More splats than these take splat-transform minutes to write as SOG without a GPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contest:
    """A run, the capture it was trained on, and the minutes that compressing it takes."""

    run: LoadedRun
    scene: Scene
    images: ViewSource
    minutes: float
    folder: Path
    """Where what is trained and written lies."""
    name: str

    @property
    def seconds(self) -> float:
        """CPU seconds of everyone: of the run and of what comes after."""
        return self.run.elapsed_s + 60 * self.minutes

    @torch.no_grad()
    def row(self, path: Path, kind: str, asked: float, steps: int, command: str) -> dict:
        """What is known of a file."""
        found = open_scene(path)
        return {
            "scene": self.name,
            "kind": kind,
            "asked": asked,
            "num_gaussians": len(found.scene_cloud()),
            "mb": round(path.stat().st_size / 1e6, 4),
            "psnr": round(
                mean_psnr(found.in_frame(self.scene.source_from_scene), self.scene, self.images), 3
            ),
            "cpu_s": round(self.seconds),
            "steps": steps,
            "seed": self.run.options.seed,
            **stamped(command),
        }


def contest(source: Path, minutes: float, folder: Path | None) -> Contest:
    """What ``source``, a run, is measured by."""
    run = load_run(source)
    scene, images = load_capture(run.options, split="test")
    folder = folder or Path(tempfile.mkdtemp(prefix="scene4d-rivals-"))
    folder.mkdir(parents=True, exist_ok=True)
    return Contest(
        run=run, scene=scene, images=images, minutes=minutes, folder=folder,
        name=run.experiment_name,
    )  # fmt: skip


def stamped(command: str) -> dict:
    """Commit, machine, date, and the command of a row."""
    import argparse

    return {
        **provenance(argparse.Namespace(method="", options="")),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "command": command,
    }


def rival_rows(contest: Contest, counts: Sequence[int]) -> Iterator[dict]:
    """Splats of each number, trained and written by every writer there is."""
    options = contest.run.options
    assert options.data is not None
    for count in counts:
        words = [
            "train", "splat", "--data", str(options.data.resolve()),
            "--downscale-factor", str(options.downscale_factor or 1),
            "--test-every", str(options.test_every), "--seed", str(options.seed),
            "--max-num-gaussians", str(count), "--max-minutes", f"{contest.seconds / 60:.4f}",
            "--device", "cpu", "--no-evaluate", "--output-dir", str(contest.folder / f"{count}"),
        ]  # fmt: skip
        kept = contest.folder / f"{count}" / contest.name
        run = load_run(kept) if kept.is_dir() else None
        if run is None or not 1.0 <= run.elapsed_s / contest.seconds < 1.1:
            done = by_cpu_time(words)
            run = load_run(Path(done.stdout.strip().splitlines()[-1]))
        command, stem = shown(words), contest.folder / f"{contest.name}-{count}"
        for kind, path in written(run, stem):
            yield contest.row(path, kind, count, run.step, command)


def written(run: LoadedRun, stem: Path) -> Iterator[tuple[str, Path]]:
    """The run's splats in each format, by our writers and by splat-transform's where it is: a Node
    program whose bin/cli.mjs SPLAT_TRANSFORM names (npm install @playcanvas/splat-transform)."""
    cloud, script = run.cloud(), os.environ.get("SPLAT_TRANSFORM")
    ply = stem.with_name(f"{stem.name}.ply")
    write_ply(ply, cloud)
    yield "ply", ply
    for name in ("spz", "sog"):
        path = stem.with_name(f"{stem.name}.{name}")
        write_splats(path, cloud)
        yield name, path
        if script and (name != "sog" or len(cloud) <= _CLUSTERED_ON_CPU):
            path = stem.with_name(f"{stem.name}-splat-transform.{name}")
            subprocess.run(
                ["node", script, "-q", "-w", "-g", "cpu", str(ply), str(path)], check=True
            )
            yield f"{name} of splat-transform", path
    if not script:
        print("splat-transform is left out: SPLAT_TRANSFORM does not name it", file=sys.stderr)


def bundle_rows(
    contest: Contest, sizes: Sequence[float], options: str, label: str = ""
) -> Iterator[dict]:
    """The run, compressed to each of the sizes, in MB; of a try with a label the bundle alone."""
    for size in sizes:
        path = contest.folder / f"{contest.name}{label}-{size:.3f}.s4d"
        words = [
            "compress", str(contest.run.path), str(path), "--target-mb", f"{size:.4f}",
            "--max-minutes", f"{contest.minutes:g}", "--device", "cpu", *options.split(),
        ]  # fmt: skip
        done = by_cpu_time(words)
        steps = [int(step) for step in re.findall(r"^step (\d+)", done.stderr, re.MULTILINE)]
        done_rows = bundle_and_its_splats(contest, path, size, max(steps, default=0), shown(words))
        if label:
            yield {**next(done_rows), "kind": f"{OURS}, {label}"}
        else:
            yield from done_rows


def bundle_and_its_splats(
    contest: Contest, path: Path, size: float, steps: int, command: str
) -> Iterator[dict]:
    """A bundle, and its splats in other formats: what the code saves alone."""
    yield contest.row(path, OURS, round(size, 4), steps, command)
    for name in ("spz", "sog"):
        other = path.with_suffix(f".{name}")
        write_splats(other, open_scene(path).cloud())
        yield contest.row(other, f"{name} of the bundle's splats", round(size, 4), steps, command)


def by_cpu_time(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """One ``scene4d`` command whose minutes are CPU minutes."""
    command = [sys.executable, str(ROOT / "benchmarks" / "cpu_time.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done


def shown(words: Sequence[str]) -> str:
    """The command for people, without where this try wrote."""
    return " ".join(["python benchmarks/cpu_time.py", *words])


def curves_of(rows: Sequence[dict]) -> dict[str, dict[str, list[Point]]]:
    """By scene and kind, the points of the files."""
    found: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        points = found.setdefault(row["scene"], {}).setdefault(row["kind"], [])
        points.append((row["mb"], row["psnr"]))
    return found


def over_minutes(rows: list[dict]) -> dict[str, dict[str, list[Point]]]:
    """By scene and options, minutes and dB of bundles of one size; options that were tried for one
    length alone are left out."""
    found: dict[str, dict[str, list[Point]]] = {}
    for row in sorted(rows, key=lambda row: row["options"]):
        points = found.setdefault(row["scene"], {}).setdefault(row["options"] or "default", [])
        points.append((row["minutes"], row["psnr"]))
    longer = {
        scene: {name: sorted(points) for name, points in kinds.items() if len(points) > 1}
        for scene, kinds in found.items()
    }
    return {scene: kinds for scene, kinds in longer.items() if kinds}


def savings(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> str:
    """The rate differences of ours to every other kind, as a Markdown table."""
    lines = ["| scene | against | BD-rate | over dB |", "|---|---|---|---|"]
    for scene, kinds in curves.items():
        for kind in kinds:
            if kind == OURS or OURS not in kinds:
                continue
            try:
                found = rate_difference(kinds[kind], kinds[OURS])
            except ValueError as error:
                lines.append(f"| {scene} | {kind} | - | {error} |")
                continue
            lines.append(
                f"| {scene} | {kind} | {found.share:+.0%} | {found.low:.2f} to {found.high:.2f} |"
            )
    return "\n".join(lines)


def table(rows: Sequence[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| scene | file | Gaussians | MB | dB | steps | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['scene']} | {r['kind']} | {r['num_gaussians']:,} | {r['mb']:.3f} | {r['psnr']:.2f}"
        f" | {r['steps']} | {r['cpu_s']} |"
        for r in rows
    ]
    return "\n".join(lines)
