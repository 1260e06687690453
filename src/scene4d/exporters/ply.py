"""The 3DGS PLY file: written as the reference implementation does, read tolerantly.

Layout of graphdeco-inria/gaussian-splatting, ``GaussianModel.save_ply``: binary little-endian
float32 per Gaussian: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* by colour channel and then
coefficient, opacity (logit), scale_0..2 (log), rot_0..3 (wxyz).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.splat_cloud import SplatCloud

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_LINE, _MOST_LINES = 1024, 1024
_CERTAIN = 20.0
"""An infinite logit (opacity exactly 0 or 1) becomes this: sigmoid(20) is 1 in float32."""


def property_names(num_rest: int) -> list[str]:
    """The vertex properties in the reference's order; ``num_rest``: all f_rest properties."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_ply(path: Path, cloud: SplatCloud) -> None:
    """Writes ``cloud`` to ``path``, atomically. Raises :class:`DataError` on NaN or infinity."""
    num_rest = 3 * (cloud.sh.shape[1] - 1)
    higher = cloud.sh[:, 1:].transpose(0, 2, 1).reshape(len(cloud), num_rest)
    names = property_names(num_rest)
    columns = (
        cloud.means,
        np.zeros((len(cloud), 3), dtype=np.float32),
        cloud.sh[:, 0],
        higher,
        cloud.logit_opacities[:, None],
        cloud.log_scales,
        cloud.quats,
    )
    rows = np.concatenate(columns, axis=1).astype("<f4")
    _refuse_not_finite(rows, names, path)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    header += [f"property float {name}" for name in names]
    with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        file.write(np.ascontiguousarray(rows).data)


