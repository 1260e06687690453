"""``scene4d batch``: many scenes on this machine's cores, or on a Ray cluster."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from scene4d.cli.parse import parse
from scene4d.pipeline.batch_options import BatchOptions
from scene4d.pipeline.options import MakeOptions


@dataclass(frozen=True, kw_only=True)
class BatchArgs:
    """Makes many scenes, each as 'scene4d make' does, with Ray (extra cluster): on this machine, or
    on a cluster.

    A scene that fails stops no other. The same command again does what is missing: after a crash, a
    lost node, or with more scenes.
    """

    scenes: tyro.conf.Positional[Path]
    """A folder whose entries are inputs; or a .csv (with a header) or .jsonl file with a row for
    each scene: its input, perhaps a name, and options of 'scene4d make'."""
    output_dir: str
    """Folder for a scene each and index.html; a path that all nodes see, or a URL that fsspec
    knows, such as s3://bucket/scenes."""
    how: Annotated[MakeOptions, tyro.conf.arg(name="")] = field(default_factory=MakeOptions)
    work: Annotated[BatchOptions, tyro.conf.arg(name="")] = field(default_factory=BatchOptions)


def main(argv: list[str]) -> None:
    """Runs the verb: progress on stderr, the gallery's place on stdout."""
    args = parse(BatchArgs, argv, prog="scene4d batch")
    from scene4d.pipeline.batch import check_all, make_batch, marker_in
    from scene4d.pipeline.batch_watch import TerminalBatchWatch
    from scene4d.pipeline.scenes import read_scenes
    from scene4d.pipeline.store import Store

    store = Store(args.output_dir)
    scenes, left = read_scenes(
        args.scenes, args.how, skip=store.folder, marker_of=lambda name: marker_in(store, name)
    )
    for line in left:
        print(f"left out: {line}", file=sys.stderr)
    states = make_batch(scenes, store, args.work, watch=TerminalBatchWatch())
    page = f"{args.output_dir.rstrip('/')}/index.html"
    check_all(states, page)
    if not any(state.new for state in states):
        print("nothing was to be done: everything is there already", file=sys.stderr)
    print(page)
