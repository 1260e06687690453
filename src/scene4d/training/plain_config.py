"""Configs as plain data: dataclass to TOML table and back, strictly."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from scene4d.errors import DataError
from scene4d.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def to_table(config: Any) -> dict[str, Any]:
    """The dataclass as nested plain values; fields that are None are left out."""
    table = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_table(value)
        elif isinstance(value, Path):
            value = value.as_posix()
        elif isinstance(value, tuple):
            value = list(value)
        table[field.name] = value
    return table


def from_table(cls: type[T], table: Mapping[str, Any], *, where: object) -> T:
    """The dataclass that :func:`to_table` gave; unknown and ill-typed fields are errors."""
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - names)
    if unknown:
        raise DataError(
            f"has unknown settings: {', '.join(unknown)}",
            where=where,
            fix="it may come from a newer scene4d; update, or remove them",
        )
    values = {
        name: _convert(hints[name], value, where=f"{where}: {name}")
        for name, value in table.items()
    }
    return cls(**values)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(hint, value, where=where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, where=where)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise DataError(f"has the value {value!r}, expected {hint}", where=where)


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a TOML file, atomically."""
    write_text(path, tomli_w.dumps(dict(table)))


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises :class:`DataError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("file not found", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid TOML ({error})", where=path) from error
