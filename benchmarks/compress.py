"""Size at equal quality: every scene as SOG, SPZ, and as .s4d at a fraction of both.

    python benchmarks/compress.py RUN_OR_FILE... --minutes 2 --write methods/lpgs/results.json
    python benchmarks/compress.py RUN --sizes 0.1 0.2 0.5 1 2 --minutes 2        # a curve
    python benchmarks/compress.py RUN --steps 600 --sizes 0.2 --label K=1 --options=--num-children=1
    python benchmarks/compress.py RUN --rivals 5000 13000 33000 --shares 0.4 1 2 --write FILE.json
    python benchmarks/compress.py --write FILE.json --curve OUT.png              # of its rows
    python benchmarks/compress.py --write FILE.json --curve OUT.png --over-minutes

Without --sizes the bundle is asked to be a quarter of the SOG file and a sixth of the SPZ file,
whichever is smaller. Runs are compared with their photographs, files with their own renders.

With --rivals or --shares curves are measured: fewer splats, trained for as long as the run and its
compression take together, beside bundles of shares of the default size. See rivals.py. With
--label they are of a kind of their own, as for other --options.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import rivals
from quality import provenance
from rate_curves import write_picture


def main() -> None:
    arguments = parse()
    if arguments.rivals or arguments.shares or arguments.curve:
        return curves(arguments)
    rows = []
    for source in arguments.sources:
        sizes = file_sizes(source)
        for target in arguments.sizes or [default_mb(sizes)]:
            row = {"scene": name_of(source), **sizes, **compressed(source, target, arguments)}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if arguments.write:
                write(arguments.write, rows)
    print(table(rows))


def default_mb(sizes: dict) -> float:
    return min(sizes["sog_mb"] / 4, sizes["spz_mb"] / 6)


def curves(arguments: argparse.Namespace) -> None:
    """Rivals and bundles of each run, their table, what is saved, and the picture."""
    rows: list[dict] = []
    for source in arguments.sources:
        contest = rivals.contest(source, arguments.minutes, arguments.keep)
        default = default_mb(file_sizes(source)) if arguments.shares else 0.0
        targets = [share * default for share in arguments.shares]
        for row in itertools.chain(
            rivals.rival_rows(contest, arguments.rivals),
            rivals.bundle_rows(contest, targets, arguments.options, arguments.label),
        ):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if arguments.write:
                write_curves(arguments.write, rows)
    if arguments.write:
        rows = json.loads(arguments.write.read_text()).get("curves", rows)
    if arguments.over_minutes:
        write_picture(arguments.curve, rivals.over_minutes(rows), across_in="minutes")
        return print(rivals.table(rows))
    found = rivals.curves_of(rows)
    told = f"{rivals.table(rows)}\n\n{rivals.savings(found)}"
    if arguments.curve:
        for kinds in found.values():
            kinds.pop("ply", None)  # so large that the others would be in one corner
        write_picture(arguments.curve, found)
    print(told)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path, help="none: --curve of the rows there are")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--steps", type=int, help="train so many steps instead")
    parser.add_argument("--sizes", nargs="+", type=float, help="sizes in MB")
    parser.add_argument("--rivals", nargs="*", type=int, default=[], help="numbers of splats")
    parser.add_argument("--shares", nargs="*", type=float, default=[], help="of the default size")
    parser.add_argument("--curve", type=Path, help="picture of the curves, .png")
    parser.add_argument("--over-minutes", action="store_true", help="--curve of long trainings")
    parser.add_argument("--label", default="", help="what this try is, for the table")
    parser.add_argument("--write", type=Path, help="results.json to merge the rows into")
    parser.add_argument("--options", default="", help="further options of scene4d compress")
    parser.add_argument("--keep", type=Path, help="folder of files; of rivals trained there, too")
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
    merge(path, "results", rows, lambda r: (r["scene"], r["target_mb"], r["label"],
                                            r["train_s"] // 10))  # fmt: skip


def write_curves(path: Path, rows: list[dict]) -> None:
    """The same of curves."""
    merge(path, "curves", rows, lambda r: (r["scene"], r["kind"], r["asked"]))


def merge(path: Path, part: str, rows: list[dict], key: Callable[[dict], tuple]) -> None:
    old = json.loads(path.read_text()) if path.exists() else {"method": "lpgs", "results": []}
    new = {key(r): r for r in [*old.get(part, []), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**old, part: [new[k] for k in sorted(new)]}, indent=1) + "\n")


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
