"""What a bundle may declare: bounds on memory and work by the bytes that carry its codes.

Members beside the codes (a poster, references) buy nothing, and neither does room in a stage that
no stream uses. ``mobile_export/SPEC.md``, section 2, has the same bounds for other decoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scene4d.errors import DataError

MAX_CHANNELS = 1 << 14
_MOST_REFERENCES = 4


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most ``free + per_byte * bytes of codes``, and never more than ``most``."""

    what: str
    free: int
    per_byte: int
    most: int

    def of(self, carried: int) -> int:
        """The most that ``carried`` bytes of codes may declare."""
        return min(self.most, self.free + self.per_byte * carried)

    def check(self, declared: int, carried: int) -> None:
        """Raises :class:`DataError` where more is declared."""
        if declared > self.of(carried):
            raise DataError(
                f"declares {declared} {self.what} in {carried} bytes of codes; at most"
                f" {self.of(carried)} are believed"
            )


POINTS = Limit(what="points", free=1 << 18, per_byte=2, most=1 << 24)
CODES = Limit(what="codes", free=1 << 22, per_byte=32, most=1 << 29)
VALUES = Limit(what="values", free=1 << 22, per_byte=64, most=1 << 30)
"""Numbers that codes become: those of arrays, of Gaussians, of the texels of MPIs."""
PRODUCTS = Limit(what="products", free=1 << 32, per_byte=1 << 16, most=1 << 40)
"""Multiplications of a network that is evaluated when a bundle is opened."""
DISTANCES = Limit(what="distances of points to nodes", free=1 << 26, per_byte=1 << 10, most=1 << 32)
"""Nodes are told by how far they are from a moving Gaussian."""


def carried_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes of all streams, which fill the members of the stages (:func:`check_limits`)."""
    return sum(s["length"] for stage in manifest["stages"] for s in stage["streams"])


def gaussian_numbers(count: int, sh_degree: int) -> int:
    """Place 3, rotation 4, sizes 3, opacity, and colours of so many Gaussians."""
    return count * (11 + 3 * (sh_degree + 1) ** 2)


def check_limits(manifest: Mapping[str, Any]) -> None:
    """Refuses counts beyond what the coded bytes can mean, and bytes that are counted twice.

    The manifest fits its schema. Raises :class:`DataError`.
    """
    _check_streams(manifest)
    check_counts(manifest)


def check_counts(manifest: Mapping[str, Any]) -> None:
    """Points, codes and values alone; ``members`` need not be there yet."""
    arrays, carried = manifest["arrays"], carried_bytes(manifest)
    points = sum(stage["points"] for stage in manifest["stages"])
    channels = sum(entry["components"] for entry in arrays)
    if channels > MAX_CHANNELS:
        raise DataError(f"declares {channels} channels; at most {MAX_CHANNELS} are allowed")
    POINTS.check(points, carried)
    items = {entry["name"]: entry.get("items", points) for entry in arrays}
    CODES.check(sum(items[a["name"]] * a["components"] for a in arrays), carried)
    entries = {entry["name"]: entry for entry in arrays}
    VALUES.check(sum(items[a["name"]] * _columns(a, entries, 0) for a in arrays), carried)
    VALUES.check(gaussian_numbers(manifest["count"], manifest["sh_degree"]), carried)


def _columns(entry: Mapping[str, Any], entries: Mapping[str, Any], depth: int) -> int:
    """Values of one item; what refers to nothing or to itself is refused when it is used."""
    width = int(entry["components"])
    book, basis = entry.get("quantiser", {}).get("array"), entry.get("basis")
    if depth < _MOST_REFERENCES and book in entries:
        width *= _columns(entries[str(book)], entries, depth + 1)
    if depth < _MOST_REFERENCES and basis in entries:
        width = _columns(entries[str(basis)], entries, depth + 1)
    return width


def _check_streams(manifest: Mapping[str, Any]) -> None:
    """The streams of a stage lie one behind the other and fill its member, which is its own."""
    lengths = {entry["name"]: entry["length"] for entry in manifest["members"]}
    used = {manifest["poster"], manifest["tables"]}
    used |= {reference["member"] for reference in manifest["references"]}
    for number, stage in enumerate(manifest["stages"]):
        if stage["member"] in used:
            raise DataError(f"member {stage['member']!r} of stage {number} is used elsewhere, too")
        used.add(stage["member"])
        at, length = 0, lengths.get(stage["member"], -1)
        for stream in stage["streams"]:
            if stream["offset"] + stream["length"] > length:
                raise DataError(f"a stream reaches beyond its member {stage['member']!r}")
            if stream["offset"] != at:
                break
            at += stream["length"]
        if at != length:
            raise DataError(
                f"the streams of stage {number} do not lie one behind the other, or do not fill"
                f" their member {stage['member']!r}; it is damaged"
            )
