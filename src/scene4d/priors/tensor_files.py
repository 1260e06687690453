"""Tensors of a safetensors file, and the plain data in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from scene4d.errors import DataError
from scene4d.files import checked_file, printable


def read_tensors(
    path: Path, key: str, *, what: str, most_bytes: int
) -> tuple[dict[str, Tensor], Any]:
    """The tensors by name, and what the JSON text under ``key`` of the metadata says; None where
    there is none. Raises :class:`DataError` for what is damaged, or larger than ``most_bytes``, and
    says that it is no ``what``."""
    from safetensors import safe_open

    checked_file(path, most_bytes=most_bytes)
    try:
        with safe_open(path, framework="pt") as opened:
            told = (opened.metadata() or {}).get(key)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, None if told is None else json.loads(told)
    except Exception as error:  # the parser raises what it likes for damaged files
        raise DataError(f"is damaged, or no {what} ({printable(error)})", where=path,
                        fix="restore the file") from error  # fmt: skip