def read_ply(path: Path) -> SplatCloud:
    """The Gaussians of an uncompressed 3DGS PLY.

    Properties may be of any type and in any order, normals and unknown ones are passed over,
    spherical harmonics have degree 0 to 3. Raises :class:`DataError` for everything else; what the
    header promises is compared with the file's size before memory is taken.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            order, elements = read_header(file, path)
            count, dtype, skipped = _vertices(elements, order, path)
            start = file.tell() + skipped
            size = path.stat().st_size
            if start + count * dtype.itemsize > size:
                raise DataError(
                    f"is cut off: the header promises {count} Gaussians of {dtype.itemsize} bytes,"
                    f" but only {max(size - start, 0)} bytes follow it",
                    where=path,
                    fix="copy or download the file again",
                )
            file.seek(start)
            rows = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype, count=count)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error
    return _cloud_from(rows, path)


def _cloud_from(rows: np.ndarray, path: Path) -> SplatCloud:
    names = set(rows.dtype.names or ())
    if "packed_position" in names:
        raise DataError(
            "is a compressed PLY (PlayCanvas), not the uncompressed kind",
            where=path,
            fix="read it with read_compressed_ply, or convert it: scene4d convert",
        )
    num_rest = sum(name.startswith("f_rest_") for name in names)
    if num_rest not in (0, 9, 24, 45):
        raise DataError(
            f"has {num_rest} f_rest properties; 0, 9, 24 or 45 make whole degrees", where=path
        )
    missing = [n for n in property_names(num_rest) if n not in names and n[:1] != "n"]
    if missing:
        raise DataError(
            f"is not a Gaussian-splat PLY: it has no property {', '.join(missing[:4])}",
            where=path,
            fix="a point cloud or mesh is something else; export the splats themselves",
        )

    matrix = _as_matrix(rows)
    places = {name: i for i, name in enumerate(rows.dtype.names or ())}

    def columns(*wanted: str) -> np.ndarray:
        if matrix is not None:
            values = matrix[:, [places[name] for name in wanted]].astype(np.float32, copy=False)
        else:
            values = np.empty((len(rows), len(wanted)), dtype=np.float32)
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, told below
                for i, name in enumerate(wanted):
                    values[:, i] = rows[name]
        if wanted == ("opacity",):
            values[np.isposinf(values)], values[np.isneginf(values)] = _CERTAIN, -_CERTAIN
        _refuse_not_finite(values, list(wanted), path)
        return values

    rest = columns(*(f"f_rest_{i}" for i in range(num_rest)))
    higher = rest.reshape(len(rows), 3, num_rest // 3).transpose(0, 2, 1)
    constant = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    quats = columns("rot_0", "rot_1", "rot_2", "rot_3")
    if len(quats) and not (np.abs(quats).max(axis=1) > 0).all():
        raise DataError("contains a rotation quaternion of length 0", where=path)
    return SplatCloud(
        means=columns("x", "y", "z"),
        quats=quats,
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        logit_opacities=columns("opacity")[:, 0],
        sh=np.concatenate([constant, higher], axis=1),
    )


def _as_matrix(rows: np.ndarray) -> np.ndarray | None:
    """[N, properties] when all are little-endian float32, as in the reference's own files: taking
    columns out of a matrix is several times faster than out of a structure."""
    names = rows.dtype.names or ()
    if not names or any(rows.dtype[name] != np.dtype("<f4") for name in names):
        return None
    return rows.view("<f4").reshape(len(rows), len(names))


def _refuse_not_finite(values: np.ndarray, names: list[str], path: Path) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    row, column = (int(i[0]) for i in np.nonzero(~finite))
    raise DataError(
        f"Gaussian {row} has {names[column]} = {values[row, column]}"
        f" ({int((~finite).any(axis=1).sum())} Gaussians have such values)",
        where=path,
    )


@dataclass(kw_only=True)
class PlyElement:
    """One element of a PLY header."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    """Names, and NumPy kinds without the byte order; "list" for lists."""

    def dtype(self, order: str, path: Path) -> np.dtype:
        """The layout of a row. Raises :class:`DataError` for lists and doubled names."""
        if any(kind == "list" for _, kind in self.properties):
            raise DataError(f"the element {self.name!r} holds lists: this is a mesh", where=path)
        names = [name for name, _ in self.properties]
        if len(set(names)) < len(names):
            raise DataError(f"the element {self.name!r} has a property twice", where=path)
        if not names:
            raise DataError(f"the element {self.name!r} has no properties", where=path)
        return np.dtype([(name, order + kind) for name, kind in self.properties])


def read_header(file: BinaryIO, path: Path) -> tuple[str, list[PlyElement]]:
    """The byte order, < or >, and the elements of a binary PLY; leaves ``file`` at the data."""
    if file.readline(_LONGEST_LINE).strip() != b"ply":
        raise DataError("is not a PLY file", where=path)
    order = ""
    elements: list[PlyElement] = []
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE)
        words = line.decode("ascii", "replace").split()
        if words == ["end_header"]:
            break
        if not line:
            raise DataError("the header does not end", where=path)
        try:
            if words[:1] == ["format"]:
                order = _byte_order(words[1], path)
            elif words[:1] == ["element"]:
                elements.append(PlyElement(name=words[1], count=_count(words[2])))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[4], "list"))
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _TYPES[words[1]]))
        except (IndexError, KeyError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            text = " ".join(words)
            raise DataError(f"the header line {text!r} makes no sense", where=path) from error
    else:
        raise DataError("the header does not end", where=path)
    if not order:
        raise DataError("the header names no format", where=path)
    return order, elements


def _byte_order(form: str, path: Path) -> str:
    if form == "ascii":
        raise DataError(
            "is a text PLY; splats are stored as binary", where=path, fix="save it as binary PLY"
        )
    if form not in _ORDER:
        raise DataError(f"has the unknown format {form!r}", where=path)
    return _ORDER[form]


def _count(word: str) -> int:
    count = int(word)
    if count < 0 or count > 2**40:
        raise ValueError(word)
    return count


def _vertices(elements: list[PlyElement], order: str, path: Path) -> tuple[int, np.dtype, int]:
    """Number, layout and offset of the element vertex."""
    skipped = 0
    for element in elements:
        dtype = element.dtype(order, path)
        if element.name == "vertex":
            return element.count, dtype, skipped
        skipped += element.count * dtype.itemsize
    raise DataError("has no element 'vertex'", where=path)
