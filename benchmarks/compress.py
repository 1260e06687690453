"""Size at equal quality: every scene as SOG, SPZ, and as .s4d at a fraction of both.

    python benchmarks/compress.py RUN_OR_FILE... --minutes 2 --write methods/lpgs/results.json
    python benchmarks/compress.py RUN --sizes 0.1 0.2 0.5 1 2 --minutes 2        # a curve
    python benchmarks/compress.py RUN --steps 600 --sizes 0.2 --label K=1 --options=--num-children=1

Without --sizes the bundle is asked to be a quarter of the SOG file and a sixth of the SPZ file,
whichever is smaller. Runs are compared with their photographs, files with their own renders.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from quality import provenance


def main() -> None:
    arguments = parse()
    rows = []
    for source in arguments.sources:
        sizes = file_sizes(source)
        for target in arguments.sizes or [min(sizes["sog_mb"] / 4, sizes["spz_mb"] / 6)]:
            row = {"scene": name_of(source), **sizes, **compressed(source, target, arguments)}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if arguments.write:
                write(arguments.write, rows)
    print(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, help="train so many steps instead")
    parser.add_argument("--sizes", nargs="+", type=float, help="sizes in MB")
    parser.add_argument("--label", default="", help="what this try is, for the table")
    parser.add_argument("--write", type=Path, help="results.json to merge the rows into")
    parser.add_argument("--options", default="", help="further options of scene4d compress")
    parser.add_argument("--keep", type=Path, help="folder for the bundles")
    parser.set_defaults(method="lpgs")
    return parser.parse_args()


def name_of(source: Path) -> str:
    """A run's experiment, the file's name, or the folder's of a SOG scene."""
    if source.name == "meta.json":
        return source.resolve().parent.name
    return source.resolve().parents[1].name if source.is_dir() else source.name


def file_sizes(source: Path) -> dict:
    """MB of the scene in the formats that people use, as our exporters write them."""
    from scene4d.formats.registry import write_splats
    from scene4d.training.open_scene import open_scene

    cloud = open_scene(source).cloud()
    sizes = {"num_before": len(cloud), "sh_degree": cloud.sh_degree}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("ply", "sog", "spz"):
            path = Path(folder) / f"scene.{suffix}"
            write_splats(path, cloud)
            sizes[f"{suffix}_mb"] = round(path.stat().st_size / 1e6, 4)
    return sizes


def compressed(source: Path, target: float, arguments: argparse.Namespace) -> dict:
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="scene4d-compress-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name_of(source)}-{target:.3f}.s4d"
    length = (
        ["--steps", str(arguments.steps)]
        if arguments.steps
        else ["--max-minutes", str(arguments.minutes)]
    )
    command = [
        sys.executable, "-m", "scene4d.cli.main", "compress", str(source), str(path),
        "--target-mb", f"{target:.4f}", *length, *arguments.options.split(),
    ]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr[-2000:]}")
    figures = re.search(
        r"([\d.]+) MB, ([\d,]+) Gaussians .*\n"
        r"PSNR ([\d.]+) dB, before ([\d.]+) dB, on (\d+) held-out views, against (.*); "
        r"trained (\d+) s",
        finished.stderr,
    )
    assert figures is not None, finished.stderr
    size, count, after, before, views, against, seconds = figures.groups()
    return {
        "label": arguments.label,
        "target_mb": round(target, 4),
        "s4d_mb": float(size),
        "num_after": int(count.replace(",", "")),
        "psnr_before": float(before),
        "psnr_after": float(after),
        "views": int(views),
        "against": against,
        "train_s": int(seconds),
        **provenance(arguments),
        "command": "scene4d " + " ".join(command[3:]).replace(str(path), "OUT.s4d"),
    }


def write(path: Path, rows: list[dict]) -> None:
    """Merges rows into results.json; a row replaces the one of the same try."""
    old = json.loads(path.read_text())["results"] if path.exists() else []
    new = {(r["scene"], r["target_mb"], r["label"], r["train_s"] // 10): r for r in [*old, *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = [new[key] for key in sorted(new)]
    path.write_text(json.dumps({"method": "lpgs", "results": ordered}, indent=1) + "\n")


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| scene | Gaussians | SOG MB | SPZ MB | .s4d MB | of SOG | of SPZ | dB | dB after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        label = f" ({r['label']})" if r["label"] else ""
        lines.append(
            f"| {r['scene']}{label} | {r['num_before']:,} -> {r['num_after']:,} | {r['sog_mb']:.2f}"
            f" | {r['spz_mb']:.2f} | {r['s4d_mb']:.3f} | 1/{r['sog_mb'] / r['s4d_mb']:.1f}"
            f" | 1/{r['spz_mb'] / r['s4d_mb']:.1f} | {r['psnr_before']:.2f}"
            f" | {r['psnr_after']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
