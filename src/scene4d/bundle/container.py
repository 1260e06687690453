"""The ``.s4d`` container: a ZIP of stored members, or the same members in a folder.

``manifest.json`` comes first, deflated, and names every other member with offset, length and
SHA-256, so a reader needs no ZIP code and a player fetches members by HTTP Range.
``mobile_export/SPEC.md`` has the layout byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from scene4d.bundle.manifest import check_manifest
from scene4d.errors import DataError, Scene4dError
from scene4d.files import atomic_folder, atomic_path

MANIFEST = "manifest.json"
ALIGNMENT = 16
MAX_MANIFEST_BYTES = 16 << 20
MAX_BUNDLE_BYTES = (1 << 32) - 1
MAX_MEMBERS = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,3}")
_LOCAL, _CENTRAL, _END = 0x04034B50, 0x02014B50, 0x06054B50
_DEFLATED = 8
_DATE = 0x21  # 1980-01-01, the same in every file: bytes depend on the content alone
_PADDING_FIELD = 0xD935  # the extra field that Android's zipalign pads with
_FIELD_BYTES = 4  # of an empty extra field


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle: the checked manifest, and members that are verified when read."""

    path: Path
    manifest: dict[str, Any]
    size: int
    """Bytes of the file, or of all files of the folder."""
    _entries: Mapping[str, Mapping[str, Any]] = field(repr=False)
    _folder: bool = False

    def read(self, name: str) -> bytes:
        """The member's bytes. Raises :class:`DataError` when its length or hash is another."""
        entry = self._entries.get(name)
        if entry is None:
            raise DataError(f"has no member {name!r}", where=self.path)
        try:
            if self._folder:
                data = _read_up_to(self.path / name, entry["length"])
            else:
                with open(self.path, "rb") as file:
                    file.seek(entry["offset"])
                    data = file.read(entry["length"])
        except OSError as error:
            raise DataError(f"member {name!r} cannot be read ({error})", where=self.path) from error
        if len(data) != entry["length"]:
            raise DataError(
                f"member {name!r} is cut off: {len(data)} of {entry['length']} bytes",
                where=self.path,
                fix="copy or download the file again",
            )
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DataError(
                f"member {name!r} is damaged: its SHA-256 is not that of the manifest",
                where=self.path,
                fix="copy or download the file again",
            )
        return data

    def names(self) -> list[str]:
        """The members in file order, without the manifest."""
        return list(self._entries)


class BundleWriter:
    """Collects members and writes the bundle; ``data`` is kept until then."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        """``manifest`` without ``members``, which the writer fills in."""
        self._manifest = dict(manifest)
        self._members: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> None:
        """Appends a member; a player sees members in this order."""
        if not _NAME.fullmatch(name) or name in self._members or name == MANIFEST:
            raise ValueError(f"not a fitting member name, or used twice: {name!r}")
        self._members[name] = bytes(data)

    def manifest(self, *, spare: int = 0) -> dict[str, Any]:
        """The manifest with its members. Their offsets leave ``spare`` bytes behind its deflated
        text, whose length hangs on the offsets itself."""
        entries: list[dict[str, Any]] = [
            {
                "name": name,
                "offset": 0,
                "length": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for name, data in self._members.items()
        ]
        document = {**self._manifest, "members": entries}
        room = 0
        while True:
            at = _data_offset(0, MANIFEST) + room
            for entry in entries:
                entry["offset"] = _data_offset(at, entry["name"])
                at = entry["offset"] + entry["length"]
            if at > MAX_BUNDLE_BYTES:
                raise Scene4dError(
                    f"the bundle would have {at} bytes; {MAX_BUNDLE_BYTES} is the most"
                )
            needed = len(_deflated(as_json(document))) + spare + _FIELD_BYTES
            if needed <= room:
                return document
            room = needed + ALIGNMENT

    def to_bytes(self) -> bytes:
        """The whole file."""
        document = self.manifest()
        return self.file_of(as_json(document), document["members"])

    def file_of(
        self, text: bytes, layout: Sequence[Mapping[str, Any]], *, deflated: bool = True
    ) -> bytes:
        """The whole file with ``text`` as its manifest, and every member where ``layout``
        (entries of a manifest) has it. Readers know manifests that are not deflated, too."""
        parts: list[bytes] = []
        central: list[bytes] = []
        at = 0
        starts = {entry["name"]: entry["offset"] for entry in layout}
        starts[MANIFEST] = _data_offset(0, MANIFEST)
        for name, data in {MANIFEST: text, **self._members}.items():
            encoded, crc, start = name.encode("ascii"), zlib.crc32(data), starts[name]
            packed = deflated and name == MANIFEST
            method, stored = (_DEFLATED, _deflated(data)) if packed else (0, data)
            extra = _padding(start - at - 30 - len(encoded))
            common = (0, method, 0, _DATE, crc, len(stored), len(data), len(encoded))
            parts.append(struct.pack("<I5H3I2H", _LOCAL, 20, *common, len(extra)))
            parts += [encoded, extra, stored]
            record = struct.pack("<I6H3I5H2I", _CENTRAL, 20, 20, *common, 0, 0, 0, 0, 0, at)
            central.append(record + encoded)
            at = start + len(stored)
        directory = b"".join(central)
        count = len(central)
        end = struct.pack("<I4H2IH", _END, 0, 0, count, count, len(directory), at, 0)
        return b"".join([*parts, directory, end])

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(self.to_bytes())

    def write_folder(self, path: Path) -> None:
        """Writes the members as files, whole or not at all; an earlier bundle's folder goes.

        Raises :class:`DataError` for a folder that holds something else.
        """
        path = Path(path)
        if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
            raise DataError("holds other things than a bundle", where=path, fix="name a new folder")
        with atomic_folder(path) as fresh:
            for name, data in {**self._members, MANIFEST: as_json(self.manifest())}.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(data)


def write_bundle(path: Path, manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Writes ``members`` under ``manifest`` (without its ``members``) as a file."""
    writer = BundleWriter(manifest)
    for name, data in members.items():
        writer.add(name, data)
    writer.write(path)


