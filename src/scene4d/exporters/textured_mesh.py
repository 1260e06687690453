"""Textured meshes in the input's frame, as GLB, OBJ, PLY or USDZ; splats under the same names."""

from __future__ import annotations

import logging
from pathlib import Path

from scene4d.errors import UsageError
from scene4d.exporters import mesh as of_depth
from scene4d.exporters import splats
from scene4d.exporters.mesh_files import GLTF_AXES
from scene4d.exporters.options import GlbOptions, MeshOptions
from scene4d.exporters.standing import standing
from scene4d.exporters.textured_glb import glb, picture_bytes
from scene4d.exporters.textured_text import material, obj, ply, usdz
from scene4d.files import atomic_path
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.placing import FrameChoice, placed_points, write_sidecar
from scene4d.formats.textured_mesh import MeshData
from scene4d.training.opened import OpenedScene

_log = logging.getLogger("scene4d")
SUFFIXES = (".glb", ".obj", ".ply", ".usdz")
_TURNED = (".glb", ".usdz")
_STANDS = "y up, the origin under its middle, as it stands in AR"


def export_glb(
    source: OpenedScene,
    path: Path,
    options: GlbOptions | None = None,
    *,
    frame: FrameChoice = "auto",
) -> str:
    """A textured mesh; splats as glTF where it is made of such."""
    found = source.representation.mesh()
    if found is None:
        if options not in (None, GlbOptions()):
            _log.warning("the options of textured meshes mean nothing to splats")
        return splats.export_glb(source, path, None, frame=frame)
    return write_textured(source, found, _named(path, ".glb"), frame=frame, options=options)


def export_ply(
    source: OpenedScene, path: Path, options: object = None, *, frame: FrameChoice = "auto"
) -> str:
    """A textured mesh with its picture beside it; splats where it is made of such."""
    found = source.representation.mesh()
    if found is None:
        return splats.export_ply(source, path, options, frame=frame)
    return write_textured(source, found, _named(path, ".ply"), frame=frame)


def export_obj(
    source: OpenedScene, path: Path, options: object = None, *, frame: FrameChoice = "auto"
) -> str:
    """A textured mesh with material and picture beside it; with the colours of vertices, fused from
    depth, of a scene that is no mesh."""
    return export_mesh(source, _named(path, ".obj"), None, frame=frame)


def export_usdz(
    source: OpenedScene, path: Path, options: object = None, *, frame: FrameChoice = "auto"
) -> str:
    """A textured mesh in one file, for iPhones. Raises :class:`UsageError` for what is none."""
    found = source.representation.mesh()
    if found is None:
        raise UsageError(
            "USDZ is written of meshes with a texture, and this scene is none",
            where=source.path,
            fix="train one: scene4d train mesh --teacher RUN",
        )
    return write_textured(source, found, _named(path, ".usdz"), frame=frame)


def export_mesh(
    source: OpenedScene,
    path: Path,
    options: MeshOptions | None = None,
    *,
    frame: FrameChoice = "auto",
) -> str:
    """The mesh that it is, with its texture; otherwise one fused from renders of depth."""
    found = source.representation.mesh()
    if found is None:
        return of_depth.export(source, path, options, frame=frame)
    return write_textured(source, found, Path(path), frame=frame)


def _named(path: Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UsageError(
            f"this format is written as {suffix}",
            where=path,
            fix=f"name the file SOMETHING{suffix}",
        )
    return path


def write_textured(
    source: OpenedScene,
    mesh: MeshData,
    path: Path,
    *,
    frame: FrameChoice = "auto",
    options: GlbOptions | None = None,
) -> str:
    """Writes ``mesh``, which is in scene coordinates, by the suffix of ``path``, with what belongs
    beside it first; returns a line that describes it."""
    suffix, chosen = path.suffix.lower(), options or GlbOptions()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"cannot write a mesh as {path.suffix or 'a file without suffix'!r}",
            where=path,
            fix=f"use one of {', '.join(SUFFIXES)}",
        )
    home = mesh.transformed(source.source_from_scene.double().cpu().numpy())
    turned = suffix in _TURNED
    stands = suffix == ".usdz" or (suffix == ".glb" and chosen.stands)
    places, moved, way_back = placed_points(home.vertices, path, frame, moves=turned)
    placed = MeshData(**{**vars(home), "vertices": places})
    turn = standing(source, home.vertices) if stands else GLTF_FROM_SOURCE
    picture, materials = path.with_suffix(".jpg"), path.with_suffix(".mtl")
    files: dict[Path, bytes] = {}
    if not turned:
        files[picture] = picture_bytes(placed, "JPEG")
    if suffix == ".obj":
        files[materials] = material(picture.name)
        files[path] = obj(placed, materials.name)
    elif suffix == ".ply":
        files[path] = ply(placed, picture.name)
    elif suffix == ".usdz":
        files[path] = usdz(placed, moved, turn=turn)
    else:
        files[path] = glb(placed, moved, profile=chosen.profile, unlit=chosen.unlit, turn=turn)
    for file, content in files.items():
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
    write_sidecar(path, way_back)
    size = sum(len(content) for content in files.values())
    beside = "".join(f", {file.name} beside it" for file in files if file != path)
    rows, columns = placed.texture.shape[:2]
    return (
        f"{len(places):,} vertices, {len(placed.triangles):,} triangles, a texture of"
        f" {columns} x {rows}, {size / 1e6:.2f} MB{beside}"
        + (f"; axes: {_STANDS if stands else GLTF_AXES}" if turned else "")
    )
