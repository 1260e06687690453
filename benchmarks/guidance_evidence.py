"""What guidance by a prior buys far from the photographs, beside what else the time would buy.

    python benchmarks/guidance_evidence.py CAPTURE ... --priors ffdnet:FOLDER patches patches:OTHER
    python benchmarks/guidance_evidence.py ROOM --half-path --priors patches --write FILE.json
    python benchmarks/guidance_evidence.py --write FILE.json                # the table of its rows

Splats are trained on a few photographs that stand as far from each other as they can, and judged at
views of at least ``--angle`` degrees from all of them; with ``--half-path`` on photographs evenly
spread over the first half of the capture, and judged on its second half. All with the same seed:
without a prior; without, but as long (in CPU seconds, so that other work on the machine does not
decide) as the slowest guided one; with smooth depth; and with every prior at every weight.
``patches`` remembers the photographs themselves, ``patches:OTHER`` those of another scene: a
control, which must gain nothing. ``fixer:FILE`` repairs in place of a prior, at its own weights.

Gains are of the mean over views, against the training without a prior; "near" and "far" are the
views nearer to the photographs than the median one and the others, "unseen" pixels of which no
photograph sees the surface, by the depth of the training without a prior.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from few_views import apart_on_sphere, held_out, trained, write_split

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.evaluation.lpips import lpips
from scene4d.evaluation.psnr import psnr
from scene4d.methods.splat.method import SplatMethod
from scene4d.rendering.render import DEPTH
from scene4d.training.coverage import Coverage
from scene4d.training.run import load_run
from scene4d.training.train import load_capture

PLAIN, LONGER = "none", "none, as long"
_LEAST_PIXELS = 20
"""Unseen pixels of a view, below which it says nothing of them."""


def main() -> None:
    arguments = parse()
    for capture in arguments.captures:
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made) / capture.name
                distances = prepare(capture, folder, arguments, seed)
                for row in rows_of(folder, arguments, seed):
                    row |= {"capture": capture.name, "seed": seed, "distances": distances}
                    means = f"{np.mean(row['psnr']):.2f} dB, LPIPS {np.mean(row['lpips']):.3f}"
                    told = f"{means}, {row['cpu_s']:.0f} CPU s"
                    print(f"  {capture.name}, seed {seed}, {row['arm']}: {told}", flush=True)
                    keep(arguments.write, row)
    print(table(json.loads(arguments.write.read_text())))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="*", type=Path)
    parser.add_argument("--priors", nargs="*", default=[], help="as --prior of train takes them")
    parser.add_argument("--weights", nargs="*", type=float, default=[0.01, 0.05, 0.2])
    parser.add_argument("--half-path", action="store_true", help="hold out the second half")
    parser.add_argument("--photographs", type=int, default=6)
    parser.add_argument("--angle", type=float, default=20.0, help="degrees")
    parser.add_argument("--views", type=int, default=12, help="judged, at most")
    parser.add_argument("--size", type=int, default=100, help="pixels along the longer side")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--gaussians", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", type=Path, default=Path("guidance_evidence.json"))
    return parser.parse_args()


def prepare(source: Path, folder: Path, arguments: argparse.Namespace, seed: int) -> list[float]:
    """Writes the capture; returns how far each judged view is from the photographs: degrees, or
    pictures along the path."""
    images = ImageCache(in_working_frame(read_scene(source)))
    if arguments.half_path:
        half = len(images.scene.frames) // 2
        chosen = np.linspace(seed, half - 1, arguments.photographs).round().astype(int).tolist()
        others = list(range(half, len(images.scene.frames)))
        nearest = torch.arange(len(images.scene.frames)) - half + 1.0
    else:
        chosen, others, nearest = apart_on_sphere(
            images, arguments.photographs, arguments.angle, seed
        )
    if not others:
        raise SystemExit(f"{source}: no view is {arguments.angle:g} degrees away")
    step = max(1, len(others) // arguments.views)
    judged = others[::step][: arguments.views]
    write_split(images, chosen, judged, folder, arguments.size)
    return [round(float(nearest[i]), 2) for i in judged]


def rows_of(folder: Path, arguments: argparse.Namespace, seed: int) -> Iterator[dict]:
    """A row for each training: the arm, its CPU seconds, and its figures of every judged view."""
    method = SplatMethod(
        steps=arguments.steps, max_num_gaussians=arguments.gaussians,
        num_random_points=arguments.gaussians // 2, coarsest_downscale=2,
    )  # fmt: skip
    trained(folder, replace(method, steps=2), seed, None)  # compiles what is not compiled yet
    plain, seconds = trained(folder, method, seed, None)
    unseen = unseen_pixels(plain)

    def row(arm: str, weight: float, run: Path, taken: float) -> dict:
        return {"arm": arm, "weight": weight, "cpu_s": round(taken, 1), **judged(run, unseen)}

    yield row(PLAIN, 0.0, plain, seconds)
    smooth = replace(method, smooth_depth=replace(method.smooth_depth, weight=0.1))
    yield row("smooth depth", 0.1, *trained(folder, smooth, seed, None))
    longest = seconds
    for prior in arguments.priors:
        for weight in arguments.weights:
            run, taken = guided(folder, method, seed, prior, weight)
            longest = max(longest, taken)
            yield row(prior, weight, run, taken)
    longer = replace(method, steps=round(arguments.steps * longest / seconds))
    yield row(LONGER, 0.0, *trained(folder, longer, seed, None))


def guided(
    folder: Path, method: SplatMethod, seed: int, prior: str, weight: float
) -> tuple[Path, float]:
    """The run, and its CPU seconds."""
    kind, _, place = prior.partition(":")
    if kind == "fixer":
        fixing = replace(method.fixing, weight=weight)
        return trained(folder, replace(method, fixing=fixing), seed, Path(place))
    asked = replace(method, guidance=replace(method.guidance, weight=weight))
    return trained(folder, asked, seed, None, prior)


def unseen_pixels(run: Path) -> list[torch.Tensor]:
    """[height, width] of each judged view."""
    loaded = load_run(run)
    scene, images = load_capture(loaded.options, source_from_scene=loaded.source_from_scene)
    shown = loaded.representation.eval()
    coverage = Coverage([images.camera(i) for i in scene.train_indices])
    coverage.refresh(shown, 0, torch.device("cpu"))
    found = []
    for index in scene.test_indices:
        camera = images.camera(index)
        with torch.no_grad():
            render = shown.render(camera, want=DEPTH)
        solid = render.alpha > 0.5
        found.append(solid & ~coverage.seen(camera, render.depth, render.alpha))
    return found


def judged(run: Path, unseen: list[torch.Tensor]) -> dict[str, list[float | None]]:
    """PSNR, LPIPS and the unseen pixels' PSNR of each view that is held out."""
    loaded = load_run(run)
    found: dict[str, list[float | None]] = {"psnr": [], "lpips": [], "unseen_psnr": []}
    views = held_out(loaded, loaded.representation.eval())
    for (rgb, truth, mask), hidden in zip(views, unseen, strict=True):
        there = hidden & mask
        told = int(there.sum()) >= _LEAST_PIXELS
        found["psnr"].append(round(float(psnr(rgb, truth, mask=mask)), 3))
        found["lpips"].append(round(float(lpips(rgb, truth)), 4))
        unseen_psnr = round(float(psnr(rgb, truth, mask=there)), 3) if told else None
        found["unseen_psnr"].append(unseen_psnr)
    return found


