"""Bundles of kind ``splats``: plain Gaussians, quantised attribute by attribute.

Arrays: ``opacity`` [1] (alpha), ``log_scales`` [3], ``rotation`` [3] (vector part of the unit
quaternion), ``dc`` [3] and ``sh`` [3 * (K - 1)] (coefficient by coefficient, red green blue).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import scene4d
from scene4d.bundle.arrays import CodedArray, dequantise, uniform
from scene4d.bundle.coding import Coded, Decoded, PointSet, decode_scene, encode_scene
from scene4d.bundle.columns import quantised
from scene4d.bundle.container import Bundle, BundleWriter, open_bundle
from scene4d.bundle.exact import inverse, principal_axes, product
from scene4d.bundle.limits import check_counts
from scene4d.bundle.manifest import FORMAT, VERSION
from scene4d.bundle.positions import MAX_BITS
from scene4d.bundle.quantise import rounded
from scene4d.bundle.rotations import angles_between, canonical, quats_of
from scene4d.bundle.scene_info import SceneInfo, default_info, info_entries
from scene4d.errors import DataError, UsageError
from scene4d.formats.splat_cloud import SplatCloud, size_of

_log = logging.getLogger("scene4d")

KIND = "splats"
ALPHA_LIMIT = 1 / 4096
"""Opacities leave as logits of alpha within [1/4096, 1 - 1/4096]."""
_FAR_SHARE = 1e-5
MAX_CODE = 1 << 23
"""Codes of one channel span less than 2^24 values."""


@dataclass(frozen=True, kw_only=True)
class SplatQuantisation:
    """Steps of every attribute; an array's entry is one step for all its components, or each."""

    position_bits: int | None = None
    """Bits per axis; None: fine enough for a fifth of the smaller splats' middle axis."""
    log_scale_step: float = 0.06
    """Natural logarithm: 0.06 is an error of at most 3% of a size."""
    rotation_step: float = 0.02
    """Of the quaternion's vector part: an error of at most about 0.02 rad per axis."""
    opacity_levels: int = 64
    """Levels of alpha from 0 to 1."""
    dc_step: float = 0.03
    """In units of the coefficient; a colour moves by at most 0.5 * 0.28 * step."""
    sh_steps: float | tuple[float, ...] = 0.05
    """One step, or one for each component of the transformed coefficients."""
    sh_dead_zone: float = 0.6
    """Coefficients below this many steps become 0."""
    sh_degree: int | None = None
    """Higher bands are dropped; None: all are kept."""
    sh_transform: bool | None = None
    """Decorrelate the SH coefficients by their principal axes; None: from 20,000 splats on."""
    stages: tuple[float, ...] | None = None
    """Cumulative shares of the splats; None: by their number."""


def coarser_steps(base: SplatQuantisation, factor: float) -> SplatQuantisation:
    """``base`` with all steps but the positions' ``factor`` times coarser."""
    names = ("log_scale_step", "rotation_step", "dc_step", "sh_steps")
    scaled = {name: getattr(base, name) * factor for name in names}
    levels = max(3, round((base.opacity_levels - 1) / factor) + 1)
    return replace(base, opacity_levels=levels, **scaled)


def encode_splats(
    cloud: SplatCloud,
    settings: SplatQuantisation | None = None,
    *,
    importance: np.ndarray | None = None,
) -> Coded:
    """The members and the manifest's part of ``cloud``; ``importance`` [N]: large comes first."""
    laid = laid_out(cloud, settings, importance=importance)
    coded = encode_scene(laid.points, laid.arrays)
    return replace(coded, manifest={**laid.manifest, **coded.manifest})


@dataclass(frozen=True, kw_only=True, eq=False)
class LaidOut:
    """Splats as points and codes, in coding order; a kind may add arrays of its own."""

    points: PointSet
    order: np.ndarray
    """[M] which splat comes at each place of the order; at most all."""
    places: np.ndarray
    """[M 3] on the points' grid, in that order."""
    arrays: list[CodedArray]
    manifest: dict[str, Any]
    """``count`` and ``sh_degree``."""


