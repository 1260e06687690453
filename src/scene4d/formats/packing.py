"""What quantised splat formats share: bounds on what a file may ask for, orders, small codes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from scene4d.errors import DataError
from scene4d.files import open_regular
from scene4d.formats.splat_cloud import SplatCloud

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + SH_C0 * sh."""
CERTAIN = 20.0
"""An opacity of exactly 0 or 1 has an infinite logit; it becomes this: sigmoid(20) is 1 in
float32."""
SMALLEST = float(np.finfo(np.float32).tiny)
"""A standard deviation of 0 becomes this, as its logarithm has to be finite."""
VISIBLE, _FEW = 0.5, 0.05
"""A splat that moves by this share of its size can be seen to; so few of a scene are not told: far
splats of compressed PLYs move so in every scene (INRIA's test scene at 52 dB)."""
DROP_INVALID = (
    "--drop-invalid leaves such splats out and says how many (convert, view, export, compress)"
)
_FREE_SPLATS = 2**18
_LEAST_BYTES = 2
"""No format here stores real splats in fewer bytes each; a file that promises more than its size
allows, beyond the first quarter of a million (62 MB decoded), is refused before memory is taken."""
_NAMES = {
    "means": "position",
    "quats": "rotation",
    "log_scales": "log-scale",
    "logit_opacities": "opacity logit",
    "sh": "colour",
}
_log = logging.getLogger("scene4d")
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
"""Per largest component of a quaternion: the three that are stored."""


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises :class:`DataError` when it cannot be read."""
    with open_regular(path) as file:
        try:
            return file.read()
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


def checked(cloud: SplatCloud, path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """``cloud`` with infinite opacities as :data:`CERTAIN` and sizes of 0 as :data:`SMALLEST`;
    refused with the first offender where values are not finite or a rotation has length 0. With
    ``drop_invalid`` those are left out, and a line in the log counts them."""
    cloud = _without_limits(cloud)
    invalid = invalid_splats(cloud)
    if not invalid.any():
        return cloud
    count = int(invalid.sum())
    if drop_invalid:
        _log.warning(
            "%s: left out %s of %s splats, whose values are not finite or whose rotation is 0",
            path, f"{count:,}", f"{len(cloud):,}",
        )  # fmt: skip
        return taken(cloud, ~invalid)
    row = int(np.argmax(invalid))
    raise DataError(
        f"splat {row} has {_fault(cloud, row)} ({count:,} of {len(cloud):,} splats have such"
        " values)",
        where=path,
        fix=DROP_INVALID,
    )


def _without_limits(cloud: SplatCloud) -> SplatCloud:
    """``cloud`` with finite numbers for what has an infinite logarithm: opacities of exactly 0 and
    1, sizes of exactly 0."""
    opacities, scales = cloud.logit_opacities, cloud.log_scales
    if np.isinf(opacities).any():
        opacities = np.where(np.isinf(opacities), np.copysign(CERTAIN, opacities), opacities)
    if np.isneginf(scales).any():
        scales = np.where(np.isneginf(scales), np.log(SMALLEST), scales)
    if opacities is cloud.logit_opacities and scales is cloud.log_scales:
        return cloud
    return replace(
        cloud,
        logit_opacities=opacities.astype(np.float32),
        log_scales=scales.astype(np.float32),
    )


def invalid_splats(cloud: SplatCloud) -> np.ndarray:
    """[N] which splats nothing can draw: values that are not finite, rotations of length 0."""
    lengths = np.abs(cloud.quats).max(axis=1) if len(cloud) else np.ones(0)
    invalid = lengths == 0
    for name in _NAMES:
        array = getattr(cloud, name)
        if not np.isfinite(array.sum(dtype=np.float64)):  # NaN and infinity survive a sum
            invalid |= ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return invalid


def _fault(cloud: SplatCloud, row: int) -> str:
    """What is wrong with a splat, for people."""
    for name, meaning in _NAMES.items():
        values = getattr(cloud, name)[row].reshape(-1)
        wrong = ~np.isfinite(values)
        if wrong.any():
            axis = f" {'xyz'[int(np.argmax(wrong))]}" if name == "means" else ""
            return f"a {meaning}{axis} that is not finite: {values[np.argmax(wrong)]}"
    return "a rotation quaternion of length 0"


def warn_of_loss(
    path: Path,
    form: str,
    cloud: SplatCloud,
    means: np.ndarray,
    log_scales: np.ndarray,
    advice: str = "",
) -> None:
    """Tells in the log, in scene units, where a format's codes move or resize splats visibly.

    ``means`` [N, 3], ``log_scales`` [N, 3]: what a reader will find for ``cloud``. Said when more
    than one splat in twenty moves by :data:`VISIBLE` of its size (its middle axis), or when an
    axis changes by that share of itself and by a tenth of the splat's longest.
    """
    if not len(cloud):
        return
    old, new = np.exp(cloud.log_scales.astype(np.float64)), np.exp(log_scales.astype(np.float64))
    size = np.median(old, axis=1)
    typical = float(np.median(size))
    moved = np.linalg.norm(means.astype(np.float64) - cloud.means, axis=1)
    change = np.abs(new - old)
    resized = (change > VISIBLE * old) & (change > 0.1 * old.max(axis=1, keepdims=True))
    told = (
        ("moves", moved > VISIBLE * size, float(moved.max())),
        ("resizes", resized.any(axis=1), float(change[resized].max(initial=0.0))),
    )
    for verb, visible, largest in told:
        if visible.mean() <= _FEW:
            continue
        _log.warning(
            "%s: %s %s %s of %s splats by more than half of their size, by up to %.3g scene units,"
            " %.3g times the median splat (%.3g); .ply and .glb keep them%s",
            path, form, verb, f"{int(visible.sum()):,}", f"{len(cloud):,}", largest,
            largest / typical, typical, f", and so may {advice}" if advice else "",
        )  # fmt: skip


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


def log_of_sizes(sizes: np.ndarray) -> np.ndarray:
    """Logarithms, float32, of linear sizes; NaN for negative ones, :data:`SMALLEST`'s for 0."""
    with np.errstate(invalid="ignore"):
        return np.log(np.where(sizes == 0, SMALLEST, sizes)).astype(np.float32)


def too_large(path: Path) -> DataError:
    """The error for a size beyond the numbers of a format that stores it linearly."""
    return DataError(
        "a splat is larger than float32 can say",
        where=path,
        fix="leave it out with --crop, or scale the scene down: scene4d convert --scale 0.001",
    )


def logit_of(opacities: np.ndarray) -> np.ndarray:
    """Logits of opacities 0..1 in float32; 0 and 1 become -20 and 20."""
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN outside 0..1, refused later
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
