"""``scene4d info``: what is in a run, a capture or a splat file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from scene4d.cli.parse import parse
from scene4d.cli.ply_summary import summarise_ply
from scene4d.errors import DataError, UsageError
from scene4d.files import is_regular_file

_SHOWN_IMAGES = 5
_HEADED = 5
"""Tables of so many columns get a head."""


@dataclass(frozen=True, kw_only=True)
class InfoArgs:
    """What is in a run folder, a capture, a splat file or a mesh, and how large its parts are."""

    path: tyro.conf.Positional[Path]
    """Run folder (or its config.toml), capture folder (or its transforms.json), .ply file, splat
    file of any format, or textured mesh (.glb)."""
    json: bool = False
    """Print JSON on stdout instead of text."""


def main(argv: list[str]) -> None:
    """Runs the verb."""
    args = parse(InfoArgs, argv, prog="scene4d info")
    summary = summarise(args.path)
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        print(text_of(summary))


def text_of(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    return run_text(summary) if summary["kind"] == "run" else as_text(summary)


def summarise(path: Path) -> dict[str, Any]:
    """Plain data about what ``path`` is; ``kind`` is run, capture, ply, splats, bundle or mesh."""
    if not path.exists():
        raise DataError("there is no such file or folder", where=path)
    if path.name == "config.toml" or (path / "config.toml").is_file():
        return summarise_run(path.parent if path.name == "config.toml" else path)
    from scene4d.formats.registry import format_by_content, is_splats
    from scene4d.formats.textured_gltf import holds_mesh

    told = format_by_content(path) if path.suffix.lower() not in (".json", ".toml") else None
    if path.suffix.lower() == ".ply" or (told and told.name in ("ply", "compressed-ply")):
        return _with_packed_attributes(summarise_ply(path), path)
    if not path.is_dir() and path.suffix.lower() == ".json" and path.name != "meta.json":
        return summarise_capture(path)
    if holds_mesh(path):
        return summarise_mesh(path)
    if is_splats(path):
        return summarise_field(path) or summarise_splats(path)
    if path.is_dir():
        from scene4d.training.run import newest_run

        newest = newest_run(path)
        return summarise_capture(path) if newest is None else summarise_run(newest)
    raise UsageError(
        "is neither a run folder, a capture nor a splat file",
        where=path,
        fix="give one of these; docs/formats.md lists the formats",
    )


def _with_packed_attributes(summary: dict[str, Any], path: Path) -> dict[str, Any]:
    """A compressed PLY's bytes by what they hold instead of by property."""
    if not summary["content"].endswith("compressed"):
        return summary
    from scene4d.formats.compressed_ply import sizes_compressed_ply
    from scene4d.formats.packing import bytes_table

    return {
        **summary,
        "attributes": bytes_table(sizes_compressed_ply(path), summary["num_gaussians"]),
    }


def summarise_splats(path: Path) -> dict[str, Any]:
    """Counts, spherical-harmonics degree, bytes per attribute and ranges of a splat file."""
    from scene4d.formats.packing import bytes_table, opacity_of
    from scene4d.formats.registry import attribute_sizes, file_bytes, format_of, read_splats

    # what nothing can draw is counted in the log
    form, cloud = format_of(path), read_splats(path, drop_invalid=True)
    size = file_bytes(path)
    summary: dict[str, Any] = {
        "kind": "splats",
        "path": str(path.resolve()),
        "content": f"Gaussian splats, {form.description}",
        "format": form.name,
        "axes": f"those of a 3DGS PLY; in the file {form.axes}",
        "bytes": size,
        "num_gaussians": len(cloud),
        "sh_degree": cloud.sh_degree,
        "bytes_per_gaussian": round(size / max(len(cloud), 1), 2),
        "antialiased": cloud.antialiased,
    }
    if len(cloud):
        summary["bounding_box"] = [cloud.means.min(0).tolist(), cloud.means.max(0).tolist()]
        opacities = opacity_of(cloud.logit_opacities)
        summary["opacities"] = [float(opacities.min()), float(opacities.max())]
        scales = [float(cloud.log_scales.min()), float(cloud.log_scales.max())]
        summary["log_scales"] = scales
    if form.name == "s4d":
        summary |= summarise_bundle(path)
    elif sizes := attribute_sizes(path):
        summary["attributes"] = bytes_table(sizes, len(cloud))
    return summary


