"""glTF 2.0 binary with KHR_gaussian_splatting (ratified by Khronos): float32 attributes, no loss.

One mesh primitive of mode POINTS; POSITION, ``KHR_gaussian_splatting:ROTATION`` (xyzw), ``:SCALE``
(linear), ``:OPACITY`` (0..1), ``:SH_DEGREE_l_COEF_n`` (the coefficients of 3DGS as they are), and
COLOR_0, so that programs without the extension show coloured points.

Axes: glTF has y up and a front towards +z; a 3DGS PLY is taken as right-down-front, so the scene is
turned by 180 degrees about z, as PlayCanvas' splat-transform does. Here the *node* carries that
rotation and the attributes stay the PLY's numbers, which the reader undoes exactly; files whose
attributes were turned instead (splat-transform's) come out the same within float32. A scene far
from the origin lies near it in its attributes, and the node's translation, which is text in
float64, holds the rest. Nodes may turn, move and scale uniformly; other transforms are refused.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.gltf import (
    BINARY_CHUNK,
    FLOAT,
    GLTF_FROM_SOURCE,
    JSON_CHUNK,
    KINDS,
    WIDTHS,
    GltfReader,
    glb_chunks,
)
from scene4d.formats.placing import cloud_offset
from scene4d.formats.splat_cloud import SplatCloud, inverse_similarity

EXTENSION = "KHR_gaussian_splatting"
_BYTE = 5121
_HALF_TURN = [0.0, 0.0, 1.0, 0.0]
"""180 degrees about z, xyzw."""
_KNOWN = {EXTENSION, "KHR_mesh_quantization"}


def _sh_name(degree: int, index: int) -> str:
    return f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{index}"


def write_glb(path: Path, cloud: SplatCloud, *, fallback_colours: bool = True) -> None:
    """Writes ``cloud`` in its order, 60 bytes per splat at degree 0 and 240 at degree 3.

    ``fallback_colours`` adds COLOR_0, 4 bytes. Raises :class:`DataError` for an empty cloud (glTF
    has no empty accessors), for NaN and for sizes beyond float32.
    """
    packing.require_splats(cloud, path, "glTF")
    cloud, offset = packing.checked(cloud, path), np.zeros(3)
    if cloud.far:
        home = cloud_offset(cloud)
        offset, cloud = home[:3, 3], cloud.transformed(inverse_similarity(home))
    document, arrays = _document(cloud, fallback_colours, path)
    if offset.any():
        document["nodes"][0]["translation"] = (GLTF_FROM_SOURCE[:3, :3] @ offset).tolist()
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    size = sum(array.nbytes for array in arrays)
    if 28 + len(text) + size >= 2**32:
        raise DataError(
            f"{len(cloud):,} splats are more than the 4 GB that a GLB can hold",
            where=path,
            fix="crop the scene or lower --sh-degree",
        )
    with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 28 + len(text) + size))
        file.write(struct.pack("<II", len(text), JSON_CHUNK) + text)
        file.write(struct.pack("<II", size, BINARY_CHUNK))
        for array in arrays:
            file.write(array.data)


def _document(
    cloud: SplatCloud, fallback_colours: bool, path: Path
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON, and the arrays of the binary part in order, of lengths that 4 divides."""
    attributes: dict[str, int] = {}
    accessors: list[dict[str, Any]] = []
    views: list[dict[str, Any]] = []
    arrays: list[np.ndarray] = []
    offset = 0
    for name, array in _attributes(cloud, fallback_colours, path):
        array = np.ascontiguousarray(array)
        width = 1 if array.ndim == 1 else array.shape[1]
        floats = array.dtype != np.uint8
        accessor: dict[str, Any] = {
            "bufferView": len(views),
            "componentType": FLOAT if floats else _BYTE,
            "count": len(cloud),
            "type": "SCALAR" if width == 1 else f"VEC{width}",
        }
        if not floats:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor["min"] = array.min(axis=0).astype(float).tolist()
            accessor["max"] = array.max(axis=0).astype(float).tolist()
        attributes[name] = len(accessors)
        accessors.append(accessor)
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes})
        arrays.append(array)
        offset += array.nbytes
    splatting = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    primitive = {"attributes": attributes, "mode": 0, "extensions": {EXTENSION: splatting}}
    document = {
        "asset": {"version": "2.0", "generator": "scene4d"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": _HALF_TURN}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    return document, arrays


def _attributes(
    cloud: SplatCloud, fallback_colours: bool, path: Path
) -> Iterator[tuple[str, np.ndarray]]:
    opacities = packing.opacity_of(cloud.logit_opacities)
    with np.errstate(over="ignore"):
        scales = np.exp(cloud.log_scales)
    if not np.isfinite(scales).all():
        raise packing.too_large(path)
    yield "POSITION", cloud.means.astype("<f4")
    yield f"{EXTENSION}:ROTATION", packing.unit_quats(cloud.quats)[:, [1, 2, 3, 0]].astype("<f4")
    yield f"{EXTENSION}:SCALE", scales.astype("<f4")
    yield f"{EXTENSION}:OPACITY", opacities.astype("<f4")
    for index in range(cloud.sh.shape[1]):
        degree = int(index**0.5)
        yield _sh_name(degree, index - degree**2), cloud.sh[:, index].astype("<f4")
    if fallback_colours:
        colours = 255 * (0.5 + packing.SH_C0 * cloud.sh[:, 0])
        rgba = np.concatenate([colours, 255 * opacities[:, None]], axis=1)
        yield "COLOR_0", packing.to_codes(rgba, 255)


def read_glb(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """All splats of the default scene of a GLB, in the axes of the 3DGS PLY, float32.

    Quantised attributes (normalised bytes and shorts) are read too. Raises :class:`DataError` for
    compressed splats, other kernels, sparse accessors, and whatever points outside the file.
    """
    path = Path(path)
    document, binary = glb_chunks(packing.read_bytes(path), path)
    reader = _Splats(document, binary, path, drop_invalid=drop_invalid)
    required = set(reader.strings("extensionsRequired")) - _KNOWN
    if required:
        raise DataError(
            f"needs the glTF extensions {', '.join(sorted(required))}, which are not read",
            where=path,
            fix="save it with plain float attributes (no compression)",
        )
    clouds: list[SplatCloud] = []
    total = 0
    for matrix, primitive in reader.splats():
        cloud = _placed(reader.cloud(primitive), matrix, path)
        total += len(cloud)
        packing.require_plausible(total, len(binary), path)
        clouds.append(cloud)
    if not clouds:
        raise DataError(
            f"holds no mesh with the extension {EXTENSION}",
            where=path,
            fix="a textured mesh is shown by scene4d view and written otherwise by scene4d export",
        )
    return packing.checked(_joined(clouds, path), path, drop_invalid=drop_invalid)


def _placed(cloud: SplatCloud, matrix: np.ndarray, path: Path) -> SplatCloud:
    """``cloud`` of a node with ``matrix``, in the PLY's axes; unchanged by our own half turn."""
    product = GLTF_FROM_SOURCE @ matrix
    if np.allclose(product, np.eye(4), rtol=0, atol=1e-12):
        return cloud
    try:
        return cloud.transformed(product)
    except DataError as error:
        raise DataError(f"its nodes cannot be followed: {error.what}", where=path) from error


def _joined(clouds: list[SplatCloud], path: Path) -> SplatCloud:
    if len(clouds) == 1:
        return clouds[0]
    most = max(cloud.sh.shape[1] for cloud in clouds)

    def padded(sh: np.ndarray) -> np.ndarray:
        return np.pad(sh, ((0, 0), (0, most - sh.shape[1]), (0, 0)))

    parts: dict[str, Any] = {
        name: np.concatenate([getattr(cloud, name) for cloud in clouds])
        for name in ("means", "quats", "log_scales", "logit_opacities")
    }
    return SplatCloud(**parts, sh=np.concatenate([padded(cloud.sh) for cloud in clouds]))


class _Splats(GltfReader):
    """A document's splats."""

    def __init__(
        self, document: dict[str, Any], binary: bytes, path: Path, *, drop_invalid: bool = False
    ) -> None:
        super().__init__(document, binary, path)
        self.drop_invalid = drop_invalid

    def splats(self) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        """Node-to-scene matrix and primitive of every splat primitive."""
        return ((matrix, part) for matrix, part in self.primitives() if self.has_splats(part))

    def attribute(self, attributes: dict[str, Any], name: str, width: int) -> np.ndarray:
        """[count, width] float32 of an attribute."""
        if name not in attributes:
            raise self.wrong(f"its splats have no attribute {name}")
        return self.real(attributes[name], width, f"its attribute {name}")

    def has_splats(self, primitive: dict[str, Any]) -> bool:
        """Whether a primitive is of splats that can be read."""
        extensions = primitive.get("extensions", {})
        found = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
        if found is None:
            return False
        if not isinstance(found, dict):
            raise self.wrong(f"its {EXTENSION} is not an object")
        kernel, space = found.get("kernel", "ellipse"), found.get("colorSpace", "")
        if kernel != "ellipse":
            raise self.wrong(f"its splats have the kernel {kernel!r}; 'ellipse' can be read")
        if isinstance(found.get("extensions"), dict) and found["extensions"]:
            names = ", ".join(map(str, found["extensions"]))
            raise self.wrong(f"its splats use {names}, which is not read")
        if isinstance(space, str) and space.startswith("lin_"):
            warnings.warn(f"{self.path}: linear colours are taken as they are", stacklevel=2)
        return True

    def cloud(self, primitive: dict[str, Any]) -> SplatCloud:
        """The splats of a primitive as they are stored, before any node's transform."""
        attributes = primitive["attributes"]
        if primitive.get("mode", 4) != 0:
            raise self.wrong("its splats are not of the mode POINTS")
        means = self.attribute(attributes, "POSITION", 3)
        quats = self.attribute(attributes, f"{EXTENSION}:ROTATION", 4)
        scales = self.attribute(attributes, f"{EXTENSION}:SCALE", 3)
        opacities = self.attribute(attributes, f"{EXTENSION}:OPACITY", 1)[:, 0]
        degree = 0
        while degree < 3 and _sh_name(degree + 1, 0) in attributes:
            degree += 1
        names = [_sh_name(d, i) for d in range(degree + 1) for i in range(2 * d + 1)]
        bands = [self.attribute(attributes, name, 3) for name in names]
        if any(len(array) != len(means) for array in (quats, scales, opacities, *bands)):
            raise self.wrong("its attributes are of different lengths")
        if not self.drop_invalid and (scales < 0).any():
            raise DataError(
                "a splat has a negative size",
                where=self.path,
                fix="early drafts of the extension stored logarithms; save it again with a newer"
                " program. If it is a few splats alone: " + packing.DROP_INVALID,
            )
        if not self.drop_invalid and ((opacities < 0) | (opacities > 1)).any():
            raise DataError(
                "a splat has an opacity outside 0..1", where=self.path, fix=packing.DROP_INVALID
            )
        return SplatCloud(
            means=means,
            quats=np.ascontiguousarray(quats[:, [3, 0, 1, 2]]),
            log_scales=packing.log_of_sizes(scales),
            logit_opacities=packing.logit_of(opacities.astype(np.float64)),
            sh=np.stack(bands, axis=1),
        )


def sizes_glb(path: Path) -> dict[str, int]:
    """Bytes of each attribute of the splats."""
    path = Path(path)
    document, binary = glb_chunks(packing.read_bytes(path), path)
    reader = _Splats(document, binary, path)
    sizes: dict[str, int] = {}
    for _, primitive in reader.splats():
        for name, index in primitive["attributes"].items():
            entry = reader.at("accessors", index)
            width = WIDTHS.get(str(entry.get("type")), 1)
            kind = np.dtype(KINDS.get(reader.integer(entry, "componentType"), "<u1")).itemsize
            label = _label(name)
            size = reader.integer(entry, "count") * width * kind
            sizes[label] = sizes.get(label, 0) + size
    return sizes


def _label(name: str) -> str:
    labels = {"POSITION": "means", "ROTATION": "quats", "SCALE": "scales", "OPACITY": "opacities"}
    short = name.removeprefix(f"{EXTENSION}:")
    if short.startswith("SH_DEGREE_"):
        return "sh0" if short.startswith("SH_DEGREE_0") else "shN"
    return labels.get(short, short)
