"""The splat file formats by name: which there are, which one a file is, reading and writing any."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scene4d.errors import DataError, UsageError
from scene4d.files import open_regular
from scene4d.formats.placing import FrameChoice, placed, read_sidecar, write_sidecar
from scene4d.formats.splat_cloud import SplatCloud


@dataclass(frozen=True, kw_only=True)
class SplatFormat:
    """One format; its functions are named "module:function", loaded when called."""

    name: str
    """As on the command line."""
    suffixes: tuple[str, ...]
    """Lower case; the first is the usual one."""
    read: str
    """``read(path, drop_invalid=False) -> SplatCloud``"""
    write: str
    """``write(path, cloud) -> None``"""
    description: str
    keeps_sh: bool = True
    axes: str = "as they are"
    """What happens to the axes of a 3DGS PLY on the way into the file, undone on the way out."""
    keeps_far: bool = False
    """Whether positions far from the origin are held without loss: in float64, or by a transform in
    float64."""
    keeps_antialiasing: bool = False
    """Whether the file can say that its splats were trained with antialiasing."""
    sizes: str = ""
    """``sizes(path) -> dict[str, int]``: bytes of each attribute, where they can be told apart."""


_HERE = "scene4d.formats."
_log = logging.getLogger("scene4d")
FORMATS: tuple[SplatFormat, ...] = (
    SplatFormat(
        name="ply",
        suffixes=(".ply",),
        read=_HERE + "ply:read_ply",
        write=_HERE + "ply:write_ply",
        description="the 3DGS reference's file, float32, no loss",
        keeps_far=True,
        keeps_antialiasing=True,
    ),
    SplatFormat(
        name="compressed-ply",
        suffixes=(".compressed.ply",),
        read=_HERE + "compressed_ply:read_compressed_ply",
        write=_HERE + "compressed_ply:write_compressed_ply",
        sizes=_HERE + "compressed_ply:sizes_compressed_ply",
        description="PlayCanvas' chunks of 256, 16 bytes and 45 for harmonics",
        keeps_antialiasing=True,
    ),
    SplatFormat(
        name="splat",
        suffixes=(".splat",),
        read=_HERE + "splat:read_splat",
        write=_HERE + "splat:write_splat",
        sizes=_HERE + "splat:sizes_splat",
        description="32 bytes per splat, no harmonics",
        keeps_sh=False,
    ),
    SplatFormat(
        name="spz",
        suffixes=(".spz",),
        read=_HERE + "spz:read_spz",
        write=_HERE + "spz:write_spz",
        sizes=_HERE + "spz:sizes_spz",
        description="Niantic's, version 4",
        keeps_antialiasing=True,
        axes="y and z change sign (right-up-back, by the specification)",
    ),
    SplatFormat(
        name="sog",
        suffixes=(".sog",),
        read=_HERE + "sog:read_sog",
        write=_HERE + "sog:write_sog",
        sizes=_HERE + "sog:sizes_sog",
        description="PlayCanvas' pictures, version 2; also a folder with meta.json",
        keeps_antialiasing=True,
    ),
    SplatFormat(
        name="glb",
        suffixes=(".glb",),
        read=_HERE + "glb:read_glb",
        write=_HERE + "glb:write_glb",
        sizes=_HERE + "glb:sizes_glb",
        description="glTF with KHR_gaussian_splatting, float32, no loss",
        keeps_far=True,
        axes="turned by 180 degrees about z (y up, by the specification), through the node",
    ),
    SplatFormat(
        name="s4d",
        suffixes=(".s4d",),
        read="scene4d.bundle.splat_file:read_s4d",
        write="scene4d.bundle.splat_file:write_s4d",
        description="our bundle, as plain splats; mobile_export/SPEC.md",
        keeps_far=True,
        keeps_antialiasing=True,
    ),
)


def format_named(name: str) -> SplatFormat:
    """The format of that name. Raises :class:`UsageError`."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise UsageError(f"there is no splat format {name!r}", fix=f"one of {_all_names()}")


