"""The 3DGS PLY file: written as the reference implementation does, read tolerantly.

Layout of graphdeco-inria/gaussian-splatting, ``GaussianModel.save_ply``: binary little-endian
float32 per Gaussian: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* by colour channel and then
coefficient, opacity (logit), scale_0..2 (log), rot_0..3 (wxyz). x, y and z are float64 where they
lie too far from the origin for float32.

What other trainers' files say beyond that is understood: header comments that name the mode of
drawing (:func:`says_antialiased`), the property filter_3D of mip-splatting, the two sizes of 2DGS.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.ply_tables import PlyHeader, read_tables
from scene4d.formats.splat_cloud import SplatCloud, held

ANTIALIASED = "SplatRenderMode: mip"
"""The header comment of a file whose splats were trained with antialiasing. Brush writes and reads
it; gsplat, nerfstudio and splat-transform (pull requests 1036, 3773, 297) have it from there."""
_DEGREES = {3 * ((degree + 1) ** 2 - 1): degree for degree in range(8)}
"""By the number of f_rest properties."""
_FLAT = np.log(1e-3)
"""A splat of 2DGS, which has no thickness, gets a thousandth of its smaller size."""


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


def splat_bytes(sh_degree: int) -> int:
    """Bytes of a Gaussian in a file that :func:`write_ply` writes."""
    return 4 * len(property_names(3 * ((sh_degree + 1) ** 2 - 1)))


def write_ply(path: Path, cloud: SplatCloud, *, comments: Sequence[str] = ()) -> None:
    """Writes ``cloud`` to ``path``, atomically; ``comments``: more lines of the header. Raises
    :class:`DataError` on NaN or infinity."""
    cloud = packing.checked(cloud, path)
    num_rest = 3 * (cloud.sh.shape[1] - 1)
    higher = cloud.sh[:, 1:].transpose(0, 2, 1).reshape(len(cloud), num_rest)
    columns = (
        cloud.means.astype(np.float32),
        np.zeros((len(cloud), 3), dtype=np.float32),
        cloud.sh[:, 0],
        higher,
        cloud.logit_opacities[:, None],
        cloud.log_scales,
        cloud.quats,
    )
    rows = np.concatenate(columns, axis=1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {ANTIALIASED}"] if cloud.antialiased else []
    header += [f"comment {comment}" for comment in comments]
    header += [f"element vertex {len(cloud)}"]
    names = property_names(num_rest)
    kinds = ["double" if cloud.far and name in ("x", "y", "z") else "float" for name in names]
    header += [f"property {kind} {name}" for kind, name in zip(kinds, names, strict=True)]
    if cloud.far:
        rows = _with_means(rows, names, cloud.means)
    with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode("ascii"))
        file.write(np.ascontiguousarray(rows).data)


def _with_means(rows: np.ndarray, names: list[str], means: np.ndarray) -> np.ndarray:
    """``rows`` [N, properties] as a structure whose x, y and z are the float64 ``means``."""
    kinds = ["<f8"] * 3 + ["<f4"] * (len(names) - 3)
    table = np.empty(len(rows), dtype=list(zip(names, kinds, strict=True)))
    for column, name in enumerate(names):
        table[name] = means[:, column] if column < 3 else rows[:, column]
    return table


def read_ply(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """The Gaussians of an uncompressed 3DGS PLY, binary or text.

    Properties may be of any type and in any order; normals and unknown ones are passed over.
    Spherical harmonics above degree 3 are dropped and two sizes in place of three (2DGS) are read
    as flat splats, with a warning each; a smoothing filter (filter_3D) is applied. Sizes of 0
    become the smallest, infinite opacities certain. Raises :class:`DataError` for everything else,
    and for values that are not finite unless ``drop_invalid``.
    """
    path = Path(path)
    header, tables = read_tables(path, {"vertex"})
    if "vertex" not in tables:
        raise DataError("has no element 'vertex'", where=path)
    columns = _Columns(tables["vertex"])
    _require_splats(columns.names, path)
    cloud = _smoothed(_cloud_from(columns, path), columns, header)
    return packing.checked(cloud, path, drop_invalid=drop_invalid)


def says_antialiased(header: PlyHeader) -> bool | None:
    """Whether the header's comments say that the splats are to be drawn with antialiasing; None
    where they say nothing. The last one counts, capitals do not.

    Read are ``SplatRenderMode: mip | default`` (Brush), ``antialiased 1 | 0`` (Postshot) and
    ``train_flags ... antialiasing`` (proposed for the reference, graphdeco-inria issue 1209).
    """
    said: bool | None = None
    for comment in header.comments:
        words = comment.lower().replace(":", " ").replace("=", " ").split()
        if words[:1] == ["splatrendermode"] and len(words) > 1:
            said = words[1] in ("mip", "antialiased")
        elif words[:1] in (["antialiased"], ["antialiasing"]) and len(words) > 1:
            said = words[1] in ("1", "true", "yes", "on")
        elif words[:1] == ["train_flags"]:
            said = "antialiasing" in words or "antialiased" in words
    return said


def _require_splats(names: set[str], path: Path) -> None:
    """Raises :class:`DataError` where properties of splats are missing, saying what it is then."""
    if "packed_position" in names:
        raise DataError(
            "is a compressed PLY (PlayCanvas), not the uncompressed kind",
            where=path,
            fix="read it with read_compressed_ply, or convert it: scene4d convert",
        )
    num_rest = sum(name.startswith("f_rest_") for name in names)
    if num_rest not in _DEGREES:
        raise DataError(
            f"has {num_rest} f_rest properties; 0, 9, 24 or 45 make whole degrees",
            where=path,
            fix="export it again with spherical harmonics of a whole degree",
        )
    flat = {"scale_2"} if {"scale_0", "scale_1"} <= names else set()
    needed = [n for n in property_names(num_rest) if n[:1] != "n" and n not in flat]
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"is not a Gaussian-splat PLY: it has no property {', '.join(missing[:4])}",
            where=path,
            fix="a point cloud or mesh is something else; export the splats themselves",
        )


class _Columns:
    """Columns of the element vertex as float32."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.places = {name: i for i, name in enumerate(rows.dtype.names or ())}
        self.names = set(self.places)
        self.matrix = _as_matrix(rows)

    def __call__(self, *wanted: str) -> np.ndarray:
        """[N, wanted]; a double beyond float32 becomes infinite, which is told later."""
        if self.matrix is not None:
            places = [self.places[name] for name in wanted]
            return self.matrix[:, places].astype(np.float32, copy=False)
        values = np.empty((len(self.rows), len(wanted)), dtype=np.float32)
        with np.errstate(over="ignore"):
            for i, name in enumerate(wanted):
                values[:, i] = self.rows[name]
        return values


