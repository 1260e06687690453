"""What quantised splat formats share: bounds on what a file may ask for, orders, small codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.splat_cloud import SplatCloud

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + SH_C0 * sh."""
CERTAIN = 20.0
"""An opacity of exactly 0 or 1 has an infinite logit; it becomes this: sigmoid(20) is 1 in
float32."""
_FREE_SPLATS = 2**18
_LEAST_BYTES = 2
"""No format here stores real splats in fewer bytes each; a file that promises more than its size
allows, beyond the first quarter of a million (62 MB decoded), is refused before memory is taken."""
_NAMES = {
    "means": "position",
    "quats": "rotation",
    "log_scales": "log-scale",
    "logit_opacities": "opacity logit",
    "sh": "spherical harmonics",
}
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Per largest component of a quaternion: the three that are stored."""


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises :class:`DataError` when it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error


def require_plausible(count: int, file_bytes: int, path: Path) -> None:
    """Refuses a promised number of splats that a file of that size cannot hold."""
    if count < 0 or count > _FREE_SPLATS + file_bytes // _LEAST_BYTES:
        raise DataError(
            f"promises {count:,} splats in {file_bytes:,} bytes, which cannot be true",
            where=path,
            fix="the file is damaged, or made to exhaust memory; get it from its source again",
        )


def cut_off(path: Path, needed: int, found: int, what: str = "the file") -> DataError:
    """The error for a file that ends too early."""
    return DataError(
        f"is cut off: {what} needs {needed:,} bytes, only {max(found, 0):,} are there",
        where=path,
        fix="copy or download the file again",
    )


def checked(cloud: SplatCloud, path: Path) -> SplatCloud:
    """``cloud`` itself, refused with the first offender when values are not finite or a rotation
    has length 0."""
    for name, meaning in _NAMES.items():
        array = getattr(cloud, name)
        if np.isfinite(array.sum(dtype=np.float64)):  # NaN and infinity survive a sum
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"splat {row} has a {meaning} that is not finite"
                f" ({int(bad.sum())} splats have such values)",
                where=path,
            )
    lengths = np.abs(cloud.quats).max(axis=1) if len(cloud) else np.ones(1)
    if not (lengths > 0).all():
        raise DataError(
            f"splat {int(np.argmin(lengths))} has a rotation quaternion of length 0", where=path
        )
    return cloud


def require_splats(cloud: SplatCloud, path: Path, form: str) -> None:
    """Refuses an empty cloud for a format that cannot say it."""
    if not len(cloud):
        raise DataError(
            f"there are no splats, which {form} cannot say",
            where=path,
            fix="write a .ply, or loosen the crop or opacity filter",
        )


def opacity_of(logits: np.ndarray) -> np.ndarray:
    """Opacities 0..1 of ``logits``, in float64, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def logit_of(opacities: np.ndarray) -> np.ndarray:
    """Logits of opacities 0..1 in float32; 0 and 1 become -20 and 20."""
    with np.errstate(divide="ignore"):
        logits = np.log(opacities) - np.log1p(-opacities)
    return np.clip(logits, -CERTAIN, CERTAIN).astype(np.float32)


_BYTE_LOGITS = logit_of(np.arange(256) / 255.0)


def logit_of_bytes(codes: np.ndarray) -> np.ndarray:
    """Logits of opacities stored as 0..255."""
    return _BYTE_LOGITS[codes]


def to_codes(values: np.ndarray, highest: int, dtype: type = np.uint8) -> np.ndarray:
    """``values`` (0..highest, clamped) rounded to the nearest code."""
    return np.clip(np.rint(values), 0, highest).astype(dtype)


def unit_quats(quats: np.ndarray) -> np.ndarray:
    """[N, 4] of length 1, float64; no length overflows or underflows."""
    quats = quats.astype(np.float64)
    quats /= np.abs(quats).max(axis=1, keepdims=True, initial=0.0)
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def smallest_three(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index of the largest component [N] and the three others [N, 3], in -1/sqrt2..1/sqrt2.

    ``quats`` have any length and order of components; the sign is chosen so that the largest is
    positive, as q and -q are the same rotation.
    """
    quats = unit_quats(quats)
    largest = np.abs(quats).argmax(axis=1)
    rows = np.arange(len(quats))
    others = quats[rows[:, None], _OTHERS[largest]]
    return largest, others * np.where(quats[rows, largest] < 0, -1.0, 1.0)[:, None]


def from_smallest_three(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, 4] float32 quaternions, the inverse of :func:`smallest_three`; impossible triples (longer
    than 1) get a largest component of 0."""
    quats = np.empty((len(others), 4), dtype=np.float32)
    squares = np.einsum("ij,ij->i", others, others)
    missing = np.sqrt(np.maximum(1.0 - squares, 0.0))
    for index in range(4):
        chosen = largest == index
        quats[chosen, index] = missing[chosen]
        for column, component in enumerate(_OTHERS[index]):
            quats[chosen, component] = others[chosen, column]
    return quats


def morton_order(means: np.ndarray) -> np.ndarray:
    """[N] indices along a Z-order curve of 21 bits per axis through the bounding box."""
    if not len(means):
        return np.zeros(0, dtype=np.int64)
    low = means.min(axis=0).astype(np.float64)
    extent = np.maximum(means.max(axis=0) - low, 1e-30)
    cells = ((means - low) / extent * (2**21 - 1)).astype(np.uint64)
    code = np.zeros(len(means), dtype=np.uint64)
    for axis in range(3):
        code |= _spread(cells[:, axis]) << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _spread(bits: np.ndarray) -> np.ndarray:
    """21 bits of a number moved to every third place."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits


def taken(cloud: SplatCloud, which: np.ndarray) -> SplatCloud:
    """The splats that ``which`` (indices or a mask) names, in that order."""
    return replace(cloud, **{name: getattr(cloud, name)[which] for name in _NAMES})


def bytes_table(sizes: dict[str, int], count: int) -> list[dict[str, object]]:
    """Rows for ``scene4d info``: name, bytes per splat and bytes of each part."""
    return [
        {"name": name, "bytes_each": round(size / max(count, 1), 2), "bytes": size}
        for name, size in sizes.items()
    ]
