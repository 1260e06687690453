"""From photos or a video to a posed capture: what ``scene4d process-data`` runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scene4d.data.process.depth_files import DEPTH_FOLDER, Depth, DepthFiles, write_depths
from scene4d.data.process.depth_model import DepthModel, DepthModelOptions
from scene4d.data.process.diagnosis import (
    Diagnosis,
    LeftOut,
    Reason,
    Source,
    diagnose,
    train_advice,
)
from scene4d.data.process.files import FolderFiles, find_pictures, why_unreadable
from scene4d.data.process.inputs import check_photos, check_video, refuse_without_pictures
from scene4d.data.process.matches import stayed
from scene4d.data.process.moving_facts import TRACE
from scene4d.data.process.names import printable_name
from scene4d.data.process.pictures import Picture, place_picture
from scene4d.data.process.progress import Say, counted
from scene4d.data.process.relief import (
    RELIEF_UNIT,
    Masks,
    ReliefOptions,
    flat_depths,
    network_depths,
    relief_points,
)
from scene4d.data.process.relief_facts import ReliefFacts
from scene4d.data.process.sfm import SfmModel, SfmOptions, SfmResult, import_pycolmap, run_sfm
from scene4d.data.process.turning import OnePlace, in_one_place
from scene4d.data.process.video import (
    VideoOptions,
    VideoTrack,
    analyse_video,
    extract_frames,
    select_frames,
)
from scene4d.data.process.write import (
    MASK_FOLDER,
    check_target,
    staged_folder,
    transforms_of,
    write_failure,
    write_points,
)
from scene4d.errors import DataError, UsageError
from scene4d.files import check_writable
from scene4d.image_files import open_picture

if TYPE_CHECKING:
    from PIL import Image

    from scene4d.data.process.depth_facts import EstimatedDepthFacts
    from scene4d.data.process.moving import Moving


def process_images(
    source: Path,
    output: Path,
    *,
    sfm: SfmOptions | None = None,
    relief: ReliefOptions | None = None,
    depth: DepthModelOptions | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Diagnosis:
    """Finds the poses of the photos in ``source`` and writes a capture to ``output``.

    ``source`` is not touched. ``output`` receives images/, transforms.json, sparse_pc.ply and
    diagnosis.json, all or nothing; with ``relief``, where the camera did not travel, and with
    ``depth``'s network depth/ too.
    ``say`` is told one line per stage. Raises :class:`DataError` with the diagnosis when no pose
    could be found.
    """
    import_pycolmap()
    network = _network(depth, sfm)
    check_photos(source)
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    check_writable(output, folder=True)
    found = find_pictures(source, skip=output)
    refuse_without_pictures(found, source)
    with _told_where_it_failed(output), staged_folder(output, overwrite=overwrite) as staging:
        pictures, excluded = _place_all(found.pictures, source, staging / "images", say)
        excluded += [
            LeftOut(name=printable_name(name), reason=reason, detail=detail)
            for reason, files in _kinds(found)
            for name, detail in files.items()
        ]
        poses = _Poses(
            pictures=pictures, staging=staging, options=sfm or SfmOptions(), kind="photos",
            relief=relief or ReliefOptions(), network=network, say=say,
        )  # fmt: skip
        return _reconstruct(poses, excluded, source)


def _kinds(found: FolderFiles) -> list[tuple[Reason, dict[str, str]]]:
    return [("unreadable", found.unreadable), ("not a picture", found.others)]


def process_video(
    source: Path,
    output: Path,
    *,
    video: VideoOptions | None = None,
    sfm: SfmOptions | None = None,
    relief: ReliefOptions | None = None,
    depth: DepthModelOptions | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Diagnosis:
    """Picks frames of the video file ``source``, finds their poses and writes a capture.

    As :func:`process_images`, and each frame carries its ``time`` in seconds. With
    ``video.moving`` also dynamic/ is written, and each frame names its mask of what moves.
    """
    import_pycolmap()
    network = _network(depth, sfm)
    video = video or VideoOptions()
    if video.moving:
        from scene4d.data.flow import opencv

        opencv()  # missing is told before any work
    check_video(source)
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    check_writable(output, folder=True)
    track: VideoTrack = analyse_video(source, say)
    target = video.frames_of(float(track.times[-1]))
    chosen = select_frames(track, target, moving=video.moving)
    with _told_where_it_failed(output), staged_folder(output, overwrite=overwrite) as staging:
        pictures = extract_frames(source, chosen, track, staging / "images", say)
        kind: Source = "moving video" if video.moving else "video"
        poses = _Poses(
            pictures=pictures, staging=staging, options=sfm or SfmOptions(), kind=kind,
            relief=relief or ReliefOptions(), network=network, say=say,
        )  # fmt: skip
        reconstruct = _reconstruct_moving if video.moving else _reconstruct
        return reconstruct(poses, [], source)


def _network(depth: DepthModelOptions | None, sfm: SfmOptions | None) -> DepthModel | None:
    """That of depth, so that one that is missing or damaged is told before any work."""
    if depth is None or depth.depth_model is None:
        return None
    threads = (sfm or SfmOptions()).threads
    return DepthModel(depth.depth_model, depth.depth_output, threads=threads)


def _check_apart(source: Path, output: Path) -> None:
    """Refuses an output that is, or lies around, the input: originals are never replaced."""
    if source.resolve().is_relative_to(output.resolve()):
        raise UsageError(
            "the output folder contains the input",
            where=output,
            fix="choose an --output-dir beside the capture",
        )


class _NoPoses(Exception):
    """Carries the diagnosis of a run that failed out of the folder that then disappears."""

    def __init__(self, diagnosis: Diagnosis, source: Path) -> None:
        super().__init__()
        self.diagnosis, self.source = diagnosis, source


@contextmanager
def _told_where_it_failed(output: Path) -> Iterator[None]:
    """Turns a run without poses into one error, its reason first, and a file with the details."""
    try:
        yield
    except _NoPoses as failure:
        diagnosis = failure.diagnosis
        written = write_failure(output, diagnosis.as_json())
        raise DataError(
            f"no camera poses could be found: {diagnosis.reason}\n{diagnosis.text()}",
            where=failure.source,
            fix=f"details are in {written}; docs/process-data.md tells how to capture",
        ) from None


def _place_all(
    files: Sequence[Path], source: Path, images: Path, say: Say
) -> tuple[list[Picture], list[LeftOut]]:
    """Brings over what can be read; copies of a picture that is already there are left out."""
    pictures: list[Picture] = []
    excluded: list[LeftOut] = []
    by_digest: dict[str, str] = {}
    taken: set[str] = set()
    for file in counted(files, say, "reading pictures"):
        original = printable_name(file.relative_to(source).as_posix())
        try:
            picture = place_picture(file, images, original, taken)
        except DataError as error:
            detail = why_unreadable(file, error)
            excluded.append(LeftOut(name=original, reason="unreadable", detail=detail))
            continue
        if picture.digest in by_digest:
            (images / picture.name).unlink()
            detail = f"the same picture as {by_digest[picture.digest]}"
            excluded.append(LeftOut(name=original, reason="duplicate", detail=detail))
            continue
        taken.add(picture.name)
        by_digest[picture.digest] = original
        pictures.append(picture)
    return pictures, excluded


@dataclass(frozen=True, kw_only=True)
class _Poses:
    """The poses of some pictures, found and written as a capture."""

    pictures: list[Picture]
    staging: Path
    """The capture's folder; the pictures lie in images/."""
    options: SfmOptions
    kind: Source
    relief: ReliefOptions
    network: DepthModel | None
    """For depth."""
    say: Say

    @property
    def work(self) -> Path:
        """COLMAP's databases and models."""
        return self.staging / ".sfm"

    def found(self, mask_dir: Path | None = None) -> SfmResult | None:
        """By structure from motion; None where there are fewer than two pictures."""
        if len(self.pictures) < 2:
            return None
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        return run_sfm(
            self.staging / "images",
            self.pictures,
            options=self.options,
            work_dir=self.work,
            in_order=self.kind != "photos",
            say=self.say,
            mask_dir=mask_dir,
        )

    def one_place_instead_of(self, result: SfmResult | None) -> OnePlace | None:
        """Rotations alone, by the matches of the last :meth:`found`; None unless that is asked for,
        the camera stayed in its place, and poses were not found or say no more."""
        if not self.relief.relief or result is None or not stayed(result.pairs):
            return None
        databases = sorted(self.work.glob("database-*.db"))
        place = in_one_place(import_pycolmap(), databases[-1])
        if place is None or (result.model is not None and not place.explains_all):
            return None
        return place

    def write(
        self,
        result: SfmResult,
        masks: Mapping[str, str] | None = None,
        depths: DepthFiles | None = None,
    ) -> None:
        """``masks``: files in the capture by picture name."""
        assert result.model is not None
        self.write_cameras(result.model, masks, depths)
        write_points(self.staging / "sparse_pc.ply", result.xyz, result.rgb)

    def write_estimated_depths(
        self, result: SfmResult, masks: Masks
    ) -> tuple[DepthFiles | None, EstimatedDepthFacts | None]:
        """Depth maps by the network, where there is one, in the scale of the points outside of
        ``masks``; and what is said of them."""
        if self.network is None:
            return None, None
        from scene4d.data.process.estimated_depth import estimated_depths

        found = estimated_depths(result, masks, self.network, self.open_picture, self.say)
        if not found.depths:
            return None, found.facts
        unit = max(float(depth.max()) for depth in found.depths.values()) / 65535
        folder = self.staging / DEPTH_FOLDER
        return write_depths(folder, found.depths, unit=unit, estimated=True), found.facts

    def open_picture(self, name: str) -> Image.Image:
        """One of the capture's pictures."""
        with open_picture(self.staging / "images" / name) as image:
            return image.convert("RGB")

    def write_cameras(
        self,
        model: SfmModel,
        masks: Mapping[str, str] | None = None,
        depths: DepthFiles | None = None,
    ) -> None:
        """transforms.json; ``masks``: files in the capture by picture name."""
        times = {p.name: p.time for p in self.pictures if p.time is not None}
        _write(self.staging / "transforms.json", transforms_of(model, times, masks, depths))

    def finish(self, diagnosis: Diagnosis) -> Diagnosis:
        """Leaves the diagnosis, and nothing of COLMAP's."""
        shutil.rmtree(self.work, ignore_errors=True)
        _write(self.staging / "diagnosis.json", diagnosis.as_json())
        return diagnosis


