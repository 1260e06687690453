"""Light slabs: the plane look-up against grid_sample, and the method against MobileR2L.

    python benchmarks/light_slab.py lookup
    python benchmarks/light_slab.py compare --minutes 5 --captures sample llff_fern@8
    python benchmarks/light_slab.py compare --minutes 5 --captures fox@4 --teachers RUN \\
        --write methods/lightslab/results.json
    python benchmarks/light_slab.py mpi RUN

``lookup`` and ``mpi`` time kernel and torch in turn in one process; a figure is the median of
--repeats. ``compare`` trains a teacher where none is given, then each method for --minutes as a
fresh ``scene4d train`` process, with the same teacher, seed and distribution of pseudo-views, and
prints one table. GMAC and ms are of a picture of 800x800: ONNX Runtime's ms of the network alone
(MobileR2L's, and light slabs' decoder), ``torch_ms`` of the whole picture. ONNX Runtime is left out
where onnx or onnxruntime is absent. ``bundle_mb`` is the exported file. What runs and bundles are
worth at equal bytes tells equal_bytes.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from quality import DATA_ROOT, budgets, measured, minutes_of, provenance

METHODS = ["lightslab", "mobile-r2l"]
SIDE = 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    lookup = commands.add_parser("lookup", help="the kernel against torch's grid_sample")
    lookup.add_argument("--points", nargs="+", type=int, default=[100_000, 1_000_000])
    lookup.add_argument("--sizes", nargs="+", type=int, default=[16, 43, 116])
    lookup.add_argument("--features", nargs="+", type=int, default=[4])
    lookup.add_argument("--repeats", type=int, default=3)
    lookup.set_defaults(run_command=time_lookups)
    mpi = commands.add_parser("mpi", help="slabs of rays and MPIs against plain torch")
    mpi.add_argument("run", type=Path, help="a trained run of the method lightslab")
    mpi.add_argument("--side", type=int, default=256, help="of the square picture, pixels")
    mpi.add_argument("--repeats", type=int, default=3)
    mpi.set_defaults(run_command=time_mpi)
    compare = commands.add_parser("compare", help="light slabs against MobileR2L")
    compare.add_argument("--captures", nargs="+", default=["sample"], help="as in quality.py")
    compare.add_argument("--teachers", nargs="+", type=Path, help="a run for each capture")
    compare.add_argument("--teacher-minutes", type=float, default=4.0)
    compare.add_argument("--minutes", nargs=1, type=float, default=[5.0])
    compare.add_argument("--steps", nargs=1, type=int, help="train so many steps instead")
    compare.add_argument("--methods", nargs="+", default=METHODS)
    compare.add_argument("--data-root", type=Path, default=DATA_ROOT)
    compare.add_argument("--output-dir", type=Path, help="keep the runs here")
    compare.add_argument("--options", default="", help="further options of scene4d train")
    compare.add_argument("--write", type=Path, help="results.json to merge the rows into")
    compare.set_defaults(run_command=compare_methods)
    arguments = parser.parse_args()
    arguments.run_command(arguments)


def time_lookups(arguments: argparse.Namespace) -> None:
    """Forward and backward, random rays, gradients of the planes; then of the rays as well."""
    import torch

    from scene4d.rendering.fields.plane_lookup import LIGHT_SLAB_AXES, FeaturePlanes, lookup_planes

    print("| rays | features | gradients | kernel s | grid_sample s | ratio |")
    print("|" + " --- |" * 6)
    levels = [(size,) * 4 for size in arguments.sizes]
    for features in arguments.features:
        planes = FeaturePlanes.of_levels(LIGHT_SLAB_AXES, levels, features=features)
        for count in arguments.points:
            generator = torch.Generator().manual_seed(0)
            rays = torch.rand(count, 4, generator=generator) * 2 - 1
            table = torch.randn(planes.texels, features, generator=generator).requires_grad_()
            grad = torch.randn(count, planes.width, generator=generator)
            # As grid_sample likes them: no time is lost in turning the table into pictures.
            grids = [planes.grid(table.detach(), i).permute(0, 3, 1, 2).contiguous()
                     .requires_grad_() for i in range(len(planes.planes))]  # fmt: skip
            for name, more in (("planes", []), ("planes, rays", [rays])):
                rays.requires_grad_(bool(more))

                def kernel(rays=rays, table=table, planes=planes, grad=grad, more=more):
                    torch.autograd.grad(lookup_planes(rays, table, planes), [table, *more], grad)

                def grid_sample(rays=rays, grids=grids, planes=planes, grad=grad, more=more):
                    found = sampled(rays, grids, planes)
                    torch.autograd.grad(found, [*grids, *more], grad)

                ours, theirs = alternately([kernel, grid_sample], arguments.repeats)
                figures = f"{ours:.3f} | {theirs:.3f} | {theirs / ours:.1f}"
                print(f"| {count} | {features} | {name} | {figures} |", flush=True)


def time_mpi(arguments: argparse.Namespace) -> None:
    """One picture of a trained run: its rays' slabs, and MPIs forward and backward."""
    import torch

    from scene4d.cameras.rays import camera_rays
    from scene4d.methods.lightslab.mpi import reference_composite
    from scene4d.training.run import load_run

    run = load_run(arguments.run)
    scene, camera = run.representation, run.cameras.test[0].resized(arguments.side, arguments.side)
    rays = camera_rays(camera)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    slabs, mpi, depths = scene.slabs, scene.mpi, 1 / scene.slabs.disparities
    found = slabs(origins, directions)
    grad = torch.randn(len(found.ray), 5, generator=torch.Generator().manual_seed(0))

    def backward(composite) -> None:
        seen = composite(found.coordinates, mpi.texels, found.slab, mpi.place, depths)
        torch.autograd.grad(seen, [mpi.texels], grad)

    def kernel(coordinates, texels, slab, _place, depths):
        return mpi(coordinates, slab, depths, texels=texels)

    calls = [
        lambda: slabs(origins, directions), lambda: slabs.reference(origins, directions),
        lambda: backward(kernel), lambda: backward(reference_composite),
    ]  # fmt: skip
    a, b, c, d = alternately(calls, arguments.repeats)
    print(f"{len(origins)} rays, {slabs.num_slabs} slabs of {slabs.num_planes} planes")
    print("| part | kernel s | torch s | ratio |\n| --- | --- | --- | --- |")
    print(f"| slabs of rays | {a:.3f} | {b:.3f} | {b / a:.1f} |")
    print(f"| MPIs, forward and backward | {c:.3f} | {d:.3f} | {d / c:.1f} |")


