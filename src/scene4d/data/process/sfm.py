"""Structure from motion through pycolmap: pictures in, camera poses and coloured points out.

Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016. Everything that leaves this
module is plain numpy; poses are world-to-camera with OpenCV axes, in COLMAP's own frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from scene4d.data.process.consistency import unexplained_share
from scene4d.data.process.matches import (
    PairFacts,
    parallax_deg,
    read_matches,
    stands_still,
    well_matched,
)
from scene4d.data.process.pairs import likely_pairs
from scene4d.data.process.pictures import Picture
from scene4d.data.process.progress import Say, Ticker, watched
from scene4d.image_files import load_formats
from scene4d.optional import import_optional
from scene4d.ranges import Within

if TYPE_CHECKING:
    import pycolmap

CameraModel = Literal[
    "opencv", "pinhole", "simple_pinhole", "simple_radial", "radial", "opencv_fisheye"
]
_EXHAUSTIVE_UP_TO = 60
"""Pictures; 1,770 pairs take about two minutes on two cores. In a video half as many: there the
neighbours in time are known."""
_FEATURES, _VIDEO_FEATURES = 8192, 4096
"""At most, per picture. Matching time grows with the square, and video frames match easily."""
_BLOCK = 12
"""Pictures whose pairs with as many others COLMAP matches between two writes to its database."""
_ENOUGH, _FEW = 1.0, 0.6
"""Share of registered pictures below which the mapping (seconds), or everything, is repeated."""
_LITTLE_PARALLAX_DEG = 8.0
"""Below it bundle adjustment converges slowly; its repetitions are cut to bound the time."""
_SURE_ANGLE_DEG = 2.0
"""Of the rays to a point that only two pictures show; below it a wrong match can look right."""


@dataclass(frozen=True, kw_only=True)
class SfmOptions:
    """How structure from motion is run."""

    camera_model: CameraModel = "opencv"
    """Lens model: opencv (two focal lengths, k1 k2 p1 p2) suits phones and cameras; pinhole for
    undistorted or rendered pictures; simple_radial for a handful of pictures; opencv_fisheye."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which pairs are compared. auto: all pairs up to 60 photos or 30 video frames; beyond
    that each picture with the most similar ones, and in a video with its neighbours in time."""
    max_image_size: Annotated[int, Within(64, 65536)] = 1600
    """Longest side in pixels at which features are searched; the pictures keep their size."""
    max_num_features: Annotated[int, Within(16, 1_000_000)] | None = None
    """Features per picture, at most. None: 8192 for photos, 4096 for video frames."""
    num_threads: Annotated[int, Within(0, 1024)] = 0
    """Number of threads; 0: as many as this process may use."""
    seed: Annotated[int, Within(0, 2**31 - 1)] = 0
    """Seed of the random samples in verification and mapping."""

    @property
    def threads(self) -> int:
        """The number of threads that will be used."""
        if self.num_threads > 0:
            return self.num_threads
        available = getattr(os, "sched_getaffinity", None)
        return len(available(0)) if available else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class SfmCamera:
    """Intrinsics that one or more pictures share; pixels from the top-left corner."""

    model: Literal["PINHOLE", "OPENCV", "OPENCV_FISHEYE"]
    """nerfstudio's name; radial models are OPENCV with zeros."""
    width: int
    height: int
    params: dict[str, float]
    """fl_x, fl_y, cx, cy and the distortion: k1 k2 p1 p2, or k1..k4 for a fisheye."""


@dataclass(frozen=True, kw_only=True)
class SfmImage:
    """A registered picture."""

    name: str
    camera_id: int
    viewmat: np.ndarray
    """[4, 4] world-to-camera, OpenCV axes, float64."""
    point_indices: np.ndarray
    """[num_observations] rows of :attr:`SfmModel.xyz` seen in this picture."""
    xy: np.ndarray
    """[num_observations, 2] where they were found, in pixels."""


@dataclass(frozen=True, kw_only=True)
class SfmModel:
    """One connected reconstruction."""

    cameras: dict[int, SfmCamera]
    images: list[SfmImage]
    """In name order."""
    xyz: np.ndarray
    """[num_points, 3] float64."""
    rgb: np.ndarray
    """[num_points, 3] uint8."""
    errors_px: np.ndarray
    """[num_points] mean reprojection error."""
    track_lengths: np.ndarray
    """[num_points] pictures in which the point is seen."""


