"""TOML files of plain data, such as the configuration of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from scene4d.errors import DataError
from scene4d.files import read_text, write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 4_000_000
"""A run's own is some kB."""


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a TOML file, atomically."""
    write_text(path, tomli_w.dumps(dict(table)))


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises :class:`DataError`."""
    text = read_text(path, most_bytes=_MOST_BYTES)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise DataError("is not usable TOML: it is nested too deeply", where=path) from error
    except ValueError as error:  # also for an integer of thousands of digits
        raise DataError(f"is not valid TOML ({error})", where=path) from error
