"""Range requests by RFC 9110, section 14: which bytes of a file a header asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Far more digits than any size has, and fewer than int() refuses.
_SPEC = re.compile(r"([0-9]{0,100})-([0-9]{0,100})")


class UnsatisfiableRangeError(ValueError):
    """The range begins behind the end: the answer is 416."""


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.last - self.first + 1


def requested_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that ``header`` asks for, of a representation of ``size`` bytes.

    None means the whole: without a header, with a malformed one or another unit (to be ignored,
    14.2), and with several ranges, which a server may ignore (14.2) and no player sends.
    Raises :class:`UnsatisfiableRangeError` (15.5.17).
    """
    unit, equals, ranges = (header or "").partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    # An empty element of a list counts as none (5.6.1.2).
    specs = [part.strip(" \t") for part in ranges.split(",") if part.strip(" \t")]
    found = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if found is None or found.group() == "-":
        return None
    first, last = found.groups()
    if not first:
        # A suffix: the last bytes, of which there may be fewer than asked for.
        length = min(int(last), size)
        if length == 0:
            raise UnsatisfiableRangeError
        return ByteRange(first=size - length, last=size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError
    return ByteRange(first=int(first), last=min(int(last), size - 1) if last else size - 1)