def format_by_suffix(path: Path) -> SplatFormat | None:
    """The format that the file's name says; meta.json is SOG's."""
    name = Path(path).name.lower()
    if name == "meta.json":
        return format_named("sog")
    # the longest suffix wins: .compressed.ply is not .ply
    matches = [(len(s), f) for f in FORMATS for s in f.suffixes if name.endswith(s)]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def format_of(path: Path) -> SplatFormat:
    """The format of an existing file or folder, by its first bytes and then by its name.

    Raises :class:`DataError` when there is nothing, :class:`UsageError` when it is no splat file.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("not found", where=path)
    found = format_by_content(path) or format_by_suffix(path)
    if found is None or (path.is_dir() and found.name not in ("sog", "s4d")):
        raise UsageError(
            "is not a splat file that can be read",
            where=path,
            fix=f"formats: {_all_names()}",
        )
    return found


def format_by_content(path: Path) -> SplatFormat | None:
    """The format that the first bytes tell, if they tell any."""
    if path.is_dir():
        if (path / "meta.json").is_file():
            return format_named("sog")
        is_bundle = (path / "manifest.json").is_file() and path.suffix.lower() == ".s4d"
        return format_named("s4d") if is_bundle else None
    with open_regular(path) as file:
        start = file.read(65536)
    if start[:3] == b"ply" and start[3:4] in b"\r\n":
        return format_named("compressed-ply" if b"packed_position" in start else "ply")
    if start[:4] == b"glTF":
        return format_named("glb")
    if start[:4] == b"NGSP" or start[:2] == b"\x1f\x8b":
        return format_named("spz")
    if start[:4] == b"PK\x03\x04":
        # a bundle's manifest is its first member
        return format_named("s4d" if start[30:43] == b"manifest.json" else "sog")
    return None


def is_splats(path: Path) -> bool:
    """Whether an existing file or folder looks like splats, by its first bytes or its name."""
    return bool(format_by_content(path) or (path.is_file() and format_by_suffix(path)))


def read_splats(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """The splats of a file of any format, in the axes of the 3DGS PLY, and in the input's frame
    where a sidecar leads there (:mod:`scene4d.formats.placing`).

    ``drop_invalid``: splats with values that are not finite are left out, and counted in the log.
    Raises :class:`Scene4dError`, without ``drop_invalid`` for such values as well.
    """
    path = Path(path)
    cloud = _function(format_of(path).read)(path, drop_invalid=drop_invalid)
    home = read_sidecar(path)
    return cloud if home is None else cloud.transformed(home)


def write_splats(
    path: Path,
    cloud: SplatCloud,
    *,
    name: str | None = None,
    frame: FrameChoice = "auto",
    **options: Any,
) -> str:
    """Writes ``cloud`` in the format ``name``, or the suffix's; returns the format's name.

    ``frame``: which coordinates the file has, see :mod:`scene4d.formats.placing`.
    """
    path = Path(path)
    form = format_named(name) if name else format_by_suffix(path)
    if form is None:
        raise UsageError(
            f"{path.suffix or 'no suffix'!r} names no splat format",
            where=path,
            fix=f"end the name with one of {', '.join(s for f in FORMATS for s in f.suffixes)}",
        )
    if cloud.antialiased and not form.keeps_antialiasing:
        _log.warning(
            "%s: trained with antialiasing, which %s cannot say: viewers without it show these"
            " splats slightly thicker", path, form.name,
        )  # fmt: skip
    cloud, home = placed(cloud, path, frame, keeps_far=form.keeps_far, what=form.name)
    _function(form.write)(path, cloud, **options)
    write_sidecar(path, home)
    return form.name


def file_bytes(path: Path) -> int:
    """Bytes of a scene's file, or of all files of its folder."""
    folder = path.parent if path.name == "meta.json" else path
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def attribute_sizes(path: Path) -> dict[str, int]:
    """Bytes of each attribute of a splat file; empty where they cannot be told apart."""
    form = format_of(path)
    return _function(form.sizes)(Path(path)) if form.sizes else {}


def _function(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def _all_names() -> str:
    return ", ".join(form.name for form in FORMATS)


def describe_written(path: Path, cloud: SplatCloud, form: SplatFormat) -> str:
    """A line for people about what was written."""
    lost = ", its view-dependent colour lost" if cloud.sh_degree and not form.keeps_sh else ""
    turned = "" if form.axes == "as they are" else f"; axes: {form.axes}"
    size = path.stat().st_size / max(len(cloud), 1)
    each = "" if path.name == "meta.json" else f", {size:.2f} bytes each"
    return (
        f"{len(cloud):,} Gaussians, spherical harmonics of degree {cloud.sh_degree}"
        f"{lost}{each}{turned}"
    )
