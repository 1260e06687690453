""".splat: 32 bytes per splat, no header (antimatter15/splat, 2023).

position 3 float32, standard deviations 3 float32 (linear), colour and opacity 4 bytes, rotation
4 bytes (wxyz, ``128 + 128 q``). Axes and units are those of the 3DGS PLY. Only the constant colour
is kept: spherical harmonics above degree 0 are lost. Written in order of opacity times volume,
largest first, as the original converter does, so that a viewer can show a prefix.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_path
from scene4d.formats import packing
from scene4d.formats.splat_cloud import SplatCloud

_ROW = np.dtype(
    [("mean", "<f4", 3), ("std", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)], align=False
)


def importance_order(cloud: SplatCloud) -> np.ndarray:
    """[N] indices by opacity times volume, largest first."""
    volume = cloud.log_scales.astype(np.float64).sum(axis=1)
    opacity = packing.opacity_of(cloud.logit_opacities)
    return np.argsort(-(volume + np.log(np.maximum(opacity, 1e-300))), kind="stable")


def write_splat(path: Path, cloud: SplatCloud) -> None:
    """Writes ``cloud``, reordered. Raises :class:`DataError` for an empty cloud and for NaN."""
    packing.require_splats(cloud, path, "a .splat file")
    cloud = packing.checked(cloud, path)
    cloud = packing.taken(cloud, importance_order(cloud))
    rows = np.empty(len(cloud), dtype=_ROW)
    rows["mean"] = cloud.means
    with np.errstate(over="ignore"):
        rows["std"] = np.exp(cloud.log_scales)
    if not np.isfinite(rows["std"]).all():
        raise packing.too_large(path)
    rows["rgba"][:, :3] = packing.to_codes(255 * (0.5 + packing.SH_C0 * cloud.sh[:, 0]), 255)
    rows["rgba"][:, 3] = packing.to_codes(255 * packing.opacity_of(cloud.logit_opacities), 255)
    rows["quat"] = packing.to_codes(128 + 128 * packing.unit_quats(cloud.quats), 255)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(rows.tobytes())


def read_splat(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """The splats of a .splat file, degree 0. Raises :class:`DataError`; a negative size is not
    finite as a logarithm."""
    data = packing.read_bytes(path)
    if not data or len(data) % _ROW.itemsize:
        raise DataError(
            f"is not a .splat file: its {len(data):,} bytes are not a multiple of 32",
            where=path,
            fix="copy or download the file again",
        )
    rows = np.frombuffer(data, dtype=_ROW)
    colours = rows["rgba"][:, :3].astype(np.float32)
    cloud = SplatCloud(
        means=rows["mean"].astype(np.float32),
        quats=(rows["quat"].astype(np.float32) - 128) / 128,
        log_scales=packing.log_of_sizes(rows["std"]),
        logit_opacities=packing.logit_of_bytes(rows["rgba"][:, 3]),
        sh=((colours / 255 - 0.5) / packing.SH_C0).astype(np.float32)[:, None],
    )
    return packing.checked(cloud, path, drop_invalid=drop_invalid)


def sizes_splat(path: Path) -> dict[str, int]:
    """Bytes of each attribute."""
    count = Path(path).stat().st_size // _ROW.itemsize
    each = {"means": 12, "scales": 12, "sh0": 3, "opacities": 1, "quats": 4}
    return {name: size * count for name, size in each.items()}