def summarise_mesh(path: Path) -> dict[str, Any]:
    """Counts, texture, extensions and the box of a textured mesh in a GLB."""
    from scene4d.formats.gltf import glb_chunks
    from scene4d.formats.packing import read_bytes
    from scene4d.formats.textured_gltf import read_textured_mesh

    mesh, data = read_textured_mesh(path), read_bytes(path)
    document, _ = glb_chunks(data, path)
    rows, columns = mesh.texture.shape[:2]
    return {
        "kind": "mesh",
        "path": str(path.resolve()),
        "content": "a textured mesh, glTF",
        "axes": "y up, as in the file",
        "bytes": len(data),
        "triangles": len(mesh.triangles),
        "vertices": len(mesh.vertices),
        "texture": f"{columns} x {rows}",
        "extensions": ", ".join(document.get("extensionsUsed", [])) or None,
        "bounding_box": [mesh.vertices.min(0).tolist(), mesh.vertices.max(0).tolist()],
    }


def summarise_field(path: Path) -> dict[str, Any] | None:
    """A bundle that is not made of splats; None for what is."""
    from scene4d.bundle.container import open_bundle
    from scene4d.bundle.kinds import kind_of
    from scene4d.formats.registry import format_by_content

    form = format_by_content(path)
    if form is None or form.name != "s4d":
        return None
    bundle = open_bundle(path)
    kind = kind_of(bundle)
    if kind.made_of_splats:
        return None
    return {
        "kind": "bundle",
        "path": str(path.resolve()),
        "content": kind.describe(bundle.manifest),
        "bytes": bundle.size,
        **summarise_bundle(path),
    }


def summarise_bundle(path: Path) -> dict[str, Any]:
    """A bundle's kind, parts, and what each attribute takes and lost; errors in its own unit."""
    from scene4d.bundle.container import open_bundle
    from scene4d.bundle.kinds import kind_of
    from scene4d.bundle.sizes import attribute_sizes, part_sizes
    from scene4d.formats.packing import bytes_table

    bundle = open_bundle(path)
    manifest = bundle.manifest
    count = manifest["count"]
    sizes = attribute_sizes(bundle)
    rows = bytes_table({size.name: size.bytes for size in sizes}, count)
    errors = [
        {"half_step": s.half_step, "max_error": s.max_error, "rms_error": s.rms_error}
        for s in sizes
    ]
    parts = bytes_table(part_sizes(bundle), count)
    for row in (*parts, *rows):
        if not count:
            del row["bytes_each"]
    return {
        "bundle_kind": manifest["kind"],
        "generator": manifest["generator"],
        **kind_of(bundle).summary(bundle),
        "cameras": len(manifest["cameras"]),
        "antialiased": manifest["antialiased"],
        "parts": parts,
        "attributes": [row | error for row, error in zip(rows, errors, strict=True)],
    }


def summarise_run(run: Path) -> dict[str, Any]:
    """A run's method, progress, tensors, checkpoints and last evaluation."""
    from scene4d.toml_files import read_toml

    config = read_toml(run / "config.toml")
    data = config.get("data") or None
    checkpoints = sorted((run / "checkpoints").glob("step-*.safetensors"))
    headers = [(path, _safetensors_header(path)) for path in checkpoints]
    readable = [(path, header) for path, header in headers if header is not None]
    summary: dict[str, Any] = {
        "kind": "run",
        "path": str(run.resolve()),
        "method": config.get("method"),
        "data": _capture_of(data),
        "checkpoints": [
            {"path": path.name, "bytes": path.lstat().st_size, "readable": header is not None}
            for path, header in headers
        ],
        "evaluation": _evaluation(run),
    }
    if readable:
        summary.update(_checkpoint_contents(readable[-1][1]))
    return summary


