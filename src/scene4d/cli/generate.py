"""``scene4d generate``: a text becomes a scene, by a generator that was trained."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scene4d.cli.export import FORMATS
from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.exporters.options import GlbOptions
from scene4d.files import check_writable, printable, read_text
from scene4d.ranges import Within

if TYPE_CHECKING:
    from scene4d.training.run import LoadedRun

_FORMATS = {
    ".glb": "glb", ".obj": "obj", ".ply": "ply", ".usdz": "usdz", ".s4d": "bundle",
    ".spz": "spz", ".sog": "sog", ".splat": "splat",
}  # fmt: skip
"""What a suffix asks for, as ``scene4d export`` names it."""
_LONGEST_FILE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class GenerateArgs:
    """Makes scenes of texts, by a run of a method that takes them (text-mesh)."""

    run: tyro.conf.Positional[Path]
    """Run folder or its config.toml."""
    prompt: Annotated[tyro.conf.Positional[str], tyro.conf.arg(name="prompt")] = ""
    """Text, such as "a red armchair"; left out with --prompts."""
    output_path: Path
    """File to write, whose suffix says the format: .glb, .obj, .ply or .usdz of a mesh, .s4d for
    the player. With several texts, a folder."""
    prompts: Path | None = None
    """Text file with one text a line, in place of a prompt."""
    between: str = ""
    """Second text: scenes on the way from the prompt to it are written, into a folder."""
    count: Annotated[int, Within(2, 1000)] = 5
    """Scenes on the way of --between, both ends included."""
    suffix: Literal[".glb", ".obj", ".ply", ".usdz", ".s4d"] = ".glb"
    """Format of the files in a folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs."""
    glb: Annotated[GlbOptions, tyro.conf.arg(name="")] = field(default_factory=GlbOptions)


def main(argv: list[str]) -> None:
    """Runs the verb: what was written on stderr, paths on stdout."""
    args = parse(GenerateArgs, argv, prog="scene4d generate")
    texts = _texts(args)
    if not _several(args) and args.output_path.suffix.lower() not in _FORMATS:
        raise UsageError(
            "the suffix names no format", where=args.output_path,
            fix=f"end it with one of {', '.join(_FORMATS)}",
        )  # fmt: skip
    check_writable(args.output_path / "file" if _several(args) else args.output_path)
    from scene4d.training.device import choose_device
    from scene4d.training.run import load_run

    run = load_run(args.run, device=str(choose_device(args.device)))
    if run.generator is None:
        raise UsageError("holds one scene, and makes none of texts", where=run.path,
                         fix="scene4d export writes it")  # fmt: skip
    for place, text, made in _scenes(args, run, texts):
        print(f"{printable(text)}: {made}", file=sys.stderr)
        print(place)


def _several(args: GenerateArgs) -> bool:
    """Whether a folder of scenes is written."""
    return args.prompts is not None or bool(args.between)


def _texts(args: GenerateArgs) -> Sequence[str]:
    if (args.prompts is None) == (not args.prompt):
        raise UsageError("gives " + ("no text" if not args.prompt else "texts in two ways"),
                         fix="give a prompt, or a file of them with --prompts")  # fmt: skip
    if args.prompts is None:
        return [args.prompt]
    if args.between:
        raise UsageError("--between goes from one prompt to another, and not with --prompts")
    lines = read_text(args.prompts, most_bytes=_LONGEST_FILE).splitlines()
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise UsageError("has no line with a text", where=args.prompts)
    return texts


def _scenes(
    args: GenerateArgs, run: LoadedRun, texts: Sequence[str]
) -> Iterator[tuple[Path, str, str]]:
    """Where each scene was written, its text, and what was written. All texts are read before
    anything is."""
    import torch

    assert run.generator is not None
    with torch.no_grad():
        codes = [run.generator.code(text) for text in texts]
        if args.between:
            there = run.generator.code(args.between)
            shares = [n / (args.count - 1) for n in range(args.count)]
            steps = [torch.lerp(codes[0], there, share) for share in shares]
            names = [f"{texts[0]} to {args.between}, {100 * share:.0f}%" for share in shares]
        else:
            steps, names = codes, list(texts)
        for number, (code, name) in enumerate(zip(steps, names, strict=True)):
            place = args.output_path
            if _several(args):
                place = place / f"{number:03d}_{_file_name(name)}{args.suffix}"
            scene = replace(run, representation=run.generator.decoded(code), condition=name)
            yield place, name, _written(scene, place, args)


def _written(scene: LoadedRun, place: Path, args: GenerateArgs) -> str:
    kind = _FORMATS[place.suffix.lower()]
    module, _, function = FORMATS[kind].partition(":")
    export = getattr(importlib.import_module(module), function)
    return str(export(scene, place, args.glb if kind == "glb" else None))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:60] or "scene"