@dataclass(frozen=True, kw_only=True)
class SfmResult:
    """The largest model, and what is needed to explain why pictures are missing from it."""

    model: SfmModel | None
    """Made of points that three or more pictures show."""
    xyz: np.ndarray
    """[num_points, 3] float64; with the points that two pictures show, which are several times as
    many: too weak to find poses from, good to start training from."""
    rgb: np.ndarray
    """[num_points, 3] uint8."""
    other_models: list[list[str]]
    """Names of the pictures of each smaller model that the largest does not have."""
    num_features: dict[str, int]
    pairs: dict[tuple[str, str], PairFacts]
    attempts: list[str]
    """One line each, in order."""
    unexplained: float | None = None
    """See :func:`scene4d.data.process.consistency.unexplained_share`."""
    sightings: Sequence[SfmImage] = ()
    """Where the pictures show which rows of :attr:`xyz`."""


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    title: str
    more_features: bool = False
    loose_mapping: bool = False


_FIRST = _Attempt(title="usual settings")
_LOOSE = _Attempt(title="smaller angles and fewer matches allowed", loose_mapping=True)
_MORE = _Attempt(
    title="twice the features, more pairs, smaller angles allowed",
    more_features=True,
    loose_mapping=True,
)


def pictures_elsewhere(models: Sequence[SfmModel]) -> list[list[str]]:
    """Names of the pictures of each model but the first, less those that the first has, too.

    COLMAP lets models overlap: a second one is begun from pictures that the first already placed.
    """
    placed = {image.name for image in models[0].images} if models else set()
    names = [[i.name for i in m.images if i.name not in placed] for m in models[1:]]
    return [group for group in names if group]


@dataclass
class _Best:
    """The outcome so far; more registered pictures win, unless the error doubles."""

    database: Path
    model: SfmModel | None = None
    reconstruction: Any = None
    others: list[list[str]] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)

    def offer(self, attempt: _Attempt, found: list[Any], database: Path, total: int) -> None:
        pairs = [(_plain_model(reconstruction), reconstruction) for reconstruction in found]
        pairs = [(m, r) for m, r in pairs if len(m.images) >= 2 and len(m.xyz)]
        pairs.sort(key=lambda pair: (len(pair[0].images), len(pair[0].xyz)), reverse=True)
        count = len(pairs[0][0].images) if pairs else 0
        self.attempts.append(f"{attempt.title}: {count} of {total} pictures registered")
        if not pairs:
            return
        if self.model is not None:
            before, now = self.model.errors_px.mean(), pairs[0][0].errors_px.mean()
            if count <= self.count or now > 2 * before + 0.25:
                return
        self.model, self.reconstruction = pairs[0]
        self.database = database
        self.others = pictures_elsewhere([m for m, _ in pairs])

    @property
    def count(self) -> int:
        return len(self.model.images) if self.model else 0


def run_sfm(
    image_dir: Path,
    pictures: Sequence[Picture],
    *,
    options: SfmOptions,
    work_dir: Path,
    in_order: bool,
    say: Callable[[str], None],
    mask_dir: Path | None = None,
) -> SfmResult:
    """Registers ``pictures`` (files below ``image_dir``), retrying with looser settings if needed.

    ``in_order``: the pictures are frames of one video. ``work_dir`` receives COLMAP's database and
    models. ``mask_dir`` holds ``NAME.png`` of each picture NAME, of its size: features where it is
    0 are left out. Raises :class:`MissingExtraError` without pycolmap.
    """
    colmap = import_pycolmap()
    colmap.logging.minloglevel = 3
    colmap.set_random_seed(options.seed)
    total = len(pictures)
    database = work_dir / "database-0.db"
    best = _Best(database=database)
    pairs: dict[tuple[str, str], PairFacts] = {}
    for number, attempt in enumerate((_FIRST, _LOOSE, _MORE)):
        if best.count >= (_FEW if attempt.more_features else _ENOUGH) * total:
            break
        if attempt.more_features and well_matched(pairs, total):
            break  # matches are not what is missing
        if number:
            say(f"{best.count} of {total} pictures registered; trying again: {attempt.title}")
        if number == 0 or attempt.more_features:
            database = work_dir / f"database-{number}.db"
            most = options.max_num_features or (_VIDEO_FEATURES if in_order else _FEATURES)
            with watched(database, "keypoints", say, "finding features in pictures", total):
                extraction = _extraction_options(colmap, options, attempt, most)
                reader = _reader_options(colmap, options, mask_dir)
                _extract(colmap, database, image_dir, pictures, extraction, reader)
            _match(colmap, database, pictures, options, attempt, in_order, say)
            _, pairs = read_matches(colmap, database)
        if stands_still(pairs):
            best.attempts.append("not tried: the background does not move from picture to picture")
            break
        pipeline = _mapping_options(colmap, options, attempt, parallax_deg(pairs), total)
        output = work_dir / f"models-{number}"
        output.mkdir()
        models = colmap.incremental_mapping(
            database,
            image_dir,
            output,
            pipeline,
            next_image_callback=_placed(say, total),
        )
        best.offer(attempt, list(models.values()), database, total)
    points = _all_points(colmap, best, image_dir, work_dir, options)
    features, pairs = read_matches(colmap, best.database)
    unexplained = None
    if best.model is not None:
        unexplained = unexplained_share(colmap, best.database, best.reconstruction)
    return SfmResult(
        model=best.model,
        xyz=np.empty((0, 3)) if points is None else points.xyz,
        rgb=np.empty((0, 3), dtype=np.uint8) if points is None else points.rgb,
        other_models=best.others,
        num_features=features,
        pairs=pairs,
        attempts=best.attempts,
        unexplained=unexplained,
        sightings=() if points is None else points.images,
    )


