"""``scene4d validate``: is a bundle sound, down to its last code?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ValidateArgs:
    """Checks a .s4d bundle (file or unpacked folder): layout, hashes, manifest, every stream."""

    path: tyro.conf.Positional[Path]
    """The bundle."""


def main(argv: list[str]) -> None:
    """Runs the verb; prints every fault and fails, or prints one line."""
    args = parse(ValidateArgs, argv, prog="scene4d validate")
    from scene4d.bundle.checks import bundle_faults, describe

    faults = bundle_faults(args.path)
    for fault in faults:
        print(fault)
    if faults:
        more = f"{len(faults)} faults" if len(faults) > 1 else "1 fault"
        raise DataError(f"is not a sound bundle: {more}", where=args.path)
    print(describe(args.path))