def sampled(rays, grids: list, planes):
    """The look-up as torch offers it."""
    import torch

    found = []
    for grid, plane in zip(grids, planes.planes, strict=True):
        where = rays[:, list(plane.axes)][None, None]
        found.append(torch.nn.functional.grid_sample(
            grid, where, mode="bilinear", padding_mode="border", align_corners=True
        )[0, :, 0])  # fmt: skip
    return torch.cat(found).T


def alternately(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, in turn, after one call that compiles."""
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 1):
        for call, spent in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if number:
                spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in seconds]


def compare_methods(arguments: argparse.Namespace) -> None:
    if arguments.teachers and len(arguments.teachers) != len(arguments.captures):
        raise SystemExit("give one teacher for each capture")
    arguments.output_dir = arguments.output_dir or Path(tempfile.mkdtemp(prefix="light-slab-"))
    rows: list[dict] = []
    for number, capture in enumerate(arguments.captures):
        teacher = arguments.teachers[number] if arguments.teachers else None
        if teacher is None:
            minutes = ["--max-minutes", str(arguments.teacher_minutes)]
            teacher = train("splat", capture, minutes, arguments)
        (budget,) = budgets(arguments)
        runs = {m: train(m, capture, budget, arguments, teacher) for m in arguments.methods}
        costs = frame_costs(runs)
        taught = measured(teacher)["psnr"]
        for method, run in runs.items():
            found = {k: v for k, v in measured(run).items() if k != "num_gaussians"}
            named = argparse.Namespace(method=method, options=arguments.options)
            rows.append({
                "capture": capture, "method": method, **minutes_of(budget), **found,
                "teacher_psnr": taught, **costs[method], **bundle_size(run),
                **provenance(named, budget),
                "command": " ".join(["python benchmarks/light_slab.py", *sys.argv[1:]]),
            })  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if arguments.write:
            write(arguments.write, rows)
    print(table(rows))


def train(
    method: str,
    capture: str,
    budget: list[str],
    arguments: argparse.Namespace,
    teacher: Path | None = None,
) -> Path:
    """The run folder of a fresh training, evaluated."""
    name, _, factor = capture.partition("@")
    command = [
        sys.executable, "-m", "scene4d.cli.main", "train", method,
        *budget, "--output-dir", str(arguments.output_dir),
    ]  # fmt: skip
    if name != "sample":
        folder = arguments.data_root / name
        command += ["--data", str(folder if folder.exists() else Path(name))]
    if factor:
        command += ["--downscale-factor", factor]
    if teacher is not None:
        command += ["--teacher", str(teacher), *arguments.options.split()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}")
    return Path(done.stdout.strip().splitlines()[-1])


def bundle_size(run: Path) -> dict[str, float]:
    """MB of the bundle that the run exports to, if it does."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "scene.s4d"
        done = subprocess.run(
            [sys.executable, "-m", "scene4d.cli.main", "export", str(run), "bundle",
             "--output-path", str(target)], capture_output=True,
        )  # fmt: skip
        return {} if done.returncode else {"bundle_mb": round(target.stat().st_size / 1e6, 3)}


def frame_costs(runs: dict[str, Path]) -> dict[str, dict]:
    """MB, GMAC and milliseconds of each method's picture, timed in turn."""
    import torch

    from scene4d.training.run import load_run

    scenes = {method: load_run(run) for method, run in runs.items()}
    models = {m: s.representation.eval() for m, s in scenes.items()}
    cameras = {m: s.cameras.test[0].resized(SIDE, SIDE) for m, s in scenes.items()}
    with torch.no_grad():
        seconds = alternately([lambda m=m: models[m].render(cameras[m]) for m in models], 3)
    costs = {}
    for (method, model), spent in zip(models.items(), seconds, strict=True):
        costs[method] = {
            "gmac_800": round(model.macs(SIDE, SIDE) / 1e9, 2),
            "torch_ms": round(spent * 1e3, 1),
        }
    for method, spent in onnx_seconds(models).items():
        costs[method]["onnxruntime_ms"] = round(spent * 1e3, 1)
    return costs


def onnx_seconds(models: dict) -> dict[str, float]:
    """Seconds of each network in ONNX Runtime on the CPU; nothing where it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        print(f"ONNX Runtime is not timed: {error}", file=sys.stderr)
        return {}
    import torch

    calls = []
    with tempfile.TemporaryDirectory() as folder:
        for method, model in models.items():
            network, example = network_of(model)
            path = Path(folder) / f"{method}.onnx"
            torch.onnx.export(network, (example,), path, dynamo=False, opset_version=17)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: example.numpy()}
            calls.append(lambda s=session, f=feed: s.run(None, f))
        return dict(zip(models, alternately(calls, 5), strict=True))


def network_of(model: object) -> tuple:
    """The part that a runtime for networks runs, and its input for a picture of SIDE."""
    import torch

    if hasattr(model, "decoder"):
        from scene4d.methods.lightslab.decoder import HALO

        shape = model.decoder.shape
        rays = (-(-SIDE // shape.upsampling) + 2 * HALO) * shape.samples
        return model.decoder, torch.rand(1, rays, rays, shape.inputs)
    shape = model.network.shape
    rays = shape.bundle(SIDE, SIDE)[0] + 2
    return model.network, torch.rand(1, shape.inputs, rays, rays)


def write(path: Path, rows: list[dict]) -> None:
    """Merges rows into results.json; a row replaces the one of the same capture, method, time."""

    def key(row: dict) -> tuple:
        method, steps = row.get("method", "lightslab"), 0 if "minutes" in row else row["steps"]
        return row["capture"], method, row.get("minutes", 0.0), steps, row["machine"]

    old = json.loads(path.read_text())["results"] if path.exists() else []
    new = {key(row): row for row in [*old, *rows]}
    results = [new[k] for k in sorted(new)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"method": "lightslab", "results": results}, indent=1) + "\n")


def table(rows: list[dict]) -> str:
    keys = ["capture", "method", "minutes", "size", "steps", "psnr", "ssim", "lpips",
            "teacher_psnr", "bundle_mb", "gmac_800", "torch_ms", "onnxruntime_ms"]  # fmt: skip
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    lines += ["| " + " | ".join(str(row.get(key, "-")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