def laid_out(
    cloud: SplatCloud,
    settings: SplatQuantisation | None = None,
    *,
    importance: np.ndarray | None = None,
) -> LaidOut:
    """``cloud`` quantised, by stage and place; without what is :func:`out_of_reach`."""
    settings = settings or SplatQuantisation()
    _refuse_unusable(cloud)
    cloud = _limited_degree(cloud, settings.sh_degree)
    score = default_importance(cloud) if importance is None else importance
    rows = np.arange(len(cloud))
    if settings.position_bits is None and (far := out_of_reach(cloud)).any():
        rows = np.flatnonzero(~far)
        cloud, score = _taken(cloud, rows), score[rows]
        _log.info(
            "%d splats were left out: far from all others, hardly to be seen, and the places of "
            "the others would have been coarser for them", far.sum(),
        )  # fmt: skip
    points = quantise_points(
        cloud.means, settings.position_bits or default_bits(cloud), stages_of(score, settings)
    )
    order = points.order()
    return LaidOut(
        points=points,
        order=rows[order],
        places=points.points[order],
        arrays=_arrays(_taken(cloud, order), settings),
        manifest={"count": len(cloud), "sh_degree": cloud.sh_degree},
    )


def write_splats_bundle(
    path: Path,
    cloud: SplatCloud,
    settings: SplatQuantisation | None = None,
    scene_info: SceneInfo | None = None,
    *,
    importance: np.ndarray | None = None,
    folder: bool = False,
) -> Coded:
    """Writes a bundle file, or with ``folder`` its members unpacked; returns what it is made of.

    ``cloud`` is in bundle coordinates; ``scene_info.transform`` leads back to the capture's.
    """
    coded = encode_splats(cloud, settings, importance=importance)
    writer = bundle_writer(KIND, coded, scene_info or default_info(cloud))
    (writer.write_folder if folder else writer.write)(Path(path))
    return coded


def bundle_writer(kind: str, coded: Coded, info: SceneInfo) -> BundleWriter:
    """A writer with the members of any kind in their order: poster, content, references."""
    try:
        check_counts(coded.manifest)
    except DataError as error:
        raise DataError(
            f"the scene {error.what}, and so no reader would take the bundle",
            fix="its content is nearly all the same; keep fewer splats, or a lower SH degree",
        ) from error
    entries, images = info_entries(info)
    head = {"format": FORMAT, "version": VERSION, "kind": kind}
    writer = BundleWriter(
        {**head, "generator": f"scene4d {scene4d.__version__}", **entries, **coded.manifest}
    )
    writer.add(entries["poster"], images.pop(entries["poster"]))
    for name, data in {**coded.members, **images}.items():
        writer.add(name, data)
    return writer


def encoded_size(
    cloud: SplatCloud,
    settings: SplatQuantisation | None = None,
    scene_info: SceneInfo | None = None,
) -> int:
    """Bytes of the file that :func:`write_splats_bundle` would write."""
    coded = encode_splats(cloud, settings)
    return len(bundle_writer(KIND, coded, scene_info or default_info(cloud)).to_bytes())


def read_splats_bundle(
    path: Path, *, stages: int | None = None
) -> tuple[SplatCloud, dict[str, Any]]:
    """The Gaussians, in bundle coordinates and coding order, and the manifest."""
    bundle = open_bundle(path)
    return decode_splats(bundle, stages=stages), bundle.manifest


