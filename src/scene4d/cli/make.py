"""``scene4d make``: photographs, a video, a capture, splats or a run become a scene on a phone."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.pipeline.options import MakeOptions

if TYPE_CHECKING:
    from scene4d.pipeline.make import Made


@dataclass(frozen=True, kw_only=True)
class MakeArgs:
    """Makes a scene from whatever you have: finds the camera poses, trains, compresses, and writes
    a bundle, the web player with it, and a page about it all.

    Every step is a folder in OUT that is used again: the same command after a crash, or with other
    options, does what is missing.
    """

    source: tyro.conf.Positional[Path]
    """Folder of photographs, video, capture with poses or depth, splat file, bundle, or run."""
    out: tyro.conf.Positional[Path | None] = None
    """Folder to write; by default outputs/make/NAME."""
    phone: bool = False
    """At the end, serve the scene in the local network and print a QR code."""
    open: bool = False
    """At the end, open the scene in this machine's browser."""
    how: Annotated[MakeOptions, tyro.conf.arg(name="")] = field(default_factory=MakeOptions)

    def __post_init__(self) -> None:
        if self.phone and self.open:
            raise UsageError("--phone and --open exclude each other", fix="choose one of them")


def main(argv: list[str]) -> None:
    """Runs the verb: progress on stderr; the bundle's path on stdout, or an address."""
    args = parse(MakeArgs, argv, prog="scene4d make")
    from scene4d.pipeline.make import default_out, make_scene
    from scene4d.pipeline.watch import TerminalWatch

    out = args.out or default_out(args.source)
    with TerminalWatch() as watch:
        made = make_scene(args.source, out, args.how, watch=watch)
    print(summary(made), file=sys.stderr)
    if args.phone or args.open:
        from scene4d.cli import view

        view.main([str(made.bundle), *(["--phone"] if args.phone else [])])
    else:
        print(made.bundle)


def summary(made: Made) -> str:
    """What there is, in some lines, and the next command."""
    from scene4d.pipeline.report import caveats, figures

    shown = [f"{name} {value}" for name, value in figures(made.done) if value]
    nothing = "" if made.new else "nothing was to be done: everything is there already\n"
    commands = "\n".join(f"  {command}" for command in made.commands)
    told = "".join(f"{line}\n" for line in caveats(made.done))
    return f"{nothing}{told}{', '.join(shown)}\nreport: {made.report}\nnext:\n{commands}"
