"""Which scenes a batch makes: a folder of inputs, or a table with a row of options per scene."""

from __future__ import annotations

import csv
import io
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.files import printable, read_text
from scene4d.pipeline.inputs import Fingerprint, find_input, fingerprint, names_of
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.plan import Plan, plan_of
from scene4d.pipeline.stage import keys_of
from scene4d.plain import from_table, to_table

_SHOWN = 12
"""Faults that are told at once."""
_OWN = ("input", "name")
_NAME = re.compile(r"[\w][\w .+-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene of a batch, checked: what is made of it, and the keys of its stages."""

    name: str
    where: str
    """The line or entry that asks for it, for people."""
    plan: Plan
    fingerprint: Fingerprint
    keys: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Row:
    where: str
    values: Mapping[str, Any]


def read_scenes(
    path: Path,
    defaults: MakeOptions,
    *,
    skip: Path | None = None,
    marker_of: Callable[[str], Mapping[str, str]] = lambda name: {},
) -> tuple[list[Scene], list[str]]:
    """The scenes that ``path`` asks for, and what of a folder is none, in words.

    ``path``: a folder whose entries are inputs, a CSV file with a header, or a JSONL file with an
    object in each line; ``input`` (a path, from the file's folder) and perhaps ``name`` beside
    options of ``scene4d make``, which go before ``defaults``. All of it is checked before anything
    starts. ``skip``: a folder in it that is not looked at; ``marker_of``: what was known of the
    input of a scene by its name. Raises :class:`UsageError` with every line that is wrong, and why.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("there is no such file or folder", where=path,
                        fix="give a folder of inputs, or a CSV or JSONL file with a row per scene"
                        )  # fmt: skip
    left: list[str] = []
    rows = list(_of_folder(path, left, skip) if path.is_dir() else _of_file(path))
    scenes: list[Scene] = []
    faults: list[str] = []
    for row in rows:
        try:
            scenes.append(_scene(row, path if path.is_dir() else path.parent, defaults, marker_of))
        except Scene4dError as error:
            faults.append(str(error) if row.where in str(error) else f"{row.where}: {error}")
    faults += _twice(scenes)
    if faults:
        more = len(faults) - _SHOWN
        told = "\n".join(faults[:_SHOWN]) + (f"\n... and {more} more" if more > 0 else "")
        raise UsageError(f"nothing was started, as {len(faults)} of {len(rows)} scenes cannot be"
                         f" made:\n{told}")  # fmt: skip
    if not scenes:
        raise DataError("asks for no scene", where=path, fix="give at least one input")
    return scenes, left


def _of_folder(folder: Path, left: list[str], skip: Path | None) -> Iterator[_Row]:
    for name in names_of(folder):
        if skip is not None and (folder / name).resolve() == skip.resolve():
            continue
        try:
            find_input(folder / name)
        except Scene4dError as error:
            left.append(f"{name}: {error.what}")
            continue
        yield _Row(where=str(folder / name), values={"input": name})


def _of_file(path: Path) -> Iterator[_Row]:
    kind = path.suffix.lower()
    if kind == ".csv":
        yield from _of_csv(path)
    elif kind in (".jsonl", ".ndjson"):
        yield from _of_jsonl(path)
    else:
        raise UsageError("is neither a folder nor a table of scenes", where=path,
                         fix="give a .csv or .jsonl file; of one scene: scene4d make"
                         )  # fmt: skip


def _of_csv(path: Path) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(read_text(path)), restkey="", strict=True)
    try:
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if "" in values:
                raise UsageError("has more cells than the first line has names", where=where,
                                 fix="put commas of a cell into quotes")  # fmt: skip
            cells = {str(k).strip(): (v or "").strip() for k, v in values.items()}
            yield _Row(where=where, values={k: v for k, v in cells.items() if v})
    except csv.Error as error:
        raise DataError(f"is no CSV table ({error})", where=path) from error


def _of_jsonl(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"is no JSON ({error})", where=where) from error
        if not isinstance(values, dict):
            raise UsageError("is no object", where=where, fix='e.g. {"input": "chair.mp4"}')
        yield _Row(where=where, values={k: v for k, v in values.items() if v is not None})


def _scene(
    row: _Row,
    root: Path,
    defaults: MakeOptions,
    marker_of: Callable[[str], Mapping[str, str]],
) -> Scene:
    values = {str(key).replace("-", "_"): value for key, value in row.values.items()}
    known = [field.name for field in fields(MakeOptions)]
    unknown = sorted(set(values) - set(known) - set(_OWN))
    if unknown:
        raise UsageError(f"has unknown options: {printable(', '.join(unknown))}", where=row.where,
                         fix=f"known are {', '.join([*_OWN, *known])}")  # fmt: skip
    given = values.get("input")
    if not isinstance(given, str):
        raise UsageError("has no input", where=row.where,
                         fix="name a file or folder in the column input")  # fmt: skip
    own = {key: _typed(key, value) for key, value in values.items() if key not in _OWN}
    options = from_table(MakeOptions, {**to_table(defaults), **own}, where=row.where)
    source = find_input(root / Path(given).expanduser())
    name = str(values.get("name", source.name))
    if not _NAME.fullmatch(name):
        raise UsageError(f"{printable(name)!r} cannot be the name of a folder", where=row.where,
                         fix="give another name, of letters and digits")  # fmt: skip
    plan = plan_of(source, options)
    found = fingerprint(source, marker=marker_of(name))
    return Scene(name=name, where=row.where, plan=plan, fingerprint=found,
                 keys=keys_of(plan.stages, found.content))  # fmt: skip


def _typed(name: str, value: Any) -> Any:
    """Text of a cell as the option's kind of number, where it is one."""
    hint = str(typing.get_type_hints(MakeOptions)[name])
    if isinstance(value, str):
        for kind in (int, float):
            if kind.__name__ in hint:
                try:
                    return kind(value)
                except ValueError:
                    return value
    return value


def _twice(scenes: list[Scene]) -> list[str]:
    """Scenes of one name, which would go to one folder."""
    first: dict[str, Scene] = {}
    found = []
    for scene in scenes:
        other = first.setdefault(scene.name.casefold(), scene)
        if other is not scene:
            found.append(f"{scene.where}: the name {scene.name!r} is that of {other.where}, too:"
                         " give one of them another in the column name")  # fmt: skip
    return found