def decode_splats(bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
    """The Gaussians of an opened bundle, in bundle coordinates; the first ``stages`` of them."""
    if bundle.manifest["kind"] != KIND:
        raise DataError(f"is of kind {bundle.manifest['kind']!r}, not splats", where=bundle.path)
    check_count(bundle)
    try:
        cloud = splats_from(decode_scene(bundle, stages=stages), bundle.manifest["sh_degree"])
        return replace(cloud, antialiased=bundle.manifest["antialiased"])
    except DataError as error:
        raise DataError(error.what, where=bundle.path, fix=error.fix) from error


def check_count(bundle: Bundle) -> None:
    """Raises :class:`DataError` where the points are not as many as the splats."""
    points = sum(stage["points"] for stage in bundle.manifest["stages"])
    if points != bundle.manifest["count"]:
        raise DataError(
            f"says it has {bundle.manifest['count']} splats, its stages have {points} points",
            where=bundle.path,
        )


def splats_from(decoded: Decoded, sh_degree: int) -> SplatCloud:
    """Gaussians from decoded arrays. Raises :class:`DataError` when the arrays do not fit."""
    if decoded.points is None:
        raise DataError("a bundle of splats has no positions")
    count, rest = len(decoded.points), 3 * ((sh_degree + 1) ** 2 - 1)
    sh = np.empty((count, 3 + rest), dtype=np.float32)
    alpha = dequantise("opacity", decoded.arrays, out=_matrix(count, 1))[:, 0]
    alpha = np.clip(alpha, ALPHA_LIMIT, 1 - ALPHA_LIMIT)
    dequantise("dc", decoded.arrays, out=sh[:, :3])
    if rest:
        dequantise("sh", decoded.arrays, out=sh[:, 3:])
    cloud = SplatCloud(
        means=decoded.points,
        quats=quats_of(dequantise("rotation", decoded.arrays, out=_matrix(count, 3))),
        log_scales=dequantise("log_scales", decoded.arrays, out=_matrix(count, 3)),
        logit_opacities=np.log(alpha / (1 - alpha)),
        sh=sh.reshape(count, 1 + rest // 3, 3),
    )
    if not all(np.isfinite(a).all() for a in (cloud.quats, cloud.log_scales, cloud.sh)):
        raise DataError("an attribute is not a finite number")
    return cloud


def _matrix(rows: int, columns: int) -> np.ndarray:
    return np.empty((rows, columns), dtype=np.float32)


def default_importance(cloud: SplatCloud) -> np.ndarray:
    """[N] alpha times the area of the two longer axes: what a splat can cover on a screen."""
    two = np.sort(cloud.log_scales.astype(np.float64), axis=1)[:, 1:].sum(axis=1)
    return two - np.logaddexp(0.0, -cloud.logit_opacities.astype(np.float64))


def shares_of_stages(count: int, settings: SplatQuantisation) -> tuple[float, ...]:
    """Cumulative shares of ``count`` splats in the stages. A stage costs about a bit per splat, so
    small scenes have one."""
    if settings.stages is not None:
        return settings.stages
    return (1.0,) if count < 50_000 else (0.25, 1.0) if count < 200_000 else (0.1, 0.35, 1.0)


def stages_of(importance: np.ndarray, settings: SplatQuantisation) -> np.ndarray:
    """[N] stage of every splat."""
    count = len(importance)
    shares = shares_of_stages(count, settings)
    if any(not 0 < s <= 1 for s in shares) or list(shares) != sorted(set(shares)):
        raise UsageError(f"stages must rise from above 0 to 1, got {shares}")
    if not shares or shares[-1] != 1:
        raise UsageError(f"the last stage must be 1 (all splats), got {shares}")
    ends = np.unique([min(count, max(1, round(share * count))) for share in shares])
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-importance, kind="stable")] = np.arange(count)
    return np.searchsorted(ends, rank, side="right")


def default_bits(cloud: SplatCloud) -> int:
    """Bits per axis at which a step is :func:`wanted_step`, if so many are to be had."""
    if not len(cloud):
        return 1
    extent = float(np.ptp(cloud.means.astype(np.float64), axis=0).max())
    return int(np.clip(np.ceil(np.log2(max(extent / wanted_step(cloud), 1))), 10, MAX_BITS))


def wanted_step(cloud: SplatCloud) -> float:
    """A fifth of the smaller splats' middle axis."""
    return 0.2 * size_of(np.quantile(np.sort(cloud.log_scales, axis=1)[:, 1], 0.1))


def out_of_reach(cloud: SplatCloud) -> np.ndarray:
    """[N] whether a splat is left out for the others: positions lie on an even grid, which the
    farthest splats make coarse.

    Trainings leave faint splats at any distance. Those go, from the farthest on, that together make
    up less than :data:`_FAR_SHARE` of what one sees from the middle (opacity times solid angle),
    and no more than it takes for the grid's steps to be as fine as they should.
    """
    if len(cloud) < 2:
        return np.zeros(len(cloud), dtype=bool)
    means = cloud.means.astype(np.float64)
    away = np.abs(means - np.median(means, axis=0)).max(axis=1)
    near = wanted_step(cloud) * 2.0 ** (MAX_BITS - 1)
    if away.max() <= near:
        return np.zeros(len(cloud), dtype=bool)
    size = default_importance(cloud) - 2 * np.log(np.maximum(away, np.median(away) + 1e-300))
    size = np.exp(size - size.max())
    order = np.argsort(-away, kind="stable")
    beyond = np.empty(len(cloud))
    beyond[order] = np.cumsum(size[order])
    return (away > near) & (beyond < _FAR_SHARE * size.sum())


