"""``scene4d export``: a trained scene as a file that other tools open."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.exporters.options import (
    BundleOptions,
    GlbOptions,
    MeshOptions,
    PlayerOptions,
    SequenceOptions,
    StraightOptions,
)
from scene4d.files import check_writable
from scene4d.formats.placing import FrameChoice
from scene4d.ranges import Within

GROUP = "scene4d.export_formats"
"""Entry points of what families bring, such as models for other runtimes."""
FORMATS: dict[str, str] = {
    "ply": "scene4d.exporters.textured_mesh:export_ply",
    "mesh": "scene4d.exporters.textured_mesh:export_mesh",
    "obj": "scene4d.exporters.textured_mesh:export_obj",
    "usdz": "scene4d.exporters.textured_mesh:export_usdz",
    "compressed-ply": "scene4d.exporters.splats:export_compressed_ply",
    "splat": "scene4d.exporters.splats:export_splat",
    "spz": "scene4d.exporters.splats:export_spz",
    "sog": "scene4d.exporters.splats:export_sog",
    "glb": "scene4d.exporters.textured_mesh:export_glb",
    "ply-sequence": "scene4d.exporters.sequence:export",
    "4dgs": "scene4d.exporters.moving_files:export_4dgs",
    "splatv": "scene4d.exporters.moving_files:export_splatv",
    "bundle": "scene4d.exporters.bundle:export",
    "player": "scene4d.exporters.player:export",
    **{entry.name: entry.value for entry in entry_points(group=GROUP)},
}
"""Format -> module:function, called with (OpenedScene, output path, options). The options are the
field of :class:`ExportArgs` that is named like the format or by ``_OPTIONS``, None where there is
no such field."""

if TYPE_CHECKING:
    from scene4d.training.opened import OpenedScene

    FormatName = str
else:
    FormatName = Literal[tuple(FORMATS)]

_MOVING = {"ply-sequence", "4dgs", "splatv"}
"""Formats of what moves, beside our own."""
_FRAMED = {"ply", "mesh", "obj", "usdz", "compressed-ply", "splat", "spz", "sog", "glb", *_MOVING}
"""Formats whose coordinates can be chosen; a bundle keeps the way back in its manifest."""
_OPTIONS = {"ply-sequence": "sequence", "4dgs": "straight"}
"""Fields of :class:`ExportArgs` that hold the options of formats of other names."""
_RENDERED = {"mesh", "obj"}
"""Formats that are made from renders; the others only read parameters."""


@dataclass(frozen=True, kw_only=True)
class ExportArgs:
    """Writes a trained scene, in the coordinates of its input, as a file for other tools."""

    source: tyro.conf.Positional[Path]
    """Run folder or its config.toml, splat file of any format, bundle, or textured mesh (.glb)."""
    format: tyro.conf.Positional[FormatName]
    """ply: Gaussian splats as the 3DGS reference writes them; mesh: triangles from rendered depth
    (.glb, .ply or .obj by the suffix); of a trained mesh, glb, obj, ply and usdz are its triangles
    with their texture; ply-sequence: a folder with a ply for each picture of a
    scene that moves; 4dgs and splatv: a scene that moves, for other players; bundle: .s4d for the
    player; player: a folder with the web player and the scene, for any static host, docs/phone.md;
    onnx, coreml (.mlpackage), litert (.tflite), executorch (.pte): a light field as models for
    other runtimes; the others: splats for other programs, docs/formats.md."""
    output_path: Path
    """File to write, for player a folder; an earlier one is replaced once the new one is
    complete."""
    drop_invalid: bool = False
    """Leave out splats whose values are not finite or whose rotation is 0; says how many."""
    frame: FrameChoice = "auto"
    """Coordinates of splat files and meshes. source: the input's own coordinates; local: its axes
    and unit, moved to the origin, with the offset in FILE.frame.json; auto: source wherever the
    format holds it (float32 does not, far from the origin), otherwise local."""
    crop: Literal["none", "auto"] = "none"
    """Splats left out of splat files of a run. auto: the far ones that the training pictures hardly
    show, beyond 99.9% of what makes them up."""
    at_time: Annotated[float, Within(-1e9, 1e9)] | None = None
    """Moment of a scene that moves, in seconds, at which its splats are written, standing still;
    by default the first, and in a bundle or player all of its motion."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where renders for a mesh are made."""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = field(default_factory=MeshOptions)
    glb: Annotated[GlbOptions, tyro.conf.arg(name="")] = field(default_factory=GlbOptions)
    bundle: Annotated[BundleOptions, tyro.conf.arg(name="")] = field(default_factory=BundleOptions)
    player: Annotated[PlayerOptions, tyro.conf.arg(name="")] = field(default_factory=PlayerOptions)
    sequence: Annotated[SequenceOptions, tyro.conf.arg(name="")] = field(
        default_factory=SequenceOptions
    )
    straight: Annotated[StraightOptions, tyro.conf.arg(name="")] = field(
        default_factory=StraightOptions
    )