def _cloud_from(columns: _Columns, path: Path) -> SplatCloud:
    """The splats as they stand in the file, unchecked."""
    num_rest = sum(name.startswith("f_rest_") for name in columns.names)
    each, degree = num_rest // 3, _DEGREES[num_rest]
    kept = min(each, 15)
    if degree > 3:
        warnings.warn(
            f"{path}: spherical harmonics of degree {degree}: those above 3 are dropped",
            stacklevel=4,
        )
    names = [f"f_rest_{each * c + k}" for c in range(3) for k in range(kept)]
    higher = columns(*names).reshape(len(columns.rows), 3, kept).transpose(0, 2, 1)
    constant = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if "scale_2" in columns.names:
        log_scales = columns("scale_0", "scale_1", "scale_2")
    else:
        warnings.warn(
            f"{path}: two sizes a splat (2D Gaussian splatting, 2DGS): read as flat splats, a"
            " thousandth as thick as they are wide",
            stacklevel=4,
        )
        sizes = columns("scale_0", "scale_1")
        thickness = sizes.min(axis=1, keepdims=True) + np.float32(_FLAT)
        log_scales = np.concatenate([sizes, thickness], axis=1)
    means = columns("x", "y", "z")
    if any(columns.rows.dtype[name].itemsize == 8 for name in "xyz"):
        exact = np.stack([columns.rows[name].astype(np.float64) for name in "xyz"], axis=-1)
        means = held(exact, log_scales)
    return SplatCloud(
        means=means,
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        log_scales=log_scales,
        logit_opacities=columns("opacity")[:, 0],
        sh=np.concatenate([constant, higher], axis=1),
    )


def _smoothed(cloud: SplatCloud, columns: _Columns, header: PlyHeader) -> SplatCloud:
    """``cloud`` as the file says that it is drawn: with its 3D smoothing filter in sizes and
    opacities, and antialiased where a comment or the filter says so.

    The filter (Yu et al., Mip-Splatting, CVPR 2024, equation 9) convolves each Gaussian with an
    isotropic one of the standard deviation filter_3D: s' = sqrt(s^2 + f^2), and the opacity
    becomes opacity * sqrt(prod s^2 / prod s'^2). It is trained with the 2D filter, antialiasing.
    """
    said = says_antialiased(header)
    if "filter_3D" not in columns.names:
        return replace(cloud, antialiased=bool(said))
    scales = cloud.log_scales.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = np.logaddexp(2 * scales, 2 * np.log(columns("filter_3D").astype(np.float64))) / 2
        lost = np.where(np.isneginf(scales), -np.inf, scales - wide).sum(axis=1)
        opacities = packing.opacity_of(cloud.logit_opacities) * np.exp(lost)
        logits = packing.logit_of(opacities)
    return replace(
        cloud,
        log_scales=wide.astype(np.float32),
        logit_opacities=logits,
        antialiased=said is not False,
    )


def _as_matrix(rows: np.ndarray) -> np.ndarray | None:
    """[N, properties] when all are little-endian float32, as in the reference's own files: taking
    columns out of a matrix is several times faster than out of a structure."""
    names = rows.dtype.names or ()
    if not names or any(rows.dtype[name] != np.dtype("<f4") for name in names):
        return None
    return rows.view("<f4").reshape(len(rows), len(names))
