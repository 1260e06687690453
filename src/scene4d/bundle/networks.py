"""Whole networks as coded arrays, in files that are no bundles.

They are a few members, as a bundle has them: a deflated ``manifest.json`` with the names and shapes
of the tensors, the frequency tables, the codes of the layers, and the rest in half precision.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.bundle.arrays import CodedArray, dequantise, uniform
from scene4d.bundle.coding import decode_scene, encode_scene
from scene4d.bundle.container import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Bundle,
    as_json,
    strict_json,
)
from scene4d.bundle.manifest import faults, schema
from scene4d.bundle.quantise import quantise_codebook, quantise_uniform, rounded
from scene4d.errors import DataError, UsageError

REST = "rest.f16"
"""The member of what is not coded: such tensors, then codebooks, in half precision."""
_TENSOR = {
    "type": "object",
    "required": ["name", "shape"],
    "properties": {
        "name": {"type": "string", "maxLength": 200},
        "shape": {
            "type": "array", "maxItems": 8,
            "items": {"type": "integer", "minimum": 0, "maximum": 1 << 29},
        },
        "array": {"type": "string", "maxLength": 64},
        "book": {"type": "integer", "minimum": 1, "maximum": 1 << 16},
    },
}  # fmt: skip
"""A tensor of the manifest: ``array`` holds its codes, ``book`` values may be chosen by them."""


def encode_network(
    tensors: Mapping[str, np.ndarray], quantisers: Mapping[str, float | np.ndarray]
) -> dict[str, bytes]:
    """The members of a network's file, by name.

    ``tensors``: float32, of any shape. ``quantisers``: of some of them, the step, or a sorted
    codebook; the others keep half precision. Raises :class:`UsageError` for more tensors than are
    stored.
    """
    arrays: list[CodedArray] = []
    entries, halves, books = [], [], []
    for name, values in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        quantiser = quantisers.get(name)
        if quantiser is None:
            halves.append(values)
        else:
            array = coded_column(f"t{len(arrays)}", values, quantiser)
            arrays.append(array)
            entry["array"] = array.name
        if isinstance(quantiser, np.ndarray):
            books.append(quantiser)
            entry["book"] = len(quantiser)
        entries.append(entry)
    most = schema()["properties"]["arrays"]["maxItems"]
    if len(arrays) > most:
        raise UsageError(f"a network of {len(arrays)} layers; at most {most} are stored")
    coded = encode_scene(None, arrays)
    rest = [values.ravel().astype("<f2") for values in [*halves, *books]]
    members = {**coded.members, REST: b"".join(values.tobytes() for values in rest)}
    listed = [_entry(name, data) for name, data in members.items()]
    document = {**coded.manifest, "tensors": entries, "members": listed}
    return {MANIFEST: zlib.compress(as_json(document), 9), **members}


def coded_column(name: str, values: np.ndarray, quantiser: float | np.ndarray) -> CodedArray:
    """One layer's codes: whole steps, or rows of a codebook."""
    if isinstance(quantiser, np.ndarray):
        codes, how = quantise_codebook(values.ravel(), quantiser)[:, None], None
    else:
        step = rounded(quantiser)
        codes, how = quantise_uniform(values.ravel(), step)[:, None], uniform(step, 1)
    return CodedArray(name=name, codes=codes, quantiser=how, stage=0, stream="network")


def decode_network(
    members: Mapping[str, bytes], *, where: Path, most_values: int
) -> dict[str, np.ndarray]:
    """The tensors, float32, the same on every machine. Raises :class:`DataError` where the members
    are damaged, or declare more than ``most_values`` numbers."""
    manifest = _manifest_of(members, where)
    tensors = manifest["tensors"]
    if sum(math.prod(tensor["shape"]) for tensor in tensors) > most_values:
        raise DataError(f"declares more than {most_values:,} weights", where=where)
    try:
        arrays = decode_scene(_Held(where, manifest, 0, {}, held=dict(members))).arrays
        halves = members[REST][: len(members[REST]) // 2 * 2]
        rest = np.frombuffer(halves, dtype="<f2").astype(np.float32)
        return _tensors(tensors, arrays, rest)
    except DataError as error:
        raise DataError(error.what, where=where, fix="copy or download the file again") from error


def _tensors(
    entries: Sequence[Mapping[str, Any]], arrays: Mapping[str, CodedArray], rest: np.ndarray
) -> dict[str, np.ndarray]:
    """What the entries of a manifest declare; ``rest`` is used up in their order."""
    sizes = [math.prod(entry["shape"]) for entry in entries]
    plain = [0 if "array" in e else size for e, size in zip(entries, sizes, strict=True)]
    books = [e.get("book", 0) for e in entries]
    if sum(plain) + sum(books) != len(rest):
        raise DataError(f"declares {sum(plain) + sum(books)} numbers in {REST}, of {len(rest)}")
    parts = np.split(rest, np.cumsum([*plain, *books])[:-1])
    found = {}
    for entry, size, half, book in zip(
        entries, sizes, parts[: len(entries)], parts[len(entries) :], strict=True
    ):
        values = half
        if "array" in entry:
            values = dequantise(entry["array"], arrays, shape=(size, 1))[:, 0]
        if len(book):
            rows = values.astype(np.int64)
            if rows.min(initial=0) < 0 or rows.max(initial=0) >= len(book):
                raise DataError(f"tensor {entry['name']!r} has a code outside its book")
            values = book[rows]
        found[entry["name"]] = values.reshape(entry["shape"])
    return found


@dataclass(frozen=True, eq=False)
class _Held(Bundle):
    """Members that are in memory already, as :func:`decode_scene` reads them."""

    held: Mapping[str, bytes] = field(default_factory=dict, kw_only=True)

    def read(self, name: str) -> bytes:
        return self.held[name]


def _entry(name: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"name": name, "offset": 0, "length": len(data), "sha256": digest}


def _manifest_of(members: Mapping[str, bytes], where: Path) -> dict[str, Any]:
    """The checked manifest, with what those of scenes have besides. Raises :class:`DataError` where
    it, or a member, is not as it was written."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(members.get(MANIFEST, b""), MAX_MANIFEST_BYTES)
    except zlib.error as error:
        raise DataError(f"{MANIFEST} cannot be inflated ({error})", where=where) from error
    if not inflater.eof:
        raise DataError(f"{MANIFEST} is missing or cut off", where=where)
    manifest = strict_json(text, where)
    known = {name: schema()["properties"][name] for name in ("tables", "arrays", "stages")}
    known["members"] = schema()["properties"]["members"]
    known["tensors"] = {"type": "array", "maxItems": 1 << 16, "items": _TENSOR}
    rule = {"type": "object", "required": list(known), "properties": known}
    fault = next(faults(manifest, rule), None)
    if fault is not None:
        raise DataError(f"{MANIFEST}: {fault}", where=where)
    used = {manifest["tables"], REST, *(stage["member"] for stage in manifest["stages"])}
    listed = {entry["name"]: entry for entry in manifest["members"]}
    for name in used:
        if name not in members or listed.get(name) != _entry(name, members[name]):
            raise DataError(f"member {name!r} is missing or damaged", where=where,
                            fix="copy or download the file again")  # fmt: skip
    of_scenes = {"poster": "", "references": [], "count": 0, "sh_degree": 0}
    return {**{name: manifest[name] for name in known}, **of_scenes}
