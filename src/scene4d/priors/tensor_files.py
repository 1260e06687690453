"""Tensors of a safetensors file, and the plain data in its metadata.

The tensors are those of a network in half precision, or the coded members of one
(:mod:`scene4d.bundle.networks`), as bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene4d.errors import DataError
from scene4d.files import atomic_path, checked_file, printable

_CODED = "scene4d_coded"
"""Key of the metadata where the tensors are members; 1 is the only way that there is."""


def read_tensors(
    path: Path, key: str, *, what: str, most_bytes: int
) -> tuple[dict[str, Tensor], Any]:
    """The tensors by name, and what the JSON text under ``key`` of the metadata says; None where
    there is none. Raises :class:`DataError` for what is damaged, or larger than ``most_bytes``, in
    the file or in half precision, and says that it is no ``what``."""
    from safetensors import safe_open

    checked_file(path, most_bytes=most_bytes)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        told = metadata.get(key)
        plain = None if told is None else json.loads(told)
    except Exception as error:  # the parser raises what it likes for damaged files
        raise DataError(f"is damaged, or no {what} ({printable(error)})", where=path,
                        fix="restore the file") from error  # fmt: skip
    if _CODED in metadata:
        tensors = _decoded(tensors, metadata[_CODED], path, most_bytes)
    return tensors, plain


def write_tensors(path: Path, packed: bytes) -> None:
    """Writes what :func:`pack_tensors` or :func:`pack_coded` gave, whole or not at all."""
    with atomic_path(path) as file:
        file.write_bytes(packed)


def pack_tensors(tensors: Mapping[str, Tensor], key: str, plain: Any) -> bytes:
    """The file of a network's tensors in half precision, with ``plain`` under ``key``."""
    from safetensors.torch import save

    halves = {name: v.detach().cpu().half().contiguous() for name, v in tensors.items()}
    return save(halves, metadata={key: json.dumps(plain)})


def pack_coded(members: Mapping[str, bytes], key: str, plain: Any) -> bytes:
    """The file of a network's coded members, with ``plain`` under ``key``."""
    from safetensors.torch import save

    held = {name: torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
            for name, data in members.items()}  # fmt: skip
    return save(held, metadata={key: json.dumps(plain), _CODED: "1"})


def _decoded(
    held: Mapping[str, Tensor], version: str, path: Path, most_bytes: int
) -> dict[str, Tensor]:
    from scene4d.bundle.networks import decode_network

    if version != "1":
        raise DataError(f"is coded in the way {printable(version)}, which is not known", where=path,
                        fix="update scene4d")  # fmt: skip
    if not all(t.dtype == torch.uint8 and t.ndim == 1 for t in held.values()):
        raise DataError("holds coded weights that are no bytes", where=path,
                        fix="restore the file")  # fmt: skip
    members = {name: t.numpy().tobytes() for name, t in held.items()}
    found = decode_network(members, where=path, most_values=most_bytes // 2)
    return {name: torch.from_numpy(values) for name, values in found.items()}