def _placed(say: Say, total: int) -> Callable[[], None]:
    """Counts what mapping places; the first pair stands before it is called for the first time."""
    ticker, number = Ticker(say, "finding camera poses for pictures", total), count(2)
    return lambda: ticker.at(next(number))


def import_pycolmap() -> Any:
    """The pycolmap module, or :class:`MissingExtraError`.

    Pillow and its codecs are loaded before it: after pycolmap's libraries, writing a PNG damages
    the heap (Pillow 13.0, pycolmap 4.2.1 on Linux).
    """
    load_formats()
    return import_optional(
        "pycolmap", extra="recon", needed_for="finding camera poses (process-data)"
    )


def _extraction_options(
    colmap: Any, options: SfmOptions, attempt: _Attempt, max_num_features: int
) -> Any:
    extraction = colmap.FeatureExtractionOptions()
    extraction.num_threads = options.threads
    extraction.use_gpu = False
    extraction.max_image_size = options.max_image_size
    extraction.sift.max_num_features = max_num_features
    if attempt.more_features:
        extraction.sift.max_num_features = 2 * max_num_features
        extraction.sift.peak_threshold /= 3
    return extraction


def _reader_options(colmap: Any, options: SfmOptions, mask_dir: Path | None) -> Any:
    reader = colmap.ImageReaderOptions()
    reader.camera_model = options.camera_model.upper()
    if mask_dir is not None:
        reader.mask_path = mask_dir
    return reader


def _extract(
    colmap: Any,
    database: Path,
    image_dir: Path,
    pictures: Sequence[Picture],
    extraction: Any,
    reader: Any,
) -> None:
    """Features of every picture; pictures of one size and lens share one camera."""
    groups: dict[tuple[int, int, str], list[str]] = {}
    for picture in pictures:
        groups.setdefault((picture.width, picture.height, picture.lens), []).append(picture.name)
    for names in groups.values():
        colmap.extract_features(
            database,
            image_dir,
            names,
            colmap.CameraMode.SINGLE,
            reader,
            extraction,
            device=colmap.Device.cpu,
        )


