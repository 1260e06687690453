"""What methods and a fixer buy from few photographs: held-out views far from all of them.

    python benchmarks/few_views.py CAPTURE [CAPTURE ...] --fixer FIXER [--photographs 6] [--seeds 3]
    python benchmarks/few_views.py CAPTURE --methods splat few-views
    python benchmarks/few_views.py --runs RUN ... --fixer FIXER    # finished runs, repaired or not

Of each capture a few photographs are chosen that stand as far from each other as they can. Methods
are trained on them, and splats: without a fixer; without, but so much longer as takes the CPU time
of the training with one; with one. Views that stand at least ``--angle`` degrees (about what is
looked at) from every photograph are compared, as rendered and as the fixer shows them. CPU seconds,
not wall time, so that other work on the machine does not decide. Rows are means over views and
seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scene4d.cameras.paths import focus_point
from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.evaluation.lpips import lpips
from scene4d.evaluation.protocol import Renderer, composited
from scene4d.evaluation.psnr import psnr
from scene4d.methods.splat.method import SplatMethod
from scene4d.representations.method import Method
from scene4d.training.fixed_run import fixed_run
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.run import LoadedRun, load_run
from scene4d.training.train import load_capture, start


def angles_between(cameras, others) -> Tensor:
    """[cameras, others] degrees about what all of them look at."""
    centre = focus_point([*cameras, *others])[0]

    def directions(of) -> Tensor:
        rays = torch.stack([c.position for c in of]).double() - torch.as_tensor(centre)
        return torch.nn.functional.normalize(rays, dim=-1)

    return (directions(cameras) @ directions(others).T).clamp(-1, 1).acos() * 180 / math.pi


def write_capture(source: Path, folder: Path, arguments: argparse.Namespace, seed: int) -> int:
    """A capture of the chosen photographs and the views to judge; returns how many of these."""
    images = ImageCache(in_working_frame(read_scene(source)))
    chosen, far, _ = apart_on_sphere(images, arguments.photographs, arguments.angle, seed)
    judged = far[:: max(1, len(far) // arguments.views)][: arguments.views]
    write_split(images, chosen, judged, folder, arguments.size)
    return len(judged)


def apart_on_sphere(
    images: ImageCache, photographs: int, angle: float, seed: int
) -> tuple[list[int], list[int], Tensor]:
    """Photographs as far from each other as they can be, from a drawn one on; the views at least
    ``angle`` degrees from all of them; and each picture's degrees to the nearest photograph."""
    cameras = [images.camera(i) for i in range(len(images.scene.frames))]
    apart = angles_between(cameras, cameras)
    chosen = [int(np.random.default_rng(seed).integers(len(cameras)))]
    while len(chosen) < photographs:
        chosen.append(int(apart[:, chosen].min(dim=1).values.argmax()))
    nearest = apart[:, chosen].min(dim=1).values
    return chosen, [i for i in range(len(cameras)) if float(nearest[i]) >= angle], nearest


def write_split(
    images: ImageCache, chosen: list[int], judged: list[int], folder: Path, size: int
) -> None:
    """A capture of pictures about ``size`` pixels long, of which ``chosen`` are trained on."""
    longest = max(images.camera(0).width, images.camera(0).height)
    factor = max(1, round(longest / size))
    (folder / "images").mkdir(parents=True)
    frames = []
    for index in (*chosen, *judged):
        view = images.view(index, factor)
        layers = [view.rgb] if view.alpha is None else [view.rgb, view.alpha[..., None]]
        pixels = (torch.cat(layers, dim=-1).clamp(0, 1) * 255).round().byte().numpy()
        name, camera = f"images/{index:04d}.png", view.camera
        Image.fromarray(pixels).save(folder / name)
        frames.append({
            "file_path": name, "transform_matrix": camera.c2w.tolist(), "w": camera.width,
            "h": camera.height, "fl_x": float(camera.K[0, 0]), "fl_y": float(camera.K[1, 1]),
            "cx": float(camera.K[0, 2]), "cy": float(camera.K[1, 2]),
        })  # fmt: skip
        if view.mask is not None:
            frames[-1]["mask_path"] = f"masks/{index:04d}.png"
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(view.mask.byte().numpy() * 255).save(folder / frames[-1]["mask_path"])
    names = [frame["file_path"] for frame in frames]
    split = {"train_filenames": names[: len(chosen)], "test_filenames": names[len(chosen) :]}
    (folder / "transforms.json").write_text(json.dumps({**split, "frames": frames}))