def quantise_points(means: np.ndarray, bits: int, stages: np.ndarray) -> PointSet:
    """Positions on a grid of 2^bits steps along the longest axis."""
    if not 1 <= bits <= MAX_BITS:
        raise UsageError(f"position bits must be 1 to {MAX_BITS}, got {bits}")
    if not len(means):
        return PointSet(points=np.zeros((0, 3), dtype=np.uint32), bits=bits, origin=(0.0, 0.0, 0.0),
                        step=1.0, stages=stages)  # fmt: skip
    exact = means.astype(np.float64)
    low = np.array([rounded(v) for v in exact.min(axis=0)])
    extent = float((exact.max(axis=0) - low).max())
    step = rounded(extent / ((1 << bits) - 1) * 1.000001) or 1.0
    points = np.clip(np.rint((exact - low) / step), 0, (1 << bits) - 1).astype(np.uint32)
    difference = low + step * points - exact
    x, y, z = (float(v) for v in low)
    return PointSet(points=points, bits=bits, origin=(x, y, z), step=step, stages=stages,
                    error=error_of(difference))  # fmt: skip


def _arrays(cloud: SplatCloud, settings: SplatQuantisation) -> list[CodedArray]:
    """The attributes of ``cloud``, which is in coding order."""
    alpha = 1 / (1 + np.exp(-cloud.logit_opacities.astype(np.float64)))[:, None]
    opacity = uniform_array("opacity", alpha, rounded(1 / (settings.opacity_levels - 1)))
    xyz, log_scales = canonical(cloud.quats, cloud.log_scales)
    scales = uniform_array(
        "log_scales", log_scales, settings.log_scale_step, hints=("opacity.0",)
    )  # fmt: skip
    # A ball has no orientation.
    xyz = np.where(np.ptp(scales.codes, axis=1)[:, None] == 0, 0.0, xyz) if len(xyz) else xyz
    hints = ("log_scales.0", "log_scales.1", "log_scales.2", "opacity.0")
    rotation = uniform_array("rotation", xyz, settings.rotation_step, hints=hints)
    turned = quats_of(dequantise("rotation", {"rotation": rotation}))
    angles = angles_between(quats_of(xyz.astype(np.float32)).astype(np.float64), turned)
    rotation = replace(rotation, error=error_of(angles[:, None]))
    dc = transformed_array(
        "dc", cloud.sh[:, 0].astype(np.float64), settings.dc_step,
        hints=("opacity.0", "log_scales.0"),
    )  # fmt: skip
    return [opacity, scales, rotation, *dc, *_sh_arrays(cloud, settings)]


def _sh_arrays(cloud: SplatCloud, settings: SplatQuantisation) -> list[CodedArray]:
    rest = 3 * (cloud.sh.shape[1] - 1)
    if not rest:
        return []
    values = cloud.sh[:, 1:].reshape(len(cloud), rest)
    decorrelate = settings.sh_transform
    if decorrelate is None:
        decorrelate = len(cloud) >= 20_000
    if not decorrelate:
        return [uniform_array("sh", values, settings.sh_steps, dead_zone=settings.sh_dead_zone,
                              stream="sh")]  # fmt: skip
    return transformed_array(
        "sh", values, settings.sh_steps, dead_zone=settings.sh_dead_zone, stream="sh"
    )


def uniform_array(
    name: str,
    values: np.ndarray,
    step: float | Sequence[float],
    *,
    dead_zone: float = 0.5,
    stream: str = "points",
    hints: tuple[str, ...] = (),
) -> CodedArray:
    """``values`` [N, C] on a uniform grid through 0, with the error made."""
    array = _on_grid(name, values, step, dead_zone=dead_zone, stream=stream, hints=hints)
    return replace(array, error=error_of(dequantise(name, {name: array}) - values))