def main(argv: list[str]) -> None:
    """Runs the verb: what was written on stderr, its path on stdout."""
    args = parse(ExportArgs, argv, prog="scene4d export")
    for name, defaults in (
        ("mesh", MeshOptions()), ("glb", GlbOptions()), ("bundle", BundleOptions()),
        ("player", PlayerOptions()), ("sequence", SequenceOptions()),
        ("straight", StraightOptions()),
    ):  # fmt: skip
        of_format = _OPTIONS.get(args.format, args.format)
        used = name == of_format or (name, args.format) == ("bundle", "player")
        if not used and getattr(args, name) != defaults:
            print(f"warning: the options for {name} are ignored by {args.format}", file=sys.stderr)
    more: dict[str, Any] = {}
    if args.format == "player":
        more = {"target_mb": args.bundle.target_mb}
    elif args.format in _FRAMED:
        more = {"frame": args.frame}
    elif args.frame != "auto":
        print(f"warning: --frame is not used by {args.format}", file=sys.stderr)
    module, _, function = FORMATS[args.format].partition(":")
    export = getattr(importlib.import_module(module), function)
    folders = {"player": not args.player.single_file, "coreml": True, "ply-sequence": True}
    sog = args.format == "sog" and args.output_path.name == "meta.json"
    target = args.output_path.parent if sog else args.output_path
    check_writable(target, folder=sog or folders.get(args.format, False))
    from scene4d.training.open_scene import open_scene

    source = open_scene(
        args.source,
        device=args.device if args.format in _RENDERED else "cpu",
        drop_invalid=args.drop_invalid,
    )
    source = _at_a_time(source, args)
    if args.crop == "auto":
        if args.format not in _FRAMED - _RENDERED - _MOVING:
            raise UsageError(f"--crop is not for {args.format}", fix="leave it out")
        from scene4d.exporters.crop import auto_cropped

        source = auto_cropped(source)
    options = getattr(args, _OPTIONS.get(args.format, args.format), None)
    described = export(source, args.output_path, options, **more)
    print(described, file=sys.stderr)
    if args.format == "bundle":
        from scene4d.exporters.bundle_loss import loss_of

        loss = loss_of(source, args.output_path)
        print("" if loss is None else loss.line(), file=sys.stderr)
    print(args.output_path)


def _at_a_time(source: OpenedScene, args: ExportArgs) -> OpenedScene:
    """As it stands at --at-time, where a file has no time: at the first, which is said. Bundles
    move, unless a time is asked for."""
    times = source.representation.times
    still = args.format in _FRAMED - _MOVING
    if args.at_time is not None:
        if not still and args.format not in ("bundle", "player"):
            raise UsageError(f"--at-time is not for {args.format}", fix="leave it out")
        return source.at_time(args.at_time)
    if times is None or not still:
        return source
    print(
        f"note: it moves from {times[0]:g} to {times[1]:g} s; this is {times[0]:g} s, --at-time"
        " chooses another, ply-sequence writes them all, and 4dgs, splatv and a bundle move",
        file=sys.stderr,
    )
    return source.at_time(times[0])
