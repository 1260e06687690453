"""``scene4d convert``: a splat file as one of another format."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.exporters.edit import EditOptions
from scene4d.files import check_writable
from scene4d.formats.placing import FrameChoice


@dataclass(frozen=True, kw_only=True)
class ConvertArgs:
    """Converts between splat formats: .ply, .compressed.ply, .splat, .spz, .sog (or a folder with
    meta.json), .glb. The scene keeps its place: where a format's specification has other axes
    (.spz, .glb), they are turned on the way in and back on the way out, and a line says so."""

    source: tyro.conf.Positional[Path]
    """Splat file; its first bytes say which format it has."""
    output_path: tyro.conf.Positional[Path]
    """File to write; its suffix says which format it gets. For SOG also a folder's meta.json."""
    drop_invalid: bool = False
    """Leave out splats whose values are not finite or whose rotation is 0; says how many."""
    frame: FrameChoice = "auto"
    """source: the coordinates of what was read; local: moved to the origin, with the offset in
    FILE.frame.json; auto: source wherever the format holds it (float32 does not, far from the
    origin), otherwise local."""
    edit: Annotated[EditOptions, tyro.conf.arg(name="")] = field(default_factory=EditOptions)


def main(argv: list[str]) -> None:
    """Runs the verb: what was read and written on stderr, the path on stdout."""
    args = parse(ConvertArgs, argv, prog="scene4d convert")
    from scene4d.bundle.ply_cameras import seen_from
    from scene4d.exporters.edit import edited
    from scene4d.formats.registry import (
        describe_written,
        format_by_suffix,
        format_of,
        read_splats,
        write_splats,
    )
    from scene4d.formats.textured_gltf import holds_mesh

    if (args.source / "config.toml").is_file():
        raise UsageError(
            "is a run, not a splat file",
            where=args.source,
            fix=f"scene4d export {args.source} FORMAT --output-path {args.output_path}",
        )
    if holds_mesh(args.source):
        raise UsageError(
            "is a textured mesh, not splats",
            where=args.source,
            fix=f"scene4d export {args.source} FORMAT --output-path {args.output_path}",
        )
    read_as, write_as = format_of(args.source), format_by_suffix(args.output_path)
    if write_as is None:
        raise UsageError(
            "the suffix names no splat format",
            where=args.output_path,
            fix="end it with .ply, .compressed.ply, .splat, .spz, .sog or .glb",
        )
    sog = args.output_path.name == "meta.json"
    check_writable(args.output_path.parent if sog else args.output_path, folder=sog)
    cloud = read_splats(args.source, drop_invalid=args.drop_invalid)
    turned = "" if read_as.axes == "as they are" else f"; axes on reading undone: {read_as.axes}"
    print(f"read {len(cloud):,} Gaussians as {read_as.name}{turned}", file=sys.stderr)
    if read_as.name == "s4d":
        _say_if_it_moves(args.source)
    cloud = edited(cloud, args.edit)
    more: dict[str, Any] = {}
    if not cloud.far and args.frame != "local" and args.edit == EditOptions():
        more = seen_from(args.source, read_as.name, write_as.name, cloud)
    write_splats(args.output_path, cloud, frame=args.frame, **more)
    told = describe_written(args.output_path, cloud, write_as)
    print(f"wrote {write_as.name}: {told}", file=sys.stderr)
    print(args.output_path)


def _say_if_it_moves(source: Path) -> None:
    """A line where a bundle moves and what is written of it does not."""
    from scene4d.bundle.container import open_bundle
    from scene4d.bundle.kinds import kind_of

    bundle = open_bundle(source)
    if (motion := kind_of(bundle).motion_line(bundle.manifest)) is not None:
        print(
            f"note: {motion}; this is its first moment (scene4d export {source} ply --at-time"
            " chooses another, ply-sequence writes them all)",
            file=sys.stderr,
        )