def keep(file: Path, row: dict) -> None:
    """Among the file's rows, in place of an older one of the same training."""
    names = ("capture", "seed", "arm", "weight")
    rows = json.loads(file.read_text()) if file.is_file() else []
    rows = [r for r in rows if any(r[n] != row[n] for n in names)] + [row]
    file.write_text(json.dumps(rows, indent=1) + "\n")


def table(rows: list[dict]) -> str:
    """Means over seeds, with the standard deviation of the gain over them."""
    lines = ["| capture | prior | weight | dB | gain | near | far | unseen | LPIPS | CPU s |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    arms = dict.fromkeys((r["capture"], r["arm"], r["weight"]) for r in rows)
    plain = {(r["capture"], r["seed"]): r for r in rows if r["arm"] == PLAIN}
    for capture, arm, weight in arms:
        own = [r for r in rows if (r["capture"], r["arm"], r["weight"]) == (capture, arm, weight)]
        gains = [gains_of(r, plain[capture, r["seed"]]) for r in own]
        told_of = [g["unseen"] for g in gains if g["unseen"] is not None]
        unseen = f"{np.mean(told_of):+.2f}" if told_of else ""
        mean = {name: np.mean([g[name] for g in gains]) for name in ("all", "near", "far")}
        spread = float(np.std([g["all"] for g in gains]))
        level = np.mean([np.mean(r["psnr"]) for r in own])
        seen = np.mean([np.mean(r["lpips"]) for r in own])
        told = f"{mean['all']:+.2f} +- {spread:.2f} | {mean['near']:+.2f} | {mean['far']:+.2f}"
        lines.append(f"| {capture} | {arm} | {weight:g} | {level:.2f} | {told} | {unseen} | "
                     f"{seen:.3f} | "
                     f"{np.mean([r['cpu_s'] for r in own]):.0f} |")  # fmt: skip
    return "\n".join(lines)


def gains_of(row: dict, plain: dict) -> dict[str, float | None]:
    """dB, against the same seed's training without a prior; None where nothing was unseen."""
    gain = np.array(row["psnr"]) - np.array(plain["psnr"])
    far = np.array(row["distances"]) > np.median(row["distances"])
    unseen = [a - b for a, b in zip(row["unseen_psnr"], plain["unseen_psnr"], strict=True)
              if a is not None and b is not None]  # fmt: skip
    return {"all": gain.mean(), "near": gain[~far].mean(), "far": gain[far].mean(),
            "unseen": float(np.mean(unseen)) if unseen else None}  # fmt: skip


if __name__ == "__main__":
    main()