def _match(
    colmap: Any,
    database: Path,
    pictures: Sequence[Picture],
    options: SfmOptions,
    attempt: _Attempt,
    in_order: bool,
    say: Callable[[str], None],
) -> None:
    """Matches and verifies the pairs that ``options.matching`` asks for."""
    matching = colmap.FeatureMatchingOptions()
    matching.num_threads = options.threads
    matching.use_gpu = False
    matching.guided_matching = attempt.more_features
    verification = colmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = options.seed
    shared = {"verification_options": verification, "device": colmap.Device.cpu}
    number = len(pictures)
    table = "two_view_geometries"
    if options.matching == "sequential" and not attempt.more_features:
        pairing = colmap.SequentialPairingOptions()
        near = number * pairing.overlap
        with watched(database, table, say, "matching neighbouring pictures, at most", near):
            colmap.match_sequential(database, matching, pairing, **shared)
    elif options.matching == "exhaustive" or number <= _EXHAUSTIVE_UP_TO // (2 if in_order else 1):
        pairing = colmap.ExhaustivePairingOptions()
        pairing.block_size = _BLOCK
        with watched(database, table, say, "matching all pairs", number * (number - 1) // 2):
            colmap.match_exhaustive(database, matching, pairing, **shared)
    else:
        pairs = likely_pairs(
            colmap,
            database,
            [picture.name for picture in pictures],
            per_picture=(10 if in_order else 20) * (2 if attempt.more_features else 1),
            neighbours=6 if in_order or options.matching == "sequential" else 0,
        )
        title = f"matching the most likely pairs of {number * (number - 1) // 2}"
        listing = database.with_suffix(".pairs.txt")
        listing.write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
        pairing = colmap.ImportedPairingOptions()
        pairing.match_list_path = listing
        pairing.block_size = _BLOCK**2
        with watched(database, table, say, title, len(pairs)):
            colmap.match_image_pairs(database, matching, pairing, **shared)


def _mapping_options(
    colmap: Any, options: SfmOptions, attempt: _Attempt, parallax: float, num_pictures: int
) -> Any:
    """COLMAP's mapping options, with angles that fit a capture with ``parallax`` in degrees.

    COLMAP's own (16 deg for the first pair, 1.5 deg for a point) reject everything that a camera
    sees that hardly leaves its place, and take minutes to do so.
    """
    pipeline = colmap.IncrementalPipelineOptions()
    pipeline.num_threads = options.threads
    pipeline.random_seed = options.seed
    pipeline.min_model_size = 3
    pipeline.max_runtime_seconds = 120 + 6 * num_pictures
    mapper, triangulation = pipeline.mapper, pipeline.triangulation
    mapper.init_min_tri_angle = float(np.clip(0.7 * parallax, 2.0, mapper.init_min_tri_angle))
    if parallax < _LITTLE_PARALLAX_DEG:
        pipeline.ba_global_max_refinements, pipeline.ba_local_max_refinements = 2, 1
    point_angle = float(np.clip(0.12 * parallax, 0.4, mapper.filter_min_tri_angle))
    if attempt.loose_mapping:
        pipeline.min_num_matches = 10
        mapper.init_min_num_inliers = 50
        mapper.init_min_tri_angle = max(2.0, 0.5 * mapper.init_min_tri_angle)
        mapper.init_max_forward_motion = 0.99
        mapper.abs_pose_min_num_inliers = 15
        mapper.abs_pose_min_inlier_ratio = 0.15
        point_angle = max(0.4, 0.5 * point_angle)
    mapper.filter_min_tri_angle = triangulation.min_angle = point_angle
    return pipeline


def _all_points(
    colmap: Any, best: _Best, image_dir: Path, work_dir: Path, options: SfmOptions
) -> SfmModel | None:
    """All points that the found poses support, poses unchanged."""
    if best.model is None:
        return None
    pipeline = colmap.IncrementalPipelineOptions()
    pipeline.num_threads = options.threads
    pipeline.random_seed = options.seed
    pipeline.triangulation.ignore_two_view_tracks = False
    pipeline.triangulation.min_angle = _SURE_ANGLE_DEG
    pipeline.mapper.filter_min_tri_angle = _SURE_ANGLE_DEG
    output = work_dir / "points"
    output.mkdir()
    more = _plain_model(
        colmap.triangulate_points(
            best.reconstruction, best.database, image_dir, output, True, pipeline
        )
    )
    if len(more.xyz) < len(best.model.xyz):  # angles too small for the stricter limit
        return best.model
    return more


def _plain_model(reconstruction: pycolmap.Reconstruction) -> SfmModel:
    """The reconstruction as numpy arrays."""
    points = reconstruction.points3D
    row = {point_id: index for index, point_id in enumerate(points)}
    images = []
    for image_id in reconstruction.reg_image_ids():
        image = reconstruction.image(image_id)
        seen = [p for p in image.points2D if p.has_point3D()]
        viewmat = np.eye(4)
        viewmat[:3] = image.cam_from_world().matrix()
        images.append(
            SfmImage(
                name=image.name,
                camera_id=image.camera_id,
                viewmat=viewmat,
                point_indices=np.array([row[p.point3D_id] for p in seen], dtype=np.int64),
                xy=np.array([p.xy for p in seen], dtype=np.float64).reshape(-1, 2),
            )
        )
    used = {image.camera_id for image in images}
    values = list(points.values())
    return SfmModel(
        cameras={i: plain_camera(c) for i, c in reconstruction.cameras.items() if i in used},
        images=sorted(images, key=lambda image: image.name),
        xyz=np.array([p.xyz for p in values], dtype=np.float64).reshape(-1, 3),
        rgb=np.array([p.color for p in values], dtype=np.uint8).reshape(-1, 3),
        errors_px=np.array([p.error for p in values], dtype=np.float64),
        track_lengths=np.array([p.track.length() for p in values], dtype=np.int64),
    )


_PARAMETERS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fl_x", "fl_y", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4"),
}
"""COLMAP's parameter order (src/colmap/sensor/models.h)."""


def plain_camera(camera: pycolmap.Camera) -> SfmCamera:
    """COLMAP's camera in nerfstudio's terms; both measure pixels from the top-left corner."""
    name = camera.model_name
    params = dict(zip(_PARAMETERS[name], map(float, camera.params), strict=True))
    focal = params.pop("f", None)
    if focal is not None:
        params = {"fl_x": focal, "fl_y": focal, **params}
    model: Literal["PINHOLE", "OPENCV", "OPENCV_FISHEYE"]
    if name == "OPENCV_FISHEYE":
        model = "OPENCV_FISHEYE"
    elif name in ("PINHOLE", "SIMPLE_PINHOLE"):
        model = "PINHOLE"
    else:
        model = "OPENCV"
        params = {**params, **{k: params.get(k, 0.0) for k in ("k1", "k2", "p1", "p2")}}
    return SfmCamera(model=model, width=camera.width, height=camera.height, params=params)
