"""Arguments of a verb as its dataclass: the one place where the command line calls tyro."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections.abc import Iterator
from typing import Any, TypeVar

import docstring_parser
import tyro

from scene4d.errors import UsageError
from scene4d.ranges import range_faults

T = TypeVar("T")

LEAST_COLUMNS = 40
"""Tyro's help does not end in terminals of a few columns."""


def parse(cls: type[T], argv: list[str], *, prog: str, description: str | None = None) -> T:
    """The arguments; numbers outside of the ranges that ``cls`` declares are a
    :class:`UsageError`, before any work starts."""
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    with _docstrings_unwrapped():
        arguments = tyro.cli(cls, args=argv, prog=prog, description=description)
    faults = range_faults(arguments)
    if faults:
        told = "; ".join(f"--{fault.replace('_', '-', _words(fault))}" for fault in faults)
        raise UsageError(told, fix=f"'{prog} --help' tells every option's range")
    return arguments


@contextlib.contextmanager
def _docstrings_unwrapped() -> Iterator[None]:
    """Tyro keeps lines that begin with something else than a letter, and docstring_parser leaves
    the indentation of attributes' docstrings: help would be wrapped twice."""
    parse_from_object = docstring_parser.parse_from_object

    def parsed(
        obj: Any, style: docstring_parser.DocstringStyle = docstring_parser.DocstringStyle.AUTO
    ) -> docstring_parser.Docstring:
        found = parse_from_object(obj, style)
        for param in found.params:
            paragraphs = inspect.cleandoc(param.description or "").split("\n\n")
            param.description = "\n\n".join(" ".join(p.split()) for p in paragraphs) or None
        return found

    docstring_parser.parse_from_object = parsed
    try:
        yield
    finally:
        docstring_parser.parse_from_object = parse_from_object


def _words(fault: str) -> int:
    """Underscores in the option's name, which comes first."""
    return fault.split(" ")[0].count("_")