def _reconstruct(poses: _Poses, excluded: list[LeftOut], source: Path) -> Diagnosis:
    """Runs structure from motion and writes its result."""
    result = poses.found()
    if (place := poses.one_place_instead_of(result)) is not None:
        return _relief(poses, result, place, excluded)
    diagnosis = diagnose(poses.pictures, result, excluded=excluded, source=poses.kind)
    if result is None or result.model is None:
        raise _NoPoses(diagnosis, source)
    depths, depth_facts = poses.write_estimated_depths(result, {})
    poses.write(result, depths=depths)
    return poses.finish(depth_facts.added_to(diagnosis) if depth_facts else diagnosis)


def _reconstruct_moving(poses: _Poses, excluded: list[LeftOut], source: Path) -> Diagnosis:
    """Runs structure from motion, finds what moves against its cameras, runs it again without that
    and writes the better result, its masks and its points."""
    from scene4d.data.process.moving import better_poses, without_moving, write_masks

    first = poses.found()
    if (place := poses.one_place_instead_of(first)) is not None:
        return _relief(poses, first, place, excluded)
    if first is None or first.model is None:
        raise _NoPoses(
            diagnose(poses.pictures, first, excluded=excluded, source=poses.kind), source
        )
    poses.write(first)
    moving = _find_moving(poses, first.model)
    result, words = first, "hardly anything moves: the poses are those of all features"
    if moving.share >= TRACE:
        poses.say(f"{moving.share:.1%} of the pixels move; finding the poses without them")
        result, words = better_poses(first, _second(poses, moving))
        poses.say(words)
    if result is not first:
        poses.write(result)
        assert result.model is not None
        moving = _find_moving(poses, result.model)  # by better cameras
    depths, depth_facts = poses.write_estimated_depths(result, moving.masks)
    result = without_moving(result, moving)
    poses.write(result, write_masks(moving.masks, poses.staging / MASK_FOLDER), depths)
    facts = moving.facts(words)
    diagnosis = diagnose(poses.pictures, result, excluded=excluded, source=poses.kind, moving=facts)
    return poses.finish(depth_facts.added_to(diagnosis) if depth_facts else diagnosis)