def _capture_of(data: object) -> str | None:
    """Where a run's capture lies, or which sample scene it is, by ``data`` of config.toml."""
    if not isinstance(data, dict):
        return "the built-in sample scene"
    sample = data.get("sample")
    return data.get("path") if sample is None else f"the built-in sample scene {sample}"


def _checkpoint_contents(header: Mapping[str, Any]) -> dict[str, Any]:
    """Step, time and the representation's tensors from the newest checkpoint's header. Raises
    ValueError where these are no numbers."""
    plain = json.loads(header.get("__metadata__", {}).get("scene4d", "{}"))
    progress = [plain[name] for name in ("step", "elapsed_s") if plain.get(name) is not None]
    sizes = [n for name, e in header.items() if name.startswith("representation/")
             for n in (*e["shape"], *e["data_offsets"])]  # fmt: skip
    if not all(type(x) in (int, float) and abs(x) < _MOST_PROGRESS for x in progress) or not all(
        type(n) is int and n >= 0 for n in sizes
    ):
        raise ValueError("step, time, shapes and offsets are to be numbers")
    prefix = "representation/"
    tensors = [
        {
            "name": name[len(prefix) :],
            "shape": entry["shape"],
            "dtype": entry["dtype"],
            "bytes": entry["data_offsets"][1] - entry["data_offsets"][0],
        }
        for name, entry in header.items()
        if name.startswith(prefix)
    ]
    gaussians = [t["shape"][0] for t in tensors if t["name"] == "gaussians.means"]
    contents: dict[str, Any] = {
        "steps": plain.get("step"),
        "seconds": plain.get("elapsed_s"),
        "tensors": sorted(tensors, key=lambda t: -t["bytes"]),
        "bytes": sum(t["bytes"] for t in tensors),
    }
    if gaussians:
        contents["num_gaussians"] = gaussians[0]
    return contents


_MOST_PROGRESS = 1e15
"""Steps and seconds; NaN is not below it."""