def trained(
    folder: Path, method: Method, seed: int, fixer: Path | None, prior: str | None = None
) -> tuple[Path, float]:
    """The run, and its CPU seconds."""
    options = TrainOptions(
        data=folder, output_dir=folder / "runs", seed=seed, evaluate=False, device="cpu",
        downscale_factor=1, fixer=fixer, prior=prior,
    )  # fmt: skip
    begun = time.process_time()
    run = start(method, options, announce=False)
    return run, time.process_time() - begun


def judged(run: Path, fixer: Path | None) -> tuple[float, float]:
    """Mean PSNR and LPIPS of the views that are held out."""
    loaded = load_run(run)
    shown = loaded.representation.eval() if fixer is None else fixed_run(loaded, fixer)
    found = [
        (float(psnr(rgb, truth, mask=mask)), float(lpips(rgb, truth)))
        for rgb, truth, mask in held_out(loaded, shown)
    ]
    one, other = np.mean(found, axis=0)
    return float(one), float(other)


@torch.no_grad()
def held_out(run: LoadedRun, shown: Renderer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each held-out view the render, the photograph, and which pixels count; in others the
    render is the photograph."""
    scene, images = load_capture(run.options, source_from_scene=run.source_from_scene)
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    for index in scene.test_indices:
        view = images.view(index)
        truth = composited(view, background)
        rgb = shown.render(view.camera, background=background).rgb.clamp(0, 1)
        mask = torch.ones(rgb.shape[:2], dtype=torch.bool) if view.mask is None else view.mask
        yield torch.where(mask[..., None], rgb, truth), truth, mask


def arms(folder: Path, arguments: argparse.Namespace, seed: int) -> dict[str, tuple[float, ...]]:
    """Name: PSNR, LPIPS, CPU seconds."""
    small = {
        "steps": arguments.steps, "max_num_gaussians": arguments.gaussians,
        "num_random_points": arguments.gaussians // 2, "coarsest_downscale": 2,
    }  # fmt: skip
    found = {}
    for name in arguments.methods:
        run, seconds = trained(folder, load_method(name)(**small), seed, None)
        found[f"{name}, without"] = (*judged(run, None), seconds)
    return found if arguments.fixer is None else found | fixer_arms(folder, arguments, seed, small)


def fixer_arms(
    folder: Path, arguments: argparse.Namespace, seed: int, small: dict
) -> dict[str, tuple[float, ...]]:
    """The same of splats with a fixer, and of splats for as long without."""
    method = SplatMethod(**small)
    method = replace(
        method, fixing=replace(method.fixing, weight=arguments.weight, crops=1, refresh_every=20)
    )
    trained(folder, replace(method, steps=2), seed, None)  # compiles what is not compiled yet
    plain, seconds = trained(folder, method, seed, None)
    fixed, its = trained(folder, method, seed, arguments.fixer)
    more = round(arguments.steps * max(1.0, its / seconds))
    longer, theirs = trained(folder, replace(method, steps=more), seed, None)
    return {
        "without": (*judged(plain, None), seconds),
        "without, longer": (*judged(longer, None), theirs),
        "with": (*judged(fixed, None), its),
        "without, repaired at the end": (*judged(plain, arguments.fixer), seconds),
        "without, longer, repaired at the end": (*judged(longer, arguments.fixer), theirs),
        "with, and repaired at the end": (*judged(fixed, arguments.fixer), its),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="*", type=Path)
    parser.add_argument("--runs", nargs="*", default=[], type=Path)
    parser.add_argument("--fixer", type=Path)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--photographs", type=int, default=6)
    parser.add_argument("--angle", type=float, default=20.0)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--gaussians", type=int, default=4000)
    parser.add_argument("--weight", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for run in arguments.runs:
        for name, fixer in (("as rendered", None), ("repaired", arguments.fixer)):
            level, distance = judged(run, fixer)
            print(f"{run.resolve().parents[1].name}, {name}: {level:.2f} dB, LPIPS {distance:.3f}")
    for capture in arguments.captures:
        table: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made) / capture.name
                views = write_capture(capture, folder, arguments, seed)
                if not views:
                    parser.error(f"{capture}: no view is {arguments.angle:g} degrees away")
                for name, row in arms(folder, arguments, seed).items():
                    table.setdefault(name, []).append(row)
                    told = f"{row[0]:.2f} dB, LPIPS {row[1]:.3f}, {row[2]:.1f} CPU s"
                    print(f"  {capture.name}, seed {seed}, {name}: {told}", flush=True)
        print(f"{capture.name}: {views} views, {arguments.seeds} seeds")
        for name, rows in table.items():
            mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
            print(f"  {name}: {mean[0]:.2f} +- {spread[0]:.2f} dB, LPIPS {mean[1]:.3f}, "
                  f"{mean[2]:.1f} CPU s")  # fmt: skip


if __name__ == "__main__":
    main()
