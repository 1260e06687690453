"""Dataclasses as plain data (of TOML, JSON, a checkpoint's header) and back, strictly.

What is read may come from anyone: names, types, lengths and ranges are checked before an object is
made of it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from scene4d.errors import DataError, Scene4dError
from scene4d.ranges import ranged

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
            value = [v.as_posix() if isinstance(v, Path) else v for v in value]
        table[field.name] = value
    return table


def from_table(cls: type[T], table: Any, *, where: object) -> T:
    """The dataclass that :func:`to_table` gave; unknown and missing fields, other types and values
    outside of their ranges are a :class:`DataError`."""
    if not isinstance(table, Mapping):
        raise DataError(f"is {_short(table)}, expected a table", where=where)
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    unknown = sorted(set(map(str, table)) - {field.name for field in fields})
    if unknown:
        raise DataError(
            f"has unknown settings: {_short(', '.join(unknown))}",
            where=where,
            fix="another version of scene4d wrote it: use that one, or train again",
        )
    lacking = [f.name for f in fields if f.name not in table and _is_required(f)]
    if lacking:
        raise DataError(f"lacks {', '.join(lacking)}", where=where)
    values = {
        name: _convert(hints[name], value, where=f"{where}: {name}")
        for name, value in table.items()
    }
    try:
        return cls(**values)
    except Scene4dError as error:
        raise DataError(error.what, where=where, fix=error.fix) from error
    except ValueError as error:
        raise DataError(str(error), where=where) from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    found = _of_type(hint, value, where=where)
    for allowed, number in ranged(hint, found):
        if number not in allowed:
            raise DataError(f"is {number}, expected {allowed.words}", where=where)
    return found


def _of_type(hint: Any, value: Any, *, where: str) -> Any:
    """``value`` as ``hint`` has it: lists become tuples, whole numbers real ones."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _of_type(arguments[0], value, where=where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(hint, value, where=where)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _of_type(next(a for a in arguments if a is not type(None)), value, where=where)
    if origin is typing.Literal and any(type(value) is type(a) and value == a for a in arguments):
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        each = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(each) == len(value):
            return tuple(_convert(h, v, where=where) for h, v in zip(each, value, strict=True))
    if origin is collections.abc.Sequence and isinstance(value, list):
        return [_convert(arguments[0], v, where=where) for v in value]
    if origin is collections.abc.Mapping and isinstance(value, Mapping):
        return {str(k): _convert(arguments[1], v, where=f"{where}: {k}") for k, v in value.items()}
    if hint is Path and isinstance(value, str) and "\0" not in value:
        return Path(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) < 1e300 and not math.isnan(value):
            return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise DataError(f"has the value {_short(repr(value))}, expected {_name(hint)}", where=where)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _short(value: Any, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