def _safetensors_header(path: Path) -> dict[str, Any] | None:
    """The file's header, or None when the file is damaged or cut off."""
    if not is_regular_file(path):
        return None
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, _MOST_HEADER):
            return None
        try:
            header = json.loads(file.read(length))
            ends = [e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"]
            _checkpoint_contents(header)
            whole = 8 + length + max(ends, default=0) == size
        except Exception:  # whatever a damaged header makes of itself: it is damaged
            return None
    return header if whole else None


_MOST_HEADER = 100_000_000
"""Bytes, as safetensors has it."""


def _evaluation(run: Path) -> dict[str, Any] | None:
    """The figures of eval.json, without those of every image."""
    from scene4d.files import read_json

    path = run / "eval.json"
    if not path.is_file():
        return None
    value = read_json(path)
    results = value.get("results", {}) if isinstance(value, dict) else None
    if not isinstance(results, dict):
        raise DataError("is not an object, or its results are not", where=path)
    return {k: v for k, v in value.items() if isinstance(v, (int, float, str, dict))}


def summarise_capture(path: Path) -> dict[str, Any]:
    """A capture's images, sizes, split and points. Reads the images' headers only."""
    from collections import Counter

    from scene4d.data.camera_rate import angular_rate
    from scene4d.data.load import read_scene
    from scene4d.data.trajectories import trajectories

    scene = read_scene(path)
    cameras = [frame.camera for frame in scene.frames]
    sizes = Counter(f"{camera.width}x{camera.height}" for camera in cameras)
    lenses = Counter(c.distortion.model if c.distortion else "none" for c in cameras)
    times = [float(camera.time) for camera in cameras if camera.time is not None]
    return {
        "kind": "capture",
        "path": str(path.resolve()),
        "dataparser": scene.dataparser,
        "images": len(scene.frames),
        "sizes": dict(sizes.most_common()),
        "distortion": dict(lenses.most_common()),
        "train": len(scene.train_indices),
        "test": len(scene.test_indices),
        "split_rule": scene.split_rule,
        "test_images": [scene.frames[i].name for i in scene.test_indices],
        "masks": sum(frame.mask_path is not None for frame in scene.frames),
        "depth_maps": sum(frame.depth_path is not None for frame in scene.frames),
        "times": [min(times), max(times)] if times else None,
        "different_times": len(set(times)) or None,
        "times_were": scene.metadata.get("times"),
        "moving_or_fixed_cameras": len(trajectories(scene)) or None,
        "omega_deg_per_s": angular_rate(scene) if len(set(times)) > 1 else None,
        "points": 0 if scene.points is None else len(scene.points.xyz),
        "camera_extent": scene.extent,
    }


def run_text(summary: Mapping[str, Any]) -> str:
    """A run in a few lines; what its checkpoints hold tensor by tensor is in the JSON."""
    trained = [str(summary["method"])]
    if summary.get("steps") is not None:
        took = "" if summary["seconds"] is None else f" in {summary['seconds']:,.0f} s"
        trained.append(f"{summary['steps']:,} steps{took}")
    if "num_gaussians" in summary:
        trained.append(f"{summary['num_gaussians']:,} Gaussians")
    lines = [f"run: {summary['path']}", f"method: {', '.join(trained)}", f"data: {summary['data']}"]
    checkpoints = summary["checkpoints"]
    if checkpoints:
        whole = size_text(float(sum(c["bytes"] for c in checkpoints)))
        scene = (
            f", of which the scene {size_text(float(summary['bytes']))}"
            if "bytes" in summary
            else ""
        )
        lines.append(f"checkpoints: {len(checkpoints)}, {whole}{scene}")
    damaged = [c["path"] for c in checkpoints if not c["readable"]]
    lines += [f"damaged: {', '.join(damaged)}"] if damaged else []
    evaluation = summary["evaluation"] or {}
    scores = {**evaluation, **evaluation.get("results", {})}
    shown = ", ".join(
        f"{k}: {_short(k, v)}" for k, v in scores.items() if isinstance(v, float | int)
    )
    lines.append(f"held-out pictures: {shown}" if shown else "held-out pictures: not evaluated")
    return "\n".join([*lines, "(--json: every tensor and checkpoint)"])


def as_text(summary: Mapping[str, Any]) -> str:
    """The summary for people: one fact a line, then tensors and the like as tables."""
    lines, tables = [], []
    for name, value in summary.items():
        label = name.replace("_", " ")
        if value is None:
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"{label}:", *_table(value)]
        elif name == "test_images":
            more = f" and {len(value) - _SHOWN_IMAGES} more" if len(value) > _SHOWN_IMAGES else ""
            lines.append(f"{label}: {', '.join(value[:_SHOWN_IMAGES])}{more}")
        elif isinstance(value, dict):
            lines.append(f"{label}: " + ", ".join(f"{k}: {_short(k, v)}" for k, v in value.items()))
        else:
            lines.append(f"{label}: {_short(name, value)}")
    return "\n".join([*lines, *tables])


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows with aligned columns; with a head where their number needs one."""
    cells = [[_short(name, value) for name, value in row.items()] for row in rows]
    if len(rows[0]) >= _HEADED:
        cells.insert(0, [name.replace("_", " ") for name in rows[0]])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _short(name: str, value: Any) -> str:
    """One value as text."""
    if value is None:
        return "-"
    if name == "readable":
        return "" if value else "damaged"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and "bytes" in name:
        return size_text(float(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return "[" + ", ".join(_short("", v) for v in value) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(k, v)}" for k, v in value.items())
    return str(value)


def size_text(count: float) -> str:
    """Bytes in a fitting decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.4g} {unit}"