def open_bundle(path: Path) -> Bundle:
    """Opens a ``.s4d`` file or an unpacked folder and checks manifest, layout and sizes.

    Members are hashed when they are read. Raises :class:`DataError`.
    """
    path = Path(path)
    folder = path.is_dir()
    try:
        if folder:
            text = _read_up_to(path / MANIFEST, MAX_MANIFEST_BYTES)
            size = len(text)
        else:
            size = path.stat().st_size
            with open(path, "rb") as file:
                text, end = _first_member(file, size, path)
    except FileNotFoundError as error:
        missing = MANIFEST if folder else "such a file"
        raise DataError(f"there is no {missing}", where=path) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path) from error
    manifest = parse_manifest(text, path)
    entries = _entries(manifest, path)
    if folder:
        size += _folder_size(path, entries)
    else:
        _check_layout(path, end, size, entries)
    return Bundle(path, manifest, size, entries, folder)


def parse_manifest(text: bytes, where: object) -> dict[str, Any]:
    """The manifest's JSON, checked against the schema; NaN and repeated keys are refused."""
    manifest = strict_json(text, where)
    check_manifest(manifest, where)
    return manifest


def strict_json(text: bytes, where: object) -> Any:
    """A manifest's JSON, whatever it says. Raises :class:`DataError` for NaN and repeated keys."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    def finite(number: str) -> float:
        value = float(number)
        return value if abs(value) < float("inf") else refuse(number)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is given twice")
        return found

    try:
        return json.loads(
            text.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=once
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"{MANIFEST} is not valid JSON ({error})", where=where) from error


def as_json(document: Mapping[str, Any]) -> bytes:
    """A manifest as text."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def _deflated(text: bytes) -> bytes:
    """A raw deflate stream (RFC 1951), as a ZIP's method 8 has it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush()


def _inflated(data: bytes, length: int, where: Path) -> bytes:
    """The inverse; refused unless it gives just ``length`` bytes."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        text = unpacker.decompress(data, length + 1)
    except zlib.error as error:
        raise DataError(f"{MANIFEST} cannot be inflated ({error})", where=where) from error
    if len(text) != length or not unpacker.eof or unpacker.unused_data:
        raise DataError(f"{MANIFEST} does not inflate to its {length} bytes", where=where)
    return text


def _data_offset(at: int, name: str) -> int:
    """Where the data of a member starts whose local header is at ``at``: aligned."""
    start = at + 30 + len(name)
    aligned = -(-start // ALIGNMENT) * ALIGNMENT
    return aligned if aligned - start in (0, *range(4, ALIGNMENT)) else aligned + ALIGNMENT


def _padding(length: int) -> bytes:
    """An extra field of ``length`` bytes (0, or at least its own header of 4)."""
    return (
        b"" if not length else struct.pack("<2H", _PADDING_FIELD, length - 4).ljust(length, b"\0")
    )


def _read_up_to(path: Path, limit: int) -> bytes:
    """A file's bytes; refused when there are more than ``limit`` or it leaves its folder."""
    if path.is_symlink():
        raise DataError("is a symbolic link, not a file", where=path)
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"has {size} bytes, not the declared {limit}", where=path)
    return path.read_bytes()