def _on_grid(
    name: str,
    values: np.ndarray,
    step: float | Sequence[float],
    *,
    dead_zone: float,
    stream: str,
    hints: tuple[str, ...],
) -> CodedArray:
    width = values.shape[1]
    steps = [rounded(s) for s in uniform(step, width).step]
    if len(steps) != width or any(not 0 < s < 1e30 for s in steps):
        raise UsageError(f"the steps of {name} must be 1 or {width} positive numbers, got {step}")
    largest = np.abs(values).max(axis=0, initial=0.0) / np.array(steps)
    if (largest >= MAX_CODE).any():
        raise UsageError(
            f"{name} reaches {float(np.abs(values).max()):.3g}, too many steps of"
            f" {steps[int(largest.argmax())]:g}; choose larger steps"
        )
    codes = quantised(values, np.array(steps), np.zeros(width), dead_zone)
    return CodedArray(
        name=name, codes=codes, quantiser=uniform(steps, width), stream=stream, hints=hints
    )


def transformed_array(
    name: str,
    values: np.ndarray,
    step: float | Sequence[float],
    *,
    dead_zone: float = 0.5,
    stream: str = "points",
    hints: tuple[str, ...] = (),
) -> list[CodedArray]:
    """``values`` [N, C] along their principal axes: the basis array and the coded one.

    The basis is stored with 12 bits; codes are made for the stored one.
    """
    basis_name, width = f"{name}_basis", values.shape[1]
    stored = replace(
        uniform_array(basis_name, principal_axes(values), 1 / 2048), stage=0, stream="fixed"
    )
    basis = dequantise(basis_name, {basis_name: stored}).astype(np.float64)
    inside = product(values, inverse(basis))
    array = replace(
        _on_grid(name, inside, step, dead_zone=dead_zone, stream=stream, hints=hints),
        basis=basis_name,
    )
    assert array.codes.shape[1] == width
    made = dequantise(name, {name: array, basis_name: stored})
    return [stored, replace(array, error=error_of(made - values))]


def error_of(difference: np.ndarray) -> dict[str, float]:
    """``max`` and ``rms`` of what quantisation changed, as a manifest has them."""
    if not difference.size:
        return {"max": 0.0, "rms": 0.0}
    flat = np.ascontiguousarray(difference, dtype=np.float64).ravel()
    rms = float(np.sqrt(np.square(flat).sum() / len(flat)))  # not BLAS: the same everywhere
    largest = float(max(flat.max(), -flat.min()))
    return {"max": float(f"{largest:.3g}"), "rms": float(f"{rms:.3g}")}


def _taken(cloud: SplatCloud, order: np.ndarray) -> SplatCloud:
    return replace(
        cloud, means=cloud.means[order], quats=cloud.quats[order],
        log_scales=cloud.log_scales[order], logit_opacities=cloud.logit_opacities[order],
        sh=cloud.sh[order],
    )  # fmt: skip


def _limited_degree(cloud: SplatCloud, degree: int | None) -> SplatCloud:
    if degree is None or degree >= cloud.sh_degree:
        return cloud
    if degree < 0:
        raise UsageError(f"the SH degree must be 0 to 3, got {degree}")
    return replace(cloud, sh=np.ascontiguousarray(cloud.sh[:, : (degree + 1) ** 2]))


def _refuse_unusable(cloud: SplatCloud) -> None:
    """Raises :class:`DataError` on NaN, infinity and zero quaternions."""
    bad = ~np.isfinite(cloud.means).all(axis=1) | ~np.isfinite(cloud.log_scales).all(axis=1)
    bad |= ~np.isfinite(cloud.sh).all(axis=(1, 2)) | ~np.isfinite(cloud.logit_opacities)
    lengths = np.linalg.norm(cloud.quats.astype(np.float64), axis=1)
    bad |= ~np.isfinite(lengths) | (lengths == 0)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(cloud)} splats have NaN, infinity or a zero rotation,"
            f" the first is number {int(bad.argmax())}",
            fix="remove them before writing (scene4d convert can)",
        )
