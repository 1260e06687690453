"""The manifest against its JSON schema, by the part of JSON Schema that the schema uses.

``mobile_export/manifest.schema.json`` is the only description of the manifest's structure; other
implementations generate their types from it. In a wheel it lies beside this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from scene4d.bundle.kinds import BundleKind, bundle_kinds
from scene4d.errors import DataError

FORMAT, VERSION = "s4d", "1.0"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float), "null": (type(None),),
}  # fmt: skip


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON schema of the manifest."""
    here = Path(__file__).resolve().parent
    shipped = here / "manifest.schema.json"
    source = here.parents[2] / "mobile_export" / "manifest.schema.json"
    return json.loads((shipped if shipped.is_file() else source).read_text(encoding="utf-8"))


def check_manifest(manifest: Any, where: object) -> None:
    """Raises :class:`DataError` naming the first fault: format, version, kind, then structure."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError("manifest.json does not say format 's4d'", where=where)
    version = manifest.get("version")
    if not isinstance(version, str) or not re.fullmatch(r"1\.\d{1,4}", version):
        raise DataError(
            f"is of version {version!r}; this reader knows versions 1.x",
            where=where,
            fix="update scene4d",
        )
    kinds, name = bundle_kinds(), manifest.get("kind")
    if not isinstance(name, str) or name not in kinds:
        raise DataError(
            f"is of kind {name!r}; this reader knows {', '.join(kinds)}",
            where=where,
            fix="update scene4d, or install the package that brings the kind",
        )
    fault = next(manifest_faults(manifest, kinds[name]), None)
    if fault is not None and kinds[name].from_earlier_version(manifest):
        raise DataError(
            f"is of kind {name!r} as an earlier version of scene4d wrote it",
            where=where,
            fix="export it again, from a run that this version trained",
        )
    if fault is not None:
        raise DataError(f"manifest.json: {fault}", where=where)


def manifest_faults(manifest: Mapping[str, Any], kind: BundleKind) -> Iterator[str]:
    """What the schema says against the manifest, and then, if that is nothing, its kind."""
    listed = schema()["properties"]["kind"]["enum"]
    # The schema lists the kinds that every reader has; what others add, they check themselves.
    known = manifest if kind.name in listed else {**manifest, "kind": listed[0]}
    sound = True
    for fault in faults(known, schema()):
        sound = False
        yield fault
    if sound:
        yield from kind.faults(manifest)


def faults(value: Any, rule: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """What in ``value`` breaks ``rule``, each as one line with its place."""
    if "$ref" in rule:
        rule = schema()["$defs"][rule["$ref"].rsplit("/", 1)[1]]
    if "oneOf" in rule:
        fitting = sum(next(faults(value, option, at), None) is None for option in rule["oneOf"])
        if fitting != 1:
            yield f"{at or 'the manifest'} is none of the allowed forms"
            return
    if "const" in rule and value != rule["const"]:
        yield f"{at} must be {rule['const']!r}"
    if "enum" in rule and value not in rule["enum"]:
        yield f"{at} must be one of {', '.join(map(repr, rule['enum']))}, got {_short(value)}"
    if "type" in rule and not _is(value, rule["type"]):
        yield f"{at or 'the manifest'} must be of type {rule['type']}, got {_short(value)}"
        return
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield from _number_faults(value, rule, at)
    elif isinstance(value, str):
        if "pattern" in rule and not re.search(rule["pattern"], value):
            yield f"{at} does not match {rule['pattern']}: {_short(value)}"
        if len(value) > rule.get("maxLength", len(value)):
            yield f"{at} is longer than {rule['maxLength']} characters"
    elif isinstance(value, list):
        yield from _list_faults(value, rule, at)
    elif isinstance(value, dict):
        yield from _object_faults(value, rule, at)


def _is(value: Any, names: str | list[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in names
    listed = [names] if isinstance(names, str) else names
    return any(isinstance(value, _TYPES[name]) for name in listed)


def _number_faults(value: float, rule: Mapping[str, Any], at: str) -> Iterator[str]:
    if value < rule.get("minimum", value) or value > rule.get("maximum", value):
        yield f"{at} is out of range: {_short(value)}"
    if "exclusiveMinimum" in rule and value <= rule["exclusiveMinimum"]:
        yield f"{at} must be above {rule['exclusiveMinimum']}, got {_short(value)}"


def _list_faults(value: list[Any], rule: Mapping[str, Any], at: str) -> Iterator[str]:
    if len(value) < rule.get("minItems", 0) or len(value) > rule.get("maxItems", len(value)):
        yield f"{at} has {len(value)} items"
    elif "items" in rule:
        for i, item in enumerate(value):
            yield from faults(item, rule["items"], f"{at}[{i}]")


def _object_faults(value: dict[str, Any], rule: Mapping[str, Any], at: str) -> Iterator[str]:
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{at + '.' if at else ''}{name} is missing"
    known = rule.get("properties", {})
    for name, item in value.items():
        if name in known:
            yield from faults(item, known[name], f"{at}.{name}" if at else name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