def _relief(
    poses: _Poses, result: SfmResult | None, found: OnePlace, excluded: list[LeftOut]
) -> Diagnosis:
    """Writes pictures from one place, with depth that is not seen."""
    assert result is not None
    nothing = replace(result, model=None, xyz=result.xyz[:0], rgb=result.rgb[:0], unexplained=None)
    failed = diagnose(poses.pictures, nothing, excluded=excluded, source=poses.kind)
    poses.say(f"{failed.reason}; going on with one place for {len(found.model.images)} pictures")
    model = found.model
    _write_relief(poses, model, flat_depths(model, {}), {})
    masks: Masks = {}
    facts = None
    if poses.kind == "moving video":
        moving = _find_moving(poses, model)
        masks = moving.masks
        facts = replace(moving, omega_deg_per_s=None).facts("the camera is taken not to travel")
    if poses.network is None:
        depths = flat_depths(model, masks)
    else:
        poses.say(f"depth of {len(model.images)} pictures by {poses.network.path.name}")
        depths = network_depths(model, masks, poses.network, poses.open_picture)
    count = _write_relief(poses, model, depths, masks)
    placed = {image.name for image in model.images}
    relief = ReliefFacts(
        turn_deg=found.turn_deg,
        off_px=found.off_px,
        focal_px=float(np.median([c.params["fl_x"] for c in model.cameras.values()])),
        focal_from=found.focal,
        depth_model=poses.network.path.name if poses.network else None,
    )
    return poses.finish(
        relief.instead_of(
            failed,
            [picture for picture in poses.pictures if picture.name in placed],
            num_points=count,
            moving=facts,
            train=train_advice(facts),
        )
    )


def _write_relief(poses: _Poses, model: SfmModel, depths: Mapping[str, Depth], masks: Masks) -> int:
    """Cameras, masks, depth maps and points, in place of earlier ones; how many points."""
    folder = poses.staging / DEPTH_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    xyz, rgb = relief_points(model, depths, masks, poses.open_picture)
    write_points(poses.staging / "sparse_pc.ply", xyz, rgb)
    named = None
    if masks:
        from scene4d.data.process.moving import write_masks

        named = write_masks(masks, poses.staging / MASK_FOLDER)
    poses.write_cameras(model, named, write_depths(folder, depths, unit=RELIEF_UNIT))
    return len(xyz)


def _find_moving(poses: _Poses, model: SfmModel) -> Moving:
    from scene4d.data.process.moving import find_moving

    poses.say(f"finding what moves in {len(model.images)} pictures by optical flow")
    return find_moving(poses.staging)


def _second(poses: _Poses, moving: Moving) -> SfmResult:
    """Structure from motion without features on what moves."""
    from scene4d.data.process.moving import write_sfm_masks

    masks = poses.staging / ".masks"
    write_sfm_masks(moving, poses.pictures, masks)
    result = poses.found(masks)
    shutil.rmtree(masks)
    assert result is not None
    return result


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
