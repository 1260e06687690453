"""A folder of captioned meshes, as what a text-to-mesh network learns from.

``captions.json``, if there is one, lists objects with ``file`` and ``caption`` (others are
ignored; ``"use": false`` leaves one out, and so does a ``split`` other than ``train``). Otherwise
every ``.glb`` and ``.gltf`` counts, and its caption is the text file beside it of the same name, or
its name: ``red_armchair.glb`` is "red armchair".
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError, Scene4dError
from scene4d.files import checked_file, printable, read_json
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.textured_gltf import read_textured_mesh
from scene4d.formats.textured_mesh import MeshData
from scene4d.priors.words import split_words

_log = logging.getLogger("scene4d")
REACH = 0.9
"""Half the longest side of every mesh, of a cube from -1 to 1."""
CAPTIONS = "captions.json"
_MOST_TEXT = 1 << 16
_SUFFIXES = (".glb", ".gltf")
_NAMED = 5
"""Files that are named in a warning; more are counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asset:
    """A mesh and what it is."""

    name: str
    caption: str
    mesh: MeshData
    """Centred, its longest side 2 x :data:`REACH`, in scene axes (y down)."""


@dataclass(frozen=True, kw_only=True)
class _Listed:
    file: Path
    caption: str


def read_assets(folder: Path) -> list[Asset]:
    """The assets of ``folder``, by name. What cannot be used is left out, named and counted in the
    log, once for as long as nothing in the folder changes. Raises :class:`DataError` where nothing
    is left."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("is no folder", where=folder, fix="give a folder of .glb or .gltf files")
    return list(_read(folder, _files(folder)))


def _files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """All there are, with times and sizes: whether anything has changed."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple((str(path), seen.st_mtime_ns, seen.st_size) for path, seen in found)


@lru_cache(maxsize=1)  # a training asks twice: for the captions, and for what they stand for
def _read(folder: Path, files: tuple[tuple[str, int, int], ...]) -> tuple[Asset, ...]:
    """:func:`read_assets` of ``files``."""
    listed, left_out = _listed(folder), []
    assets: list[Asset] = []
    textures: dict[bytes, np.ndarray] = {}
    for entry in listed:
        name = entry.file.relative_to(folder).as_posix()
        try:
            split_words(entry.caption)
            mesh = centred(read_textured_mesh(entry.file))
        except Scene4dError as error:
            left_out.append(f"{name} ({error.what})")
            continue
        assets.append(Asset(name=name, caption=entry.caption, mesh=_shared(mesh, textures)))
    if left_out:
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        _log.warning("left out %d of %d assets: %s%s", len(left_out), len(listed),
                     "; ".join(left_out[:_NAMED]), more)  # fmt: skip
    if not assets:
        raise DataError(
            "holds no captioned mesh that can be read", where=folder,
            fix="put .glb files there; docs/mesh.md tells how captions are given",
        )  # fmt: skip
    return tuple(assets)


def read_captions(folder: Path) -> list[str]:
    """The captions alone, without repetitions, of :func:`read_assets`."""
    return list(dict.fromkeys(asset.caption for asset in read_assets(folder)))


def centred(mesh: MeshData) -> MeshData:
    """A mesh in glTF's axes as :attr:`Asset.mesh`. Raises :class:`DataError` for one without
    size."""
    used = mesh.vertices[np.unique(mesh.triangles)]
    low, high = used.min(axis=0), used.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        raise DataError("has no size")
    scale = 2 * REACH / longest
    moved = np.eye(4)
    moved[:3, :3] *= scale
    moved[:3, 3] = -scale * (low + high) / 2
    return mesh.transformed(np.linalg.inv(GLTF_FROM_SOURCE) @ moved)


def _shared(mesh: MeshData, textures: dict[bytes, np.ndarray]) -> MeshData:
    """The mesh, whose picture is the one that others have where it is the same."""
    key = hashlib.sha256(mesh.texture.tobytes()).digest() + repr(mesh.texture.shape).encode()
    return replace(mesh, texture=textures.setdefault(key, mesh.texture))


def _listed(folder: Path) -> list[_Listed]:
    if (folder / CAPTIONS).is_file():
        entries = read_json(folder / CAPTIONS)
        if not isinstance(entries, list):
            raise DataError("is no list of objects with file and caption",
                            where=folder / CAPTIONS)  # fmt: skip
        return [_entry(folder, e, n) for n, e in enumerate(entries) if _counts(e)]
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    return [_Listed(file=path, caption=_caption_of(path)) for path in files]


def _counts(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return True  # told as wrong
    return entry.get("use") is not False and entry.get("split", "train") == "train"


def _entry(folder: Path, entry: Any, number: int) -> _Listed:
    file = entry.get("file") if isinstance(entry, Mapping) else None
    caption = entry.get("caption") if isinstance(entry, Mapping) else None
    if not isinstance(file, str) or not isinstance(caption, str):
        raise DataError(f"entry {number + 1} has no file and caption", where=folder / CAPTIONS)
    if file.startswith("/") or ".." in file.split("/") or "\0" in file:
        raise DataError(f"entry {number + 1} names {printable(file)!r}, outside of its folder",
                        where=folder / CAPTIONS)  # fmt: skip
    return _Listed(file=folder / file, caption=caption)


def _caption_of(path: Path) -> str:
    beside = path.with_suffix(".txt")
    if beside.is_file():
        checked_file(beside, most_bytes=_MOST_TEXT)
        return beside.read_text("utf-8", errors="replace").strip()
    return re.sub(r"[\W_]+", " ", path.stem).strip()
