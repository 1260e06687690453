"""Names of pictures in the folder that process-data writes."""

from __future__ import annotations

from collections.abc import Set

from scene4d.errors import DataError


def printable_name(name: str) -> str:
    """``name`` with a question mark for each byte that is no UTF-8, so that it can be printed."""
    return name.encode("utf-8", "replace").decode("utf-8")


def unused_name(name: str, taken: Set[str]) -> str:
    """``name`` without white space (COLMAP's lists are separated by it), and not in ``taken``."""
    clean = "_".join(printable_name(name).split())
    stem, dot, suffix = clean.rpartition(".")
    number = 1
    while clean in taken:
        number += 1
        clean = f"{stem}-{number}{dot}{suffix}"
    if not clean:
        raise DataError("a picture has an empty name")
    return clean
