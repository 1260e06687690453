"""The commands that the Markdown files print, collected and spelled out."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "methods").glob("*/README.md"))]  # fmt: skip

_PROGRAMS = "scene4d|python|make|pip|node|npm|npx"
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{_PROGRAMS}) \S")
_INLINE = re.compile(rf"`((?:[A-Z_]+=\S+ )*(?:{_PROGRAMS})\s[^`]+)`")
_FENCE = re.compile(r"^```(\S*).*?^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command as a file prints it."""

    text: str
    where: str


def documented_commands() -> list[Command]:
    """Each command once."""
    found = {}
    for path in FILES:
        for text in commands_in(path.read_text(encoding="utf-8")):
            found.setdefault(text, Command(text, path.relative_to(ROOT).as_posix()))
    return list(found.values())


def commands_in(markdown: str) -> Iterator[str]:
    """Those of indented and fenced blocks, and those between backquotes that say what to call it
    with: `scene4d compress` alone is a name."""
    blocks = [m.group(0) for m in _FENCE.finditer(markdown) if m.group(1) in ("", "sh", "console")]
    prose = _FENCE.sub("", markdown)
    blocks += re.findall(r"(?:^    .*\n?)+", prose, re.MULTILINE)
    for block in blocks:
        yield from _lines(block)
    for match in _INLINE.finditer(re.sub(r"^    .*$", "", prose, flags=re.MULTILINE)):
        text = " ".join(match.group(1).split())
        if not text.startswith("scene4d") or re.search(r" --|\b[A-Z]{2,}\b", text):
            yield text


def _lines(block: str) -> Iterator[str]:
    """The commands of a block, without comments; a line that goes on is joined."""
    joined: list[str] = []
    for line in block.splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip().rstrip("\\").strip()
        if _COMMAND.match(text):
            joined.append(text)
        elif joined and text.startswith(("[", "--")):
            joined[-1] += f" {text}"
    yield from joined


def spelled_out(text: str) -> list[list[str]]:
    """The arguments of a command for each choice that it offers: ``[--x Y]`` is taken, of
    ``{a,b}`` and ``a|b`` (a word, or an option with its values) each, ``...`` is left out."""
    text = text.replace("...", "")
    bracketed = re.split(r"\[(.*?)\]", text)
    choices = [part.split(" | ") if i % 2 else [part] for i, part in enumerate(bracketed)]
    found = []
    for chosen in itertools.product(*choices):
        words = shlex.split(" ".join(chosen))
        options = [_alternatives(word) for word in words]
        found += [list(made) for made in itertools.product(*options)]
    return found


def _alternatives(word: str) -> list[str]:
    if re.fullmatch(r"\{[\w,-]+\}", word):
        return word[1:-1].split(",")
    return word.split("|") if re.fullmatch(r"[\w|-]+", word) else [word]