def _first_member(file: Any, size: int, where: Path) -> tuple[bytes, int]:
    """The bytes of manifest.json, which must be the first local entry, and where they end."""
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise DataError("is not a .s4d bundle: it does not start as a ZIP", where=where)
    flags, method = struct.unpack_from("<2H", header, 6)
    length, plain, name_length, extra_length = struct.unpack("<2I2H", header[18:30])
    name = file.read(name_length)
    if name != MANIFEST.encode("ascii"):
        raise DataError(
            f"is a ZIP but not a .s4d bundle: its first member is not {MANIFEST}", where=where
        )
    if method not in (0, _DEFLATED) or (method == 0 and length != plain) or flags & 0x0009:
        raise DataError(
            f"{MANIFEST} is encrypted or compressed otherwise than by deflate", where=where
        )
    if max(length, plain) > MAX_MANIFEST_BYTES:
        raise DataError(
            f"{MANIFEST} declares {max(length, plain)} bytes; at most {MAX_MANIFEST_BYTES} are"
            " allowed",
            where=where,
        )
    start = 30 + name_length + extra_length
    if start + length > size:
        raise DataError(
            f"is cut off: {MANIFEST} alone has {length} bytes",
            where=where,
            fix="copy or download the file again",
        )
    file.seek(start)
    text = file.read(length)
    if method == _DEFLATED:
        text = _inflated(text, plain, where)
    if zlib.crc32(text) != struct.unpack_from("<I", header, 14)[0]:
        raise DataError(
            f"{MANIFEST} is damaged: its CRC-32 is not that of the ZIP header",
            where=where,
            fix="copy or download the file again",
        )
    return text, start + length


def _entries(manifest: Mapping[str, Any], where: object) -> dict[str, Mapping[str, Any]]:
    """The members by name: safe names, none twice, in rising order without overlap."""
    found: dict[str, Mapping[str, Any]] = {}
    end = 0
    for entry in manifest["members"]:
        name = entry["name"]
        if not _NAME.fullmatch(name):
            raise DataError(f"member name {name!r} is not allowed", where=where)
        if name in found or name == MANIFEST:
            raise DataError(f"member {name!r} is listed twice", where=where)
        if entry["offset"] < end or entry["offset"] % ALIGNMENT:
            raise DataError(f"member {name!r} overlaps another or is not aligned", where=where)
        end = entry["offset"] + entry["length"]
        found[name] = entry
    used = [manifest["poster"], manifest["tables"]]
    used += [reference["member"] for reference in manifest["references"]]
    used += [stage["member"] for stage in manifest["stages"]]
    for name in used:
        if name not in found:
            raise DataError(f"there is no member {name!r}, which the manifest uses", where=where)
    return found


def _folder_size(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of all members; each must be there with its declared length."""
    for name, entry in entries.items():
        if not (path / name).is_file():
            raise DataError(f"member {name!r} is missing", where=path)
        if not (path / name).resolve().is_relative_to(path.resolve()):
            raise DataError(f"member {name!r} leads out of the folder", where=path)
        if (path / name).stat().st_size != entry["length"]:
            raise DataError(
                f"member {name!r} has {(path / name).stat().st_size} bytes, not the declared"
                f" {entry['length']}",
                where=path,
            )
    return sum(entry["length"] for entry in entries.values())


def _check_layout(
    path: Path, manifest_end: int, size: int, entries: Mapping[str, Mapping[str, Any]]
) -> None:
    """Members lie behind the manifest and within the file; the ZIP directory says the same."""
    for name, entry in entries.items():
        if entry["offset"] < manifest_end or entry["offset"] + entry["length"] > size:
            raise DataError(
                f"member {name!r} reaches beyond the file ({entry['offset']} + {entry['length']}"
                f" of {size} bytes) or into the manifest",
                where=path,
                fix="copy or download the file again: it may be cut off",
            )
    expected = {name: entry["length"] for name, entry in entries.items()}
    with open(path, "rb") as file:
        listed = _directory(file, size, path)
    listed.pop(MANIFEST, None)
    if listed != expected:
        raise DataError("the ZIP directory does not list the members of the manifest", where=path)


def _directory(file: Any, size: int, where: Path) -> dict[str, int]:
    """Names and lengths of the ZIP's central directory."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    if len(end) < 22 or end[:4] != b"PK\5\6":
        raise DataError(
            "has no ZIP directory at its end; it is cut off or has data behind it",
            where=where,
            fix="copy or download the file again",
        )
    count, length, start = struct.unpack_from("<H2I", end, 10)
    if count > MAX_MEMBERS + 1 or start + length + 22 != size:
        raise DataError("the ZIP directory does not fit into the file", where=where)
    file.seek(start)
    data = file.read(length)
    found: dict[str, int] = {}
    at = 0
    for _ in range(count):
        if at + 46 > length or data[at : at + 4] != b"PK\1\2":
            raise DataError("the ZIP directory is damaged", where=where)
        method, packed, plain = struct.unpack_from("<H8x2I", data, at + 10)
        sizes = struct.unpack_from("<3H", data, at + 28)
        name = data[at + 46 : at + 46 + sizes[0]].decode("ascii", "replace")
        if name != MANIFEST and (method != 0 or packed != plain):
            raise DataError(
                f"member {name!r} is compressed; bundles store their members", where=where
            )
        found[name] = plain
        at += 46 + sum(sizes)
    return found
