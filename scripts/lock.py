"""Writes constraints.txt: one tested version of every package that `make` installs, and
constraints-hashes.txt: the same with the hashes of their files.

Run: make lock (it installs uv, whose resolver covers Python 3.10 and newer, and every platform,
in one file). The file constrains and adds nothing: packages that torch alone chooses (CUDA
libraries, triton) are left out, because each build of torch brings its own.

The hashes are a file of their own, because hashes among constraints make pip demand one of
everything, of the checkout itself and of a local build of torch, too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"
OWNED_BY_TORCH = re.compile(r"(nvidia|cuda)-|triton==")
HEADER = """\
# Made by `make lock`; do not edit. Used as `pip install -c constraints.txt`.
# {torch} also admits its CPU build (2.13.0+cpu), which pip takes where one is configured
# (PIP_FIND_LINKS). CUDA libraries and triton are left to the build of torch that is installed.
"""


HASHES_HEADER = """\
# Made by `make lock`; do not edit. The pins of constraints.txt with the SHA-256 of their files;
# torch is left to pip, as local builds of it have other hashes. Before pip's `-c constraints.txt`:
#   pip install --no-deps --require-hashes -r constraints-hashes.txt
"""


def resolve(extras: list[str], *more: str) -> list[str]:
    """Every pinned requirement, with environment markers where versions differ."""
    with tempfile.TemporaryDirectory() as folder:
        pin = Path(folder) / "torch.txt"
        pin.write_text(TORCH + "\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
        command += ["--universal", "--python-version", "3.10", "--constraint", str(pin)]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
        command += [*more, *(word for extra in extras for word in ("--extra", extra))]
        result = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout.splitlines()


def main() -> None:
    """Resolves, filters and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", required=True, help="comma-separated extras of pyproject.toml")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    pins = [line for line in resolve(args.extras.split(",")) if not OWNED_BY_TORCH.match(line)]
    args.output.write_text(HEADER.format(torch=TORCH) + "\n".join(pins) + "\n")
    print(f"{args.output}: {len(pins)} pins", file=sys.stderr)
    lines = resolve(args.extras.split(","), "--generate-hashes", "--constraint", str(args.output))
    hashed = with_hashes(lines)
    target = args.output.with_name(f"{args.output.stem}-hashes.txt")
    target.write_text(HASHES_HEADER + "\n".join(hashed) + "\n")
    print(f"{target}: {len(hashed)} pins", file=sys.stderr)


def with_hashes(lines: list[str]) -> list[str]:
    """Pins of uv with the hashes of their files, each on its lines, without torch and its own."""
    entries = "\n".join(lines).replace("\\\n", "\0").splitlines()
    kept = [e for e in entries if not OWNED_BY_TORCH.match(e) and not e.startswith("torch==")]
    return [e.replace("\0", "\\\n") for e in kept]


if __name__ == "__main__":
    main()
